//! Where the rungs stand: qualities and rates along the hull, and which of them are worth having.

use super::super::preset::VideoCodec;
use super::hull::{Candidate, Hull, OperatingPoint};
use super::rules::Rules;
use super::standard;

/// Rungs, best first: the top at the goal or the source's ceiling, the second at its goal, then at even ratios of rate
/// near the wanted one down to the lowest rate, whose rung serves the slowest connections. No rung has a larger picture
/// than the one above it, and the top costs no more than `highest_rate_bps`. It has a goal to meet, so it is of a size that was
/// `calibrated` where one comes as near to it as any; none of an empty list was.
pub fn place(hull: &Hull, calibrated: &[bool], rules: &Rules, highest_rate_bps: f64) -> Vec<OperatingPoint> {
    let Some(best) = top(hull, rules, highest_rate_bps) else { return Vec::new() };
    let known = top(&hull.among(calibrated), rules, highest_rate_bps);
    let top = known.filter(|known| known.vmaf >= best.vmaf.min(rules.goal_vmaf)).unwrap_or(best);
    let mut rungs = vec![top];
    let second_vmaf = rules.second_vmaf.min(top.vmaf - rules.second_step_vmaf);
    if second_vmaf > 0.0 {
        let apart = |second: &OperatingPoint| {
            top.rate_bps >= second.rate_bps * rules.least_rate_ratio && second.rate_bps >= rules.lowest_rate_bps
        };
        rungs.extend(hull.at_quality(second_vmaf, top.candidate).filter(apart));
    }
    let last = rungs[rungs.len() - 1];
    let lowest = rules.lowest_rate_bps.max(hull.lowest_rate_bps().unwrap_or(0.0)).max(1.0);
    let octaves = libm::log(last.rate_bps / lowest) / libm::log(rules.rate_ratio);
    let room = rules.most_rungs.saturating_sub(rungs.len());
    let more = if last.rate_bps < lowest * rules.least_rate_ratio { 0 } else { (octaves.round() as usize).max(1).min(room) };
    for n in 1..=more {
        let part = libm::exp(libm::log(lowest / last.rate_bps) * n as f64 / more as f64);
        let rate = if n == more { lowest } else { last.rate_bps * part };
        let above = rungs[rungs.len() - 1];
        rungs.extend(hull.at_rate(rate, above.candidate).filter(|rung| rung.rate_bps < above.rate_bps));
    }
    rungs
}

/// What the top rung of a display may cost; no limit for a codec without a fixed ladder.
pub fn highest_rate_bps(codec: VideoCodec, display: &Candidate, rules: &Rules) -> f64 {
    let fixed_bps = standard::top_rate_bps(codec, display.width.min(display.height));
    fixed_bps.map_or(f64::INFINITY, |bps| bps * rules.highest_share)
}

/// The goal, or where the source ends before: no gain in more bits, or too high a rate.
fn top(hull: &Hull, rules: &Rules, highest_rate_bps: f64) -> Option<OperatingPoint> {
    let ceiling = hull.ceiling(rules.least_gain_per_doubling_vmaf)?;
    let goal = rules.goal_vmaf.min(ceiling);
    // Where the cheapest that is known costs more, it is that.
    let affordable = hull.at_rate(highest_rate_bps.max(hull.lowest_rate_bps()?), 0);
    let at_goal = match hull.at_quality(goal, 0) {
        Some(point) if point.rate_bps <= highest_rate_bps => Some(point),
        beyond => affordable.or(beyond),
    };
    // Bits under the lowest rate are spared for nobody, while a gain is one.
    let for_all = hull.at_rate(rules.lowest_rate_bps, 0).filter(|point| point.vmaf <= ceiling);
    at_goal.map(|point| for_all.filter(|free| free.vmaf > point.vmaf).unwrap_or(point))
}

/// Rungs (rate in bits a second, VMAF-NEG), best first, of which the too near are left out: those kept, by index.
///
/// The top stays, and so does the last if it is a step in rate below the top, for it is there for its rate; a rung between
/// stays when it is a step in rate and a step in quality below the one kept above it, and both above the last in rate.
pub fn thin(rungs: &[(f64, f64)], rules: &Rules) -> Vec<usize> {
    let Some(last) = rungs.len().checked_sub(1) else { return Vec::new() };
    let apart_in_rate = |upper: usize, lower: usize| rungs[upper].0 >= rungs[lower].0 * rules.least_rate_ratio;
    let apart_in_quality = |upper: usize, lower: usize| rungs[upper].1 - rungs[lower].1 >= rules.least_step_vmaf;
    let mut kept = vec![0];
    if !apart_in_rate(0, last) {
        return kept;
    }
    for n in 1..last {
        let above = kept[kept.len() - 1];
        if apart_in_rate(above, n) && apart_in_quality(above, n) && apart_in_rate(n, last) && apart_in_quality(n, last) {
            kept.push(n);
        }
    }
    kept.push(last);
    kept
}

#[cfg(test)]
mod tests;
