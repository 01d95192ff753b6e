//! Which events this coordinator tries to deliver and could not yet, and since when: the oldest is what an operator asks for.
//!
//! It is a view and no record: what counts lies in the bucket. A partition may go to another coordinator at any time, so what
//! did not come again a while after it was due is somebody else's by then, and forgotten here.

use super::EndpointId;
use crate::job::JobId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Endpoints of jobs that are remembered; beyond, new ones are not.
const MOST: usize = 16_384;
/// What is later than this is another coordinator's: twice the longest wait of a nudge that cannot be worked on.
const GRACE_MS: u64 = 600_000;

struct Waiting {
    told_ms: u64,
    due_ms: u64,
}

/// Events under way, one for each endpoint of a job.
#[derive(Default)]
pub(super) struct Waitlist(Mutex<HashMap<(JobId, EndpointId), Waiting>>);

impl Waitlist {
    /// An event that was told at `told_ms` is tried, or tried again at `due_ms`.
    pub fn waits(&self, job: &JobId, endpoint: &EndpointId, told_ms: u64, due_ms: u64) {
        let mut waiting = self.lock();
        let lane = (job.clone(), endpoint.clone());
        if waiting.len() < MOST || waiting.contains_key(&lane) {
            waiting.insert(lane, Waiting { told_ms, due_ms });
        }
    }

    /// Nothing is waiting for this endpoint now.
    pub fn settled(&self, job: &JobId, endpoint: &EndpointId) {
        self.lock().remove(&(job.clone(), endpoint.clone()));
    }

    /// How old the oldest is; zero when there is none.
    pub fn oldest(&self, now_ms: u64) -> Duration {
        let mut waiting = self.lock();
        waiting.retain(|_, waiting| waiting.due_ms.saturating_add(GRACE_MS) > now_ms);
        let oldest = waiting.values().map(|waiting| now_ms.saturating_sub(waiting.told_ms)).max();
        Duration::from_millis(oldest.unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(JobId, EndpointId), Waiting>> {
        // Nothing panics while the lock is held; a poisoned lock is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_known_until_it_arrives_or_is_somebody_elses() {
        let waitlist = Waitlist::default();
        let job = |name: &str| JobId::try_from(name.to_string()).unwrap();
        let endpoint = EndpointId::try_from("0123456789abcdef".to_string()).unwrap();
        assert_eq!(waitlist.oldest(9_000), Duration::ZERO);
        waitlist.waits(&job("a"), &endpoint, 1_000, 1_000);
        waitlist.waits(&job("b"), &endpoint, 4_000, 4_000);
        assert_eq!(waitlist.oldest(9_000), Duration::from_secs(8));
        waitlist.settled(&job("a"), &endpoint);
        assert_eq!(waitlist.oldest(9_000), Duration::from_secs(5));
        waitlist.waits(&job("b"), &endpoint, 4_000, 2_000_000);
        assert_eq!(waitlist.oldest(2_000_000), Duration::from_secs(1_996), "put off for long, and still ours");
        assert_eq!(waitlist.oldest(2_000_000 + GRACE_MS), Duration::ZERO, "it never came again");
    }
}
