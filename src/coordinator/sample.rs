//! What nobody tells is looked at now and then, for whoever counts: how much waits in the queues, how many jobs are open,
//! and how old the oldest callback is that did not arrive yet.

use super::clock::now_ms;
use super::fleet::Fleet;
use crate::broker::Queue;
use crate::callback;
use crate::observe::QueueLabels;
use crate::shutdown::Stop;
use crate::store::key::Key;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often the queues are looked at; one question each.
const QUEUES_EVERY: Duration = Duration::from_secs(10);
/// Open jobs listed by one request, and requests of one count: more jobs than that are not told apart.
const OPEN_AT_A_TIME: usize = 1000;
const MOST_PAGES: usize = 100;

/// Looks until asked to stop.
pub(super) async fn run(fleet: Fleet, callbacks: callback::run::Tools, jobs_every: Duration, mut stop: Stop) {
    let every = |period| {
        let mut pace = tokio::time::interval(period);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace
    };
    let (mut queues, mut jobs) = (every(QUEUES_EVERY.min(jobs_every)), every(jobs_every));
    loop {
        let look = async {
            tokio::select! {
                _ = queues.tick() => {
                    fleet.observer.oldest_callback(callbacks.oldest_undelivered(now_ms()));
                    look_at_queues(&fleet).await;
                }
                _ = jobs.tick() => count_jobs(&fleet).await,
            }
        };
        tokio::select! {
            () = stop.requested() => return,
            () = look => {}
        }
    }
}

/// Of partitions the sum. A queue that cannot be asked is not known, and neither is what comes after it: whoever waits for
/// a broker that is away waits once.
async fn look_at_queues(fleet: &Fleet) {
    let mut found: BTreeMap<QueueLabels, Option<u64>> = BTreeMap::new();
    let mut is_away = false;
    for queue in Queue::all() {
        let messages = if is_away { None } else { fleet.broker.depth(queue).await.ok() };
        is_away |= messages.is_none();
        let sum = found.entry(queue.labels()).or_insert(Some(0));
        *sum = sum.zip(messages).map(|(sum, messages)| sum + messages);
    }
    for (labels, messages) in found {
        fleet.observer.waiting(labels, messages);
    }
}

async fn count_jobs(fleet: &Fleet) {
    let (folder, mut after, mut jobs) = (Key::open_folder(None), None::<String>, 0);
    for _ in 0..MOST_PAGES {
        match fleet.stores.work().list_after(&folder, after.as_deref(), OPEN_AT_A_TIME).await {
            Ok(page) => {
                jobs += page.len() as u64;
                after = page.last().cloned();
                if page.len() < OPEN_AT_A_TIME {
                    break;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "open jobs were not counted");
                return;
            }
        }
    }
    fleet.observer.open_jobs(jobs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, Class};
    use crate::coordinator::fixture::Site;
    use crate::job::Lane;
    use crate::observe::Observer;
    use std::sync::{Arc, Mutex};

    #[derive(Default)]
    struct Notes(Mutex<(BTreeMap<QueueLabels, Option<u64>>, u64)>);

    impl Observer for Notes {
        fn waiting(&self, queue: QueueLabels, messages: Option<u64>) {
            self.0.lock().unwrap().0.insert(queue, messages);
        }

        fn open_jobs(&self, jobs: u64) {
            self.0.lock().unwrap().1 = jobs;
        }
    }

    #[tokio::test]
    async fn what_waits_is_told_by_queue_lane_and_class_and_partitions_together() {
        let (site, notes) = (Site::new(), Arc::new(Notes::default()));
        let fleet = Fleet { observer: notes.clone(), ..site.fleet.clone() };
        for queue in [Queue::Work(Class::Cpu, Lane::High), Queue::Events(1), Queue::Events(9)] {
            site.broker.publish(queue, b"{}".to_vec()).await.unwrap();
        }
        site.accept("talk").await;
        look_at_queues(&fleet).await;
        count_jobs(&fleet).await;
        let (waiting, jobs) = notes.0.lock().unwrap().clone();
        assert_eq!(waiting[&Queue::Work(Class::Cpu, Lane::High).labels()], Some(1));
        assert_eq!((waiting[&Queue::Events(0).labels()], waiting[&Queue::Dead.labels()]), (Some(2), Some(0)));
        assert_eq!((waiting.len(), jobs), (18, 1));
    }
}
