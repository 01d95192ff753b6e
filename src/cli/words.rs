//! Words of a command line that several commands take, each checked where it is read.

use crate::event::State;
use crate::event::rfc3339;
use crate::job::JobId;

/// A job's id.
pub(super) fn job_id(text: &str) -> Result<JobId, String> {
    JobId::try_from(text.to_string())
}

/// A state by the name it has in documents.
pub(super) fn state(text: &str) -> Result<State, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

/// A day in UTC, `2026-11-30`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(String);

impl Day {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A day that is one.
pub(super) fn day(text: &str) -> Result<Day, String> {
    let midnight = rfc3339::parse(&format!("{text}T00:00:00Z"));
    match midnight.map(rfc3339::day) {
        Some(day) if day == text => Ok(Day(day)),
        _ => Err("is no day; write it as 2026-11-30".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_one_of_the_calendar_in_one_way_of_writing() {
        assert_eq!(day("2024-02-29").unwrap().as_str(), "2024-02-29");
        for wrong in ["2026-02-29", "2026-2-1", "yesterday", "", "2026-11-30T00:00:00Z", "20261130", "-2026-11-30"] {
            assert!(day(wrong).is_err(), "{wrong}");
        }
        assert!(day("2026-11-30").unwrap() < day("2026-12-01").unwrap());
    }

    #[test]
    fn a_state_is_named_as_in_documents_and_a_wrong_one_lists_them() {
        assert_eq!(state("completed"), Ok(State::Completed));
        assert!(state("done").unwrap_err().contains("canceled"));
    }
}
