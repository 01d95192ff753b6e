//! The talk with one running child: the loop that listens to everything at once, and the end of it.
//!
//! Part of [`spawn`](super::spawn), which says what the rules are.

use super::input::InputSource;
use super::outcome::{Finished, Outcome};
use super::process::Process;
use super::protocol::{Decoder, FromChild, JailLevel, KIND_BYTES, KIND_MESSAGE, MAX_READ_BYTES, frame, parse};
use super::settings::Sandbox;
use super::tail::Tail;
use futures::future::BoxFuture;
use nix::sys::signal::Signal;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Longest wait for the last bytes of the pipes once the group is dead: what still holds them then is not ours.
const DRAIN: Duration = Duration::from_millis(200);
/// Longest wait for a killed child to be gone; past it (a hung disk), a thread waits on.
const REAP: Duration = Duration::from_secs(5);
/// Bytes taken from a pipe at once.
const PIPE_BUFFER_BYTES: usize = 64 * 1024;

/// A running child and everything between it and us.
pub(super) struct Talk<'a> {
    sandbox: &'a Sandbox,
    process: Process,
    exit: AsyncFd<OwnedFd>,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    stderr: pipe::Receiver,
    open: Open,
    decoder: Decoder,
    tail: Tail,
    /// The one frame that is on its way to the child (the order or an answer), and how much of it is written.
    outgoing: Vec<u8>,
    sent: usize,
    /// The one range request that is open.
    fetch: Option<BoxFuture<'static, io::Result<Vec<u8>>>>,
    sources: Vec<InputSource>,
    on_progress: &'a mut (dyn FnMut(u64) + Send),
    jail: Option<JailLevel>,
    /// Messages that reset the stall timer, so far.
    messages: u64,
    /// For the socket and for stderr.
    buffers: Box<[[u8; PIPE_BUFFER_BYTES]; 2]>,
}

/// Which pipes have not come to their end.
struct Open {
    socket: bool,
    stderr: bool,
}

/// Why listening ended.
pub(super) enum Verdict {
    /// The child's own last word.
    Said(Outcome),
    /// Ours; the child still runs.
    Ended(Outcome),
    /// The child has ended; what it said last is still in the socket.
    Exited,
}

/// What the loop heard.
enum Heard {
    Exit,
    End(Outcome),
    Socket(io::Result<usize>),
    Stderr(io::Result<usize>),
    Fetched(io::Result<Vec<u8>>),
    Wrote(io::Result<usize>),
}

/// The ends of a fresh child that are ours.
pub(super) struct Ends {
    pub process: Process,
    pub exit: AsyncFd<OwnedFd>,
    pub socket: tokio::net::UnixStream,
    pub stderr: pipe::Receiver,
}

impl<'a> Talk<'a> {
    /// Begins with `order`, as a frame, on its way to the child.
    pub(super) fn new(
        sandbox: &'a Sandbox,
        ends: Ends,
        order: Vec<u8>,
        sources: Vec<InputSource>,
        on_progress: &'a mut (dyn FnMut(u64) + Send),
    ) -> Self {
        let (reader, writer) = ends.socket.into_split();
        Talk {
            sandbox,
            process: ends.process,
            exit: ends.exit,
            reader,
            writer,
            stderr: ends.stderr,
            open: Open { socket: true, stderr: true },
            decoder: Decoder::default(),
            tail: Tail::new(sandbox.stderr_tail_bytes),
            outgoing: order,
            sent: 0,
            fetch: None,
            sources,
            on_progress,
            jail: None,
            messages: 0,
            buffers: Box::new([[0; PIPE_BUFFER_BYTES]; 2]),
        }
    }

    /// Listens until there is a verdict.
    pub(super) async fn listen(
        &mut self,
        mut stall: Pin<Box<Sleep>>,
        deadline: impl Future<Output = ()>,
        overflow: impl Future<Output = ()>,
        stop: impl Future<Output = ()>,
    ) -> Verdict {
        tokio::pin!(deadline, overflow, stop);
        let closed = sleep_until(Instant::now());
        tokio::pin!(closed);
        loop {
            let [socket_buffer, stderr_buffer] = &mut *self.buffers;
            let heard = tokio::select! {
                () = &mut stop => Heard::End(Outcome::Stopped),
                _ = self.exit.readable() => Heard::Exit,
                () = &mut deadline => Heard::End(Outcome::Deadline),
                () = &mut stall, if self.fetch.is_none() => Heard::End(Outcome::Stalled),
                () = &mut overflow => Heard::End(Outcome::FileTooLarge),
                () = &mut closed, if !self.open.socket => Heard::End(Outcome::Protocol("it closed its socket without a report".to_string())),
                read = self.reader.read(socket_buffer), if self.open.socket => Heard::Socket(read),
                read = self.stderr.read(stderr_buffer), if self.open.stderr => Heard::Stderr(read),
                bytes = async { self.fetch.as_mut().expect("guarded").await }, if self.fetch.is_some() => Heard::Fetched(bytes),
                wrote = self.writer.write(&self.outgoing[self.sent..]), if self.sent < self.outgoing.len() => Heard::Wrote(wrote),
            };
            let before = self.messages;
            match heard {
                Heard::Exit => return Verdict::Exited,
                Heard::End(outcome) => return Verdict::Ended(outcome),
                Heard::Stderr(read) => self.take_stderr(read),
                Heard::Wrote(wrote) => self.wrote(wrote),
                Heard::Fetched(bytes) => {
                    if let Err(outcome) = self.answer(bytes) {
                        return Verdict::Ended(outcome);
                    }
                }
                Heard::Socket(read) => match self.take_words(read) {
                    Ok(None) if !self.open.socket => closed.as_mut().reset(Instant::now() + self.sandbox.kill_grace),
                    Ok(None) => {}
                    Ok(Some(outcome)) => return Verdict::Said(outcome),
                    Err(outcome) => return Verdict::Ended(outcome),
                },
            }
            if self.messages > before {
                stall.as_mut().reset(Instant::now() + self.sandbox.stall);
            }
        }
    }

    fn take_stderr(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) | Err(_) => self.open.stderr = false,
            Ok(read) => self.tail.push(&self.buffers[1][..read]),
        }
    }

    /// A child that does not take its answer is heard of by its exit, or by the stall timer.
    fn wrote(&mut self, wrote: io::Result<usize>) {
        match wrote {
            Ok(wrote) => self.sent += wrote,
            Err(_) => self.sent = self.outgoing.len(),
        }
        if self.sent == self.outgoing.len() {
            self.outgoing = Vec::new();
            self.sent = 0;
        }
    }

    fn answer(&mut self, bytes: io::Result<Vec<u8>>) -> Result<(), Outcome> {
        self.fetch = None;
        self.messages += 1;
        let bytes = bytes.map_err(|error| Outcome::InputFailed(error.to_string()))?;
        self.outgoing = frame(KIND_BYTES, &bytes);
        self.sent = 0;
        Ok(())
    }

    /// Takes what came from the child: `Ok(Some)` is its last word, an error a breach of the protocol.
    fn take_words(&mut self, read: io::Result<usize>) -> Result<Option<Outcome>, Outcome> {
        match read {
            Ok(0) | Err(_) => self.open.socket = false,
            Ok(read) => self.decoder.push(&self.buffers[0][..read]),
        }
        let breach = |what: String| Outcome::Protocol(what);
        while let Some(frame) = self.decoder.next_frame().map_err(|error| breach(error.to_string()))? {
            if frame.kind != KIND_MESSAGE {
                return Err(breach("bytes that nobody asked for".to_string()));
            }
            let words = parse(&frame.payload).map_err(|error| breach(error.to_string()))?;
            if let Some(outcome) = self.take_message(words).map_err(breach)? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    fn take_message(&mut self, words: FromChild) -> Result<Option<Outcome>, String> {
        match words {
            FromChild::Refused(refusal) => return Ok(Some(Outcome::of_refusal(refusal))),
            FromChild::Jailed { .. } if self.jail.is_some() => return Err("it entered the jail twice".to_string()),
            FromChild::Jailed { level } if level < self.sandbox.minimum_jail => {
                return Err(format!("it worked in a jail of level {level:?}"));
            }
            FromChild::Jailed { level } => self.jail = Some(level),
            _ if self.jail.is_none() => return Err("it worked outside the jail".to_string()),
            FromChild::Progress { frames } => (self.on_progress)(frames),
            FromChild::Read { input, offset, bytes } => self.fetch(input, offset, bytes)?,
            FromChild::Done(report) => return Ok(Some(Outcome::Done(report))),
        }
        self.messages += 1;
        Ok(None)
    }

    /// Starts to get a range for the child, one at a time.
    fn fetch(&mut self, input: u32, offset: u64, bytes: u32) -> Result<(), String> {
        if self.fetch.is_some() || self.sent < self.outgoing.len() {
            return Err("it asked for a range before it took the one before".to_string());
        }
        let Some(InputSource::Ranges(object)) = self.sources.get(input as usize) else {
            return Err(format!("it asked for a range of input {input}, which has none"));
        };
        if bytes == 0 || bytes > MAX_READ_BYTES || offset > object.bytes() {
            return Err(format!("it asked for {bytes} bytes at {offset} of an input of {}", object.bytes()));
        }
        let there = object.bytes() - offset;
        let wanted = usize::try_from(u64::from(bytes).min(there)).expect("at most MAX_READ_BYTES");
        let object = Arc::clone(object);
        self.fetch = Some(Box::pin(async move {
            if wanted == 0 {
                return Ok(Vec::new());
            }
            let got = object.read(offset, wanted).await?;
            if got.len() == wanted {
                return Ok(got);
            }
            Err(io::Error::other(format!("{} bytes at {offset} where {wanted} were asked for", got.len())))
        }));
        Ok(())
    }

    /// Ends the child and its group, hears it out, reaps it.
    pub(super) async fn finish(mut self, verdict: Verdict, started: Instant) -> Finished {
        let grace = self.sandbox.kill_grace;
        let mut exited = match verdict {
            Verdict::Exited => true,
            // It has said its last word and is on its way out.
            Verdict::Said(_) => self.exits_within(grace).await,
            Verdict::Ended(_) => false,
        };
        if !exited {
            self.process.signal_group(Signal::SIGTERM);
            exited = self.exits_within(grace).await;
        }
        self.process.signal_group(Signal::SIGKILL);
        if !exited {
            self.exits_within(REAP).await;
        }
        let last_word = self.drain().await;
        let reaped = self.process.reap();
        let outcome = match (verdict, last_word, &reaped) {
            (Verdict::Said(outcome) | Verdict::Ended(outcome), _, _) | (Verdict::Exited, Ok(Some(outcome)), _) => outcome,
            (Verdict::Exited, Err(breach), Some(reaped)) if reaped.status.success() => breach,
            (Verdict::Exited, _, Some(reaped)) => Outcome::of_status(reaped.status),
            (Verdict::Exited, _, None) => Outcome::Protocol("it has ended, and its status is gone".to_string()),
        };
        Finished {
            outcome,
            jail: self.jail,
            stderr_tail: self.tail.text(),
            wall: started.elapsed(),
            cpu: reaped.as_ref().map_or_else(|| self.process.cpu_so_far(), |reaped| reaped.cpu),
            peak_bytes: reaped.as_ref().map_or(0, |reaped| reaped.peak_bytes),
            pid: Some(self.process.pid()),
        }
    }

    /// Waits for the exit, and keeps stderr from filling up meanwhile.
    async fn exits_within(&mut self, wait: Duration) -> bool {
        let exit = async {
            loop {
                let read = tokio::select! {
                    _ = self.exit.readable() => return,
                    read = self.stderr.read(&mut self.buffers[1]), if self.open.stderr => read,
                };
                match read {
                    Ok(0) | Err(_) => self.open.stderr = false,
                    Ok(read) => self.tail.push(&self.buffers[1][..read]),
                }
            }
        };
        timeout(wait, exit).await.is_ok()
    }

    /// What is left in both pipes of a dead child, and its last word if there is one. Bounded in time: a process that left
    /// the group may hold them open.
    async fn drain(&mut self) -> Result<Option<Outcome>, Outcome> {
        let until = Instant::now() + DRAIN;
        let mut last_word = Ok(None);
        while self.open.socket || self.open.stderr {
            let [socket_buffer, stderr_buffer] = &mut *self.buffers;
            let heard = tokio::select! {
                () = sleep_until(until) => break,
                read = self.reader.read(socket_buffer), if self.open.socket => Heard::Socket(read),
                read = self.stderr.read(stderr_buffer), if self.open.stderr => Heard::Stderr(read),
            };
            match heard {
                Heard::Stderr(read) => self.take_stderr(read),
                Heard::Socket(read) => {
                    last_word = self.take_words(read);
                    self.open.socket &= matches!(last_word, Ok(None));
                }
                _ => {}
            }
        }
        last_word
    }
}
