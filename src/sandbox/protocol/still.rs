//! Single pictures of inputs, for people to look at.

use serde::{Deserialize, Serialize};

/// Make pictures of inputs, each a JPEG.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillTask {
    pub stills: Vec<Still>,
}

/// One picture that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Still {
    /// Number of the input; its first video stream is taken.
    pub input: u32,
    /// Pictures before this time are not counted, ticks of the stream; absent: the first is counted, too.
    pub from: Option<i64>,
    /// So many of the counted ones are passed over.
    pub skip: u64,
    /// Size to make it, pixels: both even.
    pub width: u32,
    pub height: u32,
    /// File to make in the scratch folder.
    pub file: String,
}

/// Pictures, made in the order they were wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillReport {
    pub stills: Vec<StillMade>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillMade {
    pub file: String,
    pub bytes: u64,
}
