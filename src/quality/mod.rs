//! How good a picture is beside its original: VMAF by libvmaf, XPSNR by our own code.
//!
//! Both take pairs of pictures one after the other, in presentation order and without gaps, and give a score for each (or for
//! every n-th), to be pooled by [`score`]:
//!
//! ```text
//! let mut vmaf = Vmaf::new(&[Model::Neg], format, 1)?;
//! let mut xpsnr = Xpsnr::new(format, frame_rate, 1)?;
//! for (reference, distorted) in pairs {
//!     vmaf.push(&reference, &distorted)?;
//!     xpsnr.push(&reference, &distorted)?;
//! }
//! let neg = pool(&vmaf.finish()?[0].frames);
//! let luma = pool_decibels(&xpsnr.finish(), 0);
//! ```
//!
//! Pictures are borrowed planes ([`picture`]): no library of frames is named here, and nothing is read or written.

pub mod error;
pub mod picture;
pub mod score;
pub mod vmaf;
pub mod xpsnr;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use error::QualityError;
pub use picture::{Format, Plane, Planes, Samples};
pub use score::{Decibels, FrameError, Model, Pooled, pool, pool_decibels, pool_errors};
pub use vmaf::{ModelScores, Vmaf};
pub use xpsnr::Xpsnr;
