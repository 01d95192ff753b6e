//! The way into the jail, child side: [`enter`], one function from top to bottom, one error per step.
//!
//! | step | what | error |
//! | --- | --- | --- |
//! | 0 | the parent started this process in a process group of its own, environment cleared, folder = scratch | |
//! | 1 | one thread only: the steps below bind the caller and whom it starts, not its siblings | `Threads` |
//! | 2 | every descriptor but 0, 1, 2 and the inputs is closed (`close_range`, Linux 5.9) | `Descriptors` |
//! | 3 | no new privileges by exec | `NoNewPrivileges` |
//! | 4 | no file but the scratch folder: Landlock, or the scratch folder as the root | `Landlock` |
//! | 5 | all capabilities are dropped | `Capabilities` |
//! | 6 | SIGKILL when the parent dies, and it is still the one that made the socket | `ParentDeath`, `Orphan` |
//! | 7 | not dumpable: no core, no ptrace, `/proc/self` is root's | `Dumpable` |
//! | 8 | resource limits: memory, file size, CPU time, descriptors, core, locked memory | `ResourceLimit` |
//! | 9 | system-call filter (`filter.rs`) | `Filter` |
//! | 10 | what stands is at least what the order asks for | `TooWeak` |
//!
//! **What Landlock covers.** All file-system access rights, TCP bind and connect, signals and abstract unix sockets out of
//! the jail, each as far as the running kernel has it: the filter of step 9 already forbids what the later ABIs add.
//! Beside scratch, the numbers of processors and memory nodes in `/sys` can be read: x265 asks for them.
//! Landlock does not cover `stat`: that a file elsewhere exists, and its size, can be seen; its content cannot.
//!
//! **A child that encodes on a device**, which only a worker has whose settings name one, may open that device's files, and
//! read the driver's libraries and the facts about it in `/sys` and `/proc`; its filter lets it talk to the device (`ioctl`),
//! map what is executable. Of NVIDIA's the memory limit counts what
//! can be written, for its driver reserves more addresses than any limit. That is more than other children may, and a driver is a large thing to let
//! hostile media near: only the encoder is on the device, all decoding stays in software. Without Landlock such a child
//! reaches level `Limits` alone.
//!
//! **Without Landlock** a system-call filter cannot tell one file name from another, so the scratch folder becomes the
//! root (`chroot`, as root or in a user namespace of one's own). The capability to leave it is dropped in step 5, no
//! descriptor of a folder outside is open, and the filter kills `chroot`, `fchdir` and `open_by_handle_at`. That is level
//! `Seccomp`. Where not even that can be had, the filter is laid all the same, but names outside scratch can be opened, so
//! the level is called what it is worth: `Limits`. (Level `Seccomp` hides `/sys` too: there x265 must be told `pools=none`
//! and `wpp` must be pinned off, or its streams differ from those of a worker with Landlock.)

use super::filter::{self, FilterError};
use super::protocol::{Access, JailLevel, Limits, Order};
use crate::job::Class;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd;
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};

/// The newest Landlock ABI this jail knows; older kernels enforce what they have of it.
const LANDLOCK_ABI: ABI = ABI::V9;
/// Read-only beside scratch: how many processors and memory nodes there are. Without it x265 3.5 makes no thread pool and
/// turns wpp off, which changes the stream.
const TOPOLOGY: [&str; 2] = ["/sys/devices/system/cpu", "/sys/devices/system/node"];
/// Read-only, for a child that encodes on a device: the driver's libraries, which are loaded when the encoder is opened, and
/// what they read of the device.
const DRIVER_FOLDERS: [&str; 8] =
    ["/lib", "/usr/lib", "/usr/share", "/proc/driver/nvidia", "/proc/self", "/sys/bus/pci", "/sys/dev/char", "/sys/devices"];
const DRIVER_FACTS: [&str; 5] =
    ["/etc/ld.so.cache", "/proc/devices", "/proc/modules", "/proc/cpuinfo", "/proc/sys/vm/mmap_min_addr"];
/// A child that encodes on a device names its threads here, and NVIDIA's driver 580 gives up where it cannot. All there is of
/// this process alone.
const OWN_THREADS: &str = "/proc/self/task";
/// What counts as a child's memory where the driver reserves far more addresses than it will ever use, as NVIDIA's does:
/// what can be written.
const RESERVING_MEMORY: Resource = Resource::RLIMIT_DATA;
/// Descriptors a child may hold; `RLIMIT_NOFILE`.
const MAX_DESCRIPTORS: u64 = 64;
/// Seconds from SIGXCPU, which names the cause, to the SIGKILL that nothing can catch.
const CPU_GRACE_S: u64 = 5;

/// Where the child stands after [`enter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jailed {
    pub level: JailLevel,
    /// The scratch folder by the name it has in the jail.
    pub scratch: PathBuf,
}

/// The step that failed. The process is not fit for work after any of them.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("the jail must be entered by a single thread, and there are {0}")]
    Threads(usize),
    #[error("inherited descriptors cannot be closed: {0}")]
    Descriptors(Errno),
    #[error("no_new_privs cannot be set: {0}")]
    NoNewPrivileges(Errno),
    #[error("the Landlock rules cannot be laid: {0}")]
    Landlock(String),
    #[error("capabilities cannot be dropped: {0}")]
    Capabilities(Errno),
    #[error("the parent's death cannot be tied to this process: {0}")]
    ParentDeath(Errno),
    #[error("the parent is gone already")]
    Orphan,
    #[error("the process cannot be made undumpable: {0}")]
    Dumpable(Errno),
    #[error("the limit {0:?} cannot be set: {1}")]
    ResourceLimit(Resource, Errno),
    #[error("{0}")]
    Filter(FilterError),
    #[error(
        "the tightest jail of this machine is {held:?}, and {wanted:?} is asked for; set a lower minimum or use a kernel with Landlock and seccomp"
    )]
    TooWeak { held: JailLevel, wanted: JailLevel },
}

/// What keeps file names inside scratch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fence {
    Landlock,
    Root,
    None,
}

/// Enters the jail, as tight as the kernel allows. There is no way back.
///
/// # Errors
/// The step that failed, or a jail weaker than `order.minimum_jail`.
pub fn enter(order: &Order) -> Result<Jailed, JailError> {
    // 1
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(JailError::Threads(threads));
    }
    // 2
    let inputs = order.inputs.iter().filter_map(|input| match input.access {
        Access::Fd(descriptor) => Some(descriptor),
        Access::Ranges => None,
    });
    close_all_but(inputs.collect()).map_err(JailError::Descriptors)?;
    // 3
    prctl::set_no_new_privs().map_err(JailError::NoNewPrivileges)?;
    // 4
    let mut scratch = PathBuf::from(&order.scratch);
    let device = order.task.device().filter(|device| !device.files.is_empty());
    let devices = device.map_or(&[][..], |device| device.files.as_slice());
    let fence = fence(&scratch, devices).map_err(JailError::Landlock)?;
    if fence == Fence::Root {
        scratch = PathBuf::from("/");
    }
    // 5
    drop_capabilities().map_err(JailError::Capabilities)?;
    // 6
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(JailError::ParentDeath)?;
    let peer = getsockopt(&std::io::stdin().as_fd(), PeerCredentials).map_err(JailError::ParentDeath)?;
    if peer.pid() != unistd::getppid().as_raw() {
        return Err(JailError::Orphan);
    }
    // 7
    prctl::set_dumpable(false).map_err(JailError::Dumpable)?;
    // 8
    let memory = if device.is_some_and(|device| device.class == Class::Nvenc) { RESERVING_MEMORY } else { Resource::RLIMIT_AS };
    for (resource, soft, hard) in resource_limits(&order.limits, memory) {
        limit(resource, soft, hard).map_err(|error| JailError::ResourceLimit(resource, error))?;
    }
    // 9
    let filtered = match filter::install(!devices.is_empty()) {
        Ok(()) => true,
        Err(_) if order.minimum_jail == JailLevel::Limits => false,
        Err(error) => return Err(JailError::Filter(error)),
    };
    // 10
    let level = match (fence, filtered) {
        (Fence::Landlock, true) => JailLevel::Full,
        (Fence::Root, true) => JailLevel::Seccomp,
        _ => JailLevel::Limits,
    };
    if level < order.minimum_jail {
        return Err(JailError::TooWeak { held: level, wanted: order.minimum_jail });
    }
    Ok(Jailed { level, scratch })
}

/// Closes every descriptor from 3 up that is not in `keep`.
fn close_all_but(mut keep: Vec<RawFd>) -> Result<(), Errno> {
    keep.sort_unstable();
    let mut first = 3_u32;
    for kept in keep.into_iter().filter_map(|descriptor| u32::try_from(descriptor).ok()).filter(|kept| *kept >= 3) {
        if kept > first {
            close_range(first, kept - 1)?;
        }
        first = kept + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: three integers; the caller owns no descriptor in the range, as its process has just begun.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Keeps file names inside `scratch` by the best means there is.
fn fence(scratch: &Path, devices: &[String]) -> Result<Fence, String> {
    let laid = landlock(scratch, devices).map_err(|error| error.to_string())?;
    if laid.ruleset != RulesetStatus::NotEnforced {
        return Ok(Fence::Landlock);
    }
    // Below another root there is no driver.
    Ok(if devices.is_empty() && change_root(scratch).is_ok() { Fence::Root } else { Fence::None })
}

fn landlock(scratch: &Path, devices: &[String]) -> Result<RestrictionStatus, Box<dyn std::error::Error>> {
    let all = AccessFs::from_all(LANDLOCK_ABI);
    // Files and folders, and nothing that is run, listens or stands for a device.
    let special = AccessFs::Execute
        | AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeFifo
        | AccessFs::MakeSock
        | AccessFs::MakeSym
        | AccessFs::IoctlDev
        | AccessFs::ResolveUnix;
    let topology = TOPOLOGY.iter().filter_map(|folder| PathFd::new(folder).ok());
    let readable = AccessFs::ReadFile | AccessFs::ReadDir;
    let of_driver = |paths: &'static [&'static str]| {
        let wanted = if devices.is_empty() { &[][..] } else { paths };
        wanted.iter().filter_map(|path| PathFd::new(path).ok())
    };
    let (drivers, facts) = (of_driver(&DRIVER_FOLDERS), of_driver(&DRIVER_FACTS));
    let named = PathFd::new(OWN_THREADS).ok().filter(|_| !devices.is_empty());
    let usable = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let devices = devices.iter().filter_map(|file| PathFd::new(file).ok());
    let status =
        Ruleset::default()
            .handle_access(all)?
            .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
            .scope(Scope::from_all(LANDLOCK_ABI))?
            .create()?
            .add_rule(PathBeneath::new(PathFd::new(scratch)?, all & !special))?
            .add_rules(topology.map(|folder| Ok::<_, RulesetError>(PathBeneath::new(folder, readable))))?
            .add_rules(drivers.map(|folder| Ok::<_, RulesetError>(PathBeneath::new(folder, readable | AccessFs::Execute))))?
            .add_rules(named.into_iter().map(|tasks| {
                Ok::<_, RulesetError>(PathBeneath::new(tasks, readable | AccessFs::WriteFile | AccessFs::Truncate))
            }))?
            .add_rules(facts.map(|file| Ok::<_, RulesetError>(PathBeneath::new(file, AccessFs::ReadFile))))?
            .add_rules(devices.map(|file| Ok::<_, RulesetError>(PathBeneath::new(file, usable))))?
            .restrict_self()?;
    Ok(status)
}

/// Makes `scratch` the root; a user namespace lends the right to do so where the process does not have it.
fn change_root(scratch: &Path) -> Result<(), Errno> {
    if unistd::chroot(scratch).is_err() {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        unistd::chroot(scratch)?;
    }
    unistd::chdir("/")
}

/// Empties the permitted, effective and inheritable sets (capset(2)); the kernel then empties the ambient set.
fn drop_capabilities() -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    // _LINUX_CAPABILITY_VERSION_3 of linux/capability.h: two rounds of three 32-bit sets.
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [[0_u32; 3]; 2];
    // SAFETY: both pointers are to live values of the layout that version 3 asks for; the kernel only reads the sets.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(drop)
}

/// Each limit with its soft and hard value.
fn resource_limits(limits: &Limits, memory: Resource) -> [(Resource, u64, u64); 6] {
    [
        (memory, limits.memory_bytes, limits.memory_bytes),
        (Resource::RLIMIT_FSIZE, limits.scratch_bytes, limits.scratch_bytes),
        (Resource::RLIMIT_CPU, limits.cpu_s, limits.cpu_s.saturating_add(CPU_GRACE_S)),
        (Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS, MAX_DESCRIPTORS),
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_MEMLOCK, 0, 0),
    ]
}

/// Lowers a limit; one that is lower already stays.
fn limit(resource: Resource, soft: u64, hard: u64) -> Result<(), Errno> {
    let (_, ceiling) = getrlimit(resource)?;
    setrlimit(resource, soft.min(ceiling), hard.min(ceiling))
}
