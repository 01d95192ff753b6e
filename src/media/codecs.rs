pub fn rfc6381(_p: &crate::media::ffi::AVCodecParameters, _e: &str) -> crate::media::error::Result<String> { Ok(String::new()) }
