//! One child process and its group: started from one thread, signalled as a group, reaped by its pid.
//!
//! **Why one thread forks.** `PR_SET_PDEATHSIG`, by which a child dies with the worker, fires when the *thread* that forked
//! it ends (prctl(2)). Pool threads end when idle and would take living children with them; so all children are forked by
//! one thread that lives as long as the process.
//!
//! **Why the group is killed before the child is reaped.** Until then the child is at least a zombie and its pid, which
//! names the group, cannot be anybody else's.

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Children waiting to be forked; more than a machine has slots.
const FORK_QUEUE: usize = 64;

/// What to start.
pub(super) struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub folder: PathBuf,
    /// Becomes descriptor 0.
    pub socket: OwnedFd,
    /// Handed over under the numbers they have here.
    pub inputs: Vec<File>,
}

/// A started child.
pub(super) struct Launched {
    pub process: Process,
    pub stderr: OwnedFd,
    /// Becomes readable when the child has ended.
    pub exit: OwnedFd,
}

/// A child that has not been reaped. Dropping it kills the whole group and leaves the reaping to a thread.
pub(super) struct Process {
    pid: Pid,
    reaped: bool,
}

/// How a child ended and what it took.
pub(super) struct Reaped {
    pub status: ExitStatus,
    pub cpu: Duration,
    pub peak_bytes: u64,
}

type Request = (Launch, oneshot::Sender<io::Result<Launched>>);

/// Starts a child from the forking thread.
///
/// # Errors
/// The program cannot be started, in the system's words.
pub(super) async fn launch(what: Launch) -> io::Result<Launched> {
    static FORKER: OnceLock<Result<mpsc::Sender<Request>, String>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (requests, queue) = mpsc::channel(FORK_QUEUE);
        let thread = std::thread::Builder::new().name("narrows-fork".to_string());
        thread.spawn(move || fork_for_ever(queue)).map(|_| requests).map_err(|error| error.to_string())
    });
    let forker = forker.as_ref().map_err(|error| io::Error::other(error.clone()))?;
    let (answer, launched) = oneshot::channel();
    forker.send((what, answer)).await.map_err(|_| io::Error::other("the forking thread is gone"))?;
    launched.await.map_err(|_| io::Error::other("the forking thread is gone"))?
}

fn fork_for_ever(mut queue: mpsc::Receiver<Request>) {
    while let Some((what, answer)) = queue.blocking_recv() {
        if answer.is_closed() {
            continue;
        }
        // If nobody waits any more, the answer is dropped here, and the child is killed with it.
        drop(answer.send(fork(what)));
    }
}

fn fork(what: Launch) -> io::Result<Launched> {
    let mut command = Command::new(&what.program);
    command.args(&what.args).env_clear().current_dir(&what.folder).process_group(0);
    command.stdin(Stdio::from(what.socket)).stdout(Stdio::null()).stderr(Stdio::piped());
    let inputs: Vec<_> = what.inputs.iter().map(AsRawFd::as_raw_fd).collect();
    let hand_over = move || {
        for input in &inputs {
            // SAFETY: `fcntl` on an integer; F_SETFD with 0 clears close-on-exec of this descriptor in the child only.
            Errno::result(unsafe { libc::fcntl(*input, libc::F_SETFD, 0) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only `fcntl` is called, which is async-signal-safe; nothing is allocated.
    unsafe { command.pre_exec(hand_over) };
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let process = Process { pid, reaped: false };
    let stderr = child.stderr.take().map(OwnedFd::from).ok_or_else(|| io::Error::other("no stderr"))?;
    // SAFETY: two integers; the pid is of a child not yet reaped, so it names that child.
    let exit = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let exit = i32::try_from(exit).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
    let exit = unsafe { OwnedFd::from_raw_fd(exit) };
    Ok(Launched { process, stderr, exit })
}

/// The same file as a description of its own, for reading only: the child shares neither offset nor flags with the worker,
/// and cannot write even if the worker's handle can.
///
/// # Errors
/// It is not a regular file, or cannot be opened again.
pub(super) fn reopen(file: &File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an input must be a regular file"));
    }
    File::open(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Signals every process of the group. That there is none left is no failure.
    pub(super) fn signal_group(&self, signal: Signal) {
        if let Err(error) = killpg(self.pid, signal)
            && error != Errno::ESRCH
        {
            tracing::warn!(pid = self.pid(), %signal, %error, "a child's process group cannot be signalled");
        }
    }

    /// CPU time up to now, of a child that has not been reaped.
    pub(super) fn cpu_so_far(&self) -> Duration {
        clock_getcpuclockid(self.pid).and_then(ClockId::now).map_or(Duration::ZERO, Duration::from)
    }

    /// Kills what is left of the group, then takes the status of a child that has ended. `None`: it has not.
    pub(super) fn reap(&mut self) -> Option<Reaped> {
        self.signal_group(Signal::SIGKILL);
        let reaped = wait4(self.pid, libc::WNOHANG)?;
        self.reaped = true;
        Some(reaped)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal_group(Signal::SIGKILL);
        let pid = self.pid;
        let reaper = std::thread::Builder::new().name("narrows-reap".to_string());
        if let Err(error) = reaper.spawn(move || wait4(pid, 0)) {
            tracing::warn!(pid = pid.as_raw(), %error, "a killed child stays a zombie");
        }
    }
}

/// Status and use of one child by its pid, with what it had waited for; `RUSAGE_CHILDREN` would mix all slots. The kernel
/// gives the use of a child however it ended, by a signal of ours, too.
fn wait4(pid: Pid, options: libc::c_int) -> Option<Reaped> {
    let mut status = 0;
    // SAFETY: `rusage` is plain integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the types wait4 fills.
        match Errno::result(unsafe { libc::wait4(pid.as_raw(), &raw mut status, options, &raw mut usage) }) {
            Err(Errno::EINTR) => {}
            Err(_) | Ok(0) => return None,
            Ok(_) => break,
        }
    }
    // ru_maxrss is in KiB on Linux (getrusage(2)).
    let peak_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    Some(Reaped { status: ExitStatus::from_raw(status), cpu: duration(usage.ru_utime) + duration(usage.ru_stime), peak_bytes })
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const ENOUGH: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_a_child_took_is_known_while_it_cannot_be_reaped_and_when_it_was_killed() {
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let args = vec!["-c".to_string(), "while :; do :; done".to_string()];
        let what = Launch { program: "/bin/sh".into(), args, folder: "/".into(), socket: theirs.into(), inputs: Vec::new() };
        let mut process = launch(what).await.unwrap().process;
        let begun = Instant::now();
        while process.cpu_so_far() < ENOUGH {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", process.cpu_so_far());
            tokio::task::yield_now().await;
        }
        let known = process.cpu_so_far();
        let reaped = loop {
            if let Some(reaped) = process.reap() {
                break reaped;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(reaped.status.signal(), Some(libc::SIGKILL));
        // The kernel counts the one exactly and the other in its own units: within one of them.
        assert!(reaped.cpu + Duration::from_millis(10) >= known, "{:?} {known:?}", reaped.cpu);
        assert_eq!(process.cpu_so_far(), Duration::ZERO, "it is gone");
    }
}
