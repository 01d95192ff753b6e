//! The coordinator: turns what workers tell into what customers see, and answers their questions.
//!
//! Thin, and any number of them: the broker gives each partition of events to one at a time, and whoever has it writes
//! the state, the numbered events and the bill of its jobs ([`project`]), looks after jobs that nobody tells of
//! ([`sweep`]), and says that callbacks are due. Every one of them answers HTTP ([`api`]).
//!
//! It holds no state of its own. That the broker knows one consumer at a time is no fence: a coordinator may be paused,
//! and wake up with a write in hand. So every write is one that another coordinator would have written the same.

pub mod api;
mod clock;
mod count;
mod debts;
mod device_wait;
mod endpoints;
mod fleet;
pub mod ops;
mod progress;
mod project;
mod run;
mod sample;
pub mod settings;
mod sweep;
mod whole_job;
mod write;

#[cfg(test)]
mod failpoints;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use clock::now_ms;
pub use fleet::Fleet;
pub use progress::Progress;
pub use run::{Coordinator, CoordinatorError};
pub use settings::CoordinatorSettings;
