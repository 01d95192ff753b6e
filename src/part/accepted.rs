//! A job as it was accepted: with its preset resolved and its source identified.

use crate::job::{Class, ClassChoice, Job, JobError, JobId};
use crate::plan::preset::Preset;
use crate::store::SourceIdentity;
use crate::trace::TraceContext;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Hexadecimal digits of a job id that is derived from the content.
const DERIVED_ID_DIGITS: usize = 16;

/// `job.json`: a job as it was accepted; nothing of it changes any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    pub id: JobId,
    /// Bears that id, whether it came with it or not.
    pub job: Job,
    /// The preset with the job's changes.
    pub preset: Preset,
    pub source: SourceIdentity,
    /// The encoders that its video begins with; see [`super::class`].
    #[serde(default, skip_serializing_if = "is_cpu")]
    pub class: Class,
    /// When it was accepted first, milliseconds since 1970; 0 in one process, where nobody lists jobs by time.
    #[serde(default)]
    pub accepted_ms: u64,
    /// The trace in which its customer submitted it first, if it was in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

fn is_cpu(class: &Class) -> bool {
    *class == Class::Cpu
}

/// The job's preset with the job's changes.
///
/// # Errors
/// The preset is none, or the changes to it are wrong: the path is that of the job's field.
pub fn preset(job: &Job) -> Result<Preset, JobError> {
    Preset::built_in(&job.preset, &job.set).map_err(|e| {
        let path = if e.path == "preset" { e.path } else { format!("set.{}", e.path) };
        JobError::new(path, e.reason)
    })
}

impl Accepted {
    /// Resolves the preset and, where the job has no id, derives it: the same job, preset and source give the same id.
    ///
    /// # Errors
    /// The preset is none, or the changes to it are wrong.
    pub fn new(job: Job, source: SourceIdentity) -> Result<Self, JobError> {
        let preset = preset(&job)?;
        let id = match &job.id {
            Some(id) => id.clone(),
            None => derive(&job, &preset, &source),
        };
        let job = Job { id: Some(id.clone()), ..job };
        Ok(Self { id, job, preset, source, class: Class::Cpu, accepted_ms: 0, trace: None })
    }

    /// The same, by the first of these classes of devices for which its preset has an equivalent, where it leaves that open
    /// or asks for it.
    ///
    /// # Errors
    /// It asks for a device, and none fits.
    pub fn on(self, devices: &[Class]) -> Result<Self, JobError> {
        let rules = self.preset.video.as_ref();
        let fits = |class: &&Class| rules.is_some_and(|rules| rules.interest.is_empty() && rules.equivalents.contains_key(class));
        let class = match (self.job.class, devices.iter().find(fits)) {
            (ClassChoice::Cpu, _) | (ClassChoice::Auto, None) => Class::Cpu,
            (ClassChoice::Auto | ClassChoice::Gpu, Some(class)) => *class,
            (ClassChoice::Gpu, None) => return Err(JobError::new("class", self.why_no_device(devices))),
        };
        Ok(Self { class, ..self })
    }

    fn why_no_device(&self, devices: &[Class]) -> String {
        let preset = &self.preset.name;
        if self.preset.narrowband.is_some() {
            return format!("is gpu, and preset {preset} is calibrated for software encoders; say cpu or auto");
        }
        if self.preset.video.as_ref().is_none_or(|rules| rules.equivalents.is_empty()) {
            return format!(
                "is gpu, and preset {preset} names no encoder of a device; say cpu or auto, or choose another preset"
            );
        }
        if self.preset.video.as_ref().is_some_and(|rules| !rules.interest.is_empty()) {
            return "is gpu, and no encoder of a device is told regions (video.interest); say cpu or auto".into();
        }
        if devices.is_empty() {
            return "is gpu, and there is no device here ([devices] classes is empty); say cpu or auto".into();
        }
        let there_are: Vec<&str> = devices.iter().map(|class| class.name()).collect();
        format!("is gpu, and preset {preset} names no encoder of class {}; say cpu or auto", there_are.join(" or "))
    }

    /// Is it the same job of the same source, whenever and in whatever trace it was accepted, and whatever devices there were then?
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { id, job, preset, source, class: _, accepted_ms: _, trace: _ } = self;
        (id, job, preset, source) == (&other.id, &other.job, &other.preset, &other.source)
    }
}

fn derive(job: &Job, preset: &Preset, source: &SourceIdentity) -> JobId {
    let content = serde_json::to_vec(&(job, preset, source)).expect("a job is plain data");
    let digits = hex::encode(Sha256::digest(content));
    JobId::try_from(digits[..DERIVED_ID_DIGITS].to_string()).expect("hexadecimal digits are a job id")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> SourceIdentity {
        SourceIdentity { bytes: 5, modified_ms: 7, etag: None }
    }

    fn job(more: &str) -> Job {
        Job::parse(format!(r#"{{"input":{{"uri":"a.mp4"}},"output":{{"uri":"out"}}{more}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn the_same_job_has_the_same_id_and_another_job_another() {
        let id = |more: &str, source| Accepted::new(job(more), source).unwrap().id;
        let first = id("", source());
        assert_eq!(first, id(r#","lane":"normal""#, source()));
        let accepted = Accepted::new(job(""), source()).unwrap();
        assert_eq!(Accepted::new(accepted.job.clone(), source()), Ok(accepted), "submitted with its id it is the same");
        assert_eq!(first.as_str().len(), DERIVED_ID_DIGITS);
        assert_ne!(first, id("", SourceIdentity { bytes: 6, ..source() }));
        assert_ne!(first, id("", SourceIdentity { modified_ms: 8, ..source() }));
        assert_ne!(first, id("", SourceIdentity { etag: Some("\"e\"".into()), ..source() }));
        assert_ne!(first, id(r#","set":{"packaging.segment_s":6}"#, source()));
        assert_eq!(id(r#","id":"mine""#, source()).as_str(), "mine");
    }

    #[test]
    fn when_and_in_which_trace_a_job_was_accepted_makes_it_no_other() {
        let first = Accepted::new(job(""), source()).unwrap();
        let later = Accepted { accepted_ms: 9, ..first.clone() };
        assert!(first.is_same(&later) && first != later);
        let traced = Accepted { trace: Some(TraceContext::of_job("other", None)), ..first.clone() };
        assert!(first.is_same(&traced) && first != traced);
        let text = serde_json::to_string(&traced).unwrap();
        assert_eq!(serde_json::from_str::<Accepted>(&text).unwrap(), traced);
        assert!(!serde_json::to_string(&first).unwrap().contains("trace"), "versions before it read it");
        assert!(!first.is_same(&Accepted::new(job(r#","lane":"low""#), source()).unwrap()));
    }

    #[test]
    fn a_job_begins_on_the_first_device_that_its_preset_knows() {
        let class = |more: &str, devices: &[Class]| {
            Accepted::new(job(more), source()).unwrap().on(devices).map(|accepted| accepted.class).map_err(|e| e.reason)
        };
        let both = [Class::Qsv, Class::Nvenc];
        assert_eq!(class("", &both), Ok(Class::Qsv));
        assert_eq!(class("", &[]), Ok(Class::Cpu));
        assert_eq!(class(r#","class":"cpu""#, &both), Ok(Class::Cpu));
        assert_eq!(class(r#","class":"gpu""#, &both[1..]), Ok(Class::Nvenc));
        assert_eq!(class(r#","preset":"narrowband-h265""#, &both), Ok(Class::Cpu));
        let gpu =
            |preset: &str, devices: &[Class]| class(&format!(r#","class":"gpu","preset":"{preset}""#), devices).unwrap_err();
        assert!(gpu("narrowband-h265", &both).contains("calibrated for software encoders"));
        assert!(gpu("av1", &both).contains("names no encoder of a device"));
        assert!(gpu("h264", &[]).contains("[devices] classes is empty"));
        let face = r#","set":{"video.interest":[{"x":0,"y":0,"width":0.5,"height":1,"qp_offset":-4}]}"#;
        assert_eq!(class(face, &both), Ok(Class::Cpu), "devices are told no regions");
        assert!(class(&format!(r#"{face},"class":"gpu""#), &both).unwrap_err().contains("video.interest"));
        let first = Accepted::new(job(""), source()).unwrap();
        assert!(first.clone().on(&both).unwrap().is_same(&first), "devices come and go; the job is the same");
    }

    #[test]
    fn a_wrong_preset_is_named_by_the_field_of_the_job() {
        let path = |more: &str| Accepted::new(job(more), source()).unwrap_err().path;
        assert_eq!(path(r#","preset":"h266""#), "preset");
        assert_eq!(path(r#","set":{"packaging.segments":6}"#), "set.packaging.segments");
    }
}
