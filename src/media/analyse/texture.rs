//! What pictures are like: spatial and temporal information (ITU-T P.910), and noise.

use crate::quality::{Format, Planes, Samples};
use crate::sandbox::protocol::Texture;

/// Side of the blocks in which noise is looked for.
const NOISE_BLOCK: usize = 16;
/// The block below which a quarter of the others is: quiet enough to show the noise alone, and not the quietest, which is
/// often a lettering or a sky without any.
const NOISE_QUANTILE: usize = 4;
/// Blocks near black or white are cut off there, and hide their noise: mean luma in 8 bits.
const OPEN_LUMA: std::ops::RangeInclusive<f64> = 24.0..=227.0;

/// Looks at pictures now and then.
pub struct Look {
    format: Format,
    /// Luma of the last picture, row by row, in steps of 8 bits.
    before: Vec<f32>,
    now: Vec<f32>,
    sum: Texture,
    pictures: u64,
    /// Those that had one before them.
    differences: u64,
}

impl Look {
    pub fn new(format: Format) -> Self {
        let sum = Texture { spatial: 0.0, temporal: 0.0, noise: 0.0 };
        Self { format, before: Vec::new(), now: Vec::new(), sum, pictures: 0, differences: 0 }
    }

    /// Takes the next picture. It is measured together with the one after it: `is_sample` says of which.
    pub fn push(&mut self, planes: &Planes<'_>, is_sample: bool) {
        if !is_sample && self.before.is_empty() {
            return;
        }
        if !self.read(planes) {
            return;
        }
        if is_sample {
            let (width, height) = self.format.plane(0);
            self.sum.spatial += spatial(&self.now, width, height);
            self.sum.noise += noise(&self.now, width, height);
            self.pictures += 1;
        }
        if !self.before.is_empty() {
            self.sum.temporal += deviation(self.now.iter().zip(&self.before).map(|(a, b)| f64::from(a - b)));
            self.differences += 1;
        }
        std::mem::swap(&mut self.before, &mut self.now);
        if !is_sample {
            self.before.clear();
        }
    }

    /// Means over what was looked at.
    pub fn mean(&self) -> Option<Texture> {
        let share = |sum: f64, count: u64| rounded(sum / count.max(1) as f64);
        (self.pictures > 0).then(|| Texture {
            spatial: share(self.sum.spatial, self.pictures),
            temporal: share(self.sum.temporal, self.differences),
            noise: share(self.sum.noise, self.pictures),
        })
    }

    fn read(&mut self, planes: &Planes<'_>) -> bool {
        let (width, height) = self.format.plane(0);
        let luma = planes.0[0];
        self.now.clear();
        for y in 0..height {
            let row = y * luma.stride..y * luma.stride + width;
            match luma.samples {
                Samples::Bytes(samples) => self.now.extend(samples.get(row).unwrap_or_default().iter().map(|s| f32::from(*s))),
                Samples::Words(samples) => {
                    let scale = 1.0 / f32::from(1_u16 << (self.format.bits - 8));
                    self.now.extend(samples.get(row).unwrap_or_default().iter().map(|s| f32::from(*s) * scale));
                }
            }
        }
        self.now.len() == width * height
    }
}

/// What files keep: hundredths.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Standard deviation.
fn deviation(values: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut sum, mut squares) = (0_u64, 0.0, 0.0);
    for value in values {
        count += 1;
        sum += value;
        squares += value * value;
    }
    let count = count.max(1) as f64;
    (squares / count - (sum / count) * (sum / count)).max(0.0).sqrt()
}

/// Standard deviation of the Sobel-filtered luma.
fn spatial(luma: &[f32], width: usize, height: usize) -> f64 {
    if width < 3 || height < 3 {
        return 0.0;
    }
    let rows = luma.windows(2 * width + 3).enumerate().filter(|(at, _)| at % width + 2 < width);
    deviation(rows.map(|(_, w)| {
        let (a, b, c) = (&w[..3], &w[width..width + 3], &w[2 * width..2 * width + 3]);
        let across = (a[2] + 2.0 * b[2] + c[2]) - (a[0] + 2.0 * b[0] + c[0]);
        let down = (c[0] + 2.0 * c[1] + c[2]) - (a[0] + 2.0 * a[1] + a[2]);
        f64::from((across * across + down * down).sqrt())
    }))
}

/// Standard deviation of the noise: J. Immerkaer, "Fast Noise Variance Estimation" (Computer Vision and Image Understanding
/// 64, 1996), block by block, of which a quiet one is taken.
fn noise(luma: &[f32], width: usize, height: usize) -> f64 {
    let mut blocks = Vec::new();
    for top in (1..height.saturating_sub(NOISE_BLOCK)).step_by(NOISE_BLOCK) {
        for left in (1..width.saturating_sub(NOISE_BLOCK)).step_by(NOISE_BLOCK) {
            blocks.extend(block_noise(luma, width, left, top));
        }
    }
    let quiet = blocks.len() / NOISE_QUANTILE;
    if quiet >= blocks.len() {
        return 0.0;
    }
    f64::from(*blocks.select_nth_unstable_by(quiet, f32::total_cmp).1)
}

/// The noise of one block, where its luma leaves room for noise. The rows and columns around it are in the picture.
fn block_noise(luma: &[f32], width: usize, left: usize, top: usize) -> Option<f32> {
    let count = (NOISE_BLOCK * NOISE_BLOCK) as f32;
    let (mut sum, mut level) = (0.0, 0.0);
    for y in top..top + NOISE_BLOCK {
        let [a, b, c] = [y - 1, y, y + 1].map(|y| &luma[y * width + left - 1..y * width + left + NOISE_BLOCK + 1]);
        for x in 1..=NOISE_BLOCK {
            let corners = a[x - 1] + a[x + 1] + c[x - 1] + c[x + 1];
            let sides = a[x] + c[x] + b[x - 1] + b[x + 1];
            sum += (corners - 2.0 * sides + 4.0 * b[x]).abs();
            level += b[x];
        }
    }
    let open = OPEN_LUMA.contains(&f64::from(level / count));
    open.then(|| (std::f32::consts::FRAC_PI_2).sqrt() * sum / (6.0 * count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::Plane;

    const FORMAT: Format = Format { width: 96, height: 64, bits: 8 };

    /// Chance without a state.
    fn hash(x: usize, y: usize, t: usize) -> u32 {
        let mut h =
            (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77) ^ (t as u32).wrapping_mul(0xC2B2_AE3D);
        h ^= h >> 15;
        h = h.wrapping_mul(0x2C1B_3C6D);
        h ^ (h >> 13)
    }

    fn looked_at(picture: impl Fn(usize, usize, usize) -> u8) -> Texture {
        let mut look = Look::new(FORMAT);
        for t in 0..4 {
            let samples: Vec<u8> = (0..96 * 64).map(|i| picture(i % 96, i / 96, t)).collect();
            let plane = Plane { samples: Samples::Bytes(&samples), stride: 96 };
            look.push(&Planes([plane; 3]), t % 2 == 0);
        }
        look.mean().unwrap()
    }

    #[test]
    fn a_flat_picture_that_stands_still_has_nothing() {
        assert_eq!(looked_at(|_, _, _| 128), Texture { spatial: 0.0, temporal: 0.0, noise: 0.0 });
    }

    #[test]
    fn noise_is_told_from_edges_and_motion() {
        // The sum of two dice from 0 to 7 has a deviation of sqrt(2 (64 - 1) / 12) = 3.24.
        let die = |x, y, t, n: usize| hash(x, y, t * 2 + n) % 8;
        let noisy = looked_at(|x, y, t| (120 + die(x, y, t, 0) + die(x, y, t, 1)) as u8);
        assert!((noisy.noise - 3.24).abs() < 0.35, "{noisy:?}");
        assert!((noisy.temporal - 3.24 * 2_f64.sqrt()).abs() < 0.35, "{noisy:?}");
        let edges = looked_at(|x, _, t| if (x + 4 * t) % 48 < 24 { 60 } else { 180 });
        assert!(edges.noise < 0.1 && edges.spatial > 50.0 && edges.temporal > 20.0, "{edges:?}");
    }
}
