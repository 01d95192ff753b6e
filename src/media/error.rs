//! What can go wrong with media, in words for the customer.

use crate::media::ffi;
use crate::sandbox::protocol::{Refusal, RefusalReason};
use std::ffi::{CStr, CString, c_int};

/// Everything in this module ends in a [`Refusal`] or a result.
pub type Result<T> = std::result::Result<T, Refusal>;

/// A refusal with that reason and message.
pub fn refuse<T>(reason: RefusalReason, message: impl Into<String>) -> Result<T> {
    Err(refusal(reason, message))
}

pub fn refusal(reason: RefusalReason, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// libavutil's words for an error code.
pub fn words(code: c_int) -> String {
    let mut text = [0 as libc::c_char; 128];
    // SAFETY: the buffer is as long as said, and av_strerror always terminates it.
    unsafe {
        ffi::av_strerror(code, text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    }
}

/// The code, or a refusal that says what was being done.
pub fn check(code: c_int, reason: RefusalReason, doing: &str) -> Result<c_int> {
    match code {
        0.. => Ok(code),
        code if code == -libc::ENOMEM => refuse(RefusalReason::Memory, format!("{doing}: out of memory")),
        code => refuse(reason, format!("{doing}: {}", words(code))),
    }
}

/// For pointers that are null only when memory is short.
pub fn allocated<T>(pointer: *mut T, what: &str) -> Result<*mut T> {
    if pointer.is_null() { refuse(RefusalReason::Memory, format!("out of memory: {what}")) } else { Ok(pointer) }
}

/// A C string; texts of ours never hold a NUL.
pub fn c(text: &str) -> CString {
    CString::new(text.replace('\0', "")).expect("no NUL is left")
}

/// A library's constant string, empty when it has none.
///
/// # Safety
/// `text` is null or a terminated string that lives on.
pub unsafe fn string(text: *const libc::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// An owned AVDictionary.
pub struct Options(pub *mut ffi::AVDictionary);

impl Options {
    pub fn new<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut options = Self(std::ptr::null_mut());
        for (key, value) in pairs {
            let (key, value) = (c(key.as_ref()), c(value.as_ref()));
            // SAFETY: both strings are copied by the call.
            unsafe { ffi::av_dict_set(&mut options.0, key.as_ptr(), value.as_ptr(), 0) };
        }
        options
    }

    /// Keys that nobody took: a misspelt option.
    pub fn left(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut entry: *const ffi::AVDictionaryEntry = std::ptr::null();
        loop {
            // SAFETY: the dictionary is ours, the empty key with IGNORE_SUFFIX walks it.
            unsafe {
                entry = ffi::av_dict_get(self.0, c"".as_ptr(), entry, ffi::AV_DICT_IGNORE_SUFFIX);
                if entry.is_null() {
                    return keys;
                }
                keys.push(string((*entry).key));
            }
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours; a null dictionary is allowed.
        unsafe { ffi::av_dict_free(&mut self.0) };
    }
}

pub const AGAIN: c_int = -libc::EAGAIN;
