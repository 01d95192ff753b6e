//! Which FFmpeg libraries this process runs with, and which encoders they have. Touches no media: safe out of the jail.

use crate::media::ffi;
use std::ffi::{CStr, CString};

/// One of FFmpeg's libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    pub name: &'static str,
    /// The one that is loaded, and the one this program was built with: major, minor, micro.
    pub loaded: [u32; 3],
    pub built: [u32; 3],
}

impl Library {
    /// Is what is loaded what was compiled for? Within a major version structures only grow at their end.
    pub fn fits(&self) -> bool {
        self.loaded[0] == self.built[0] && self.loaded >= self.built
    }
}

/// The libraries that are linked, each with its version.
pub fn libraries() -> Vec<Library> {
    macro_rules! library {
        ($name:literal, $loaded:ident, $major:ident, $minor:ident, $micro:ident) => {
            Library {
                name: $name,
                // SAFETY: no arguments, and a number is all that comes back.
                loaded: numbers(unsafe { ffi::$loaded() }),
                built: [ffi::$major as u32, ffi::$minor as u32, ffi::$micro as u32],
            }
        };
    }
    vec![
        library!("libavutil", avutil_version, LIBAVUTIL_VERSION_MAJOR, LIBAVUTIL_VERSION_MINOR, LIBAVUTIL_VERSION_MICRO),
        library!("libavcodec", avcodec_version, LIBAVCODEC_VERSION_MAJOR, LIBAVCODEC_VERSION_MINOR, LIBAVCODEC_VERSION_MICRO),
        library!(
            "libavformat",
            avformat_version,
            LIBAVFORMAT_VERSION_MAJOR,
            LIBAVFORMAT_VERSION_MINOR,
            LIBAVFORMAT_VERSION_MICRO
        ),
        library!(
            "libavfilter",
            avfilter_version,
            LIBAVFILTER_VERSION_MAJOR,
            LIBAVFILTER_VERSION_MINOR,
            LIBAVFILTER_VERSION_MICRO
        ),
        library!("libswscale", swscale_version, LIBSWSCALE_VERSION_MAJOR, LIBSWSCALE_VERSION_MINOR, LIBSWSCALE_VERSION_MICRO),
        library!(
            "libswresample",
            swresample_version,
            LIBSWRESAMPLE_VERSION_MAJOR,
            LIBSWRESAMPLE_VERSION_MINOR,
            LIBSWRESAMPLE_VERSION_MICRO
        ),
    ]
}

/// `AV_VERSION_INT` taken apart.
fn numbers(version: u32) -> [u32; 3] {
    [version >> 16, version >> 8 & 0xff, version & 0xff]
}

/// What the distribution calls this FFmpeg: `5.1.6-0+deb12u1`.
pub fn release() -> String {
    // SAFETY: a static string that ends with a zero byte.
    let words = unsafe { CStr::from_ptr(ffi::av_version_info()) };
    words.to_string_lossy().into_owned()
}

/// Has libavcodec an encoder of this name?
pub fn has_encoder(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the name ends with a zero byte and outlives the call.
    unsafe { !ffi::avcodec_find_encoder_by_name(name.as_ptr()).is_null() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_that_are_loaded_are_those_that_were_compiled_for() {
        let all = libraries();
        assert_eq!(all.len(), 6);
        all.iter().for_each(|library| assert!(library.fits(), "{library:?}"));
        let other = Library { loaded: [1, 0, 0], ..all[0].clone() };
        assert!(!other.fits());
        assert!(release().chars().any(|c| c.is_ascii_digit()));
    }

    #[test]
    fn an_encoder_is_known_by_its_name() {
        for name in ["libx264", "libx265", "libsvtav1", "aac"] {
            assert!(has_encoder(name), "{name}");
        }
        assert!(!has_encoder("libx266"));
        assert!(!has_encoder("lib\0x264"));
    }
}
