//! What `make install` puts onto a machine: units, manual, completions. Judged by the real systemd, man and shells.

mod agreement;
mod analysis;
mod booted;
mod installed;
mod manual;
mod notify;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/media.rs"]
mod media;
