//! Whose turn it is: smooth weighted round robin over queues, of which some are empty.
//!
//! Every turn each queue gains credit by its weight, and the one that is served pays what all have gained. The queue with
//! most credit is asked first, so that service spreads evenly (3, 1 gives a a b a, not a a a b), and none that waits is
//! passed over for ever. A queue that was found empty has nothing to wait for: it gains nothing and loses its credit.

use crate::broker::{Class, Queue};
use crate::job::Lane;
use serde::Deserialize;

/// How often each lane is served when all have work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneWeights {
    pub high: u32,
    pub normal: u32,
    pub low: u32,
}

/// Largest weight of a lane.
pub const MAX_WEIGHT: u32 = 1000;

impl LaneWeights {
    fn of(&self, lane: Lane) -> u32 {
        match lane {
            Lane::High => self.high,
            Lane::Normal => self.normal,
            Lane::Low => self.low,
        }
    }
}

/// The queues of a worker, with their credit.
#[derive(Clone, Debug)]
pub struct Rota<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    item: T,
    weight: i64,
    credit: i64,
}

impl Rota<Queue> {
    /// Submissions and parts of every lane. Both kinds of one lane weigh the same: a flood of submissions does not keep
    /// parts waiting, nor a flood of parts submissions.
    pub fn of_lanes(weights: LaneWeights) -> Self {
        let of = |lane| [Queue::Jobs(lane), Queue::Work(Class::Cpu, lane)].map(|queue| (queue, weights.of(lane)));
        Self::new(Lane::ALL.into_iter().flat_map(of))
    }

    /// The parts of one class of devices, of every lane.
    pub fn of_class(class: Class, weights: LaneWeights) -> Self {
        Self::new(Lane::ALL.into_iter().map(|lane| (Queue::Work(class, lane), weights.of(lane))))
    }
}

impl<T: Copy + PartialEq> Rota<T> {
    /// Items with their weights; a weight of 0 counts as 1, so that nobody starves.
    pub fn new(items: impl IntoIterator<Item = (T, u32)>) -> Self {
        let entry = |(item, weight): (T, u32)| Entry { item, weight: i64::from(weight.clamp(1, MAX_WEIGHT)), credit: 0 };
        Self { entries: items.into_iter().map(entry).collect() }
    }

    /// The items in the order in which they are to be asked now; of equals the one that was given first.
    pub fn order(&self) -> Vec<T> {
        let mut places: Vec<usize> = (0..self.entries.len()).collect();
        places.sort_by_key(|place| std::cmp::Reverse(self.entries[*place].credit + self.entries[*place].weight));
        places.into_iter().map(|place| self.entries[place].item).collect()
    }

    /// Notes that `item` was served after those before it in [`Rota::order`] had been found empty.
    pub fn served(&mut self, item: T) {
        let order = self.order();
        let Some(place) = order.iter().position(|other| *other == item) else { return };
        let mut gained = 0;
        for entry in &mut self.entries {
            if order[..place].contains(&entry.item) {
                entry.credit = 0;
            } else {
                // Whether those after it are empty is not known: they are asked first before long.
                entry.credit += entry.weight;
                gained += entry.weight;
            }
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.item == item) {
            entry.credit -= gained;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn serve(rota: &mut Rota<char>, has_work: impl Fn(char) -> bool) -> Option<char> {
        let item = rota.order().into_iter().find(|item| has_work(*item))?;
        rota.served(item);
        Some(item)
    }

    #[test]
    fn lanes_that_all_have_work_are_served_by_weight_and_evenly() {
        let mut rota = Rota::new([('a', 3), ('b', 1), ('c', 2)]);
        let served: String = (0..12).filter_map(|_| serve(&mut rota, |_| true)).collect();
        assert_eq!(served, "acabcaacabca");
    }

    #[test]
    fn a_lane_that_was_empty_has_saved_up_nothing() {
        let mut rota = Rota::new([('a', 1), ('b', 1)]);
        let alone: String = (0..100).filter_map(|_| serve(&mut rota, |item| item == 'a')).collect();
        assert_eq!(alone, "a".repeat(100));
        let both: String = (0..6).filter_map(|_| serve(&mut rota, |_| true)).collect();
        assert_eq!(both.matches('b').count(), 3, "{both}");
        assert!(!both.contains("bbb"), "{both}");
    }

    #[test]
    fn every_lane_has_a_queue_of_jobs_and_one_of_work() {
        let order = Rota::of_lanes(LaneWeights { high: 6, normal: 3, low: 1 }).order();
        assert_eq!(order.len(), 6);
        assert_eq!(order[..2], [Queue::Jobs(Lane::High), Queue::Work(Class::Cpu, Lane::High)]);
        assert_eq!(order[4..], [Queue::Jobs(Lane::Low), Queue::Work(Class::Cpu, Lane::Low)]);
        let device = Rota::of_class(Class::Qsv, LaneWeights { high: 6, normal: 3, low: 1 }).order();
        assert_eq!(device, Lane::ALL.map(|lane| Queue::Work(Class::Qsv, lane)));
    }

    proptest! {
        /// Whatever comes and goes on the other lanes, one that always has work is served within two rounds.
        #[test]
        fn no_lane_that_waits_starves(
            weights in prop::collection::vec(0_u32..30, 2..7),
            waiting in 0_usize..7,
            others in prop::collection::vec(any::<u8>(), 600),
        ) {
            let waiting = waiting % weights.len();
            let mut rota = Rota::new(weights.iter().copied().enumerate());
            let total: u32 = weights.iter().map(|w| (*w).max(1)).sum();
            let limit = 2 * total.div_ceil(weights[waiting].max(1)) as usize + weights.len();
            let mut since = 0;
            for mask in others {
                let item = rota.order().into_iter().find(|i| *i == waiting || mask & (1 << i) != 0).unwrap();
                rota.served(item);
                since = if item == waiting { 0 } else { since + 1 };
                prop_assert!(since <= limit, "{since} turns, {limit} allowed");
            }
        }

        #[test]
        fn with_work_everywhere_the_shares_are_the_weights(weights in prop::collection::vec(1_u32..50, 1..6)) {
            let mut rota = Rota::new(weights.iter().copied().enumerate());
            let total: u32 = weights.iter().sum();
            let mut served = vec![0_u32; weights.len()];
            for _ in 0..total * 3 {
                let item = rota.order()[0];
                rota.served(item);
                served[item] += 1;
            }
            let expected: Vec<u32> = weights.iter().map(|w| w * 3).collect();
            prop_assert_eq!(served, expected);
        }
    }
}
