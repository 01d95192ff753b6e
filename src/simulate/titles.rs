//! The plans of the titles that jobs bring: made by the planner, of sources that are as plain as can be.

use super::Arrival;
use crate::job::Job;
use crate::plan::marker::PartId;
use crate::plan::preset::Preset;
use crate::plan::time::Rational;
use crate::plan::{self, Plan};
use crate::probe::{AudioStream, Probe, Scan, VideoStream};
use crate::reconcile::{Step, reconcile};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Ticks a second of the sources.
const TICKS: i64 = 12_800;
const FRAMES_A_SECOND: i64 = 25;
/// Seconds from keyframe to keyframe.
const KEYFRAME_EVERY: i64 = 2;
const SAMPLES_A_SECOND: u32 = 48_000;

/// A title as it is planned.
pub(super) struct Title {
    pub plan: Plan,
    /// How long each chunk lasts, seconds.
    pub chunks_s: Vec<f64>,
    pub media_s: f64,
    /// Seconds of output: every rendition counts.
    pub output_s: f64,
}

/// What makes a difference to the plan.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Recipe {
    preset: String,
    set: String,
    media_ms: u64,
    size: (u32, u32),
}

/// Every title once, whoever sends it.
#[derive(Default)]
pub(super) struct Titles(HashMap<Recipe, Rc<Title>>);

impl Titles {
    /// The plan of a job's title.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(&mut self, arrival: &Arrival) -> Result<Rc<Title>, String> {
        let recipe = Recipe {
            preset: arrival.preset.clone(),
            set: serde_json::to_string(&arrival.set).map_err(|e| e.to_string())?,
            media_ms: (arrival.media_s * 1000.0) as u64,
            size: (arrival.width, arrival.height),
        };
        if let Some(title) = self.0.get(&recipe) {
            return Ok(title.clone());
        }
        let title = Rc::new(title(arrival)?);
        self.0.insert(recipe, title.clone());
        Ok(title)
    }
}

fn title(arrival: &Arrival) -> Result<Title, String> {
    let document = json!({
        "input": { "uri": "source" }, "output": { "uri": "output" }, "preset": arrival.preset, "set": arrival.set,
    });
    let job = Job::parse(document.to_string().as_bytes()).map_err(|e| e.to_string())?;
    let preset = Preset::built_in(&arrival.preset, &arrival.set).map_err(|e| e.to_string())?;
    let plan = plan::make(&job, &source(arrival), &preset).map_err(|e| e.to_string())?;
    if !leads_to_the_end(|done, finished| reconcile(Some(&plan), done, finished, u32::MAX)) {
        let preset = &arrival.preset;
        return Err(format!("the preset {preset} changes its plan by what it finds on the way, which cannot be simulated"));
    }
    let video = plan.video.as_ref();
    let chunk_s = |index| video.map_or(0.0, |v| plan::time::seconds(v.chunk_ticks(index), v.source_base));
    let chunks_s: Vec<f64> = (0..video.map_or(0, |v| v.chunks.len())).map(chunk_s).collect();
    let renditions = video.map_or(0, |v| v.rungs.len()) + plan.audio.len();
    Ok(Title { chunks_s, media_s: arrival.media_s, output_s: arrival.media_s * renditions as f64, plan })
}

/// Is every part done once and the job at its end, when each part is done as soon as it is asked for?
fn leads_to_the_end(step: impl Fn(&BTreeSet<PartId>, Option<PartId>) -> Step) -> bool {
    let (mut done, mut asked) = (BTreeSet::new(), vec![PartId::Probe]);
    while let Some(part) = asked.pop() {
        if !done.insert(part) {
            return false;
        }
        match step(&done, (part != PartId::Probe).then_some(part)) {
            Step::Publish(parts) => asked.extend(parts),
            Step::Wait => {}
            Step::Finish => return true,
        }
    }
    false
}

/// A source with one picture and one sound, of constant rates.
fn source(arrival: &Arrival) -> Probe {
    let frames = ((arrival.media_s * FRAMES_A_SECOND as f64).round() as i64).max(1);
    let keyframes: Vec<i64> = (0..frames).step_by((KEYFRAME_EVERY * FRAMES_A_SECOND) as usize).collect();
    let even = VideoStream::even(Rational::new(1, TICKS), Rational::new(FRAMES_A_SECOND, 1), 0, frames, &keyframes);
    let video = VideoStream { width: arrival.width, height: arrival.height, bit_rate: 6_000_000, ..even };
    let sound = AudioStream {
        index: 1,
        codec: "aac".into(),
        time_base: Rational::new(1, i64::from(SAMPLES_A_SECOND)),
        sample_rate: SAMPLES_A_SECOND,
        channels: 2,
        layout: "stereo".into(),
        first_pts: Some(0),
        end_pts: Some(frames * i64::from(SAMPLES_A_SECOND) / FRAMES_A_SECOND),
        language: None,
        title: None,
        default: true,
        bit_rate: 128_000,
    };
    Probe {
        container: "mov,mp4,m4a,3gp,3g2,mj2".into(),
        bytes: 0,
        claimed_duration_us: None,
        video: vec![video],
        audio: vec![sound],
        ignored: Vec::new(),
        scan: Scan::Index,
        bytes_read: 0,
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_goes_round_or_stands_still_does_not_lead_to_the_end() {
        let package = Step::Publish(vec![PartId::Package]);
        let ends = |done: &BTreeSet<PartId>, _| if done.contains(&PartId::Package) { Step::Finish } else { package.clone() };
        assert!(leads_to_the_end(ends));
        assert!(!leads_to_the_end(|_, _| package.clone()));
        assert!(!leads_to_the_end(|_, _| Step::Wait));
    }
}
