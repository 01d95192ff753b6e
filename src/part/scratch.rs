//! Where children write: a folder for each worker, in it one for each child, and how full they may become.
//!
//! Several workers of one machine share a root. Each has a numbered folder of it for as long as it holds the folder's lock,
//! which the kernel gives back however the worker ends. So a folder whose lock can be had is a dead worker's, and what is
//! left in it is removed.

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Workers of one machine that share a root, at most.
const MAX_WORKERS: usize = 256;
/// What a lock is called in its folder.
const LOCK: &str = "lock";
/// Files looked at when a worker's folder is measured; one with more is full.
const MAX_FILES: usize = 200_000;

/// How full the folder of a worker may become. Zeroes are no limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchLimits {
    /// Of all its children together, bytes.
    pub worker_bytes: u64,
    /// Room that there must be, on the disk and of the worker's share, before a part is started, bytes.
    pub part_bytes: u64,
}

/// The folder of one worker.
#[derive(Clone, Debug)]
pub struct ScratchFolder {
    pub path: PathBuf,
    pub limits: ScratchLimits,
}

/// Why no part is started now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    #[error("the disk has {free} bytes free; a part needs {needed} (scratch.part_bytes)")]
    Disk { free: u64, needed: u64 },
    #[error("{used} of {limit} bytes (scratch.worker_bytes) are used; a part needs {needed} (scratch.part_bytes)")]
    Share { used: u64, limit: u64, needed: u64 },
}

impl ScratchFolder {
    /// A folder without limits, had by this process alone.
    pub fn unlimited(path: PathBuf) -> Self {
        Self { path, limits: ScratchLimits::default() }
    }

    /// Bytes that lie in it, and bytes that an ordinary user may still write to its disk. Walks the folder: not for a thread
    /// that must not wait.
    ///
    /// # Errors
    /// The file system cannot be asked.
    pub fn fill(&self) -> io::Result<(u64, u64)> {
        Ok((used_bytes(&self.path), free_bytes(&self.path)?))
    }

    /// What there is too little of to start a part. Walks the folder: not for a thread that must not wait.
    ///
    /// # Errors
    /// The file system cannot be asked.
    pub fn shortage(&self) -> io::Result<Option<Shortage>> {
        let ScratchLimits { worker_bytes, part_bytes } = self.limits;
        if part_bytes > 0 {
            let free = free_bytes(&self.path)?;
            if free < part_bytes {
                return Ok(Some(Shortage::Disk { free, needed: part_bytes }));
            }
        }
        if worker_bytes > 0 {
            let used = used_bytes(&self.path);
            if used.saturating_add(part_bytes) > worker_bytes {
                return Ok(Some(Shortage::Share { used, limit: worker_bytes, needed: part_bytes }));
            }
        }
        Ok(None)
    }

    /// A folder for one child, removed when dropped.
    pub fn child(&self, name: &str) -> io::Result<Scratch> {
        // Unique in this process, which has the folder for itself.
        static COUNTED: AtomicU64 = AtomicU64::new(0);
        let count = COUNTED.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{name}.{count}"));
        fs::create_dir_all(&path)?;
        // Resolved once, so that what lies in it can be compared with it.
        Ok(Scratch(path.canonicalize()?))
    }
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = statvfs(folder)?;
    // What an ordinary user may take; both counts are 64 bits wide on every platform we run on.
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

/// Bytes of disk under a folder. What vanishes while it is looked at counts nothing.
fn used_bytes(folder: &Path) -> u64 {
    let (mut folders, mut bytes, mut files) = (vec![folder.to_path_buf()], 0_u64, 0_usize);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(facts) = entry.metadata() else { continue };
            files += 1;
            if files > MAX_FILES {
                return u64::MAX;
            }
            // st_blocks counts units of 512 bytes whatever the file system's block is (stat(2)).
            bytes = bytes.saturating_add(facts.blocks() * 512);
            if facts.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

/// The folder of one child, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "scratch folder not removed");
        }
    }
}

/// A worker's folder under a shared root, for as long as this lives.
pub struct Claim {
    /// Empty when claimed.
    pub path: PathBuf,
    _lock: Flock<File>,
}

impl Claim {
    /// The first folder under `root` that no living worker has. What dead workers left in theirs is removed.
    ///
    /// # Errors
    /// The root cannot be made or used, or is full of workers.
    pub fn under(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let mut own: Option<Claim> = None;
        for number in 0..MAX_WORKERS {
            let folder = root.join(format!("worker-{number}"));
            if own.is_some() && !folder.is_dir() {
                continue;
            }
            fs::create_dir_all(&folder)?;
            let Some(lock) = try_lock(&folder.join(LOCK))? else { continue };
            empty(&folder)?;
            // Another dead worker's folder stays, empty, and its lock is given back here.
            own.get_or_insert(Claim { path: folder, _lock: lock });
        }
        own.ok_or_else(|| io::Error::other(format!("{MAX_WORKERS} workers have a folder here already")))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock still holds. What cannot be removed now is removed by the next worker.
        let _ = empty(&self.path);
    }
}

fn try_lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Removes everything but the lock.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_takes_a_folder_of_its_own_and_removes_what_the_dead_left() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..3 {
            fs::create_dir_all(root.path().join(format!("worker-{number}/talk.encode-00001.7"))).unwrap();
            fs::write(root.path().join(format!("worker-{number}/talk.encode-00001.7/1080p-0.m4s")), b"left").unwrap();
        }
        let first = Claim::under(root.path()).unwrap();
        assert_eq!(first.path, root.path().join("worker-0"));
        let left: Vec<u64> = (0..3).map(|n| used_bytes(&root.path().join(format!("worker-{n}")))).collect();
        assert_eq!(left, [0, 0, 0]);
        fs::write(first.path.join("at-work"), b"x").unwrap();
        let second = Claim::under(root.path()).unwrap();
        assert_eq!(second.path, root.path().join("worker-1"));
        assert!(first.path.join("at-work").exists(), "a living worker's files stay");
        drop(first);
        assert!(!root.path().join("worker-0/at-work").exists());
        assert_eq!(Claim::under(root.path()).unwrap().path, root.path().join("worker-0"));
    }

    #[test]
    fn no_part_is_started_without_room_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let with = |worker_bytes, part_bytes| {
            let limits = ScratchLimits { worker_bytes, part_bytes };
            ScratchFolder { path: dir.path().to_path_buf(), limits }.shortage().unwrap()
        };
        assert_eq!(with(0, 0), None);
        assert_eq!(with(1_000_000, 1000), None);
        assert!(matches!(with(0, u64::MAX), Some(Shortage::Disk { needed: u64::MAX, .. })));
        fs::write(dir.path().join("full"), vec![1; 500_000]).unwrap();
        let (used, free) = ScratchFolder::unlimited(dir.path().to_path_buf()).fill().unwrap();
        assert!(used >= 500_000 && free > 0, "{used} {free}");
        assert!(matches!(with(500_000, 1000), Some(Shortage::Share { limit: 500_000, .. })));
        assert_eq!(with(2_000_000, 1000), None);
        let gone = ScratchFolder { path: dir.path().join("none"), limits: ScratchLimits { worker_bytes: 0, part_bytes: 1 } };
        assert!(gone.shortage().is_err());
    }
}
