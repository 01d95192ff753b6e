//! Untrusted media is parsed in a jailed child process and nowhere else.

pub mod protocol;
