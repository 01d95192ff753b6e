//! The parent's side: one child from fork to verdict.
//!
//! [`Sandbox::run`] starts the child, then one loop listens to everything at once: its messages, the range requests it
//! has open, its stderr, its exit, the deadline, the stall timer, the size of its scratch folder and the caller's wish to
//! stop. Whatever ends the loop, the end is the same: SIGTERM to the process group where the child still runs, SIGKILL
//! after the grace, always SIGKILL for what the child may have left behind, a bounded look at what is still in the pipes,
//! and the reaping. A future dropped half-way kills the group too.
//!
//! **What resets the stall timer:** `Jailed`, `Progress` and `Read`, and the answer to a `Read` (while the parent fetches,
//! the timer rests: the child waits for us). Words on stderr do not: a loop that logs is still a loop.
//!
//! **A report stands.** Once a child has said `Done` or `Refused`, how it goes is not looked at: C libraries with threads may
//! stumble over each other on the way out.

use super::input::InputSource;
use super::outcome::{Finished, Outcome};
use super::process::{Launch, Launched, launch, reopen};
use super::protocol::{Access, Input, Limits, Order, Task, message};
use super::scratch;
use super::settings::Sandbox;
use super::talk::{Ends, Talk};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, sleep_until};

/// How often the size of the scratch folder is looked at.
const SCRATCH_INTERVAL: Duration = Duration::from_secs(1);

impl Sandbox {
    /// Runs one task in a child of its own. `scratch` is an absolute path to an existing folder, the only one the child can
    /// touch. `on_progress` gets the child's own count of frames, at most some ten times a second from an honest child.
    /// When `stop` completes, the child is ended.
    ///
    /// Never fails: every way it can end is an [`Outcome`]. Dropped half-way, it kills the child's process group.
    pub async fn run(
        &self,
        task: Task,
        inputs: Vec<InputSource>,
        limits: Limits,
        scratch: &Path,
        on_progress: &mut (dyn FnMut(u64) + Send),
        stop: impl Future<Output = ()> + Send,
    ) -> Finished {
        let started = Instant::now();
        let scratch_bytes = limits.scratch_bytes;
        let mut talk = match self.start(task, inputs, limits, scratch, on_progress).await {
            Ok(talk) => talk,
            Err(error) => return never_started(&error, started),
        };
        let stall = Box::pin(sleep(self.stall));
        let verdict = talk.listen(stall, sleep_until(started + self.deadline), overflow(scratch, scratch_bytes), stop).await;
        talk.finish(verdict, started).await
    }

    async fn start<'a>(
        &'a self,
        task: Task,
        sources: Vec<InputSource>,
        limits: Limits,
        scratch: &Path,
        on_progress: &'a mut (dyn FnMut(u64) + Send),
    ) -> io::Result<Talk<'a>> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (inputs, files) = describe(&sources)?;
        let folder = scratch.to_str().ok_or_else(|| io::Error::other("the scratch folder's name is not UTF-8"))?.to_string();
        let order = Order { task, inputs, limits, minimum_jail: self.minimum_jail, scratch: folder };
        let launched = launch(Launch {
            program: self.program.clone(),
            args: self.args.clone(),
            folder: scratch.to_path_buf(),
            socket: OwnedFd::from(theirs),
            inputs: files,
        });
        let Launched { process, stderr, exit } = launched.await?;
        // SAFETY: an `OwnedFd` is the one owner of its descriptor, open and the same for as long as it lives.
        let exit = unsafe { AsyncFd::register(exit) }?;
        let ends = Ends { process, exit, socket: UnixStream::from_std(ours)?, stderr: pipe::Receiver::from_owned_fd(stderr)? };
        Ok(Talk::new(self, ends, message(&order), sources, on_progress))
    }
}

/// Inputs as the child is told of them, and the files to hand over.
fn describe(sources: &[InputSource]) -> io::Result<(Vec<Input>, Vec<File>)> {
    let (mut inputs, mut files) = (Vec::new(), Vec::new());
    for source in sources {
        inputs.push(match source {
            InputSource::File(file) => {
                let file = reopen(file)?;
                let input = Input { access: Access::Fd(file.as_raw_fd()), bytes: file.metadata()?.len() };
                files.push(file);
                input
            }
            InputSource::Ranges(object) => Input { access: Access::Ranges, bytes: object.bytes() },
        });
    }
    Ok((inputs, files))
}

fn never_started(error: &io::Error, started: Instant) -> Finished {
    Finished {
        outcome: Outcome::SpawnFailed(error.to_string()),
        jail: None,
        stderr_tail: String::new(),
        wall: started.elapsed(),
        cpu: Duration::ZERO,
        peak_bytes: 0,
        pid: None,
    }
}

/// Completes when the scratch folder holds more than it may.
async fn overflow(scratch: &Path, limit_bytes: u64) {
    loop {
        sleep(SCRATCH_INTERVAL).await;
        let folder = scratch.to_path_buf();
        if tokio::task::spawn_blocking(move || scratch::overflows(&folder, limit_bytes)).await.unwrap_or(false) {
            return;
        }
    }
}
