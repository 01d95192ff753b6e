//! The whole decision: from what analysis found to the rungs and the CRF of every chunk.

use super::super::preset::VideoCodec;
use super::allocate::{Allocation, Bound, Goal, Share, believed_crf};
use super::curve::{Basis, Curve, FittedCurve, fit_title};
use super::facts::TitleFacts;
use super::hull::{Candidate, Hull, OperatingPoint, candidates};
use super::prior::prior_of;
use super::rules::Rules;
use super::steady::allocate_steadily;
use super::transfer::{self, Transfer};
use super::{BEST_VMAF, ladder, rounded};
use serde::{Deserialize, Serialize};

/// A title whose quality ends so far below the goal is said to end there, VMAF points.
const WORTH_A_NOTE_VMAF: f64 = 0.5;

/// What was decided for a title, and on what grounds. Rates are kbit/s, qualities VMAF-NEG at display size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub codec: VideoCodec,
    /// Best first.
    pub rungs: Vec<RungDecision>,
    /// The picture sizes that competed, largest first.
    pub candidates: Vec<CandidateCurve>,
    /// The upper convex hull of them, by rising rate.
    pub hull: Vec<HullPoint>,
    /// How each chunk's curve came about, in order.
    pub fits: Vec<FittedCurve>,
    /// What a person might not expect, in plain sentences.
    pub notes: Vec<String>,
}

/// One rendition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungDecision {
    /// Unique in the ladder: `720p`, and `720p-2` for the next of that size.
    pub name: String,
    pub width: u32,
    pub height: u32,
    /// Mean quality it was to have.
    pub goal_vmaf: f64,
    /// Quality that each chunk was to have at least.
    pub floor_vmaf: f64,
    /// By duration over the title.
    pub predicted_vmaf: f64,
    pub predicted_kbps: f64,
    /// Rate of the costliest chunk.
    pub peak_kbps: f64,
    pub chunks: Vec<ChunkDecision>,
}

/// Within a chunk the rate swings by so much above its mean before the cap is felt, as far as the title's mean allows.
const PEAK_HEADROOM: f64 = 1.5;

impl RungDecision {
    /// The rung's cap, kbit/s: one for the whole title, for parameter sets hold it.
    pub fn cap_kbps(&self, peak_to_mean: f64) -> f64 {
        (self.peak_kbps * PEAK_HEADROOM).min(self.predicted_kbps * peak_to_mean).max(self.peak_kbps)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkDecision {
    pub crf: f64,
    pub predicted_kbps: f64,
    pub predicted_vmaf: f64,
    /// What kept it from the title's common slope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
}

/// A picture size, how its curves come from the probes', and what the title costs in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateCurve {
    #[serde(flatten)]
    pub size: Candidate,
    pub transfer: Transfer,
    /// By rising rate.
    pub points: Vec<HullPoint>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HullPoint {
    /// The picture size it is of.
    pub size: String,
    pub kbps: f64,
    pub vmaf: f64,
}

/// Decides the ladder. The same facts and rules give the same decision on every machine.
///
/// Never fails: what is not known is taken from the title's other chunks or from priors, and noted. A title without
/// chunks has no rungs.
pub fn decide(title: &TitleFacts, rules: &Rules) -> Decision {
    let Survey { sizes, fits, transfers, curves, hull } = survey(title, rules);
    let calibrated: Vec<bool> = transfers.iter().map(|transfer| transfer.points > 0).collect();
    let placed = ladder::place(&hull, &calibrated, rules, ladder::highest_rate_bps(title.codec, &sizes[0], rules));
    let goals: Vec<Goal> = placed.iter().map(|point| goal(point, placed[0].vmaf, rules)).collect();
    let allocations: Vec<Allocation> = placed
        .iter()
        .zip(&goals)
        .map(|(point, goal)| allocate_steadily(&shares(title, &fits, &curves[point.candidate]), goal, &rules.allocation))
        .collect();
    let figures: Vec<(f64, f64)> = allocations.iter().map(|a| (a.mean_rate_bps, a.mean_vmaf)).collect();
    let mut rungs: Vec<RungDecision> = Vec::new();
    let mut notes = notes_of_title(title, rules, &fits, &placed);
    for n in ladder::thin(&figures, rules) {
        let size = &sizes[placed[n].candidate];
        let rung = rung(size, &goals[n], &allocations[n], &rungs);
        notes.extend(notes_of_rung(&rung, &allocations[n], rules));
        rungs.push(rung);
    }
    let named = |point: &OperatingPoint| HullPoint {
        size: sizes[point.candidate].name.clone(),
        kbps: kbps(point.rate_bps),
        vmaf: rounded(point.vmaf, 3),
    };
    Decision {
        codec: title.codec,
        rungs,
        hull: hull.hull.iter().map(named).collect(),
        candidates: sizes
            .iter()
            .zip(transfers)
            .zip(&hull.lines)
            .map(|((size, transfer), line)| CandidateCurve {
                size: size.clone(),
                transfer,
                points: line.iter().map(named).collect(),
            })
            .collect(),
        fits,
        notes,
    }
}

/// What is known of a title before rungs are placed.
pub(super) struct Survey {
    /// Largest first; the display's own is always there.
    pub sizes: Vec<Candidate>,
    /// At the probe's size, chunk by chunk.
    pub fits: Vec<FittedCurve>,
    /// For each size.
    pub transfers: Vec<Transfer>,
    /// For each size, chunk by chunk.
    pub curves: Vec<Vec<Curve>>,
    pub hull: Hull,
}

pub(super) fn survey(title: &TitleFacts, rules: &Rules) -> Survey {
    let fits = fits(title);
    let sizes = candidates(title.display_width, title.display_height);
    let transfers = transfer::estimate_all(title, &fits, &sizes);
    let curves: Vec<Vec<Curve>> = transfers.iter().map(|transfer| transfer.curves(title, &fits)).collect();
    let believed: Vec<(f64, f64)> = fits.iter().map(|fit| believed_crf(fit.probed_crf, &rules.allocation)).collect();
    let hull = Hull::new(&title.chunks, &curves, &believed);
    Survey { sizes, fits, transfers, curves, hull }
}

/// The curves of the chunks at the probe's size.
pub fn fits(title: &TitleFacts) -> Vec<FittedCurve> {
    fit_title(&title.chunks, &prior_of(title))
}

fn shares(title: &TitleFacts, fits: &[FittedCurve], curves: &[Curve]) -> Vec<Share> {
    let chunks = title.chunks.iter().zip(fits).zip(curves);
    chunks
        .map(|((chunk, fit), curve)| Share {
            curve: *curve,
            weight_us: chunk.weight_us(),
            starts_on_cut: chunk.starts_on_cut,
            probed_crf: fit.probed_crf,
            held_crf: None,
        })
        .collect()
}

/// The allowed drop is that of the top rung; lower rungs, which miss more everywhere, allow it in proportion.
fn goal(point: &OperatingPoint, top_vmaf: f64, rules: &Rules) -> Goal {
    let (shortfall, at_top) = (BEST_VMAF - point.vmaf, (BEST_VMAF - top_vmaf).max(f64::MIN_POSITIVE));
    let drop = rules.allocation.allowed_drop_vmaf * (shortfall / at_top).clamp(1.0, BEST_VMAF);
    Goal { mean_vmaf: rounded(point.vmaf, 3), floor_vmaf: rounded((point.vmaf - drop).max(0.0), 3) }
}

fn rung(size: &Candidate, goal: &Goal, allocation: &Allocation, above: &[RungDecision]) -> RungDecision {
    let same = above.iter().filter(|rung| (rung.width, rung.height) == (size.width, size.height)).count();
    RungDecision {
        name: if same == 0 { size.name.clone() } else { format!("{}-{}", size.name, same + 1) },
        width: size.width,
        height: size.height,
        goal_vmaf: goal.mean_vmaf,
        floor_vmaf: goal.floor_vmaf,
        predicted_vmaf: rounded(allocation.mean_vmaf, 3),
        predicted_kbps: kbps(allocation.mean_rate_bps),
        peak_kbps: kbps(allocation.peak_rate_bps),
        chunks: allocation
            .chunks
            .iter()
            .map(|chunk| ChunkDecision {
                crf: chunk.crf,
                predicted_kbps: kbps(chunk.rate_bps),
                predicted_vmaf: rounded(chunk.vmaf, 3),
                bound: chunk.bound,
            })
            .collect(),
    }
}

fn kbps(bps: f64) -> f64 {
    rounded(bps / 1000.0, 1)
}

fn notes_of_title(title: &TitleFacts, rules: &Rules, fits: &[FittedCurve], placed: &[OperatingPoint]) -> Vec<String> {
    let mut notes = Vec::new();
    let counted = |found: usize, what: &str| (found > 0).then(|| format!("{found} of {} chunks {what}", title.chunks.len()));
    let unknown = |basis: Basis| matches!(basis, Basis::Title | Basis::Codec);
    let guessed = fits.iter().filter(|fit| unknown(fit.rate.basis) || unknown(fit.loss.basis)).count();
    let bent = fits.iter().filter(|fit| !fit.is_measured()).count() - guessed;
    notes.extend(counted(guessed, "have no usable probe: they are taken to be like the others"));
    notes.extend(counted(bent, "have probes that give no slope of their own: it is taken from the others"));
    if let Some(top) = placed.first().filter(|top| top.vmaf < rules.goal_vmaf - WORTH_A_NOTE_VMAF) {
        notes.push(format!(
            "the top rung is planned at VMAF-NEG {:.1}, not {:.1}: beyond it this source takes many bits for little, or more than {:.0} % \
             of what a fixed ladder would spend",
            top.vmaf,
            rules.goal_vmaf,
            rules.highest_share * 100.0
        ));
    }
    if title.calibration.is_empty() && !title.chunks.is_empty() {
        notes.push("no chunk was calibrated at the final preset: rates and qualities are by rule of thumb".into());
    }
    notes
}

fn notes_of_rung(rung: &RungDecision, allocation: &Allocation, rules: &Rules) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &rung.name;
    if !allocation.reached && allocation.mean_vmaf < rung.goal_vmaf - WORTH_A_NOTE_VMAF {
        notes.push(format!("{name} is expected at VMAF-NEG {:.1}, under its {:.1}", rung.predicted_vmaf, rung.goal_vmaf));
    }
    if allocation.below_floor > 0 {
        notes.push(format!("{name}: {} chunks stay below the floor of {:.1}", allocation.below_floor, rung.floor_vmaf));
    }
    let held = rung.chunks.iter().filter(|chunk| chunk.bound == Some(Bound::Peak)).count();
    if held > 0 {
        let peak = rules.allocation.peak_to_mean;
        notes.push(format!("{name}: {held} chunks are held to {peak} times the mean rate"));
    }
    if allocation.steep_seams > 0 {
        let step = rules.allocation.largest_step_crf;
        notes.push(format!("{name}: {} seams within a scene step by more than {step} CRF", allocation.steep_seams));
    }
    notes
}

#[cfg(test)]
mod tests;
