//! What whole steps leave of the goal, spent: chunks are raised as long as the title keeps its quality.

use super::lattice::{Row, totals};

/// Raises levels, where that saves most bits for the shortfall first, until no chunk can be raised without losing the goal
/// or a limit. A choice that misses the goal is left as it is.
pub fn polish(rows: &[Row], choice: &mut [usize], most_shortfall: u64) {
    let Some(mut slack) = most_shortfall.checked_sub(totals(rows, choice).1) else { return };
    loop {
        let mut raises: Vec<(f64, usize)> = (0..rows.len()).filter_map(|n| Some((saving(rows, choice, n)?, n))).collect();
        raises.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut raised = false;
        for (_, n) in raises {
            let (row, level) = (&rows[n], choice[n]);
            let more = row.shortfall[level + 1].saturating_sub(row.shortfall[level]);
            // A neighbour may have been raised in this pass: ask again.
            if more <= slack && saving(rows, choice, n).is_some() {
                choice[n] += 1;
                slack -= more;
                raised = true;
            }
        }
        if !raised {
            return;
        }
    }
}

/// Bits saved for each unit of shortfall when a chunk goes up one level; none when it may not.
fn saving(rows: &[Row], choice: &[usize], n: usize) -> Option<f64> {
    let (row, level) = (&rows[n], choice[n]);
    let step_before = row.step.is_none_or(|step| level < choice[n - 1].saturating_add(step));
    let step_after = rows.get(n + 1).and_then(|next| next.step).is_none_or(|step| level < choice[n + 1].saturating_add(step));
    if level >= row.highest || !step_before || !step_after {
        return None;
    }
    let bits = row.bits[level].saturating_sub(row.bits[level + 1]);
    let shortfall = row.shortfall[level + 1].saturating_sub(row.shortfall[level]);
    (bits > 0).then(|| bits as f64 / shortfall.max(1) as f64)
}
