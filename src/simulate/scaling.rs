//! How many workers there are to be: as KEDA and Kubernetes decide it by the chart's `ScaledObject`s.

use super::Micros;
use std::collections::VecDeque;

/// Growth in one step: so many times what there is, or so many more, whichever is more.
pub const UP_PERCENT: usize = 100;
pub const UP_WORKERS: usize = 4;
pub const UP_EVERY_S: u64 = 30;
/// The same for shrinking.
pub const DOWN_PERCENT: usize = 25;
pub const DOWN_WORKERS: usize = 1;
pub const DOWN_EVERY_S: u64 = 60;

/// When and how a pool of workers grows and shrinks.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    pub fewest: usize,
    pub most: usize,
    /// Messages, waiting or in hand, for one worker: its slots.
    pub messages_per_worker: usize,
    /// How often is looked.
    pub every_s: u64,
    /// From the wish for a worker to its first part: a machine, an image, a start.
    pub start_s: u64,
    /// Fewer must have been enough for so long.
    pub down_after_s: u64,
}

/// The decisions of one pool, one after the other.
#[derive(Debug)]
pub(super) struct Scaler {
    scaling: Scaling,
    /// What would have been enough, and when, for as long as that counts.
    wishes: VecDeque<(Micros, usize)>,
    grew: Option<Micros>,
    shrank: Option<Micros>,
}

impl Scaler {
    pub fn new(scaling: Scaling) -> Self {
        Self { scaling, wishes: VecDeque::new(), grew: None, shrank: None }
    }

    pub fn every(&self) -> Micros {
        self.scaling.every_s * 1_000_000
    }

    pub fn start(&self) -> Micros {
        self.scaling.start_s * 1_000_000
    }

    /// How many workers there are to be, with so many messages and so many workers now.
    pub fn decide(&mut self, now: Micros, messages: usize, workers: usize) -> usize {
        let Scaling { fewest, most, messages_per_worker, down_after_s, .. } = self.scaling;
        let wish = messages.div_ceil(messages_per_worker.max(1)).clamp(fewest, most);
        self.wishes.push_back((now, wish));
        while self.wishes.front().is_some_and(|(at, _)| at + down_after_s * 1_000_000 < now) {
            self.wishes.pop_front();
        }
        let is_due = |last: Option<Micros>, every_s: u64| last.is_none_or(|last| last + every_s * 1_000_000 <= now);
        if wish > workers && is_due(self.grew, UP_EVERY_S) {
            self.grew = Some(now);
            return wish.min(workers + UP_WORKERS.max(workers * UP_PERCENT / 100));
        }
        // The most that was wished for lately would have to go, too.
        let enough = self.wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(wish);
        if enough < workers && is_due(self.shrank, DOWN_EVERY_S) {
            self.shrank = Some(now);
            return enough.max(workers.saturating_sub(DOWN_WORKERS.max(workers * DOWN_PERCENT / 100)));
        }
        workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn scaler() -> Scaler {
        let scaling = Scaling { fewest: 1, most: 100, messages_per_worker: 4, every_s: 15, start_s: 60, down_after_s: 600 };
        Scaler::new(scaling)
    }

    #[test]
    fn a_pool_doubles_until_there_are_enough() {
        let mut scaler = scaler();
        let mut workers = 1;
        let sizes: Vec<usize> = (0..10)
            .map(|n| {
                workers = scaler.decide(n * 15 * SECOND, 200, workers);
                workers
            })
            .collect();
        assert_eq!(sizes, [5, 5, 10, 10, 20, 20, 40, 40, 50, 50]);
        assert_eq!(scaler.decide(200 * SECOND, 9_999, 90), 100, "and no further than allowed");
    }

    #[test]
    fn it_shrinks_by_a_quarter_a_minute_once_fewer_were_enough_for_long() {
        let mut scaler = scaler();
        assert_eq!(scaler.decide(0, 400, 100), 100);
        assert_eq!(scaler.decide(600 * SECOND, 0, 100), 100, "the last time that all were needed still counts");
        assert_eq!(scaler.decide(615 * SECOND, 0, 100), 75);
        assert_eq!(scaler.decide(630 * SECOND, 0, 75), 75, "not twice in a minute");
        assert_eq!(scaler.decide(675 * SECOND, 0, 75), 57);
        assert_eq!(scaler.decide(735 * SECOND, 0, 2), 1);
        assert_eq!(scaler.decide(795 * SECOND, 0, 1), 1);
    }
}
