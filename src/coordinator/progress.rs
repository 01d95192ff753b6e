//! Does it get on with what it has in hand? For whoever would start it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A partition that has something in hand and did not come a step further for so long hangs. A step in an outage is one
/// request with all its tries: by default six minutes (`timeout_s`, `io_timeout_s`, `retries` of a store).
const LONGEST_STEP: Duration = Duration::from_secs(15 * 60);

/// When each partition that has something in hand came a step further last. Clones are of the same coordinator.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<BTreeMap<u8, Instant>>>);

impl Progress {
    /// The partition takes something in hand, or comes a step further with it.
    pub(super) fn step(&self, partition: u8) {
        self.steps().insert(partition, Instant::now());
    }

    /// The partition has nothing in hand.
    pub(super) fn rest(&self, partition: u8) {
        self.steps().remove(&partition);
    }

    /// Partitions with something in hand.
    pub fn busy(&self) -> usize {
        self.steps().len()
    }

    /// A partition that hangs. An outage makes none: trying again is a step.
    pub fn hanging(&self) -> Option<u8> {
        self.hanging_at(Instant::now())
    }

    fn hanging_at(&self, now: Instant) -> Option<u8> {
        let hangs = |stepped: &Instant| now.saturating_duration_since(*stepped) > LONGEST_STEP;
        self.steps().iter().find(|(_, stepped)| hangs(stepped)).map(|(partition, _)| *partition)
    }

    fn steps(&self) -> MutexGuard<'_, BTreeMap<u8, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_no_step_further_hangs_and_who_has_nothing_to_do_does_not() {
        let progress = Progress::default();
        let late = Instant::now() + LONGEST_STEP + Duration::from_secs(60);
        assert_eq!((progress.busy(), progress.hanging_at(late)), (0, None), "nothing came for a long time");
        progress.step(3);
        progress.step(7);
        assert_eq!((progress.busy(), progress.hanging()), (2, None));
        assert_eq!(progress.hanging_at(late), Some(3));
        progress.rest(3);
        assert_eq!(progress.hanging_at(late), Some(7));
        progress.rest(7);
        assert_eq!((progress.busy(), progress.hanging_at(late)), (0, None));
    }
}
