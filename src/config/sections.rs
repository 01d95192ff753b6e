//! The sections that are the process's own; those of brokers, stores and the like are where their subject is.

use crate::tenant::SubmitRules;
use crate::worker::DeviceSettings;
use crate::worker::lanes::LaneWeights;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How much a worker does at once, and how it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// By which it can be drained. Left out: host and process.
    #[serde(default)]
    pub name: Option<String>,
    /// 0: one for each core.
    pub slots: usize,
    /// It takes submissions, and parts that need no device.
    pub software: bool,
    /// What it encodes on beside the cores.
    #[serde(default)]
    pub devices: Vec<DeviceSettings>,
    pub threads_per_slot: u32,
    pub window: u32,
    pub part_deadline_s: u64,
    /// How long after a request to stop it is gone.
    pub drain_s: u64,
    /// Where `/healthz`, `/readyz` and `/metrics` are answered. Left out: nowhere.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    pub lanes: LaneWeights,
}

/// How often and when a failed part is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    pub attempts: u32,
    pub outage_attempts: u32,
    pub first_delay_ms: u64,
    pub longest_delay_ms: u64,
}

/// Where the children of a fleet's worker write.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratch {
    /// Shared by the workers of one machine. Left out: `narrows` in the folder for temporary files.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// 0: as much as the disk has.
    pub worker_bytes: u64,
    pub part_bytes: u64,
}

/// Who may submit, as the broker knows them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    pub require_user_id: bool,
    pub trusted_users: Vec<String>,
}

impl Submit {
    /// The rules that tenants are told apart by.
    pub fn rules(&self) -> SubmitRules {
        let trusted_users = self.trusted_users.iter().cloned().collect();
        SubmitRules { require_user_id: self.require_user_id, trusted_users }
    }
}
