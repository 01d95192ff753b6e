//! The self-test of an encoder: a small clip of known pictures goes through the same jailed children as a job's chunk, is
//! encoded, decoded again and scored beside what went in. What does not come out well is not used.

use super::children::Children;
use crate::job::{Class, Job};
use crate::media::libraries::has_encoder;
use crate::plan::preset::Preset;
use crate::plan::{self, Plan, Rung, device};
use crate::probe::Probe;
use crate::sandbox::protocol::{Device, Limits, Report, Task, Verification};
use crate::sandbox::{InputSource, Outcome};
use std::fs::{self, File};
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The pictures: larger than the least that encoders of devices take (NVENC: 145 x 49), small enough to cost nothing.
const WIDTH: usize = 320;
const HEIGHT: usize = 192;
/// Pictures of the clip; more than any encoder holds back without saying so.
pub const FRAMES: usize = 12;
/// VMAF-NEG that the clip must come to. At the ladders' qualities it comes to well over 90 by each software encoder; a
/// picture that is torn, shifted, green or of another time stays far under this.
pub const LEAST_SCORE: f64 = 80.0;
/// The clip's name in its folder.
const SOURCE: &str = "golden.y4m";

/// A preset by which each software encoder is tried: by the names of people and of libavcodec.
pub const SOFTWARE: [(&str, &str, &str); 3] =
    [("x265", "libx265", "h265"), ("x264", "libx264", "h264"), ("SVT-AV1", "libsvtav1", "av1")];
/// Presets by which a device is tried: one for each codec that it must make.
pub const ON_DEVICES: [&str; 2] = ["h265", "h264"];

/// An encoder that did what it should.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// libavcodec's name.
    pub encoder: String,
    /// VMAF-NEG, mean over the clip.
    pub score: f64,
    pub wall: Duration,
}

/// One that did not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{encoder}: {why}")]
pub struct Unproved {
    pub encoder: String,
    pub why: String,
}

/// What self-tests work with.
pub struct Bench<'a> {
    pub children: &'a dyn Children,
    pub limits: &'a Limits,
    /// A folder of the test's own, which it leaves full.
    pub folder: &'a Path,
}

impl Bench<'_> {
    /// Tries the encoder of a preset; with a device its equivalent there.
    ///
    /// # Errors
    /// Why it is not to be used.
    pub async fn prove(&self, preset: &str, device: Option<&Device>) -> Result<Proof, Unproved> {
        let encoder = encoder_of(preset, device.map(|device| device.class));
        let fail = |why: String| Unproved { encoder: encoder.clone(), why };
        let is_stand_in = device.is_some_and(|device| device.stand_in);
        if !is_stand_in && !has_encoder(&encoder) {
            return Err(fail("this libavcodec has none of that name".into()));
        }
        let probe = self.probe().await.map_err(fail)?;
        let task = task(preset, &probe, device).map_err(fail)?;
        let (report, wall) = self.run(task).await.map_err(fail)?;
        let Report::Encode(report) = report else {
            return Err(fail("the child gave another report than it was asked for".into()));
        };
        if report.frames != FRAMES as u64 {
            return Err(fail(format!("{} of {FRAMES} pictures were encoded", report.frames)));
        }
        match (report.measured, report.unmeasured) {
            (Some(measured), _) if measured.vmaf_neg >= LEAST_SCORE => Ok(Proof { encoder, score: measured.vmaf_neg, wall }),
            (Some(measured), _) => Err(fail(format!(
                "what it makes comes to a VMAF-NEG of {:.1}; at least {LEAST_SCORE} is wanted",
                measured.vmaf_neg
            ))),
            (None, why) => Err(fail(format!("what it makes cannot be scored: {}", why.unwrap_or_default()))),
        }
    }

    async fn probe(&self) -> Result<Probe, String> {
        fs::write(self.folder.join(SOURCE), pictures()).map_err(|e| e.to_string())?;
        match self.run(Task::Probe).await? {
            (Report::Probe(probe), _) => Ok(probe),
            _ => Err("the child gave another report than it was asked for".into()),
        }
    }

    async fn run(&self, task: Task) -> Result<(Report, Duration), String> {
        let folder = self.folder.join(task.kind());
        let made = fs::create_dir_all(&folder).and_then(|()| File::open(self.folder.join(SOURCE)));
        let inputs = vec![InputSource::File(Arc::new(made.map_err(|e| e.to_string())?))];
        let finished = self.children.run(task, inputs, self.limits, &folder, &mut |_| {}, Box::pin(pending())).await;
        match finished.outcome {
            Outcome::Done(report) => Ok((*report, finished.wall)),
            outcome => {
                let last_words = finished.stderr_tail.trim().replace('\n', " ");
                Err(if last_words.is_empty() { outcome.to_string() } else { format!("{outcome}; {last_words}") })
            }
        }
    }
}

/// libavcodec's name of the encoder that a preset has in a class; empty where it has none.
pub fn encoder_of(preset: &str, class: Option<Class>) -> String {
    if let (None | Some(Class::Cpu), Some((_, library, _))) = (class, SOFTWARE.iter().find(|(.., of)| *of == preset)) {
        return (*library).into();
    }
    let rules = Preset::built_in(preset, &Default::default()).ok().and_then(|preset| preset.video);
    let equivalent = rules.zip(class).and_then(|(rules, class)| rules.equivalents.get(&class).cloned());
    equivalent.map_or(String::new(), |equivalent| equivalent.encoder)
}

/// Encodes the whole clip in its own size, and scores every picture.
fn task(preset: &str, probe: &Probe, device: Option<&Device>) -> Result<Task, String> {
    let document = serde_json::json!({ "input": { "uri": "golden" }, "output": { "uri": "golden" }, "preset": preset });
    let job = Job::parse(document.to_string().as_bytes()).map_err(|e| e.to_string())?;
    let preset = Preset::built_in(preset, &job.set).map_err(|e| e.to_string())?;
    let plan = plan::make(&job, probe, &preset).map_err(|e| e.to_string())?;
    let software: Vec<Rung> = plan.video.iter().flat_map(|video| video.rungs.first().cloned()).collect();
    let plan = match device.filter(|device| !device.stand_in) {
        Some(device) => on_device(plan, probe, &preset, device.class)?,
        None => plan,
    };
    let mut task = plan::encode_task(&plan, probe, 0, 1);
    task.rungs.truncate(1);
    if device.is_some_and(|device| device.stand_in) {
        task.rungs = device::stand_in(&software);
    }
    // Beside pictures as software gets them, whatever their form is on the device.
    task.verification = Some(Verification { reference: software.into_iter().next(), scored_every: 1 });
    task.device = device.cloned();
    Ok(Task::Encode(Box::new(task)))
}

fn on_device(plan: Plan, probe: &Probe, preset: &Preset, class: Class) -> Result<Plan, String> {
    plan::on_device(plan, probe, preset, class).map(|plan| plan.in_class(class)).map_err(|e| e.to_string())
}

/// Uncompressed 4:2:0 pictures as YUV4MPEG2, which needs no encoder to be made: a slope that moves, with bars across it.
pub fn pictures() -> Vec<u8> {
    let mut file = format!("YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420jpeg\n").into_bytes();
    for frame in 0..FRAMES {
        file.extend_from_slice(b"FRAME\n");
        let is_bar = |x: usize, y: usize| ((x + 4 * frame) / 24).is_multiple_of(4) && (y / 32).is_multiple_of(2);
        let bar = |x, y| if is_bar(x, y) { 40 } else { 0 };
        let luma = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (40 + (x + y + 2 * frame) / 4 + bar(x, y)) as u8));
        file.extend(luma);
        let chroma =
            |shift: usize| (0..HEIGHT / 2).flat_map(move |y| (0..WIDTH / 2).map(move |x| (112 + (x + shift * y) / 8 % 32) as u8));
        file.extend(chroma(1));
        file.extend(chroma(2));
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clip_holds_as_many_whole_pictures_as_it_says() {
        let clip = pictures();
        let header = clip.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(clip.len() - header, FRAMES * (b"FRAME\n".len() + WIDTH * HEIGHT * 3 / 2));
    }

    #[test]
    fn every_encoder_that_is_tried_has_a_name() {
        assert_eq!(encoder_of("h265", None), "libx265");
        assert_eq!(encoder_of("h264", Some(Class::Vaapi)), "h264_vaapi");
        for class in Class::ALL.into_iter().filter(|class| class.is_device()) {
            for preset in ON_DEVICES {
                assert!(encoder_of(preset, Some(class)).ends_with(class.name()), "{preset} {class}");
            }
        }
        assert_eq!(encoder_of("av1", Some(Class::Nvenc)), "");
    }
}
