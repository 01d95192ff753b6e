//! This machine: FFmpeg's libraries, the jail, the encoders in it, the space for scratch folders.
//!
//! Nothing is taken on trust: a tiny picture goes through the real jailed child, as the parts of a job do.

use super::finding::Finding;
use crate::cli::rows::size;
use crate::cli::scratch::Scratch;
use crate::media::libraries::{has_encoder, libraries, release};
use crate::part::JailedChildren;
use crate::part::golden::{self, Proof};
use crate::sandbox::protocol::{Device, JailLevel, Limits, RefusalReason, Report, Task};
use crate::sandbox::{Finished, InputSource, Outcome, Sandbox};
use crate::worker::DeviceSettings;
use nix::sys::statvfs::statvfs;
use std::fs::{self, File};
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest time of a child that works on a few tiny pictures.
const PATIENCE: Duration = Duration::from_secs(30);
/// Free bytes that a scratch folder should have for every child that may run at once: the largest chunk, twenty seconds of
/// a whole ladder, stays well under it.
const LEAST_SCRATCH_BYTES_A_SLOT: u64 = 1_000_000_000;

/// FFmpeg's libraries: one line, or one for each that does not fit.
pub(super) fn library_findings() -> Vec<Finding> {
    let all = libraries();
    let version = |numbers: [u32; 3]| numbers.map(|n| n.to_string()).join(".");
    let unfit = all.iter().filter(|library| !library.fits()).map(|library| {
        let found = format!("{} is loaded, but this program was built for {}", version(library.loaded), version(library.built));
        Finding::wrong(library.name, found, "install the FFmpeg it was built with, or build narrows on this machine (make build)")
    });
    let unfit: Vec<Finding> = unfit.collect();
    if !unfit.is_empty() {
        return unfit;
    }
    let versions: Vec<String> = all.iter().map(|library| format!("{} {}", library.name, version(library.loaded))).collect();
    vec![Finding::ok("libraries", format!("FFmpeg {}: {}", release(), versions.join(", ")))]
}

/// Free space where the children's folders are to be.
pub(super) fn scratch_finding(folder: &Path, slots: usize) -> Finding {
    const CHECK: &str = "scratch";
    let name = folder.display();
    // A folder that is not there yet will be on the file system of the nearest one that is.
    let there = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let space = match statvfs(there) {
        Ok(space) => space,
        Err(errno) => return Finding::wrong(CHECK, format!("{name}: {errno}"), "name a folder that this user can reach"),
    };
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    let wanted = LEAST_SCRATCH_BYTES_A_SLOT.saturating_mul(slots as u64);
    let found = format!("{name}: {} free, {} wanted for {slots} slots", size(free), size(wanted));
    if let Err(error) = Scratch::new(there, "space") {
        return Finding::wrong(CHECK, format!("{name}: cannot be written: {error}"), "give this user the right to write there");
    }
    if free < wanted {
        return Finding::wrong(CHECK, found, "free space, choose another file system, or set fewer worker.slots");
    }
    Finding::ok(CHECK, found)
}

/// Makes the children that are looked at.
pub(super) struct Bench {
    sandbox: Sandbox,
    limits: Limits,
    home: Scratch,
}

impl Bench {
    /// A folder of its own with the test pictures in it.
    ///
    /// # Errors
    /// It cannot be made in `scratch`.
    pub fn new(sandbox: Sandbox, limits: Limits, scratch: &Path) -> io::Result<Self> {
        let sandbox = Sandbox { deadline: PATIENCE, stall: PATIENCE, ..sandbox };
        let bench = Self { sandbox, limits, home: Scratch::new(scratch, "doctor")? };
        fs::write(bench.source(), golden::pictures())?;
        Ok(bench)
    }

    fn source(&self) -> PathBuf {
        self.home.path().join("source.y4m")
    }

    async fn run(&self, task: Task) -> Result<Finished, String> {
        let scratch = self.home.path().join(task.kind());
        let made = fs::create_dir_all(&scratch).and_then(|()| File::open(self.source()));
        let source = made.map_err(|e| e.to_string())?;
        let inputs = vec![InputSource::File(Arc::new(source))];
        Ok(self.sandbox.run(task, inputs, self.limits.clone(), &scratch, &mut |_| {}, pending()).await)
    }

    /// Has a child look at the pictures: how tight its jail is, and whether it saw them.
    pub async fn jail(&self) -> (Finding, bool) {
        const CHECK: &str = "jail";
        let finished = match self.run(Task::Probe).await {
            Ok(finished) => finished,
            Err(why) => return (Finding::wrong(CHECK, why, "make the scratch folder writable"), false),
        };
        let level = finished.jail;
        match (finished.outcome, level) {
            (Outcome::Done(report), Some(level)) => match *report {
                Report::Probe(_) => (Finding::ok(CHECK, in_words(level)), true),
                _ => (Finding::wrong(CHECK, "the child gave another report than it was asked for", REPORT_IT), false),
            },
            (Outcome::Refused(refusal), None) if refusal.reason == RefusalReason::Jail => {
                let fix = "let containers use Landlock and seccomp (Linux 5.13 or later), or lower sandbox.minimum_jail";
                (Finding::wrong(CHECK, refusal.message, fix), false)
            }
            (outcome, _) => {
                let last_words = finished.stderr_tail.trim().replace('\n', " ");
                (Finding::wrong(CHECK, format!("a child ended unhappily: {outcome}. {last_words}"), REPORT_IT), false)
            }
        }
    }

    /// Has children encode the self-test's clip with each software encoder, and on each device.
    pub async fn encoders(&self, devices: &[DeviceSettings]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, library, preset) in golden::SOFTWARE {
            let missing = format!("install an FFmpeg that was built with {library}, such as Debian's");
            findings.push(self.encoder(format!("encoder {name}"), preset, None, &missing).await);
        }
        for settings in devices {
            let device = settings.as_told();
            for preset in golden::ON_DEVICES {
                let check = format!("encoder {} on {device}", golden::encoder_of(preset, Some(device.class)));
                findings.push(self.encoder(check, preset, Some(&device), DEVICE_FIX).await);
            }
        }
        findings
    }

    async fn encoder(&self, check: String, preset: &str, device: Option<&Device>, missing: &str) -> Finding {
        let children = JailedChildren(self.sandbox.clone());
        let bench = golden::Bench { children: &children, limits: &self.limits, folder: self.home.path() };
        match bench.prove(preset, device).await {
            Ok(Proof { encoder, score, wall }) => {
                let took = wall.as_secs_f64();
                let frames = golden::FRAMES;
                Finding::ok(check, format!("{encoder}, {frames} frames in the jail in {took:.2} s, VMAF-NEG {score:.1}"))
            }
            Err(unproved) if device.is_some() || !has_encoder(&unproved.encoder) => {
                Finding::wrong(check, unproved.to_string(), missing)
            }
            Err(unproved) => Finding::wrong(check, unproved.to_string(), REPORT_IT),
        }
    }
}

/// What may be wrong with a device.
const DEVICE_FIX: &str = "install the driver, give this user the right to its files, or take the device out of [[worker.devices]]; \
     cards for computing alone, such as NVIDIA's A100, H100 and H200, have no encoder";
const REPORT_IT: &str = "report it with this line, NARROWS_LOG__LEVEL=debug and the version of this machine's kernel";

fn in_words(level: JailLevel) -> &'static str {
    match level {
        JailLevel::Full => "full: Landlock and the system-call filter",
        JailLevel::Seccomp => "seccomp: the system-call filter, with the scratch folder as root; this kernel has no Landlock",
        JailLevel::Limits => "limits only: a child can open what this user can; the configuration allows it",
    }
}
