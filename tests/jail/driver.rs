//! What the jail of a child with a device lets a driver do, and what it still does not.
//!
//! The calls are those of NVIDIA's driver 580, traced on an H200 as it loads, starts CUDA and opens NVENC; it gives up where one
//! of the first group fails. The device here is `/dev/null`.

use crate::bench::{Bench, Test, assert_denied, assert_done};
use narrows::sandbox::protocol::Task;
use narrows::sandbox::{Finished, Outcome};
use std::io;
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    ("a_driver_may_do_what_it_gives_up_without", || assert_done(&run("as-a-driver"), 9)),
    ("a_driver_is_refused_what_it_does_without", || assert_done(&run("as-a-curious-driver"), 5)),
    ("a_driver_has_no_network", || assert_denied(&run("socket"), libc::EPERM)),
    ("a_driver_cannot_send_signals_by_a_descriptor", || assert_violation("own-a-descriptor")),
    ("a_driver_cannot_send", || assert_violation("send")),
    ("a_driver_cannot_exec", || assert_violation("exec")),
    ("a_driver_reads_no_file_of_the_machine", || assert_denied(&run("read-passwd"), libc::EACCES)),
    ("a_driver_writes_nothing_outside", || assert_denied(&run("write /usr/lib/escaped"), libc::EACCES)),
];

/// Runs `deed` in the tightest jail that lets a child to a device.
fn run(deed: &str) -> Finished {
    Bench::new().run_task(task(deed))
}

#[track_caller]
fn assert_violation(deed: &str) {
    let finished = run(deed);
    assert!(matches!(finished.outcome, Outcome::Violation), "{}", finished.outcome);
}

/// A task with a device, whose path says what is to be tried.
fn task(deed: &str) -> Task {
    let chunk = serde_json::json!({
        "index": 0, "start": null, "end": null, "first_segment": 0, "segments": [], "keyframe": 0,
    });
    let device = serde_json::json!({ "class": "nvenc", "path": deed, "files": ["/dev/null"], "stand_in": false, "fails": false });
    let encode = serde_json::json!({
        "stream": 0, "source_base": [1, 25], "origin": 0, "clean_clock": false, "timescale": 25, "ticks_per_tick": 1,
        "reorder_delay": 0, "frame_duration": 1, "frame_rate": [25, 1], "chunk": chunk, "keyframes": [],
        "filters": { "rotation": 0, "deinterlace": "off", "tone_map": false, "pad_to_even": false },
        "rungs": [], "threads": 1, "device": device,
    });
    Task::Encode(serde_json::from_value(encode).unwrap())
}

type Answer = (&'static str, bool);

/// How many there are, when all are as they should be.
///
/// # Errors
/// Names the first that is not.
fn all(answers: &[Answer]) -> Result<u64, io::Error> {
    match answers.iter().find(|(_, as_it_should)| !as_it_should) {
        Some((name, _)) => Err(io::Error::other(format!("another answer to {name}: {}", io::Error::last_os_error()))),
        None => Ok(answers.len() as u64),
    }
}

/// An abstract address, as the driver binds one: a zero byte and a name.
fn address() -> libc::sockaddr_un {
    // SAFETY: zeroes are a value of it.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = u16::try_from(libc::AF_UNIX).unwrap();
    let name = format!("narrows-jail-{}", std::process::id());
    for (to, from) in address.sun_path[1..].iter_mut().zip(name.bytes()) {
        *to = i8::try_from(from).unwrap() as libc::c_char;
    }
    address
}

pub fn as_a_driver() -> Result<u64, io::Error> {
    let (address, mut pipe) = (address(), [0; 2]);
    let bytes = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    let process = std::process::id();
    // SAFETY: the pointers are to values that outlive the calls, and nobody else uses the descriptors.
    unsafe {
        let event = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        all(&[
            ("eventfd2", event >= 0),
            ("F_SETFL", libc::fcntl(event, libc::F_SETFL, libc::O_NONBLOCK) == 0),
            ("pipe2", libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) == 0),
            ("dup", libc::dup(event) >= 0),
            ("a thread's name", std::fs::write(format!("/proc/self/task/{process}/comm"), "cuda").is_ok()),
            ("socket", socket >= 0),
            ("bind", libc::bind(socket, (&raw const address).cast(), bytes) == 0),
            ("listen", libc::listen(socket, 1) == 0),
            ("setpriority", libc::setpriority(libc::PRIO_PROCESS, process, 0) == 0),
        ])
    }
}

pub fn as_a_curious_driver() -> Result<u64, io::Error> {
    let address = address();
    let bytes = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    let refused = |answer: i32| answer == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
    // SAFETY: as above.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0);
        all(&[
            ("connect", refused(libc::connect(socket, (&raw const address).cast(), bytes))),
            ("accept", refused(libc::accept4(socket, std::ptr::null_mut(), std::ptr::null_mut(), 0))),
            ("setsockopt", refused(libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_PASSCRED, std::ptr::null(), 0))),
            ("symlink", refused(libc::symlink(c"/etc".as_ptr(), c"etc".as_ptr()))),
            ("memfd_create", refused(libc::memfd_create(c"code".as_ptr(), 0))),
        ])
    }
}

/// Signals to whoever it says, when its descriptor becomes ready.
pub fn own_a_descriptor() -> Result<u64, io::Error> {
    let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
    // SAFETY: integers alone.
    unsafe { libc::fcntl(io::stdin().as_raw_fd(), libc::F_SETOWN, parent) };
    Ok(0)
}

pub fn send() -> Result<u64, io::Error> {
    let address = address();
    let bytes = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    // SAFETY: the pointers are to values that outlive the call.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0);
        libc::sendto(socket, c"out".as_ptr().cast(), 3, 0, (&raw const address).cast(), bytes);
    }
    Ok(0)
}
