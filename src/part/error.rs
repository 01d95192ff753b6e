//! Why a part is not done.

use crate::broker::BrokerError;
use crate::event::{Cause, Failure};
use crate::store::StoreError;

/// Why a part is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Nobody's fault that would stay: a store, the broker or the machine. Try again, later or elsewhere.
    #[error("{0}")]
    Retry(String),
    /// What was asked for cannot be made.
    #[error("{}", .0.message)]
    Reject(Failure),
    /// A child died, or we are wrong. Try a few times.
    #[error("{0}")]
    Crash(String),
    /// The device that was to encode it failed, or its child did on it: the device is suspected, not the media.
    #[error("{0}")]
    Device(String),
    /// The message is none of ours.
    #[error("{0}")]
    Poison(String),
    /// Somebody asked to stop: the part goes back untouched.
    #[error("stopped")]
    Stopped,
}

impl PartError {
    /// The customer is told `message`, and whose doing it was.
    pub fn reject(cause: Cause, message: impl Into<String>) -> Self {
        PartError::Reject(Failure { cause, message: message.into() })
    }

    /// A short name, for the record of work that was thrown away.
    pub fn kind(&self) -> &'static str {
        match self {
            PartError::Retry(_) => "retry",
            PartError::Reject(_) => "reject",
            PartError::Crash(_) => "crash",
            PartError::Device(_) => "device",
            PartError::Poison(_) => "poison",
            PartError::Stopped => "stopped",
        }
    }
}

impl From<StoreError> for PartError {
    fn from(error: StoreError) -> Self {
        if error.is_temporary() { PartError::Retry(error.to_string()) } else { PartError::Crash(error.to_string()) }
    }
}

impl From<BrokerError> for PartError {
    fn from(error: BrokerError) -> Self {
        PartError::Retry(error.to_string())
    }
}
