//! The child's side of the tests: every deed it can be told to try.

use crate::driver;
use narrows::sandbox::child::{self, Parent};
use narrows::sandbox::protocol::{
    FromChild, KIND_BYTES, MAX_FRAME_BYTES, Order, Refusal, RefusalReason, RemuxReport, Report, Task, frame, message,
};
use std::ffi::CString;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

type Deed = Result<u64, io::Error>;

/// The child of this kind, run to its end; `None` for a test run.
pub fn child_of(kind: Option<&str>) -> Option<ExitCode> {
    match kind? {
        "child" => {}
        "child-with-grandchild" => leave_a_grandchild(false),
        "child-with-escaped-grandchild" => leave_a_grandchild(true),
        "child-without-landlock" => hide_landlock(),
        "child-without-jail" => {
            say(&message(&FromChild::Progress { frames: 1 }));
            return Some(ExitCode::SUCCESS);
        }
        "parent" => return Some(crate::life::be_a_parent()),
        _ => return None,
    }
    Some(child::run(work))
}

fn work(order: &Order, parent: &Parent) -> Result<Report, Refusal> {
    let deed = match &order.task {
        Task::Remux(task) => &task.file,
        Task::Encode(task) => &task.device.as_ref().unwrap().path,
        _ => panic!("another task"),
    };
    let refusal = |reason, message: String| Refusal { reason, message };
    match perform(deed, Path::new(&order.scratch), parent) {
        Ok(packets) => Ok(Report::Remux(RemuxReport { file: deed.clone(), bytes: parent.bytes_read(), packets })),
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(refusal(RefusalReason::Memory, error.to_string())),
        Err(error) => Err(refusal(RefusalReason::Internal, error.to_string())),
    }
}

fn perform(deed: &str, scratch: &Path, parent: &Parent) -> Deed {
    let (name, argument) = deed.split_once(' ').unwrap_or((deed, ""));
    match name {
        "nothing" => Ok(0),
        "read-passwd" => std::fs::read("/etc/passwd").map(|bytes| bytes.len() as u64),
        "list-root" => std::fs::read_dir("/").map(|entries| entries.count() as u64),
        "write" => std::fs::write(Path::new(argument), b"escaped").map(|()| 1),
        "write-in-scratch" => write_in_scratch(scratch),
        "rename-out" => rename_out(scratch, Path::new(argument)),
        "open-without-mode" => call(libc::SYS_openat, [libc::AT_FDCWD as u64, text("f"), 3 | libc::O_CREAT as u64, 0o600]),
        "look-at-descriptor" => call(libc::SYS_fstat, [argument.parse().unwrap(), [0_u8; 256].as_mut_ptr() as u64, 0, 0]),
        "write-to-input" => write_to_input(argument.parse().unwrap()),
        "socket" => call(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0]),
        "exec" => call(libc::SYS_execve, [text("/bin/true"), [0_u64; 1].as_ptr() as u64, [0_u64; 1].as_ptr() as u64, 0]),
        "ptrace" => call(libc::SYS_ptrace, [u64::from(libc::PTRACE_ATTACH), parent_pid(), 0, 0]),
        "signal-parent" => call(libc::SYS_kill, [parent_pid(), libc::SIGTERM as u64, 0, 0]),
        "signal-thread-of-parent" => call(libc::SYS_tgkill, [parent_pid(), parent_pid(), libc::SIGTERM as u64, 0]),
        "raise-limits" => call(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as u64, [64_u64; 2].as_ptr() as u64, 0]),
        "outlive-parent" => call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, 0, 0, 0]),
        "executable-memory" => page(libc::PROT_READ | libc::PROT_EXEC).map(|_| 1),
        // SAFETY: the test wants to see what fork does here; on success the copy ends at once.
        "fork" => match unsafe { libc::fork() } {
            // SAFETY: nothing of this process is shared.
            0 => unsafe { libc::_exit(0) },
            child => Ok(u64::from(child.unsigned_abs())),
        },
        "threads" => threads(),
        "library-probes" => library_probes(),
        "fill-memory" => fill_memory(),
        "fill-memory-in-c" => fill_memory_in_c(),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "spin-and-ignore-sigterm" => {
            // SAFETY: the disposition is a constant.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            say_and_spin(parent)
        }
        "say-and-spin" => say_and_spin(parent),
        "be-silent" => loop {
            std::thread::park();
        },
        "talk-to-stderr-for-ever" => loop {
            eprintln!("still here");
        },
        "flood-stderr" => {
            io::stderr().write_all(&b"noise ".repeat(1 << 20))?;
            eprintln!("\x1b[31mthe end\x1b[0m");
            Ok(0)
        }
        "huge-file" => huge_file(scratch),
        "many-files" => many_files(scratch),
        "abort" => std::process::abort(),
        "segv" => bad_access(),
        "exit" =>
        {
            #[expect(clippy::disallowed_methods, reason = "the deed is to leave without a word")]
            std::process::exit(argument.parse().unwrap())
        }
        "panic" => panic!("a bug"),
        "finish-and-hang" => finish_and_hang(),
        "as-a-driver" => driver::as_a_driver(),
        "as-a-curious-driver" => driver::as_a_curious_driver(),
        "own-a-descriptor" => driver::own_a_descriptor(),
        "send" => driver::send(),
        _ => on_the_wire(name, parent),
    }
}

fn on_the_wire(name: &str, parent: &Parent) -> Deed {
    match name {
        "garbage" => say(b"\x10\0\0\0\0{\"say\":\"sudo\"}  "),
        "unknown-kind" => say(b"\0\0\0\0\x07"),
        "overlong" => say(&[&u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes()[..], &[0]].concat()),
        "bytes-unasked" => say(&frame(KIND_BYTES, b"media")),
        "half-a-message" => {
            say(&message(&FromChild::Progress { frames: 1 })[..8]);
            loop {
                std::thread::park();
            }
        }
        "jailed-twice" => {
            say(&message(&FromChild::Jailed { level: narrows::sandbox::protocol::JailLevel::Full }));
            loop {
                std::thread::park();
            }
        }
        "read-twice" => {
            say(&message(&FromChild::Read { input: 0, offset: 0, bytes: 1 }).repeat(2));
            loop {
                std::thread::park();
            }
        }
        "read-too-much" => say(&message(&FromChild::Read { input: 0, offset: 0, bytes: u32::MAX })),
        "read-past-the-end" => say(&message(&FromChild::Read { input: 0, offset: 1 << 40, bytes: 1 })),
        "read-no-input" => say(&message(&FromChild::Read { input: 7, offset: 0, bytes: 1 })),
        "flood-progress" => loop {
            say(&message(&FromChild::Progress { frames: 1 }).repeat(1000));
        },
        "close-socket" => {
            // SAFETY: this child does not use its socket again.
            unsafe { libc::close(0) };
            loop {
                std::thread::park();
            }
        }
        "copy-input" => return copy_input(parent),
        "read-by-many-threads" => return read_by_many_threads(parent),
        "progress" => (1..=100_000).for_each(|frames| parent.progress(frames)),
        other => panic!("no such deed: {other}"),
    }
    Ok(0)
}

/// A raw system call, so that nothing between the deed and the kernel can soften it.
fn call(number: i64, [a, b, c, d]: [u64; 4]) -> Deed {
    // SAFETY: the callers pass live pointers where the call takes pointers.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.unsigned_abs()) }
}

fn text(words: &str) -> u64 {
    CString::new(words).unwrap().into_raw() as u64
}

fn parent_pid() -> u64 {
    u64::from(std::os::unix::process::parent_id())
}

/// Writes to the socket without the manners of [`Parent`].
fn say(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match nix::unistd::write(io::stdin(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(_) =>
            {
                #[expect(clippy::disallowed_methods, reason = "the parent is gone")]
                std::process::exit(1)
            }
        }
    }
}

fn say_and_spin(parent: &Parent) -> ! {
    parent.progress(1);
    loop {
        std::hint::spin_loop();
    }
}

fn finish_and_hang() -> ! {
    say(&message(&FromChild::Done(Box::new(Report::Remux(RemuxReport { file: String::new(), bytes: 0, packets: 5 })))));
    loop {
        std::thread::park();
    }
}

fn write_in_scratch(scratch: &Path) -> Deed {
    std::fs::create_dir(scratch.join("v1080"))?;
    std::fs::write(scratch.join("v1080/part"), b"segment")?;
    std::fs::rename(scratch.join("v1080/part"), scratch.join("v1080/00001.m4s"))?;
    std::fs::write("by-working-folder", b"segment")?;
    std::fs::write(scratch.join("gone"), b"")?;
    std::fs::remove_file(scratch.join("gone"))?;
    Ok(std::fs::read_dir(scratch)?.count() as u64)
}

fn rename_out(scratch: &Path, to: &Path) -> Deed {
    std::fs::write(scratch.join("inside"), b"escaped")?;
    std::fs::rename(scratch.join("inside"), to).map(|()| 1)
}

fn write_to_input(descriptor: i32) -> Deed {
    // SAFETY: the descriptor is the test's input, and is not closed by this value.
    let file = std::mem::ManuallyDrop::new(unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(descriptor) });
    file.write_at(b"x", 0).map(|written| written as u64)
}

fn page(protection: i32) -> io::Result<*mut u8> {
    // SAFETY: a fresh anonymous mapping touches nothing that exists.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(page.cast()) }
}

fn bad_access() -> Deed {
    let page = page(libc::PROT_NONE)?;
    // SAFETY: the page is this function's own; that it may not be written is what the test is after.
    unsafe { page.write_volatile(1) };
    Ok(1)
}

fn threads() -> Deed {
    let start = |number: u64| {
        let thread = std::thread::Builder::new().name(format!("encoder {number}"));
        thread.spawn(move || number)
    };
    let threads = (1..=8).map(start).collect::<Result<Vec<_>, _>>()?;
    Ok(threads.into_iter().map(|thread| thread.join().unwrap()).sum())
}

/// Calls that encoders make and do without; none may kill. What is answered otherwise than it should be is an error.
fn library_probes() -> Deed {
    let denied = |number, arguments, error| call(number, arguments).is_err_and(|e| e.raw_os_error() == Some(error));
    let taken = |number, arguments| call(number, arguments).is_ok();
    let fifo = libc::SCHED_FIFO as u64;
    let answers = [
        ("clone3", denied(libc::SYS_clone3, [0; 4], libc::ENOSYS)),
        ("isatty", denied(libc::SYS_ioctl, [2, libc::TCGETS, 0, 0], libc::EPERM)),
        ("get_mempolicy", taken(libc::SYS_get_mempolicy, [0; 4])),
        ("set_mempolicy", taken(libc::SYS_set_mempolicy, [0; 4])),
        ("sched_setaffinity", taken(libc::SYS_sched_setaffinity, [0; 4])),
        ("sched_setscheduler", taken(libc::SYS_sched_setscheduler, [0, fifo, 0, 0])),
        // It said that it was done; it was not.
        ("sched_getscheduler", call(libc::SYS_sched_getscheduler, [0; 4]).is_ok_and(|policy| policy != fifo)),
        ("processors", std::thread::available_parallelism().is_ok()),
        ("topology", std::fs::read("/sys/devices/system/cpu/possible").is_ok()),
        ("topology is read-only", std::fs::write("/sys/devices/system/cpu/possible", b"0").is_err()),
    ];
    match answers.iter().find(|(_, as_it_should)| !as_it_should) {
        Some((name, _)) => Err(io::Error::other(format!("another answer to {name}"))),
        None => Ok(answers.len() as u64),
    }
}

fn fill_memory() -> Deed {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![0_u8; 64 << 20]);
        std::hint::black_box(&hoard);
    }
}

fn fill_memory_in_c() -> Deed {
    // SAFETY: `malloc` takes any size; what it gives is neither used nor freed.
    while !unsafe { libc::malloc(64 << 20) }.is_null() {}
    Err(io::Error::from_raw_os_error(libc::ENOMEM))
}

fn huge_file(scratch: &Path) -> Deed {
    let mut file = std::fs::File::create(scratch.join("huge"))?;
    loop {
        file.write_all(&[1; 65536])?;
    }
}

fn many_files(scratch: &Path) -> Deed {
    (0..4).try_for_each(|number| std::fs::write(scratch.join(number.to_string()), vec![1; 1 << 20]))?;
    loop {
        std::thread::park();
    }
}

/// One read of more than there is, and one of nothing past the end; the copy is for the test to compare.
fn copy_input(parent: &Parent) -> Deed {
    let mut buffer = vec![0; 16 << 20];
    let read = parent.read(0, 0, &mut buffer)?;
    std::fs::write("copy", &buffer[..read])?;
    let past = parent.read(0, 1 << 40, &mut buffer[..10])?;
    Ok((read + past) as u64)
}

/// Each thread reads its own stretch in small pieces; all together are the input.
fn read_by_many_threads(parent: &Parent) -> Deed {
    const STRETCH: usize = 64 * 1024;
    let mut buffer = vec![0; 4 * STRETCH];
    std::thread::scope(|scope| {
        for (number, stretch) in buffer.chunks_mut(STRETCH).enumerate() {
            scope.spawn(move || {
                for (piece, bytes) in stretch.chunks_mut(1000).enumerate() {
                    let offset = number * STRETCH + piece * 1000;
                    assert_eq!(parent.read(0, offset as u64, bytes).unwrap(), bytes.len());
                    parent.progress(offset as u64);
                }
            });
        }
    });
    std::fs::write("copy", &buffer)?;
    Ok(parent.bytes_read())
}

/// Forks, before any jail, a process that holds every descriptor of this one and never ends. Its pid is in `grandchild`.
fn leave_a_grandchild(escape: bool) {
    // SAFETY: this process has one thread, so the copy may do anything.
    let grandchild = unsafe { libc::fork() };
    if grandchild == 0 {
        if escape {
            nix::unistd::setsid().unwrap();
        }
        std::fs::write("ready", b"").unwrap();
        loop {
            std::thread::park();
        }
    }
    std::fs::write("grandchild", grandchild.to_string()).unwrap();
    crate::bench::assert_soon("the grandchild does not start", || Path::new("ready").exists());
}

/// Makes this kernel one without Landlock.
fn hide_landlock() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    let calls = [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
    let rules = calls.into_iter().map(|call| (call, vec![])).collect();
    let errno = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, std::env::consts::ARCH.try_into().unwrap());
    apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
}
