//! The work folder of a local run: `OUT/.narrows/`, one run at a time.

use super::exit::{Exit, Failed};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the work folder in the output folder.
const NAME: &str = ".narrows";

/// The folders of one run. As long as this lives, no other run can have them.
pub(super) struct WorkFolder {
    /// The output folder itself, absolute.
    pub output: PathBuf,
    /// Objects of the output are written here first: on its own file system.
    pub output_temporary: PathBuf,
    /// Jobs, plans, markers.
    pub work: PathBuf,
    pub work_temporary: PathBuf,
    /// The children's folders.
    pub scratch: PathBuf,
    _locks: Vec<Flock<File>>,
}

impl WorkFolder {
    /// Makes the folders, locks them, and removes what a dead run left in them.
    ///
    /// # Errors
    /// They cannot be made, or another run has them.
    pub fn open(output: &Path, work: Option<&Path>) -> Result<Self, Failed> {
        let make = |path: &Path| {
            let made = fs::create_dir_all(path).and_then(|()| path.canonicalize());
            made.map_err(|e| Exit::Misuse.because(format!("{}: cannot be made: {e}", path.display())))
        };
        let output = make(output)?;
        let inner = make(&output.join(NAME))?;
        let work = work.map_or(Ok(inner.clone()), make)?;
        let mut locks = vec![lock(&inner)?];
        if work != inner {
            locks.push(lock(&work)?);
        }
        let empty = |path: PathBuf| {
            let gone = match fs::remove_dir_all(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => fs::create_dir_all(&path),
            };
            let failed = |e| Exit::Internal.because(format!("{}: cannot be emptied: {e}", path.display()));
            gone.map_err(failed).map(|()| path)
        };
        Ok(Self {
            output,
            output_temporary: empty(inner.join("output-tmp"))?,
            work_temporary: empty(work.join("work-tmp"))?,
            scratch: empty(work.join("scratch"))?,
            work,
            _locks: locks,
        })
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // While the lock still holds. What cannot be removed now is removed by the next run.
        for path in [&self.output_temporary, &self.work_temporary, &self.scratch] {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn lock(folder: &Path) -> Result<Flock<File>, Failed> {
    let path = folder.join("lock");
    let failed = |e: io::Error| Exit::Misuse.because(format!("{}: cannot be locked: {e}", path.display()));
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => {
            let used = format!("{}: another narrows is working in this folder; wait for it or choose another", folder.display());
            Exit::Misuse.because(used)
        }
        errno => failed(errno.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_had_by_one_run_at_a_time_and_cleaned_of_the_dead() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        fs::create_dir_all(output.join(".narrows/scratch/dead.run.0")).unwrap();
        fs::create_dir_all(output.join(".narrows/jobs/kept")).unwrap();
        let first = WorkFolder::open(&output, None).unwrap();
        assert!(!output.join(".narrows/scratch/dead.run.0").exists());
        assert!(output.join(".narrows/jobs/kept").exists());
        let second = WorkFolder::open(&output, None).err().unwrap();
        assert_eq!(second.exit, Exit::Misuse);
        assert!(second.message.contains("another narrows"), "{}", second.message);
        drop(first);
        assert!(!output.join(".narrows/scratch").exists());
        WorkFolder::open(&output, None).unwrap();
    }

    #[test]
    fn two_outputs_cannot_share_a_work_folder_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        let _first = WorkFolder::open(&dir.path().join("a"), Some(&work)).unwrap();
        assert!(WorkFolder::open(&dir.path().join("b"), Some(&work)).is_err());
    }
}
