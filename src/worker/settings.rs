//! How much a worker does, how often it tries, and how it leaves.

use super::devices::DeviceSettings;
use super::lanes::LaneWeights;
use crate::part::class::DeviceRules;
use std::time::Duration;

/// How long uploads have to end once children are killed.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(1500);

/// How much a worker does, and how often it tries.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// By which a drain can name it.
    pub name: String,
    /// Children at once.
    pub slots: usize,
    /// Does it take submissions, and parts that need no device?
    pub software: bool,
    pub devices: Vec<DeviceSettings>,
    /// How devices are dealt with.
    pub device_rules: DeviceRules,
    /// Software encoders are tried at the start.
    pub self_test: bool,
    pub lanes: LaneWeights,
    /// Crashes of one part, over all workers, before its job fails.
    pub attempts: u32,
    /// Attempts of one part or submission before its job fails, whatever ended them: the longest outage of a store or a
    /// broker that is waited out.
    pub outage_attempts: u32,
    /// Wait before the second attempt; it doubles with each further one, up to the longest.
    pub first_delay: Duration,
    pub longest_delay: Duration,
    /// Longest time of one part, its uploads among it.
    pub part_deadline: Duration,
    /// How long after a request to stop the worker is gone. Children that have not ended a little before are killed, and
    /// their parts handed back; with no more than that little, they are killed at once.
    pub grace: Duration,
}

impl WorkerSettings {
    /// How long to wait after attempt number `attempt` (from 1) failed.
    pub(super) fn wait_after(&self, attempt: u32) -> Duration {
        let factor = 1_u32 << attempt.saturating_sub(1).min(20);
        self.first_delay.saturating_mul(factor).min(self.longest_delay)
    }

    /// How long parts that are open at a request to stop may go on.
    pub(super) fn finishing(&self) -> Duration {
        self.grace.saturating_sub(STOP_GRACE)
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use super::*;

    /// Settings of a quick test.
    pub fn settings() -> WorkerSettings {
        WorkerSettings {
            name: "tester".into(),
            slots: 2,
            software: true,
            devices: Vec::new(),
            device_rules: DeviceRules::default(),
            self_test: false,
            lanes: LaneWeights { high: 6, normal: 3, low: 1 },
            attempts: 3,
            outage_attempts: 20,
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(4),
            part_deadline: Duration::from_secs(60),
            grace: STOP_GRACE,
        }
    }
}
