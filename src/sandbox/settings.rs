//! How children are held.

use super::protocol::JailLevel;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The sandbox as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxSettings {
    /// The weakest jail in which media is touched.
    pub minimum_jail: JailLevel,
    /// Seconds after which a child is ended, whatever it does.
    pub deadline_s: u64,
    /// Seconds without progress after which a child is ended.
    pub stall_s: u64,
    /// Bytes of a child's stderr that are kept, from its end.
    pub stderr_tail_bytes: usize,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub kill_grace_ms: u64,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        SandboxSettings {
            minimum_jail: JailLevel::Full,
            deadline_s: 18 * 60,
            stall_s: 120,
            stderr_tail_bytes: 8 * 1024,
            kill_grace_ms: 500,
        }
    }
}

/// Starts children, one [`run`](Sandbox::run) each. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The program whose `main` calls [`child::run`](super::child::run) for these arguments; this very program by default.
    pub program: PathBuf,
    pub args: Vec<String>,
    pub minimum_jail: JailLevel,
    pub deadline: Duration,
    pub stall: Duration,
    pub stderr_tail_bytes: usize,
    pub kill_grace: Duration,
}

impl From<&SandboxSettings> for Sandbox {
    fn from(settings: &SandboxSettings) -> Self {
        Sandbox {
            program: PathBuf::from("/proc/self/exe"),
            args: vec!["child".to_string()],
            minimum_jail: settings.minimum_jail,
            deadline: Duration::from_secs(settings.deadline_s),
            stall: Duration::from_secs(settings.stall_s),
            stderr_tail_bytes: settings.stderr_tail_bytes,
            kill_grace: Duration::from_millis(settings.kill_grace_ms),
        }
    }
}
