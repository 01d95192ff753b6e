//! The inner loops, for samples of 8 and of 10 bits, written so that the compiler can vectorise them: slices of one length,
//! no branches, integers as narrow as their sums allow.

/// A luma or chroma sample. All slices of a call have the same length but where said otherwise.
pub(super) trait Sample: Copy + Default {
    /// Sum of squared differences of two rows.
    fn squared_error(a: &[Self], b: &[Self]) -> u64;
    /// Sum of absolute differences of two rows.
    fn difference(now: &[Self], before: &[Self]) -> u64;
    /// Sum of |now - 2 before + older|.
    fn second_difference(now: &[Self], before: &[Self], older: &[Self]) -> u64;
    /// As [`Sample::difference`], of sums of 2x2 in two rows.
    fn coarse_difference(now: [&[Self]; 2], before: [&[Self]; 2]) -> u64;
    /// As [`Sample::second_difference`], of sums of 2x2 in two rows.
    fn coarse_second_difference(now: [&[Self]; 2], before: [&[Self]; 2], older: [&[Self]; 2]) -> u64;
    /// Sum over the middle row, but for its first and last sample, of the absolute value of
    /// `12 x centre - 2 x (left + right + above + below) - corners`.
    fn high_pass(rows: [&[Self]; 3]) -> u64;
    /// Sum over every other sample of six rows, but for the first and last two. With `S` for the sums of 2x2 samples, the
    /// absolute value of `16 S` less twice the four `S` one step away, less the eight a knight's move away. An even number
    /// of samples.
    fn coarse_high_pass(rows: [&[Self]; 6]) -> u64;
}

/// Samples filtered at once in the coarse high-pass, whose intermediate rows stay in the first cache.
const STRETCH: usize = 128;

/// `$wide` holds every sum of samples and coefficients that occurs: 48 x the largest sample at most.
macro_rules! samples {
    ($sample:ty, $wide:ty) => {
        impl Sample for $sample {
            fn squared_error(a: &[Self], b: &[Self]) -> u64 {
                // A sum of 32 bits holds this many squares of 10 bits; of 16 bits, one would do.
                a.chunks(STRETCH)
                    .zip(b.chunks(STRETCH))
                    .map(|(a, b)| {
                        let squares = a.iter().zip(b).map(|(a, b)| {
                            let distance = u32::from(a.abs_diff(*b));
                            distance.wrapping_mul(distance)
                        });
                        u64::from(squares.fold(0_u32, u32::wrapping_add))
                    })
                    .sum()
            }

            fn difference(now: &[Self], before: &[Self]) -> u64 {
                u64::from(now.iter().zip(before).map(|(now, before)| u32::from(now.abs_diff(*before))).sum::<u32>())
            }

            fn second_difference(now: &[Self], before: &[Self], older: &[Self]) -> u64 {
                let triples = now.iter().zip(before).zip(older);
                let sum = triples.map(|((now, before), older)| {
                    let (now, before, older) = (<$wide>::from(*now), <$wide>::from(*before), <$wide>::from(*older));
                    u32::from_wide((now - 2 * before + older).unsigned_abs())
                });
                u64::from(sum.sum::<u32>())
            }

            fn coarse_difference(now: [&[Self]; 2], before: [&[Self]; 2]) -> u64 {
                let (n, b) = (pairs(now), pairs(before));
                let sums = n.zip(b).map(|(n, b)| (quad(n) - quad(b)).unsigned_abs());
                u64::from(sums.sum::<u32>())
            }

            fn coarse_second_difference(now: [&[Self]; 2], before: [&[Self]; 2], older: [&[Self]; 2]) -> u64 {
                let triples = pairs(now).zip(pairs(before)).zip(pairs(older));
                let sums = triples.map(|((n, b), o)| (quad(n) - 2 * quad(b) + quad(o)).unsigned_abs());
                u64::from(sums.sum::<u32>())
            }

            fn high_pass(rows: [&[Self]; 3]) -> u64 {
                let inner = rows[1].len() - 2;
                let [above, row, below] = rows.map(|row| (&row[..inner], &row[1..=inner], &row[2..inner + 2]));
                let mut sum = 0_u32;
                for n in 0..inner {
                    let wide = |sample: Self| <$wide>::from(sample);
                    let sides = wide(row.0[n]) + wide(row.2[n]) + wide(above.1[n]) + wide(below.1[n]);
                    let corners = wide(above.0[n]) + wide(above.2[n]) + wide(below.0[n]) + wide(below.2[n]);
                    sum += u32::from_wide((12 * wide(row.1[n]) - 2 * sides - corners).unsigned_abs());
                }
                u64::from(sum)
            }

            fn coarse_high_pass(rows: [&[Self]; 6]) -> u64 {
                let columns = rows[0].len() - 4;
                let mut total = 0;
                for start in (0..columns).step_by(STRETCH) {
                    let stretch = STRETCH.min(columns - start);
                    total += Self::coarse_stretch(rows.map(|row| &row[start..start + stretch + 4]));
                }
                total
            }
        }

        impl CoarseStretch for $sample {
            fn coarse_stretch(rows: [&[Self]; 6]) -> u64 {
                let reached = rows[0].len();
                let columns = reached - 4;
                // By what each column of samples weighs at distance 0, 1 and 2 from a column of sums.
                let mut near = [0 as $wide; STRETCH + 4];
                let mut beside = [0 as $wide; STRETCH + 4];
                let mut far = [0 as $wide; STRETCH + 4];
                let (near, beside, far) = (&mut near[..reached], &mut beside[..reached], &mut far[..reached]);
                let rows = rows.map(|row| &row[..reached]);
                for n in 0..reached {
                    let [a, b, c, d, e, f] = rows.map(|row| <$wide>::from(row[n]));
                    far[n] = b + c + d + e;
                    beside[n] = a + b + 2 * (c + d) + e + f;
                    near[n] = 16 * (c + d) - 2 * far[n];
                }
                let mut sum = 0_u32;
                for n in (0..columns & !1).step_by(2) {
                    let column = |n: usize| near[n + 2] - beside[n + 1] - beside[n + 3] - far[n] - far[n + 4];
                    sum += u32::from_wide((column(n) + column(n + 1)).unsigned_abs());
                }
                u64::from(sum)
            }
        }
    };
}

samples!(u8, i16);
samples!(u16, i32);

trait CoarseStretch: Sized {
    /// [`Sample::coarse_high_pass`] of at most [`STRETCH`] samples and the two on either side.
    fn coarse_stretch(rows: [&[Self]; 6]) -> u64;
}

/// The samples of two rows, two by two.
fn pairs<'a, T: Copy>(rows: [&'a [T]; 2]) -> impl Iterator<Item = [T; 4]> + 'a {
    let [upper, lower] = rows.map(|row| row.chunks_exact(2));
    upper.zip(lower).map(|(upper, lower)| [upper[0], upper[1], lower[0], lower[1]])
}

fn quad<T: Into<i32>>(samples: [T; 4]) -> i32 {
    let [a, b, c, d] = samples.map(Into::into);
    a + b + c + d
}

/// From an absolute value of either width.
trait FromWide<T> {
    fn from_wide(value: T) -> Self;
}

impl FromWide<u16> for u32 {
    fn from_wide(value: u16) -> u32 {
        value.into()
    }
}

impl FromWide<u32> for u32 {
    fn from_wide(value: u32) -> u32 {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples without a pattern, of so many bits.
    fn row<T: TryFrom<u32>>(seed: u32, bits: u32, length: usize) -> Vec<T> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            T::try_from(state >> (32 - bits)).ok().unwrap()
        };
        (0..length).map(|_| next()).collect()
    }

    /// The 6x6 filter as a table of coefficients, applied to every other sample.
    fn coarse_by_table(rows: &[Vec<i64>]) -> u64 {
        const TABLE: [[i64; 6]; 6] = [
            [0, -1, -1, -1, -1, 0],
            [-1, -2, -3, -3, -2, -1],
            [-1, -3, 12, 12, -3, -1],
            [-1, -3, 12, 12, -3, -1],
            [-1, -2, -3, -3, -2, -1],
            [0, -1, -1, -1, -1, 0],
        ];
        let at = |x: usize| -> i64 { (0..6).flat_map(|v| (0..6).map(move |u| (u, v))).map(|(u, v)| TABLE[v][u] * rows[v][x + u]).sum() };
        (0..rows[0].len() - 5).step_by(2).map(|x| at(x).unsigned_abs()).sum()
    }

    #[test]
    fn the_coarse_high_pass_is_its_table_of_coefficients() {
        for columns in [2, 8, 126, 128, 130, 256] {
            let bytes: [Vec<u8>; 6] = std::array::from_fn(|n| row(n as u32, 8, columns + 4));
            let words: [Vec<u16>; 6] = std::array::from_fn(|n| row(n as u32, 10, columns + 4));
            let wide = |rows: &[Vec<u8>]| rows.iter().map(|r| r.iter().map(|s| i64::from(*s)).collect()).collect::<Vec<_>>();
            assert_eq!(u8::coarse_high_pass(bytes.each_ref().map(Vec::as_slice)), coarse_by_table(&wide(&bytes)), "{columns}");
            let wide = |rows: &[Vec<u16>]| rows.iter().map(|r| r.iter().map(|s| i64::from(*s)).collect()).collect::<Vec<_>>();
            assert_eq!(u16::coarse_high_pass(words.each_ref().map(Vec::as_slice)), coarse_by_table(&wide(&words)), "{columns}");
        }
    }

    #[test]
    fn the_widest_samples_overflow_nothing() {
        let (white, black) = (vec![u8::MAX; 260], vec![0; 260]);
        assert_eq!(u8::squared_error(&white, &black), 260 * 255 * 255);
        assert_eq!(u8::second_difference(&black, &white, &black), 260 * 510);
        assert_eq!(u8::high_pass([&black, &white, &black]), 258 * (12 - 4) * 255);
        assert_eq!(u8::coarse_high_pass([&white, &white, &black, &black, &white, &white]), 128 * 32 * 255);
        let (white, black) = (vec![1023_u16; 260], vec![0; 260]);
        assert_eq!(u16::squared_error(&white, &black), 260 * 1023 * 1023);
        assert_eq!(u16::coarse_difference([&white, &white], [&black, &black]), 130 * 4 * 1023);
        assert_eq!(u16::coarse_second_difference([&black, &black], [&white, &white], [&black, &black]), 130 * 8 * 1023);
        assert_eq!(u16::coarse_high_pass([&white, &white, &black, &black, &white, &white]), 128 * 32 * 1023);
    }
}
