//! How the program ends.

use crate::event::Cause;
use crate::shutdown::Signal;
use std::fmt::Display;
use std::process::ExitCode;

/// Why the program ended; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    /// The command line.
    Misuse,
    /// The job that was waited for was canceled.
    Canceled,
    /// Configuration, preset or job.
    Settings,
    /// The source.
    Media,
    /// Ours.
    Internal,
    Signalled(Signal),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Misuse => 2,
            Exit::Canceled => 3,
            Exit::Settings => 64,
            Exit::Media => 65,
            Exit::Internal => 70,
            Exit::Signalled(signal) => signal.exit_code(),
        }
    }

    /// This end, with what to tell the person.
    pub fn because(self, message: impl Display) -> Failed {
        Failed { exit: self, message: message.to_string() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

impl From<Cause> for Exit {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Settings => Exit::Settings,
            Cause::Media => Exit::Media,
            Cause::Internal => Exit::Internal,
        }
    }
}

/// An end with a message for stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub exit: Exit,
    pub message: String,
}
