//! What to encode for calibration: each chosen chunk in each picture size that the ladder is likely to have.

use super::allocate::believed_crf;
use super::curve::Curve;
use super::decide::{Survey, survey};
use super::facts::TitleFacts;
use super::hull::OperatingPoint;
use super::ladder;
use super::loss_of;
use super::rules::Rules;
use super::stratify::{CalibrationRules, Stratum, stratify};
use serde::{Deserialize, Serialize};

/// Calibrations of one size are made by turns so far above and below the expected CRF: two places on the line give its
/// tilt, one gives none.
const SPREAD_CRF: f64 = 2.0;
/// No calibration is made at less, VMAF: a poor picture tells little of a good one, and sizes move up the ladder when they are
/// known better.
const LEAST_CALIBRATED_VMAF: f64 = 60.0;

/// One encode at the final preset, to be scored at display size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationTask {
    /// Index into [`TitleFacts::chunks`].
    pub chunk: usize,
    pub width: u32,
    pub height: u32,
    /// A whole step of the encoder.
    pub crf: f64,
    /// How much of the title the chunk stands for.
    pub weight: f64,
}

/// The calibrations worth making, by chunk and then largest size first: at most one for each chosen chunk and each size of
/// the ladder that the probes alone would give. Where pilots will tell more, and cost nothing, they are of no more chunks than
/// are affordable beside a ladder of so many pixels a picture, and of one in any case.
pub fn calibrations(
    title: &TitleFacts,
    rules: &Rules,
    is_affordable: impl Fn(&[CalibrationTask], f64) -> bool,
) -> Vec<CalibrationTask> {
    let found = survey(title, rules);
    let placed = ladder::place(&found.hull, &[], rules, ladder::highest_rate_bps(title.codec, &found.sizes[0], rules));
    let sizes = placed.iter().map(|rung| &found.sizes[rung.candidate]);
    let ladder: f64 = sizes.map(|size| f64::from(size.width) * f64::from(size.height)).sum();
    let of = |most: usize| {
        let strata = stratify(&title.chunks, &found.fits, &CalibrationRules { most, ..rules.calibration });
        (strata.len(), of_strata(rules, &found, &placed, &strata))
    };
    let (mut chunks, mut tasks) = of(rules.calibration.most);
    while chunks > 1 && rules.pilots.most > 0 && !is_affordable(&tasks, ladder) {
        (chunks, tasks) = of(chunks - 1);
    }
    tasks
}

fn of_strata(
    rules: &Rules,
    Survey { sizes, fits, curves, .. }: &Survey,
    placed: &[OperatingPoint],
    strata: &[Stratum],
) -> Vec<CalibrationTask> {
    let mut tasks = Vec::new();
    for (turn, stratum) in strata.iter().enumerate() {
        let believed = believed_crf(fits[stratum.chunk].probed_crf, &rules.allocation);
        for (candidate, size) in sizes.iter().enumerate() {
            let rungs: Vec<f64> = placed.iter().filter(|rung| rung.candidate == candidate).map(|rung| rung.vmaf).collect();
            let curve = &curves[candidate][stratum.chunk];
            // Alone at its rung's quality, spread around it.
            let spread = match (strata.len(), turn % 2) {
                (1, _) => 0.0,
                (_, 0) => -SPREAD_CRF,
                _ => SPREAD_CRF,
            };
            // The title's goal is the top rung's, so that is met; of the other sizes each rung is one in turn.
            let is_top = placed.first().is_some_and(|top| top.candidate == candidate);
            let rung = if is_top { 0 } else { turn % rungs.len().max(1) };
            let Some(vmaf) = rungs.get(rung) else { continue };
            let crf = expected_crf(curve, vmaf.max(LEAST_CALIBRATED_VMAF), believed) + spread;
            tasks.push(CalibrationTask {
                chunk: stratum.chunk,
                width: size.width,
                height: size.height,
                crf: rules.allocation.crf.nearest(crf.clamp(believed.0, believed.1)),
                weight: stratum.weight,
            });
        }
    }
    tasks
}

/// The CRF at which the chunk has this quality, within those that are believed.
fn expected_crf(curve: &Curve, vmaf: f64, believed: (f64, f64)) -> f64 {
    curve.crf_of_loss(loss_of(vmaf)).clamp(believed.0, believed.1)
}

#[cfg(test)]
mod tests;
