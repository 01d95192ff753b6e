//! Two inputs compared, frame by frame in presentation order.
//!
//! Every frame that a decoder gives counts, whatever its timestamp says: a dropped or doubled one moves all that follow,
//! and must not hide in a mean. The reference is taken at its own size as it is shown (turned, its samples not stretched);
//! the distorted is scaled to it.

mod side;

#[cfg(test)]
mod tests;

use crate::media::error::{Result, refusal, refuse};
use crate::media::filter::Target;
use crate::media::input::Host;
use crate::plan::time::Rational;
use crate::quality::{Format, Planes, QualityError, Vmaf, Xpsnr};
use crate::sandbox::protocol::{Limits, MeasureReport, MeasureTask, RefusalReason};
use side::Side;

/// How a distorted frame of another size is scaled: what scorers of the field use.
const SCALER: &str = "bicubic";
/// Frames whose scores one report may carry; more would not fit into a message.
const MOST_SCORED: u64 = 400_000;

/// Compares input 1 with input 0.
///
/// # Errors
/// Media: one of them is no video, or one has more frames than the other and may not. Unsupported: the pictures are too
/// small for a model. Limit: more frames than a report can carry.
pub fn measure(host: &dyn Host, limits: &Limits, task: &MeasureTask) -> Result<MeasureReport> {
    let mut reference = Side::open(host, 0, limits, "the reference")?;
    let mut distorted = Side::open(host, 1, limits, "the distorted")?;
    for _ in 0..task.start {
        // Frames that are passed over are no progress of the comparison, but a sign of life.
        host.progress(0);
        if !reference.next()? & !distorted.next()? {
            break;
        }
    }
    let mut comparison = None;
    let most = task.count.unwrap_or(u64::MAX);
    let (mut frames, mut has) = (0, [true, true]);
    while frames < most {
        has = [reference.next()?, distorted.next()?];
        if has != [true, true] {
            break;
        }
        let open = match &mut comparison {
            Some(open) => open,
            none => none.insert(Comparison::open(task, &reference)?),
        };
        open.take(&mut reference, &mut distorted)?;
        frames += 1;
        host.progress(frames);
    }
    let rest = |side: &mut Side, has: bool| if has && frames < most { side.count_rest(most - frames) } else { Ok(0) };
    let reference_frames = frames + rest(&mut reference, has[0])?;
    let distorted_frames = frames + rest(&mut distorted, has[1])?;
    if reference_frames.abs_diff(distorted_frames) > task.allow_extra {
        let after = if task.start > 0 { format!(" after the first {}", task.start) } else { String::new() };
        return refuse(
            RefusalReason::Media,
            format!("the reference has {reference_frames} frames{after}, the distorted has {distorted_frames}"),
        );
    }
    let Some(comparison) = comparison else {
        return refuse(RefusalReason::Media, "there is no frame to compare");
    };
    let mut report = comparison.finish()?;
    (report.reference_frames, report.distorted_frames) = (reference_frames, distorted_frames);
    report.notes.extend(notes(&reference, &distorted, &report));
    Ok(report)
}

/// Both measures, under way.
struct Comparison {
    format: Format,
    target: Target,
    frame_rate: Rational,
    every: u32,
    vmaf: Option<Vmaf>,
    xpsnr: Xpsnr,
    frames: u64,
}

impl Comparison {
    /// As the reference's first frame, which is at hand, asks for.
    fn open(task: &MeasureTask, reference: &Side<'_>) -> Result<Self> {
        let shown = reference.shown();
        let bits = task.bits.unwrap_or(if shown.bits > 8 { 10 } else { 8 });
        let format = Format { width: shown.width, height: shown.height, bits };
        let pixel_format = if bits == 8 { "yuv420p" } else { "yuv420p10le" };
        let target = Target { width: shown.width, height: shown.height, pixel_format, full_range: shown.full_range };
        let frame_rate = reference.frame_rate;
        let vmaf = match task.models.as_slice() {
            [] => None,
            models => Some(Vmaf::with_threads(models, format, task.every, task.threads).map_err(refused)?),
        };
        let xpsnr = Xpsnr::new(format, frame_rate, task.every).map_err(refused)?;
        Ok(Self { format, target, frame_rate, every: task.every, vmaf, xpsnr, frames: 0 })
    }

    fn take(&mut self, reference: &mut Side<'_>, distorted: &mut Side<'_>) -> Result<()> {
        if self.frames / u64::from(self.every) >= MOST_SCORED {
            let what = format!("more than {MOST_SCORED} frames to score: compare a part (--count), or score every n-th frame");
            return refuse(RefusalReason::Limit, what);
        }
        let format = self.format;
        let (reference, distorted) = (reference.converted(&self.target)?, distorted.converted(&self.target)?);
        let (Some(reference), Some(distorted)) = (reference.planes(&format), distorted.planes(&format)) else {
            return refuse(RefusalReason::Internal, "a converted frame is not what it was converted to");
        };
        self.push(&reference, &distorted).map_err(refused)?;
        self.frames += 1;
        Ok(())
    }

    fn push(&mut self, reference: &Planes<'_>, distorted: &Planes<'_>) -> std::result::Result<(), QualityError> {
        if let Some(vmaf) = &mut self.vmaf {
            vmaf.push(reference, distorted)?;
        }
        self.xpsnr.push(reference, distorted)
    }

    fn finish(self) -> Result<MeasureReport> {
        let scores = self.vmaf.map_or(Ok(Vec::new()), Vmaf::finish).map_err(refused)?;
        Ok(MeasureReport {
            format: self.format,
            frame_rate: self.frame_rate,
            frames: self.frames,
            reference_frames: self.frames,
            distorted_frames: self.frames,
            vmaf: scores.into_iter().map(|of| (of.model, of.frames)).collect(),
            xpsnr: self.xpsnr.finish(),
            notes: Vec::new(),
        })
    }
}

/// A measurement that cannot be made, in words for whoever asked for it.
fn refused(error: QualityError) -> crate::sandbox::protocol::Refusal {
    let reason = match error {
        QualityError::Unsuitable(_) => RefusalReason::Unsupported,
        QualityError::Memory => RefusalReason::Memory,
        QualityError::Planes | QualityError::Empty | QualityError::Library { .. } => RefusalReason::Internal,
    };
    refusal(reason, error.to_string())
}

/// What makes figures mean something else than they seem to.
fn notes(reference: &Side<'_>, distorted: &Side<'_>, report: &MeasureReport) -> Vec<String> {
    let mut notes: Vec<String> = [reference, distorted].iter().flat_map(|side| side.notes()).collect();
    let (of, by) = (reference.shown(), distorted.shown());
    if (of.width, of.height) != (by.width, by.height) {
        notes.push(format!("the distorted is {}x{} and was scaled to {}x{}", by.width, by.height, of.width, of.height));
    }
    if !of.transfer.is_empty() && !by.transfer.is_empty() && of.transfer != by.transfer {
        notes.push(format!(
            "the reference's values mean light by {}, the distorted's by {}: they are compared as they are",
            of.transfer, by.transfer
        ));
    }
    if report.reference_frames != report.distorted_frames {
        notes.push(format!(
            "the reference has {} frames, the distorted has {}: the first {} were compared",
            report.reference_frames, report.distorted_frames, report.frames
        ));
    }
    notes
}
