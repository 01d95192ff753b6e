//! How much of the source was lost, and whether that is too much.

use super::{Encoded, SeamError, bad_frames};
use crate::job::OnDamage;
use crate::plan::Plan;
use crate::plan::marker::{Marker, PartId};
use crate::plan::time::{Rational, mul_div_round};
use crate::sandbox::protocol::{AudioReport, Damage};

/// Sums the damage of every stream; above the preset's limit the job fails, unless it asked for what can be salvaged.
///
/// # Errors
/// [`SeamError::Damage`], naming the first bad time.
pub fn check(
    plan: &Plan,
    chunks: &[Encoded],
    renditions: &[(&Marker, &AudioReport)],
    notes: &mut Vec<String>,
) -> Result<(), SeamError> {
    if let Some(video) = &plan.video {
        let damages: Vec<_> = chunks.iter().map(|c| (c.part, &c.report.damage)).collect();
        let stream =
            Stream { index: video.stream, expected: video.expected_frames, base: video.source_base, origin: video.origin };
        stream.judge(plan, &damages, notes)?;
    }
    for (rendition, (marker, report)) in plan.audio.iter().zip(renditions) {
        let stream = Stream {
            index: rendition.stream,
            expected: report.segments.iter().map(|s| s.samples).sum(),
            base: rendition.source_base,
            origin: rendition.origin,
        };
        stream.judge(plan, &[(marker.part, &report.damage)], notes)?;
    }
    Ok(())
}

/// One stream of the source.
struct Stream {
    index: usize,
    /// Video frames or audio access units.
    expected: u64,
    base: Rational,
    origin: i64,
}

impl Stream {
    fn judge(&self, plan: &Plan, damages: &[(PartId, &Damage)], notes: &mut Vec<String>) -> Result<(), SeamError> {
        let lost: u64 = damages.iter().map(|(_, d)| d.lost_frames).sum();
        let damaged: u64 = damages.iter().map(|(_, d)| d.damaged_frames).sum();
        let Some((part, first)) = damages.iter().find(|(_, d)| bad_frames(d) > 0) else { return Ok(()) };
        let share = (plan.damage.max_lost_share * self.expected as f64) as u64;
        let limit = plan.damage.forgiven_frames.max(share);
        let first_bad_s = first.first_bad.map_or("an unknown number of".into(), |ticks| self.seconds(ticks));
        if plan.on_damage == OnDamage::Fail && lost + damaged > limit {
            let message = first.message.as_ref().map_or(String::new(), |m| format!(" ({m})"));
            let (stream, count, expected) = (self.index, lost + damaged, self.expected);
            return Err(SeamError::Damage { part: *part, stream, count, expected, limit, first_bad_s, message });
        }
        let note = format!(
            "Stream {} is damaged: {lost} frames lost, {damaged} damaged, of {}; the first at {first_bad_s} s.",
            self.index, self.expected
        );
        if !notes.contains(&note) {
            notes.push(note);
        }
        Ok(())
    }

    /// Source ticks as seconds from the beginning of the title, to the millisecond.
    fn seconds(&self, ticks: i64) -> String {
        let Rational { num, den } = self.base;
        let ms = mul_div_round(ticks - self.origin, 1000 * num, den.max(1));
        format!("{}{}.{:03}", if ms < 0 { "-" } else { "" }, ms.abs() / 1000, ms.abs() % 1000)
    }
}
