//! The child's side: one order in, the jail, the work, one report out.
//!
//! Descriptor 0 is a unix stream socket to the parent, both ways. When the parent is gone there is nobody to work for, and
//! the process ends at once, wherever it is.

use super::protocol::{
    Access, FromChild, Input, KIND_BYTES, KIND_MESSAGE, MAX_FRAME_BYTES, MAX_READ_BYTES, Order, Refusal, RefusalReason, Report,
    message, parse,
};
use super::{jail, memory};
use nix::errno::Errno;
use nix::sys::uio::pread;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two progress messages.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The way to the parent. Clones are the same way; any thread may use it, also from a C library's callback.
#[derive(Clone)]
pub struct Parent {
    shared: Arc<Shared>,
}

struct Shared {
    inputs: Vec<Input>,
    /// Held while a message is written, so that none is torn.
    writing: Mutex<()>,
    /// Held from a range request to its answer, so that answers find who asked. Progress goes on meanwhile.
    asking: Mutex<()>,
    progress: Mutex<Pace>,
    bytes_read: AtomicU64,
}

#[derive(Default)]
struct Pace {
    sent: Option<Instant>,
    unsent: Option<u64>,
}

impl Parent {
    fn new(inputs: Vec<Input>) -> Self {
        let (writing, asking, progress) = (Mutex::default(), Mutex::default(), Mutex::default());
        Parent { shared: Arc::new(Shared { inputs, writing, asking, progress, bytes_read: AtomicU64::new(0) }) }
    }

    /// Says how many frames are done so far, all rungs together. Call it as often as you like: what comes within
    /// 100 ms of the last message is held back, and the last word is always said.
    pub fn progress(&self, frames: u64) {
        let mut pace = locked(&self.shared.progress);
        if pace.sent.is_some_and(|sent| sent.elapsed() < PROGRESS_INTERVAL) {
            pace.unsent = Some(frames);
            return;
        }
        *pace = Pace { sent: Some(Instant::now()), unsent: None };
        self.say(&FromChild::Progress { frames });
    }

    /// Reads from `input` at `offset` bytes until `buffer` is full; fewer bytes only at the end of the input.
    ///
    /// # Errors
    /// There is no such input, or the file cannot be read. (A range that the parent cannot get ends this process.)
    pub fn read(&self, input: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let facts =
            self.shared.inputs.get(input as usize).ok_or_else(|| io::Error::other(format!("there is no input {input}")))?;
        let read = match facts.access {
            Access::Fd(descriptor) => {
                // SAFETY: the descriptor was inherited for this input, and nothing in this process closes it.
                read_file(unsafe { BorrowedFd::borrow_raw(descriptor) }, offset, buffer)?
            }
            Access::Ranges => self.read_ranges(input, facts.bytes, offset, buffer),
        };
        self.shared.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    /// Bytes of all inputs read so far.
    pub fn bytes_read(&self) -> u64 {
        self.shared.bytes_read.load(Ordering::Relaxed)
    }

    fn read_ranges(&self, input: u32, size: u64, offset: u64, buffer: &mut [u8]) -> usize {
        let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(there);
        let mut offset = offset;
        for piece in buffer[..wanted].chunks_mut(MAX_READ_BYTES as usize) {
            let _asking = locked(&self.shared.asking);
            let bytes = u32::try_from(piece.len()).expect("a piece of at most MAX_READ_BYTES");
            self.say(&FromChild::Read { input, offset, bytes });
            take_answer(piece);
            offset += u64::from(bytes);
        }
        wanted
    }

    fn say(&self, words: &FromChild) {
        let bytes = message(words);
        let _writing = locked(&self.shared.writing);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match nix::unistd::write(io::stdin().as_fd(), rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                Err(_) => leave(),
            }
        }
    }

    fn last_progress(&self) {
        if let Some(frames) = locked(&self.shared.progress).unsent.take() {
            self.say(&FromChild::Progress { frames });
        }
    }
}

/// The body of a child process: reads one order, enters the jail, works, reports.
///
/// The exit status says nothing but that the child came to its end: the parent goes by the report. Call it first thing in
/// `main`, before any thread is started. A panic of `work` is a refusal for reason `Internal`.
pub fn run(work: impl FnOnce(&Order, &Parent) -> Result<Report, Refusal>) -> ExitCode {
    let mut order = match parse::<Order>(&take_frame(KIND_MESSAGE)) {
        Ok(order) => order,
        Err(error) => {
            eprintln!("the order: {error}");
            return ExitCode::FAILURE;
        }
    };
    let parent = Parent::new(order.inputs.clone());
    let jailed = match jail::enter(&order) {
        Ok(jailed) => jailed,
        Err(error) => {
            parent.say(&FromChild::Refused(Refusal { reason: RefusalReason::Jail, message: error.to_string() }));
            return ExitCode::SUCCESS;
        }
    };
    memory::arm();
    order.scratch = jailed.scratch.to_string_lossy().into_owned();
    parent.say(&FromChild::Jailed { level: jailed.level });
    let ending = match catch_unwind(AssertUnwindSafe(|| work(&order, &parent))) {
        Ok(Ok(report)) => FromChild::Done(Box::new(report)),
        Ok(Err(refusal)) => FromChild::Refused(refusal),
        Err(panic) => FromChild::Refused(Refusal { reason: RefusalReason::Internal, message: panic_words(&*panic) }),
    };
    parent.last_progress();
    parent.say(&ending);
    ExitCode::SUCCESS
}

fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the child panicked: {}", words.unwrap_or("without a message"))
}

/// A lock guards no state that a panic could leave half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process because its parent is gone or out of its mind; nobody reads the status.
fn leave() -> ! {
    // SAFETY: `_exit` runs no destructors and does not return, which other threads in the middle of work call for.
    unsafe { libc::_exit(1) }
}

fn read_file(file: BorrowedFd<'_>, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = i64::try_from(offset + filled as u64).map_err(io::Error::other)?;
        match pread(file, &mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// Fills `buffer` from the parent.
fn take(buffer: &mut [u8]) {
    let mut filled = 0;
    while filled < buffer.len() {
        match nix::unistd::read(io::stdin().as_fd(), &mut buffer[filled..]) {
            Ok(0) => leave(),
            Ok(read) => filled += read,
            Err(Errno::EINTR) => {}
            Err(_) => leave(),
        }
    }
}

/// Length of the next frame, which must be of this kind.
fn take_head(kind: u8) -> usize {
    let mut head = [0; 5];
    take(&mut head);
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if head[4] != kind || length > MAX_FRAME_BYTES {
        leave();
    }
    length
}

fn take_frame(kind: u8) -> Vec<u8> {
    let mut payload = vec![0; take_head(kind)];
    take(&mut payload);
    payload
}

/// The answer to a range request, which lies within the input and so has exactly the length asked for.
fn take_answer(piece: &mut [u8]) {
    if take_head(KIND_BYTES) != piece.len() {
        leave();
    }
    take(piece);
}
