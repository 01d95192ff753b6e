//! Where a job is on its way.

use serde::{Deserialize, Serialize};

/// Where a job is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Accepted,
    Started,
    Rejected,
    Completed,
    Failed,
    Canceled,
}

impl State {
    pub const ALL: [State; 6] =
        [State::Accepted, State::Started, State::Rejected, State::Completed, State::Failed, State::Canceled];

    /// As it is written in documents.
    pub fn name(self) -> &'static str {
        match self {
            State::Accepted => "accepted",
            State::Started => "started",
            State::Rejected => "rejected",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Canceled => "canceled",
        }
    }

    /// No other state can follow.
    pub fn is_terminal(self) -> bool {
        !matches!(self, State::Accepted | State::Started)
    }
}
