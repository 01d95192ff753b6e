//! Which encoders there are: in software, and on each kind of device.

use serde::{Deserialize, Serialize};

/// Which encoders a part needs, and by which queue it waits for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Software encoders.
    #[default]
    Cpu,
    /// NVIDIA's encoder.
    Nvenc,
    /// The encoders of Intel's and AMD's graphics, by VA-API.
    Vaapi,
    /// Intel's Quick Sync.
    Qsv,
}

impl Class {
    pub const ALL: [Class; 4] = [Class::Cpu, Class::Nvenc, Class::Vaapi, Class::Qsv];

    pub fn name(self) -> &'static str {
        match self {
            Class::Cpu => "cpu",
            Class::Nvenc => "nvenc",
            Class::Vaapi => "vaapi",
            Class::Qsv => "qsv",
        }
    }

    /// Is it one of encoders on a device?
    pub fn is_device(self) -> bool {
        self != Class::Cpu
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a job says of its encoders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassChoice {
    /// On a device where the fleet has some that fit the preset; in software where none of them takes it in time.
    #[default]
    Auto,
    /// In software.
    Cpu,
    /// On a device, however long that takes.
    Gpu,
}

impl ClassChoice {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
