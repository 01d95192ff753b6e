//! The devices of a worker: proved before they are used, left alone after a failure, and proved again.
//!
//! Each device has a taker of its own, which takes chunks of its class alone, as many at once as it has sessions. A chunk that
//! fails there for a reason that may be the device's ends that: nothing further is taken, and after a wait, longer with every
//! failure, the self-test says whether the device is used again. The rest of the worker takes no notice.

use super::intake::{Taken, Taker};
use crate::broker::{BrokerError, Intake};
use crate::job::Class;
use crate::part::class::DeviceRules;
use crate::part::golden::{self, Bench, Proof, Unproved};
use crate::part::{self, Tools};
use crate::sandbox::protocol;
use crate::shutdown::Stop;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::{mpsc, watch};

/// Most encodes at once on one device: drivers of consumer cards allow fewer, no card does more at a useful speed.
pub const MOST_SESSIONS: usize = 64;

/// What NVIDIA's driver opens for any of its devices.
const NVIDIA_COMMON: [&str; 3] = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];
/// What is opened, and not found, where there is no render node.
const FIRST_RENDER_NODE: &str = "/dev/dri/renderD128";

/// One of `[[worker.devices]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSettings {
    pub class: Class,
    /// NVENC: the device's number. VA-API and QSV: its render node, `/dev/dri/renderD128`. Left out: the first there is.
    #[serde(default)]
    pub path: Option<String>,
    /// Encodes at once.
    pub sessions: usize,
    /// There is no such device: the preset's software encoder takes its place, to try a fleet without one.
    #[serde(default)]
    pub stand_in: Option<StandIn>,
}

/// What takes the place of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandIn {
    /// It fails, as a device would, for as long as there is this file.
    #[serde(default)]
    pub fails_while: Option<PathBuf>,
}

impl DeviceSettings {
    /// As a child is told of it now.
    pub fn as_told(&self) -> protocol::Device {
        let (class, is_stand_in) = (self.class, self.stand_in.is_some());
        let fails = self.stand_in.as_ref().and_then(|stand_in| stand_in.fails_while.as_ref()).is_some_and(|file| file.exists());
        let (path, files) = match class {
            _ if is_stand_in => (String::new(), Vec::new()),
            Class::Cpu => (String::new(), Vec::new()),
            // A container sees its card as number 0, by whatever name its file has.
            Class::Nvenc => (self.path.clone().unwrap_or_else(|| "0".into()), nvidia_files()),
            Class::Vaapi | Class::Qsv => {
                let path = self.path.clone().or_else(first_render_node).unwrap_or_else(|| FIRST_RENDER_NODE.into());
                (path.clone(), vec![path])
            }
        };
        protocol::Device { class, path, files, stand_in: is_stand_in, fails }
    }

    /// # Errors
    /// The field, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=MOST_SESSIONS).contains(&self.sessions) {
            return Err(("sessions", format!("is {}; allowed are 1 to {MOST_SESSIONS}", self.sessions)));
        }
        let reason = match self.class {
            Class::Cpu => {
                return Err(("class", "is cpu, which is no device: worker.slots says how much is encoded in software".into()));
            }
            _ if self.stand_in.is_some() => return Ok(()),
            Class::Nvenc if self.path.as_ref().is_some_and(|path| path.parse::<u8>().is_err()) => {
                "is the number of the device, such as \"0\""
            }
            Class::Vaapi | Class::Qsv if self.path.as_ref().is_some_and(|path| !is_render_node(path)) => {
                "is a render node, such as \"/dev/dri/renderD128\""
            }
            _ => return Ok(()),
        };
        Err(("path", reason.into()))
    }
}

/// Children are let to that file: it must be nothing else.
fn is_render_node(path: &str) -> bool {
    let number = path.strip_prefix("/dev/dri/renderD");
    number.is_some_and(|number| !number.is_empty() && number.len() <= 3 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The files of NVIDIA's driver: what it opens for any device, and the devices.
fn nvidia_files() -> Vec<String> {
    let is_device =
        |name: &str| name.strip_prefix("nvidia").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let devices = names_in("/dev").into_iter().filter(|name| is_device(name)).map(|name| format!("/dev/{name}"));
    NVIDIA_COMMON.into_iter().map(String::from).chain(devices).collect()
}

fn first_render_node() -> Option<String> {
    let nodes = names_in("/dev/dri").into_iter().map(|name| format!("/dev/dri/{name}"));
    nodes.filter(|path| is_render_node(path)).min()
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// One device, and how it fares.
pub(super) struct Device {
    settings: DeviceSettings,
    /// A chunk failed on it since it was proved last.
    suspect: watch::Sender<bool>,
    /// How often it failed, a chunk or a self-test, since a chunk was encoded on it last.
    failures: AtomicU32,
}

impl Device {
    pub fn new(settings: DeviceSettings) -> Arc<Self> {
        Arc::new(Self { settings, suspect: watch::Sender::new(false), failures: AtomicU32::new(0) })
    }

    pub fn class(&self) -> Class {
        self.settings.class
    }

    pub fn sessions(&self) -> usize {
        self.settings.sessions
    }

    /// As a child is told of it.
    pub fn as_told(&self) -> protocol::Device {
        self.settings.as_told()
    }

    /// A chunk was encoded on it.
    pub fn worked(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// A chunk was not, and that may be its fault.
    pub fn failed(&self, why: &str) {
        if !self.suspect.send_replace(true) {
            tracing::warn!(device = %self.as_told(), why, "a device failed");
        }
    }

    async fn is_suspect(&self) {
        // The sender lives as long as this.
        let _ = self.suspect.subscribe().wait_for(|suspect| *suspect).await;
    }
}

/// Takes chunks for one device.
pub(super) struct DeviceTaker {
    pub device: Arc<Device>,
    pub taker: Taker,
    pub tools: Tools,
    pub rules: DeviceRules,
}

impl DeviceTaker {
    /// Takes deliveries while the device is well, until it is asked to stop.
    ///
    /// # Errors
    /// The broker refuses, and will go on to.
    pub async fn run(mut self, out: mpsc::Sender<Taken>, mut stop: Stop) -> Result<(), BrokerError> {
        let mut intake = tokio::select! {
            () = stop.requested() => return Ok(()),
            intake = self.taker.broker.intake() => intake?,
        };
        let result = tokio::select! {
            () = stop.requested() => Ok(()),
            result = self.use_for_ever(&mut *intake, &out) => result,
        };
        intake.pause().await;
        result
    }

    async fn use_for_ever(&mut self, intake: &mut dyn Intake, out: &mpsc::Sender<Taken>) -> Result<(), BrokerError> {
        let (device, observer) = (self.device.clone(), self.tools.observer.clone());
        let (class, name) = (device.class(), device.as_told().to_string());
        loop {
            if self.prove().await {
                device.suspect.send_replace(false);
                tracing::info!(device = name, sessions = device.sessions(), "a device is used");
                tokio::select! {
                    result = self.taker.take_for_ever(intake, out) => return result,
                    () = device.is_suspect() => {}
                }
                // What was on its way here is for others.
                intake.pause().await;
                observer.device_quarantined(class.name());
                golden::ON_DEVICES.iter().for_each(|preset| self.tell(&golden::encoder_of(preset, Some(class)), false));
            }
            let failures = device.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            let wait = self.rules.retest_after(failures);
            tracing::warn!(device = name, failures, ?wait, "a device is left alone, and tried again then");
            tokio::time::sleep(wait).await;
        }
    }

    fn tell(&self, encoder: &str, is_available: bool) {
        self.tools.observer.encoder(encoder, self.device.class().name(), is_available);
    }

    /// Does it encode what it must? One of its sessions is used up meanwhile.
    async fn prove(&self) -> bool {
        let _session = self.taker.slot().await;
        let told = self.device.as_told();
        let mut is_well = true;
        for preset in golden::ON_DEVICES {
            let proved = prove(&self.tools, preset, Some(&told)).await;
            self.tell(&golden::encoder_of(preset, Some(told.class)), proved.is_ok());
            is_well &= proved.is_ok();
        }
        is_well
    }
}

/// Looks which software encoders do what they should, and says so to whoever counts.
pub(super) async fn look_at_software(tools: Tools) {
    for (_, library, preset) in golden::SOFTWARE {
        let proved = prove(&tools, preset, None).await;
        tools.observer.encoder(library, Class::Cpu.name(), proved.is_ok());
    }
}

/// One self-test, in a scratch folder of its own. How it went is logged here.
async fn prove(tools: &Tools, preset: &str, device: Option<&protocol::Device>) -> Result<Proof, Unproved> {
    let unproved = |why: String| Unproved { encoder: golden::encoder_of(preset, device.map(|device| device.class)), why };
    let part::Settings { scratch, limits, .. } = &*tools.settings;
    let folder = scratch.child("golden").map_err(|e| unproved(e.to_string()));
    let proved = match &folder {
        Ok(folder) => Bench { children: &*tools.children, limits, folder: folder.path() }.prove(preset, device).await,
        Err(unproved) => Err(unproved.clone()),
    };
    let on = device.map_or("software".to_string(), ToString::to_string);
    match &proved {
        Ok(Proof { encoder, score, wall }) => tracing::info!(encoder, on, score, ?wall, "an encoder passed its self-test"),
        Err(Unproved { encoder, why }) => tracing::warn!(encoder, on, why, "an encoder failed its self-test"),
    }
    proved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Option<&'static str> {
        toml::from_str::<DeviceSettings>(text).unwrap().check().err().map(|(field, _)| field)
    }

    #[test]
    fn a_device_is_a_number_or_a_render_node_and_nothing_else_that_children_could_be_let_to() {
        assert_eq!(wrong("class = \"nvenc\"\npath = \"0\"\nsessions = 2"), None);
        assert_eq!(wrong("class = \"vaapi\"\npath = \"/dev/dri/renderD128\"\nsessions = 2"), None);
        assert_eq!(wrong("class = \"qsv\"\nsessions = 1\nstand_in = {}"), None);
        assert_eq!(wrong("class = \"qsv\"\nsessions = 1"), None, "the first there is");
        for path in ["/dev/sda", "/dev/dri/card0", "/dev/dri/renderD", "/dev/dri/renderD128/../../sda", "0"] {
            assert_eq!(wrong(&format!("class = \"vaapi\"\npath = \"{path}\"\nsessions = 2")), Some("path"), "{path}");
        }
        assert_eq!(wrong("class = \"nvenc\"\npath = \"/dev/nvidia0\"\nsessions = 2"), Some("path"));
        assert_eq!(wrong("class = \"nvenc\"\npath = \"0\"\nsessions = 0"), Some("sessions"));
        assert_eq!(wrong("class = \"cpu\"\nsessions = 1"), Some("class"));
        assert!(toml::from_str::<DeviceSettings>("class = \"nvenc\"\nsessions = 1\nstand_in = { fail = true }").is_err());
    }

    #[test]
    fn a_stand_in_fails_for_as_long_as_its_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fail");
        let stand_in = Some(StandIn { fails_while: Some(file.clone()) });
        let device = Device::new(DeviceSettings { class: Class::Nvenc, path: None, sessions: 1, stand_in });
        assert!(device.as_told().stand_in && !device.as_told().fails && device.as_told().files.is_empty());
        std::fs::write(&file, b"").unwrap();
        assert!(device.as_told().fails);
    }

    #[tokio::test]
    async fn a_device_on_which_a_chunk_failed_is_suspect_until_it_is_proved_again() {
        let device = Device::new(DeviceSettings { class: Class::Qsv, path: None, sessions: 1, stand_in: None });
        assert!(futures::FutureExt::now_or_never(device.is_suspect()).is_none());
        device.failed("gone");
        device.failed("still gone");
        device.is_suspect().await;
        device.failures.store(3, Ordering::Relaxed);
        device.worked();
        assert_eq!(device.failures.load(Ordering::Relaxed), 0);
    }
}
