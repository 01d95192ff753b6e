//! A folder of this process alone, for the children of one command.

use std::fs::{DirBuilder, remove_dir_all};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// An empty folder of this process, removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A folder in `parent`; no other process has the same at the same time.
    ///
    /// # Errors
    /// It cannot be made, or what a dead process with this one's id left there cannot be removed.
    pub fn new(parent: &Path, purpose: &str) -> io::Result<Self> {
        let path = parent.join(format!("narrows-{purpose}-{}", std::process::id()));
        match remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Refused when somebody else put something there meanwhile.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next process of this id.
        let _ = remove_dir_all(&self.0);
    }
}
