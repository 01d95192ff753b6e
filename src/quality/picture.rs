//! Pictures as they are measured: three borrowed planes, 4:2:0, 8 or 10 bits.
//!
//! Nothing is copied to make them: whoever owns the samples lends them, with the distance of their rows.

use super::error::QualityError;
use serde::{Deserialize, Serialize};

/// Depths that are measured, bits a sample.
pub const DEPTHS: [u8; 2] = [8, 10];

/// What a picture is like: the same for every picture of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Luma samples.
    pub width: u32,
    pub height: u32,
    /// 8 or 10.
    pub bits: u8,
}

impl Format {
    /// Columns and rows of a plane: 0 is luma, 1 and 2 are chroma, half as large and rounded up.
    pub fn plane(&self, plane: usize) -> (usize, usize) {
        let (width, height) = (self.width as usize, self.height as usize);
        if plane == 0 { (width, height) } else { (width.div_ceil(2), height.div_ceil(2)) }
    }

    /// The largest sample value.
    pub fn peak(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// # Errors
    /// Unsuitable: no samples at all, or a depth other than 8 and 10 bits.
    pub fn check(&self) -> Result<(), QualityError> {
        if self.width == 0 || self.height == 0 {
            return Err(QualityError::Unsuitable("a picture without samples".into()));
        }
        if !DEPTHS.contains(&self.bits) {
            return Err(QualityError::Unsuitable(format!("{} bits a sample: 8 and 10 are measured", self.bits)));
        }
        Ok(())
    }
}

/// The samples of a plane, row after row.
#[derive(Clone, Copy, Debug)]
pub enum Samples<'a> {
    /// 8 bits.
    Bytes(&'a [u8]),
    /// 10 bits, in the low bits of each word.
    Words(&'a [u16]),
}

/// One plane, lent.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    pub samples: Samples<'a>,
    /// Samples from the start of a row to the start of the next.
    pub stride: usize,
}

/// The planes of one picture: Y, Cb, Cr.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a>(pub [Plane<'a>; 3]);

/// One plane whose samples are known to be `T`, and to be all there.
#[derive(Clone, Copy)]
pub(super) struct View<'a, T> {
    samples: &'a [T],
    stride: usize,
    pub width: usize,
    pub height: usize,
}

impl<'a, T> View<'a, T> {
    /// `None` when the samples do not reach to the end of the last row, or rows overlap.
    pub fn new(samples: &'a [T], stride: usize, (width, height): (usize, usize)) -> Option<Self> {
        let reach = height.checked_sub(1)?.checked_mul(stride)?.checked_add(width)?;
        (stride >= width && samples.len() >= reach).then_some(Self { samples, stride, width, height })
    }

    pub fn row(&self, y: usize) -> &'a [T] {
        &self.samples[y * self.stride..][..self.width]
    }
}

impl<'a> Planes<'a> {
    /// The planes of a picture of 8 bits.
    ///
    /// # Errors
    /// Planes: they are not of 8 bits, or too short for the format.
    pub(super) fn bytes(&self, format: &Format) -> Result<[View<'a, u8>; 3], QualityError> {
        self.views(format, |samples| match samples {
            Samples::Bytes(bytes) => Some(bytes),
            Samples::Words(_) => None,
        })
    }

    /// The planes of a picture of more than 8 bits.
    ///
    /// # Errors
    /// Planes: as above.
    pub(super) fn words(&self, format: &Format) -> Result<[View<'a, u16>; 3], QualityError> {
        self.views(format, |samples| match samples {
            Samples::Words(words) => Some(words),
            Samples::Bytes(_) => None,
        })
    }

    fn views<T>(
        &self,
        format: &Format,
        of: impl Fn(Samples<'a>) -> Option<&'a [T]>,
    ) -> Result<[View<'a, T>; 3], QualityError> {
        let view = |n: usize| View::new(of(self.0[n].samples)?, self.0[n].stride, format.plane(n));
        match (view(0), view(1), view(2)) {
            (Some(y), Some(u), Some(v)) => Ok([y, u, v]),
            _ => Err(QualityError::Planes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { width: 5, height: 3, bits: 8 };

    fn planes(y: &[u8], stride: usize) -> Planes<'_> {
        let plane = |samples, stride| Plane { samples: Samples::Bytes(samples), stride };
        Planes([plane(y, stride), plane(&[0; 6], 3), plane(&[0; 6], 3)])
    }

    #[test]
    fn chroma_of_odd_sizes_is_rounded_up() {
        assert_eq!([FORMAT.plane(0), FORMAT.plane(1), FORMAT.plane(2)], [(5, 3), (3, 2), (3, 2)]);
        assert_eq!((FORMAT.peak(), Format { bits: 10, ..FORMAT }.peak()), (255, 1023));
    }

    #[test]
    fn planes_that_do_not_hold_the_picture_are_found_out() {
        assert!(planes(&[0; 15], 5).bytes(&FORMAT).is_ok());
        // The last row needs no padding behind it.
        assert!(planes(&[0; 21], 8).bytes(&FORMAT).is_ok());
        for (samples, stride) in [(&[0; 14][..], 5), (&[0; 15], 6), (&[0; 15], 4), (&[0; 15], usize::MAX)] {
            assert_eq!(planes(samples, stride).bytes(&FORMAT).err(), Some(QualityError::Planes), "{stride}");
        }
        assert_eq!(planes(&[0; 15], 5).words(&FORMAT).err(), Some(QualityError::Planes));
    }

    #[test]
    fn only_formats_that_are_measured_pass() {
        assert!(FORMAT.check().is_ok() && Format { bits: 10, ..FORMAT }.check().is_ok());
        for wrong in [Format { width: 0, ..FORMAT }, Format { height: 0, ..FORMAT }, Format { bits: 12, ..FORMAT }] {
            assert!(matches!(wrong.check(), Err(QualityError::Unsuitable(_))), "{wrong:?}");
        }
    }
}
