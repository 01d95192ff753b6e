//! Why a picture cannot be judged.

/// What can go wrong with a measurement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QualityError {
    /// The format, not its content: too small, or of a depth that is not measured. The words say what would do.
    #[error("{0}")]
    Unsuitable(String),
    /// Planes that do not hold a picture of the format that was promised.
    #[error("a picture's planes do not hold what its format says")]
    Planes,
    #[error("no picture was given")]
    Empty,
    #[error("out of memory")]
    Memory,
    /// libvmaf's own word, an errno.
    #[error("libvmaf would not do it: {doing} (error {code})")]
    Library { doing: &'static str, code: i32 },
}
