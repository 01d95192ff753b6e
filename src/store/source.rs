//! Sources as a child reads them: a local file it is handed, or byte ranges that the parent reads for it.
//!
//! Ranges go through a cache of aligned blocks with read-ahead, so that a demuxer's many small reads become few large
//! requests. The cache is bounded: memory does not grow with the source.

use super::StoreError;
use opendal::{Operator, Reader, services};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;
use tokio::sync::Mutex;

/// Bytes of one cached block. Blocks start at multiples of it.
pub const BLOCK_BYTES: u64 = 1024 * 1024;
/// Blocks one source keeps.
pub const CACHED_BLOCKS: usize = 16;
/// Blocks asked for at once while reads are sequential, at most.
pub const READ_AHEAD_BLOCKS: u64 = 4;
/// How often a range is asked for before the child is told that it cannot be had.
const READ_TRIES: u32 = 4;

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
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified_ms = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
        Ok(Self { file: Arc::new(file), bytes: meta.len(), modified_ms })
    }
}

/// A file of this machine, read by ranges as an object of a bucket would be.
pub(super) async fn of_file(path: &Path) -> Result<RangedSource, StoreError> {
    let path = path.canonicalize().map_err(|e| StoreError::io(path, &e))?;
    let (folder, name) = (path.parent().and_then(Path::to_str), path.file_name().and_then(|n| n.to_str()));
    let (Some(folder), Some(name)) = (folder, name) else {
        return Err(StoreError::Denied { path: path.display().to_string(), reason: "the path is not UTF-8".into() });
    };
    let wrong = |e: opendal::Error| StoreError::of(name, &e);
    let operator = Operator::new(services::Fs::default().root(folder)).map_err(wrong)?;
    let bytes = operator.stat(name).await.map_err(wrong)?.content_length();
    RangedSource::open(&operator, name, bytes).await
}

/// An object read by ranges.
pub struct RangedSource {
    reader: Reader,
    path: String,
    bytes: u64,
    cache: Mutex<Cache>,
    fetched: AtomicU64,
}

#[derive(Default)]
struct Cache {
    /// Block number and content, the one used longest ago first.
    blocks: VecDeque<(u64, opendal::Buffer)>,
    /// The block a sequential reader would miss next, and how many to fetch then.
    expected: u64,
    ahead: u64,
}

impl Cache {
    fn get(&mut self, block: u64) -> Option<opendal::Buffer> {
        let at = self.blocks.iter().position(|(n, _)| *n == block)?;
        let entry = self.blocks.remove(at)?;
        let content = entry.1.clone();
        self.blocks.push_back(entry);
        Some(content)
    }

    fn put(&mut self, block: u64, content: opendal::Buffer) {
        self.blocks.retain(|(n, _)| *n != block);
        if self.blocks.len() >= CACHED_BLOCKS {
            self.blocks.pop_front();
        }
        self.blocks.push_back((block, content));
    }

    /// How many blocks to fetch when `block` is missed: one for a jump, more and more for a sequential reader.
    fn plan(&mut self, block: u64, blocks: u64) -> u64 {
        self.ahead = if block == self.expected { (self.ahead * 2).clamp(1, READ_AHEAD_BLOCKS) } else { 1 };
        let count = self.ahead.min(blocks - block);
        self.expected = block + count;
        count
    }
}

impl RangedSource {
    pub(super) async fn open(operator: &Operator, path: &str, bytes: u64) -> Result<Self, StoreError> {
        let reader = operator.reader(path).await.map_err(|e| StoreError::of(path, &e))?;
        Ok(Self { reader, path: path.into(), bytes, cache: Mutex::default(), fetched: AtomicU64::new(0) })
    }

    /// Size of the object.
    pub fn bytes(&self) -> u64 {
        self.bytes
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
        let end = offset.saturating_add(bytes as u64).min(self.bytes);
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        // Held over the request: two readers of one source would fetch the same block twice.
        let mut cache = self.cache.lock().await;
        let mut at = offset;
        while at < end {
            let block = at / BLOCK_BYTES;
            let content = self.block(&mut cache, block).await?;
            let from = (at - block * BLOCK_BYTES) as usize;
            let to = content.len().min((end - block * BLOCK_BYTES) as usize);
            if from >= to {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{}: became shorter", self.path)));
            }
            out.extend_from_slice(&content.slice(from..to).to_bytes());
            at += (to - from) as u64;
        }
        Ok(out)
    }

    async fn block(&self, cache: &mut Cache, block: u64) -> io::Result<opendal::Buffer> {
        if let Some(content) = cache.get(block) {
            return Ok(content);
        }
        let count = cache.plan(block, self.bytes.div_ceil(BLOCK_BYTES));
        let start = block * BLOCK_BYTES;
        let end = (start + count * BLOCK_BYTES).min(self.bytes);
        let whole = self.fetch(start, end).await?;
        for n in 0..count {
            let from = (n * BLOCK_BYTES) as usize;
            let to = whole.len().min(from + BLOCK_BYTES as usize);
            if from < to {
                cache.put(block + n, whole.slice(from..to));
            }
        }
        cache.get(block).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("{}: is empty", self.path)))
    }

    async fn fetch(&self, start: u64, end: u64) -> io::Result<opendal::Buffer> {
        let mut tries = 1;
        loop {
            match self.reader.read(start..end).await {
                Ok(content) => {
                    self.fetched.fetch_add(end - start, Ordering::Relaxed);
                    return Ok(content);
                }
                Err(e) if tries < READ_TRIES && e.is_temporary() => tries += 1,
                Err(e) => return Err(io::Error::other(format!("{}: {e}", self.path))),
            }
        }
    }
}

/// Several objects end to end, as one input.
pub struct Concatenated {
    /// Where each starts, and the source itself.
    pieces: Vec<(u64, RangedSource)>,
    bytes: u64,
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
        Self { pieces, bytes }
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
        for (start, source) in &self.pieces[first.min(self.pieces.len())..] {
            if *start >= end {
                break;
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
