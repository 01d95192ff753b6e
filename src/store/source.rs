//! A job's source: a file, or an object read by ranges in aligned blocks, so that many small reads become few large
//! requests and nothing is asked for that nobody reads. Memory does not grow with the source.

use super::cache::{BLOCK_BYTES, BlockCache};
use super::scrub;
use super::web::WebObject;
use crate::observe::{self, Observer};
use opendal::{Buffer, Operator};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::sync::Mutex;

/// Blocks one reader holds for itself, whatever the others do: 4 MiB.
const OWN_BLOCKS: usize = 64;
/// Blocks asked for at once while reads are sequential, at most: 1 MiB.
pub const READ_AHEAD_BLOCKS: u64 = 16;
/// What is asked for ahead is at most this part of what was read in sequence: a part stops somewhere, and what was asked
/// for beyond is wasted.
const READ_AHEAD_SHARE: u64 = 16;
/// Blocks that a sequential reader may leave out: sound is read over the pictures between it, and a request costs more
/// than the bytes it saves.
const SKIPPED_BLOCKS: u64 = 8;
/// Places of one source that are read in sequence at a time: pictures, sound, and an index at the end.
const SEQUENCES: usize = 4;
/// How often a range is asked for before the child is told that it cannot be had.
const READ_TRIES: u32 = 4;
/// Wait before the second try; the next ones wait twice as long each.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// What a source is, so that a change of it is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceIdentity {
    pub bytes: u64,
    /// Time of the last change, milliseconds since 1970; 0 when the server does not tell.
    pub modified_ms: i64,
    /// The server's own name of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// A file of this machine.
#[derive(Clone, Debug)]
pub struct LocalFile {
    pub file: Arc<File>,
    pub bytes: u64,
    /// Time of the last change, milliseconds since 1970.
    pub modified_ms: i64,
}

impl LocalFile {
    /// # Errors
    /// There is no such file, it is none, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    pub(super) fn of(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified_ms = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
        Ok(Self { file: Arc::new(file), bytes: meta.len(), modified_ms })
    }

    pub fn identity(&self) -> SourceIdentity {
        SourceIdentity { bytes: self.bytes, modified_ms: self.modified_ms, etag: None }
    }
}

/// What answers a range.
pub(super) enum Origin {
    Object(Object),
    File(Arc<File>),
    Web(Box<WebObject>),
}

/// An object of a bucket or a folder, in the version that was opened.
pub(super) struct Object {
    operator: Operator,
    path: String,
    etag: Option<String>,
}

/// A range that was not had.
struct ReadFailure {
    temporary: bool,
    reason: String,
}

impl Object {
    async fn read(&self, start: u64, end: u64) -> Result<Buffer, ReadFailure> {
        let failed = |e: opendal::Error| ReadFailure { temporary: e.is_temporary(), reason: scrub::reason(&e) };
        let mut reader = self.operator.reader_with(&self.path);
        // The server itself refuses ranges of another version.
        if let Some(etag) = self.etag.as_deref().filter(|_| self.operator.info().capability().read_with_if_match) {
            reader = reader.if_match(etag);
        }
        let reader = reader.await.map_err(failed)?;
        let content = reader.read(start..end).await.map_err(failed)?;
        // Not every server does; all tell which version it was.
        match (&self.etag, reader.metadata().and_then(opendal::Metadata::etag)) {
            (Some(ours), Some(theirs)) if bare(ours) != bare(theirs) => {
                Err(ReadFailure { temporary: false, reason: "changed while it was being read".into() })
            }
            _ => Ok(content),
        }
    }
}

/// An entity tag without its quotation marks (RFC 9110 8.8.3): Google leaves them out in JSON.
fn bare(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

impl Origin {
    async fn read(&self, start: u64, end: u64) -> Result<Buffer, ReadFailure> {
        match self {
            Origin::Object(object) => object.read(start, end).await,
            Origin::File(file) => {
                let failed = |e: io::Error| ReadFailure { temporary: false, reason: e.to_string() };
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; (end - start) as usize];
                    std::os::unix::fs::FileExt::read_exact_at(&*file, &mut piece, start).map(|()| piece)
                });
                let piece = read.await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(failed)?;
                Ok(Buffer::from(piece))
            }
            Origin::Web(object) => {
                let read = object.read(start, end).await;
                read.map(Buffer::from).map_err(|e| ReadFailure { temporary: e.temporary, reason: e.reason })
            }
        }
    }
}

/// An object read by ranges.
pub struct RangedSource {
    origin: Origin,
    name: String,
    identity: SourceIdentity,
    cache: Arc<BlockCache>,
    /// The object's name among the shared blocks, and ours among its readers.
    object: Arc<str>,
    reader: u64,
    /// Blocks asked for at once, at least.
    least: u64,
    own: Mutex<Own>,
    fetched: AtomicU64,
    requests: AtomicU64,
    observer: Arc<dyn Observer>,
}

/// What one reader holds for itself.
#[derive(Default)]
struct Own {
    /// Block number and content, the one used longest ago first.
    blocks: VecDeque<(u64, Buffer)>,
    sequences: VecDeque<Sequence>,
}

/// One place of the source that is read on and on.
struct Sequence {
    last: u64,
    /// Blocks read in sequence up to it.
    length: u64,
}

impl Own {
    fn get(&mut self, block: u64) -> Option<Buffer> {
        let at = self.blocks.iter().position(|(n, _)| *n == block)?;
        let entry = self.blocks.remove(at)?;
        let content = entry.1.clone();
        self.blocks.push_back(entry);
        Some(content)
    }

    fn put(&mut self, block: u64, content: Buffer) {
        self.blocks.retain(|(n, _)| *n != block);
        if self.blocks.len() >= OWN_BLOCKS {
            self.blocks.pop_front();
        }
        self.blocks.push_back((block, content));
    }

    /// Notes that `block` is read, and says how many blocks from it on are likely to be: one after a jump, more and more
    /// for a sequential reader.
    fn likely(&mut self, block: u64) -> u64 {
        let follows = |s: &Sequence| (s.last..=s.last + 1 + SKIPPED_BLOCKS).contains(&block);
        let at = self.sequences.iter().position(follows);
        let mut sequence = at.and_then(|at| self.sequences.remove(at)).unwrap_or(Sequence { last: block, length: 0 });
        sequence.length += block - sequence.last;
        sequence.last = block;
        let likely = (sequence.length / READ_AHEAD_SHARE).clamp(1, READ_AHEAD_BLOCKS);
        if self.sequences.len() >= SEQUENCES {
            self.sequences.pop_front();
        }
        self.sequences.push_back(sequence);
        likely
    }
}

impl RangedSource {
    pub(super) fn new(origin: Origin, name: String, identity: &SourceIdentity, cache: Arc<BlockCache>) -> Self {
        static READERS: AtomicU64 = AtomicU64::new(0);
        let reader = READERS.fetch_add(1, Ordering::Relaxed);
        // What cannot be told from its next version is no reader's but this one's.
        let known = identity.etag.is_some() || identity.modified_ms != 0;
        let only = if known { String::new() } else { reader.to_string() };
        let SourceIdentity { bytes, modified_ms, etag } = identity;
        let object = format!("{name}\n{bytes}\n{modified_ms}\n{}\n{only}", etag.as_deref().unwrap_or_default()).into();
        let (own, fetched, requests) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        let (identity, observer) = (identity.clone(), observe::nobody());
        Self { origin, name, identity, cache, object, reader, least: 1, own, fetched, requests, observer }
    }

    /// Tells somebody of every request.
    pub(super) fn observed_by(mut self, observer: &Arc<dyn Observer>) -> Self {
        self.observer = observer.clone();
        self
    }

    /// An object of a bucket or a folder.
    pub(super) fn of_object(
        operator: &Operator,
        path: String,
        name: String,
        identity: &SourceIdentity,
        cache: Arc<BlockCache>,
    ) -> Self {
        let object = Object { operator: operator.clone(), path, etag: identity.etag.clone() };
        Self::new(Origin::Object(object), name, identity, cache)
    }

    /// It will be read to its end: large requests from the first on.
    pub(super) fn whole(mut self) -> Self {
        self.least = READ_AHEAD_BLOCKS;
        self
    }

    /// Lets go of the blocks it holds for itself.
    async fn forget(&self) {
        self.own.lock().await.blocks.clear();
    }

    /// Size of the object.
    pub fn bytes(&self) -> u64 {
        self.identity.bytes
    }

    /// What was opened. Every range is of this version, or is an error where the server can tell.
    pub fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    /// Bytes asked of the store so far.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// At most `bytes` bytes from `offset`; fewer only at the end of the object.
    ///
    /// # Errors
    /// The store would not give them, after four tries.
    pub async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let end = offset.saturating_add(bytes as u64).min(self.bytes());
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        // Held over the request: two reads of one source would fetch the same block twice.
        let mut own = self.own.lock().await;
        let mut at = offset;
        while at < end {
            let block = at / BLOCK_BYTES;
            let content = self.block(&mut own, block).await?;
            let from = (at - block * BLOCK_BYTES) as usize;
            let to = content.len().min((end - block * BLOCK_BYTES) as usize);
            if from >= to {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{}: became shorter", self.name)));
            }
            out.extend_from_slice(&content.slice(from..to).to_bytes());
            at += (to - from) as u64;
        }
        Ok(out)
    }

    async fn block(&self, own: &mut Own, block: u64) -> io::Result<Buffer> {
        let likely = own.likely(block);
        if let Some(content) = own.get(block) {
            return Ok(content);
        }
        if let Some(content) = self.cache.get(&self.object, block, self.reader) {
            own.put(block, content.clone());
            return Ok(content);
        }
        let most = likely.max(self.least).min(self.bytes().div_ceil(BLOCK_BYTES) - block);
        let count = (1..most).find(|n| self.cache.has(&self.object, block + n)).unwrap_or(most);
        let start = block * BLOCK_BYTES;
        let whole = self.fetch(start, (start + count * BLOCK_BYTES).min(self.bytes())).await?;
        for n in 0..count {
            let from = (n * BLOCK_BYTES) as usize;
            let to = whole.len().min(from + BLOCK_BYTES as usize);
            if from < to {
                self.cache.put(&self.object, block + n, self.reader, whole.slice(from..to));
                own.put(block + n, whole.slice(from..to));
            }
        }
        own.get(block).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("{}: is empty", self.name)))
    }

    async fn fetch(&self, start: u64, end: u64) -> io::Result<Buffer> {
        let (mut tries, mut wait) = (1, FIRST_WAIT);
        loop {
            self.fetched.fetch_add(end - start, Ordering::Relaxed);
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.cache.count(end - start);
            let began = Instant::now();
            let answer = self.origin.read(start, end).await;
            let outcome = match &answer {
                Ok(_) => "ok",
                Err(e) if e.temporary => "failed",
                Err(_) => "denied",
            };
            self.observer.stored("read", outcome, began.elapsed());
            match answer {
                Ok(content) => {
                    self.observer.store_read(content.len() as u64);
                    return Ok(content);
                }
                Err(e) if e.temporary && tries < READ_TRIES => {
                    tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
                    (tries, wait) = (tries + 1, wait * 2);
                }
                Err(e) => return Err(io::Error::other(format!("{}: {}", self.name, e.reason))),
            }
        }
    }
}

impl Drop for RangedSource {
    fn drop(&mut self) {
        let (fetched, requests) = (self.fetched_bytes(), self.requests.load(Ordering::Relaxed));
        tracing::debug!(source = self.name, bytes = self.bytes(), fetched, requests, "source was read");
    }
}

/// Several objects end to end, as one input.
pub struct Concatenated {
    /// Where each starts, and the source itself.
    pieces: Vec<(u64, RangedSource)>,
    bytes: u64,
    /// The piece that was read last: only it holds blocks, however many pieces there are.
    current: AtomicUsize,
}

impl Concatenated {
    pub fn new(sources: Vec<RangedSource>) -> Self {
        let mut bytes = 0;
        let mut pieces = Vec::with_capacity(sources.len());
        for source in sources {
            let start = bytes;
            bytes += source.bytes();
            pieces.push((start, source));
        }
        Self { pieces, bytes, current: AtomicUsize::new(0) }
    }

    /// Size of all together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// At most `bytes` bytes from `offset`; fewer only at the end of the last object.
    ///
    /// # Errors
    /// The store would not give them.
    pub async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let end = offset.saturating_add(bytes as u64).min(self.bytes);
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let first = self.pieces.partition_point(|(start, _)| *start <= offset).saturating_sub(1);
        for (n, (start, source)) in self.pieces.iter().enumerate().skip(first) {
            if *start >= end {
                break;
            }
            let before = self.current.swap(n, Ordering::Relaxed);
            if before != n {
                self.pieces[before].1.forget().await;
            }
            let from = offset.max(*start) - start;
            let to = (end - start).min(source.bytes());
            if from < to {
                out.extend(source.read(from, (to - from) as usize).await?);
            }
        }
        Ok(out)
    }
}
