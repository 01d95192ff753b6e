//! The FFI island: everything that names FFmpeg's libraries, and nothing else does.
//!
//! All of it runs in a jailed child. [`child::work`] is the way in; the outside reaches it through [`Host`],
//! which gives bytes of the inputs and takes progress. Only [`libraries`] and [`options`] are asked from without: they tell
//! versions and what encoders may be told, and touch no media.

pub mod analyse;
pub mod audio;
pub mod boxes;
pub mod chain;
pub mod child;
pub mod codecs;
pub mod decode;
pub mod demux;
mod device;
pub mod encode;
pub mod encoder;
pub mod error;
pub mod filter;
#[cfg(test)]
mod fixture;
pub mod fragment;
pub mod frame;
pub mod hdr;
pub mod input;
mod interest;
pub mod judge;
pub mod libraries;
pub mod look;
pub mod measure;
pub mod options;
pub mod parameters;
pub mod probe;
pub mod remux;
pub mod scan;
pub mod still;
pub mod table;
pub mod window;

pub(crate) use ffmpeg_next::ffi;

pub use input::Host;
