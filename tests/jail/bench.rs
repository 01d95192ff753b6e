//! One child, tried out.

use narrows::sandbox::protocol::{JailLevel, Limits, Refusal, RefusalReason, RemuxTask, Report, Task};
use narrows::sandbox::{Finished, InputSource, Outcome, Sandbox, SandboxSettings};
use std::future::{Future, pending};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Name, and the guarantee itself.
pub type Test = (&'static str, fn());

pub const MIB: u64 = 1024 * 1024;

/// A sandbox, limits and inputs to change before the run.
pub struct Bench {
    pub sandbox: Sandbox,
    pub limits: Limits,
    pub inputs: Vec<InputSource>,
    /// Holds the scratch folder `scratch`, and what stands outside it.
    pub home: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("scratch")).unwrap();
        let sandbox = Sandbox {
            program: std::env::current_exe().unwrap(),
            deadline: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            kill_grace: Duration::from_millis(200),
            ..Sandbox::from(&SandboxSettings::default())
        };
        let limits = Limits {
            max_pixels: 1,
            max_streams: 1,
            max_duration_s: 1,
            max_frames: 1,
            memory_bytes: 1024 * MIB,
            scratch_bytes: 64 * MIB,
            cpu_s: 60,
        };
        Bench { sandbox, limits, inputs: Vec::new(), home }
    }

    /// Runs the program as another kind of child.
    pub fn started_as(mut self, kind: &str) -> Self {
        self.sandbox.args = vec![kind.to_string()];
        self
    }

    pub fn scratch(&self) -> std::path::PathBuf {
        self.home.path().join("scratch")
    }

    /// Runs `deed` to its end; asserts that nothing of its group is left and that the jail was the tightest.
    pub fn run(&self, deed: &str) -> Finished {
        self.run_task(task(deed))
    }

    pub fn run_task(&self, task: Task) -> Finished {
        self.end_of(task, &mut |_| {}, pending())
    }

    pub fn run_until(
        &self,
        deed: &str,
        on_progress: &mut (dyn FnMut(u64) + Send),
        stop: impl Future<Output = ()> + Send,
    ) -> Finished {
        self.end_of(task(deed), on_progress, stop)
    }

    fn end_of(&self, task: Task, on_progress: &mut (dyn FnMut(u64) + Send), stop: impl Future<Output = ()> + Send) -> Finished {
        let finished = runtime().block_on(self.start_task(task, on_progress, stop));
        let pid = finished.pid.unwrap_or_else(|| panic!("no child: {}", finished.outcome));
        assert_group_is_gone(pid);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the child is reaped");
        finished
    }

    pub fn start<'a>(
        &'a self,
        deed: &str,
        on_progress: &'a mut (dyn FnMut(u64) + Send),
        stop: impl Future<Output = ()> + Send + 'a,
    ) -> impl Future<Output = Finished> + Send + 'a {
        self.start_task(task(deed), on_progress, stop)
    }

    fn start_task<'a>(
        &'a self,
        task: Task,
        on_progress: &'a mut (dyn FnMut(u64) + Send),
        stop: impl Future<Output = ()> + Send + 'a,
    ) -> impl Future<Output = Finished> + Send + 'a {
        let (inputs, limits, scratch) = (self.inputs.clone(), self.limits.clone(), self.scratch());
        async move { self.sandbox.run(task, inputs, limits, &scratch, on_progress, stop).await }
    }
}

pub fn task(deed: &str) -> Task {
    Task::Remux(RemuxTask { file: deed.to_string() })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs `deed` in an untouched bench in the tightest jail.
pub fn run(deed: &str) -> Finished {
    let finished = Bench::new().run(deed);
    assert_eq!(finished.jail, Some(JailLevel::Full), "{}: {}", finished.outcome, finished.stderr_tail);
    finished
}

/// The child did what it was told, and says how many packets that was.
#[track_caller]
pub fn assert_done(finished: &Finished, expected: u64) {
    match &finished.outcome {
        Outcome::Done(report) => match &**report {
            Report::Remux(report) => assert_eq!(report.packets, expected),
            other => panic!("another report: {other:?}"),
        },
        other => panic!("not done: {other} ({})", finished.stderr_tail),
    }
}

/// The child tried, the jail said no with this error, and the child said so.
#[track_caller]
pub fn assert_denied(finished: &Finished, error: i32) {
    let denied = Refusal { reason: RefusalReason::Internal, message: std::io::Error::from_raw_os_error(error).to_string() };
    match &finished.outcome {
        Outcome::Refused(refusal) => assert_eq!(*refusal, denied),
        other => panic!("not denied: {other} ({})", finished.stderr_tail),
    }
}

/// Waits for the last process of the group to vanish: SIGKILL takes effect when the kernel gets to it.
#[track_caller]
pub fn assert_group_is_gone(group: u32) {
    assert_soon("a process of the group is left", || living_in_group(group).is_empty());
}

/// `holds` becomes true within bounded time.
#[track_caller]
pub fn assert_soon(otherwise: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{otherwise}");
        std::thread::yield_now();
    }
}

/// Processes of this group that are not zombies.
fn living_in_group(group: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| state_and_group(stat).is_some_and(|(state, of)| of == group && state != "Z")).collect()
}

/// Whether a process runs, zombies left out.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| state_and_group(&stat).is_some_and(|(state, _)| state != "Z"))
}

/// Fields 3 and 5 of proc_pid_stat(5), counted after the name, which may hold anything.
fn state_and_group(stat: &str) -> Option<(&str, u32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}
