//! What an error of the library means for who waits.

use crate::broker::BrokerError;
use lapin::{Error, ErrorKind};
use std::io;

/// Reply codes of AMQP 0-9-1 (1.2) that only an operator can do something about.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Trying again may help.
    Gone(String),
    /// A queue or an exchange is not there: declaring it again helps.
    Missing(String),
    /// Only an operator can help.
    Denied(String),
}

impl Fault {
    pub(super) fn reason(self) -> String {
        match self {
            Fault::Gone(reason) | Fault::Missing(reason) | Fault::Denied(reason) => reason,
        }
    }

    /// The same, with what was being done.
    pub(super) fn at(self, what: &str) -> Self {
        match self {
            Fault::Gone(reason) => Fault::Gone(format!("{what}: {reason}")),
            Fault::Missing(reason) => Fault::Missing(format!("{what}: {reason}")),
            Fault::Denied(reason) => Fault::Denied(format!("{what}: {reason}")),
        }
    }
}

impl From<Fault> for BrokerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Denied(reason) => BrokerError::Denied(reason),
            Fault::Gone(reason) | Fault::Missing(reason) => BrokerError::Gone(reason),
        }
    }
}

impl From<&io::Error> for Fault {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            // A certificate that is not trusted, or no TLS where TLS was expected.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Fault::Denied(error.to_string()),
            _ => Fault::Gone(error.to_string()),
        }
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let protocol = match error.kind() {
            ErrorKind::ProtocolError(protocol) => protocol,
            ErrorKind::IOError(error) => return Fault::from(&**error),
            _ => return Fault::Gone(error.to_string()),
        };
        let said = protocol.get_message().to_string();
        match protocol.get_id() {
            NOT_FOUND => Fault::Missing(said),
            // A queue whose leader is being elected does not answer in time; that passes.
            PRECONDITION_FAILED if said.contains("timeout") => Fault::Gone(said),
            ACCESS_REFUSED | RESOURCE_LOCKED | PRECONDITION_FAILED | NOT_ALLOWED => Fault::Denied(said),
            _ => Fault::Gone(said),
        }
    }
}
