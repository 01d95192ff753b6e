//! The choices of every chunk as whole numbers, and the best of them at one multiplier.
//!
//! A level is a CRF of the encoder's steps. Bits and shortfalls are integers, so that their sums over the title are the
//! same in any order.

use super::super::curve::Curve;
use super::super::rules::CrfRange;
use std::collections::VecDeque;

/// Shortfalls are counted in thousandths of a VMAF point times microseconds: fine enough for one frame at 1000 fps, and
/// a week of the worst fits 64 bits.
pub const SHORTFALL_UNITS: f64 = 1000.0;

/// One chunk: what each level costs, and which are allowed.
#[derive(Clone, Debug)]
pub struct Row {
    /// Bits at each level: falling.
    pub bits: Vec<u64>,
    /// Shortfall at each level: rising.
    pub shortfall: Vec<u64>,
    /// Lowest and highest allowed level.
    pub lowest: usize,
    pub highest: usize,
    /// Most levels between this chunk and the one before; absent: any.
    pub step: Option<usize>,
}

impl Row {
    pub fn new(curve: &Curve, weight_us: u64, range: &CrfRange) -> Self {
        let weight = weight_us as f64;
        let crfs: Vec<f64> = (0..levels(range)).map(|level| crf(level, range)).collect();
        let bits = crfs.iter().map(|crf| (curve.rate_bps(*crf) * weight / 1e6).round() as u64).collect();
        let shortfall = crfs.iter().map(|crf| (curve.shortfall(*crf) * weight * SHORTFALL_UNITS).round() as u64).collect();
        Self { bits, shortfall, lowest: 0, highest: crfs.len() - 1, step: None }
    }

    /// Lagrangian cost of a level.
    fn cost(&self, level: usize, multiplier: f64) -> f64 {
        self.bits[level] as f64 + multiplier * self.shortfall[level] as f64
    }

    /// Bits saved for each unit of shortfall taken on from one level to the next, over the allowed ones.
    fn slopes(&self) -> impl Iterator<Item = f64> {
        (self.lowest..self.highest).filter_map(|k| {
            let (bits, shortfall) =
                (self.bits[k].saturating_sub(self.bits[k + 1]), self.shortfall[k + 1].saturating_sub(self.shortfall[k]));
            (bits > 0 && shortfall > 0).then(|| bits as f64 / shortfall as f64)
        })
    }
}

/// CRFs of a range: at least one.
pub fn levels(range: &CrfRange) -> usize {
    ((range.highest - range.lowest) / range.step).floor().max(0.0) as usize + 1
}

/// The CRF of a level: whole multiples of the step above the lowest.
pub fn crf(level: usize, range: &CrfRange) -> f64 {
    range.lowest + level as f64 * range.step
}

/// Bits and shortfall of a choice over the title.
pub fn totals(rows: &[Row], choice: &[usize]) -> (u64, u64) {
    rows.iter().zip(choice).fold((0, 0), |(bits, shortfall), (row, level)| {
        (bits.saturating_add(row.bits[*level]), shortfall.saturating_add(row.shortfall[*level]))
    })
}

/// Multipliers below which every chunk takes its fewest bits, and above which its most. Positive.
pub fn multipliers(rows: &[Row]) -> (f64, f64) {
    let slopes = || rows.iter().flat_map(Row::slopes);
    let (flattest, steepest) = (slopes().fold(f64::MAX, f64::min), slopes().fold(f64::MIN, f64::max));
    if steepest > 0.0 { (flattest / 2.0, steepest * 2.0) } else { (1.0, 1.0) }
}

/// Widens the steps that the allowed levels make impossible, first to last, so that there is a choice.
/// Returns how many seams that were.
pub fn widen_steps(rows: &mut [Row]) -> usize {
    let mut widened = 0;
    // Levels of the chunk before that can be reached.
    let mut reach = (0, usize::MAX);
    for row in rows {
        let Some(step) = row.step.as_mut() else {
            reach = (row.lowest, row.highest);
            continue;
        };
        let gap = reach.0.saturating_sub(row.highest).max(row.lowest.saturating_sub(reach.1));
        widened += usize::from(gap > *step);
        *step = gap.max(*step);
        let (from, to) = (reach.0.saturating_sub(*step), reach.1.saturating_add(*step));
        reach = (row.lowest.max(from), row.highest.min(to));
    }
    widened
}

/// The levels that minimise bits plus `multiplier` times shortfall. Of equal ones the fewer bits.
pub fn best(rows: &[Row], multiplier: f64) -> Vec<usize> {
    let mut choice = Vec::with_capacity(rows.len());
    let mut at = 0;
    while at < rows.len() {
        let run = 1 + rows[at + 1..].iter().take_while(|row| row.step.is_some()).count();
        match &rows[at..at + run] {
            [row] => choice.push(best_alone(row, multiplier)),
            coupled => choice.extend(best_of_run(coupled, multiplier)),
        }
        at += run;
    }
    choice
}

fn best_alone(row: &Row, multiplier: f64) -> usize {
    let mut best = (f64::MAX, row.highest);
    for level in (row.lowest..=row.highest).rev() {
        let cost = row.cost(level, multiplier);
        if cost < best.0 {
            best = (cost, level);
        }
    }
    best.1
}

/// Chunks of one scene, whose levels may not step too far: exact, by dynamic programming over chunks and levels. The
/// least cost over a window of the chunk before is kept in a queue, so that a level costs the same however wide it is.
fn best_of_run(rows: &[Row], multiplier: f64) -> Vec<usize> {
    // Levels that some chunk of the run may have, counted from the lowest.
    let (lowest, highest) =
        rows.iter().fold((usize::MAX, 0), |(lowest, highest), row| (lowest.min(row.lowest), highest.max(row.highest)));
    let levels = highest - lowest + 1;
    let cost = |row: &Row, level: usize| {
        let level = lowest + level;
        if (row.lowest..=row.highest).contains(&level) { row.cost(level, multiplier) } else { f64::INFINITY }
    };
    let mut costs: Vec<f64> = (0..levels).map(|level| cost(&rows[0], level)).collect();
    // For each later chunk and level: the level of the chunk before that leads there at least cost.
    let mut from: Vec<Vec<usize>> = Vec::with_capacity(rows.len());
    for row in &rows[1..] {
        let window = row.step.unwrap_or(levels);
        let leads = least_in_window(&costs, window);
        costs = (0..levels).map(|level| costs[leads[level]] + cost(row, level)).collect();
        from.push(leads);
    }
    let mut level = (0..levels).rev().fold(levels - 1, |best, k| if costs[k] < costs[best] { k } else { best });
    let mut choice = vec![lowest + level];
    for leads in from.iter().rev() {
        level = leads[level];
        choice.push(lowest + level);
    }
    choice.reverse();
    choice
}

/// For each place the one with the least cost within `window` of it; of equal ones the highest.
fn least_in_window(costs: &[f64], window: usize) -> Vec<usize> {
    let mut queue: VecDeque<usize> = VecDeque::new();
    let mut next = 0;
    (0..costs.len())
        .map(|at| {
            while next < costs.len() && next <= at.saturating_add(window) {
                while queue.back().is_some_and(|back| costs[*back] >= costs[next]) {
                    queue.pop_back();
                }
                queue.push_back(next);
                next += 1;
            }
            while queue.front().is_some_and(|front| front.saturating_add(window) < at) {
                queue.pop_front();
            }
            *queue.front().expect("a place lies within its own window")
        })
        .collect()
}
