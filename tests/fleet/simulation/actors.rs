//! Whose turn it is, and what happens to whom.

use super::coordinator::{Coordinator, Deliverer};
use super::worker::Worker;
use super::world::World;

const WORKERS: usize = 3;
const COORDINATORS: usize = 2;
const DELIVERERS: usize = 2;
/// Of so many turns one is the sweeper's clock.
const TICK_IN: usize = 40;

/// Every process of the fleet.
pub struct Actors {
    workers: Vec<Worker>,
    coordinators: Vec<Coordinator>,
    deliverers: Vec<Deliverer>,
    /// Which coordinator the broker gives the partition to.
    active: usize,
}

impl Actors {
    pub fn new() -> Self {
        Self {
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            coordinators: (0..COORDINATORS).map(|_| Coordinator::default()).collect(),
            deliverers: (0..DELIVERERS).map(|_| Deliverer::default()).collect(),
            active: 0,
        }
    }

    /// Somebody does one step, or something happens to somebody.
    pub fn turn(&mut self, world: &mut World) -> Result<(), String> {
        if world.in_a_thousand(world.storm.crash) {
            self.strike(world, false);
        } else if world.in_a_thousand(world.storm.freeze) {
            self.strike(world, true);
        } else if world.began_with.is_device() && world.has_device && world.in_a_thousand(world.storm.device_dies) {
            world.note(|| "the device dies".into());
            world.has_device = false;
        } else if world.in_a_thousand(world.storm.cancel) {
            world.cancel();
        } else if !world.calm && world.below(TICK_IN) == 0 {
            world.tick();
        }
        world.sleepers = self.coordinators.iter().filter(|c| c.is_behind()).count();
        let (active, one) = (self.active, world.below(WORKERS + COORDINATORS + DELIVERERS));
        if one < WORKERS {
            self.workers[one].step(world, one)
        } else if one < WORKERS + COORDINATORS {
            let one = one - WORKERS;
            self.coordinators[one].step(world, one, one == active)
        } else {
            let one = one - WORKERS - COORDINATORS;
            self.deliverers[one].step(world, one);
            Ok(())
        }
    }

    /// A process dies, or sleeps for so long that the broker gives its messages to another. A sleeper wakes up.
    fn strike(&mut self, world: &mut World, freezes: bool) {
        let one = world.below(WORKERS + COORDINATORS + DELIVERERS);
        world.note(|| format!("process {one} {}", if freezes { "sleeps, or wakes" } else { "dies" }));
        if one < WORKERS {
            self.workers[one].strike(world, freezes);
        } else if one < WORKERS + COORDINATORS {
            let one = one - WORKERS;
            self.coordinators[one].strike(world, freezes);
            if one == self.active {
                self.active = (self.active + 1) % COORDINATORS;
            }
        } else {
            self.deliverers[one - WORKERS - COORDINATORS].strike(world, freezes);
        }
    }

    pub fn wake(&mut self, _: &World) {
        self.workers.iter_mut().for_each(|w| w.frozen = false);
        self.coordinators.iter_mut().for_each(|c| c.frozen = false);
        self.deliverers.iter_mut().for_each(|d| d.frozen = false);
    }

    /// Nobody has anything to do.
    pub fn is_idle(&self, world: &World) -> bool {
        !world.has_work()
            && world.partition.is_empty()
            && world.nudges.is_empty()
            && self.workers.iter().all(Worker::is_idle)
            && self.coordinators.iter().all(Coordinator::is_idle)
            && self.deliverers.iter().all(Deliverer::is_idle)
    }
}
