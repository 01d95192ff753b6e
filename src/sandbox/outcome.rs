//! Every way a child can end, and what is to be done about each.

use super::memory::OUT_OF_MEMORY_STATUS;
use super::protocol::{JailLevel, Refusal, RefusalReason, Report};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// What is kept of a refusal's message: it goes to logs, events and customers.
const MAX_REFUSAL_CHARS: usize = 1000;

/// A child that has ended; nothing of its process group is left.
#[derive(Debug)]
pub struct Finished {
    pub outcome: Outcome,
    /// The jail it worked in; absent when it did not get that far.
    pub jail: Option<JailLevel>,
    /// The last of what it wrote to stderr, fit for a log.
    pub stderr_tail: String,
    /// From fork to the last of it.
    pub wall: Duration,
    /// CPU time, user and system, of this child and what it waited for, however it ended.
    pub cpu: Duration,
    /// Most resident memory, bytes. The kernel counts from the fork, so it is never less than what the worker itself held
    /// at that moment.
    pub peak_bytes: u64,
    /// Its process id, for the log; absent when there was no process.
    pub pid: Option<u32>,
}

/// How a child ended.
#[derive(Debug)]
pub enum Outcome {
    Done(Box<Report>),
    Refused(Refusal),
    /// A system call outside the allow-list (SIGSYS).
    Violation,
    /// The child was refused memory by its own limit (it said so, or ended with the status kept for that), or a SIGKILL
    /// came that was not ours. The kernel's out-of-memory killer and an operator's `kill -9` cannot be told apart.
    OutOfMemory,
    /// SIGXCPU: `Limits::cpu_s` was used up.
    CpuLimit,
    /// SIGXFSZ, or the scratch folder as a whole: `Limits::scratch_bytes` was used up.
    FileTooLarge,
    /// Any other signal (SIGSEGV, SIGABRT, ...).
    Signalled(i32),
    /// Ended by itself without a report.
    Exited(i32),
    /// Ran past the deadline.
    Deadline,
    /// Said nothing for the length of the stall timer.
    Stalled,
    /// The caller asked for it.
    Stopped,
    /// Said something it must not say, or nothing more.
    Protocol(String),
    /// A range of an input could not be had.
    InputFailed(String),
    /// There never was a child.
    SpawnFailed(String),
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The work is done.
    Done,
    /// Not this part's fault: try again, later or elsewhere.
    Retry,
    /// The customer's request cannot be met; the outcome says why.
    Reject,
    /// A bounded number of further tries, then the job fails.
    Crash,
    /// Give the part back untouched.
    Stopped,
}

impl Outcome {
    pub fn disposition(&self) -> Disposition {
        match self {
            Outcome::Done(_) => Disposition::Done,
            Outcome::Refused(refusal) => match refusal.reason {
                RefusalReason::Media | RefusalReason::Unsupported | RefusalReason::Limit | RefusalReason::Settings => {
                    Disposition::Reject
                }
                RefusalReason::Input => Disposition::Retry,
                RefusalReason::Memory | RefusalReason::Jail | RefusalReason::Device | RefusalReason::Internal => {
                    Disposition::Crash
                }
            },
            Outcome::FileTooLarge => Disposition::Reject,
            Outcome::InputFailed(_) | Outcome::SpawnFailed(_) => Disposition::Retry,
            Outcome::Stopped => Disposition::Stopped,
            Outcome::Violation
            | Outcome::OutOfMemory
            | Outcome::CpuLimit
            | Outcome::Signalled(_)
            | Outcome::Exited(_)
            | Outcome::Deadline
            | Outcome::Stalled
            | Outcome::Protocol(_) => Disposition::Crash,
        }
    }

    /// Of a child that encodes on a device: may that be the device's fault? What was said of the media, its bytes or the
    /// limits is not.
    pub fn blames_encoder(&self) -> bool {
        match self {
            Outcome::Refused(refusal) => {
                matches!(refusal.reason, RefusalReason::Settings | RefusalReason::Device | RefusalReason::Internal)
            }
            outcome => outcome.disposition() == Disposition::Crash,
        }
    }

    /// A short, bounded name for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Done(_) => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Violation => "violation",
            Outcome::OutOfMemory => "out_of_memory",
            Outcome::CpuLimit => "cpu_limit",
            Outcome::FileTooLarge => "file_too_large",
            Outcome::Signalled(_) => "signalled",
            Outcome::Exited(_) => "exited",
            Outcome::Deadline => "deadline",
            Outcome::Stalled => "stalled",
            Outcome::Stopped => "stopped",
            Outcome::Protocol(_) => "protocol",
            Outcome::InputFailed(_) => "input_failed",
            Outcome::SpawnFailed(_) => "spawn_failed",
        }
    }

    /// What a child's last message means.
    pub(super) fn of_refusal(mut refusal: Refusal) -> Self {
        refusal.message = refusal.message.chars().filter(|c| !c.is_control()).take(MAX_REFUSAL_CHARS).collect();
        match refusal.reason {
            RefusalReason::Memory => Outcome::OutOfMemory,
            _ => Outcome::Refused(refusal),
        }
    }

    /// What an exit status means when there was no report and the end was not our doing.
    pub(super) fn of_status(status: ExitStatus) -> Self {
        match (status.signal(), status.code()) {
            (Some(libc::SIGSYS), _) => Outcome::Violation,
            (Some(libc::SIGXCPU), _) => Outcome::CpuLimit,
            (Some(libc::SIGXFSZ), _) => Outcome::FileTooLarge,
            (Some(libc::SIGKILL), _) | (None, Some(OUT_OF_MEMORY_STATUS)) => Outcome::OutOfMemory,
            (Some(signal), _) => Outcome::Signalled(signal),
            (None, code) => Outcome::Exited(code.unwrap_or(-1)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(_) => f.write_str("done"),
            Outcome::Refused(refusal) => f.write_str(&refusal.message),
            Outcome::Violation => f.write_str("the child made a system call that its jail forbids"),
            Outcome::OutOfMemory => f.write_str("the child ran out of memory"),
            Outcome::CpuLimit => f.write_str("the child used up its CPU time"),
            Outcome::FileTooLarge => f.write_str("the output is larger than the limit for it"),
            Outcome::Signalled(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(signal) => write!(f, "the child was ended by {signal}"),
                Err(_) => write!(f, "the child was ended by signal {signal}"),
            },
            Outcome::Exited(code) => write!(f, "the child ended with status {code} and no report"),
            Outcome::Deadline => f.write_str("the child ran past its deadline"),
            Outcome::Stalled => f.write_str("the child made no progress"),
            Outcome::Stopped => f.write_str("stopped"),
            Outcome::Protocol(what) => write!(f, "the child broke the protocol: {what}"),
            Outcome::InputFailed(what) => write!(f, "the input could not be read: {what}"),
            Outcome::SpawnFailed(what) => write!(f, "the child could not be started: {what}"),
        }
    }
}
