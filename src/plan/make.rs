//! (to be written)
use super::Plan;
/// Why no plan can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("{0}")]
    Preset(String),
    #[error("{0}")]
    Media(String),
}
pub fn make(
    _job: &crate::job::Job,
    _probe: &crate::probe::Probe,
    _preset: &crate::plan::preset::Preset,
) -> Result<Plan, PlanError> {
    Err(PlanError::Media(String::new()))
}
