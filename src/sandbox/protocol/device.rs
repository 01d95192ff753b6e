//! A device that encodes, as a child is told of it.

use crate::job::Class;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A device that encodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub class: Class,
    /// NVENC: the device's number. VA-API and QSV: its render node, `/dev/dri/renderD128`.
    pub path: String,
    /// What the child may open for it.
    pub files: Vec<String>,
    /// There is none: a software encoder takes its place.
    pub stand_in: bool,
    /// The stand-in is to fail, as a device would.
    pub fails: bool,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stand_in {
            true => write!(f, "a stand-in for {}", self.class),
            false => write!(f, "{} {}", self.class, self.path),
        }
    }
}
