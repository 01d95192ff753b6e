//! Processes that a test starts, and that never outlive it.
//!
//! A test that ends or panics drops its servers, and dropping ends them. A test that is killed drops nothing: for that
//! case every [`Home`] has a watcher, a shell that waits for the end of a pipe whose other end this process holds.
//! `PR_SET_PDEATHSIG` would not do: it fires when the thread that started the process ends, and tests share servers
//! across threads.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for a server to be up, or for a process to be gone.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest wait for what a killed process leaves behind to go by itself.
const AFTERLIFE: Duration = Duration::from_secs(5);
/// Servers listen below the ports that connections get by themselves (ip_local_port_range, 32768 and up): a port that
/// is free while its server is down stays free, and nobody who tries to connect to it connects to himself.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// Ends the groups it was told of, and removes the folder, when nobody holds the pipe any more.
const WATCHER: &str = r#"
pids=' '
while read -r verb pid; do
  case $verb in
    watch) pids="$pids$pid " ;;
    forget) pids="${pids%% $pid *} ${pids#* $pid }" ;;
  esac
done
for pid in $pids; do kill -s KILL -- "-$pid"; done
tries=5
while [ -e "$1" ] && [ $tries -gt 0 ]; do rm -rf -- "$1" || sleep 1; tries=$((tries - 1)); done
"#;

/// Looks again and again until there is something; nothing in time is a failed test.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until(PATIENCE, look).unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// Looks again and again until there is something, for so long.
pub fn until<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if begun.elapsed() >= within {
            return None;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// A loopback port on which nobody listens. Processes that ask at the same time begin at different places.
#[track_caller]
pub fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    let first = std::process::id().wrapping_mul(2_654_435_761) % count;
    for _ in 0..count {
        let step = ASKED.fetch_add(1, Ordering::Relaxed);
        let port = (PORTS.start + (first + step) % count) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}")
}

/// A temporary folder whose processes and files go when the test goes, however it goes.
#[derive(Clone)]
pub struct Home(Arc<Inner>);

struct Inner {
    folder: Option<tempfile::TempDir>,
    watcher: Mutex<(Child, Option<ChildStdin>)>,
}

impl Home {
    #[track_caller]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("narrows-test-").tempdir().expect("a temporary folder");
        let mut command = Command::new("sh");
        command.args(["-c", WATCHER, "watcher"]).arg(folder.path()).current_dir("/");
        // A group of its own: whoever ends the test's group must not end it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut watcher = command.spawn().expect("sh starts");
        let pipe = watcher.stdin.take();
        Self(Arc::new(Inner { folder: Some(folder), watcher: Mutex::new((watcher, pipe)) }))
    }

    pub fn path(&self) -> &Path {
        self.0.folder.as_ref().expect("the folder is there until the home is dropped").path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file and says where.
    #[track_caller]
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    fn tell(&self, verb: &str, pid: u32) {
        let mut watcher = self.0.watcher.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pipe = watcher.1.as_mut().expect("the pipe is open until the home is dropped");
        writeln!(pipe, "{verb} {pid}").expect("the watcher listens");
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What cannot be removed now the watcher removes.
        drop(self.folder.take());
        let watcher = self.watcher.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        watcher.1 = None;
        let _ = watcher.0.wait();
    }
}

/// A running program in a process group of its own. Dropped, it and what it started are killed.
pub struct Server {
    name: String,
    child: Child,
    home: Home,
    ended: Option<ExitStatus>,
}

impl Server {
    /// Starts it with no input; what it says goes to `<name>.log` in the home.
    #[track_caller]
    pub fn start(home: &Home, name: &str, command: &mut Command) -> Self {
        let path = home.join(&format!("{name}.log"));
        let open = || fs::File::options().create(true).append(true).open(&path).expect("the log can be written");
        command.process_group(0).stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap_or_else(|e| panic!("{name} does not start: {e}: {command:?}"));
        home.tell("watch", child.id());
        Self { name: name.into(), child, home: home.clone(), ended: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        let text = fs::read(self.home.join(&format!("{}.log", self.name))).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child can be asked for");
            if self.ended.is_some() {
                self.home.tell("forget", self.child.id());
            }
        }
        self.ended
    }

    /// To the process itself, and not to what it started.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // Not reaped yet, so the id is still its own.
            kill(Pid::from_raw(self.pid() as i32), signal).expect("the process is there");
        }
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, || self.ended())
    }

    /// SIGKILL to the process; what it started must go by itself. Says which of these did not, and ends them.
    pub fn kill(&mut self) -> Vec<u32> {
        if self.ended().is_some() {
            return Vec::new();
        }
        let family = descendants(self.pid());
        let group = Pid::from_raw(self.pid() as i32);
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait().map(|status| self.ended = Some(status));
        self.home.tell("forget", self.child.id());
        let left = |family: &BTreeMap<u32, u64>| -> Vec<u32> {
            family.iter().filter(|(pid, started)| started_at(**pid) == Some(**started)).map(|(pid, _)| *pid).collect()
        };
        if until(AFTERLIFE, || left(&family).is_empty().then_some(())).is_some() {
            return Vec::new();
        }
        let stayed = left(&family);
        for pid in &stayed {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
        stayed
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// State, parent and start time in clock ticks (fields 3, 4 and 22 of proc_pid_stat(5), after the name, which may hold
/// anything).
fn stat(pid: u32) -> Option<(String, u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.to_string(), fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// CPU seconds of a process itself, and of those of its children that it has reaped (fields 14 to 17; the kernel counts in
/// hundredths).
pub fn cpu_s(pid: u32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |n: usize| fields.get(n - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    ((ticks(14) + ticks(15)) / 100.0, (ticks(16) + ticks(17)) / 100.0)
}

/// When a process that is no zombie was started; with its id that names it for ever.
pub fn started_at(pid: u32) -> Option<u64> {
    stat(pid).filter(|(state, ..)| state != "Z" && state != "X").map(|(_, _, started)| started)
}

/// Every process there is.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Everything a process started and what that started, with the start times.
pub fn descendants(of: u32) -> BTreeMap<u32, u64> {
    let all: Vec<(u32, u32, u64)> =
        processes().into_iter().filter_map(|pid| stat(pid).map(|(_, parent, started)| (pid, parent, started))).collect();
    let mut found = BTreeMap::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        for (pid, _, started) in all.iter().filter(|(_, p, _)| *p == parent) {
            if found.insert(*pid, *started).is_none() {
                parents.push(*pid);
            }
        }
    }
    found
}
