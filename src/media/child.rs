//! The way into the island: one order, one report.

use crate::media::error::{Result, refuse};
use crate::media::input::Host;
use crate::media::{analyse, audio, encode, ffi, measure, probe, remux, still};
use crate::sandbox::protocol::{Order, RefusalReason, Report, Task};
use std::path::Path;

/// Does what the order says, in this process, which should be jailed.
///
/// # Errors
/// Why no output will be made.
pub fn work(order: &Order, host: &dyn Host) -> Result<Report> {
    if order.inputs.is_empty() {
        return refuse(RefusalReason::Internal, "an order without inputs");
    }
    // SAFETY: a plain setting; warnings go to stderr, of which the parent keeps the tail.
    unsafe { ffi::av_log_set_level(ffi::AV_LOG_ERROR) };
    let scratch = Path::new(&order.scratch);
    match &order.task {
        Task::Probe => probe::probe(host, &order.limits, scratch).map(Report::Probe),
        Task::Encode(task) => encode::encode(host, &order.limits, scratch, task).map(Report::Encode),
        Task::Analyse(task) => analyse::analyse(host, &order.limits, task).map(Report::Analyse),
        Task::Calibrate(task) => analyse::calibrate(host, &order.limits, task).map(Report::Calibrate),
        Task::Audio(task) => audio::encode(host, &order.limits, scratch, task).map(Report::Audio),
        Task::Remux(task) => remux::remux(host, &order.limits, scratch, order.inputs.len(), task).map(Report::Remux),
        Task::Measure(_) if order.inputs.len() != 2 => refuse(RefusalReason::Internal, "a comparison without two inputs"),
        Task::Measure(task) => measure::measure(host, &order.limits, task).map(Report::Measure),
        Task::Still(task) if task.stills.iter().any(|still| still.input as usize >= order.inputs.len()) => {
            refuse(RefusalReason::Internal, "a picture of an input that there is not")
        }
        Task::Still(task) => still::still(host, &order.limits, scratch, task).map(Report::Still),
    }
}
