//! Bytes of an input, as libavformat reads them.

use crate::media::error::{Result, allocated};
use crate::media::ffi;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::io;

/// The outside, as far as a child may reach it.
pub trait Host {
    /// Bytes of an input from `offset`; fewer than asked only at its end, 0 past it.
    ///
    /// # Errors
    /// The bytes cannot be had: the store or the disk failed.
    fn read(&self, input: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Bytes of an input.
    fn bytes(&self, input: u32) -> u64;

    /// Frames or packets done so far.
    fn progress(&self, done: u64);
}

/// Bytes libavformat buffers between reads.
const BUFFER_BYTES: usize = 64 * 1024;

/// An AVIOContext over one input of a [`Host`].
pub struct Input<'h> {
    pub(crate) context: *mut ffi::AVIOContext,
    state: Box<State<'h>>,
}

struct State<'h> {
    host: &'h dyn Host,
    input: u32,
    position: u64,
    bytes: u64,
    /// Ranges whose content does not matter now: read as zeros, not from the host. Sorted, apart.
    blank: Vec<(u64, u64)>,
    error: Option<io::Error>,
}

impl<'h> Input<'h> {
    pub fn new(host: &'h dyn Host, input: u32) -> Result<Self> {
        let bytes = host.bytes(input);
        let mut state = Box::new(State { host, input, position: 0, bytes, blank: Vec::new(), error: None });
        // SAFETY: the buffer comes from av_malloc as avio_alloc_context asks; the state is boxed, so its address
        // stays, and it is freed only after the context.
        let context = unsafe {
            let buffer = allocated(ffi::av_malloc(BUFFER_BYTES).cast::<u8>(), "an I/O buffer")?;
            let opaque = (&raw mut *state).cast::<c_void>();
            allocated(
                ffi::avio_alloc_context(buffer, BUFFER_BYTES as c_int, 0, opaque, Some(read), None, Some(seek)),
                "an I/O context",
            )?
        };
        Ok(Self { context, state })
    }

    /// From now on these byte ranges read as zeros without asking the host.
    pub fn set_blank(&mut self, ranges: Vec<(u64, u64)>) {
        self.state.blank = ranges;
    }

    /// The input is an MP4 whose top-level boxes (ISO/IEC 14496-12 4.2) end without a `moov`.
    pub fn lacks_index(&self) -> bool {
        let boxes = top_level_boxes(self.state.host, self.state.input).unwrap_or_default();
        boxes.first().is_some_and(|first| &first.kind == b"ftyp") && boxes.iter().all(|b| &b.kind != b"moov")
    }

    /// Why the host could not give bytes, when it could not.
    pub fn failure(&self) -> Option<String> {
        self.state.error.as_ref().map(io::Error::to_string)
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        // SAFETY: ours; libavformat may have replaced the buffer, so it is freed through the context.
        unsafe {
            ffi::av_freep((&raw mut (*self.context).buffer).cast());
            ffi::avio_context_free(&mut self.context);
        }
    }
}

impl State<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let next_blank = self.blank.partition_point(|&(_, end)| end <= self.position);
        let mut most = buffer.len();
        if let Some(&(start, end)) = self.blank.get(next_blank) {
            if start <= self.position {
                let n = most.min((end - self.position) as usize);
                buffer[..n].fill(0);
                self.position += n as u64;
                return Ok(n);
            }
            most = most.min((start - self.position) as usize);
        }
        let n = self.host.read(self.input, self.position, &mut buffer[..most])?;
        self.position += n as u64;
        Ok(n)
    }
}

unsafe extern "C" fn read(opaque: *mut c_void, buffer: *mut u8, size: c_int) -> c_int {
    // SAFETY: `opaque` is the boxed state of a living Input; libavformat gives `size` writable bytes.
    let (state, buffer) = unsafe { (&mut *opaque.cast::<State>(), std::slice::from_raw_parts_mut(buffer, size.max(0) as usize)) };
    match state.read(buffer) {
        Ok(0) => ffi::AVERROR_EOF,
        Ok(n) => n as c_int,
        Err(e) => {
            state.error.get_or_insert(e);
            -libc::EIO
        }
    }
}

unsafe extern "C" fn seek(opaque: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: `opaque` is the boxed state of a living Input.
    let state = unsafe { &mut *opaque.cast::<State>() };
    let base = match whence & !ffi::AVSEEK_FORCE {
        ffi::AVSEEK_SIZE => return state.bytes as i64,
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => state.position as i64,
        libc::SEEK_END => state.bytes as i64,
        _ => return i64::from(-libc::EINVAL),
    };
    match base.checked_add(offset).and_then(|at| u64::try_from(at).ok()) {
        Some(at) => {
            state.position = at;
            at as i64
        }
        None => i64::from(-libc::EINVAL),
    }
}

/// A top-level box: its type and the range of its payload. The range of one that is cut short ends past the input.
pub struct TopLevelBox {
    pub kind: [u8; 4],
    pub payload: (u64, u64),
}

/// Boxes at the top level of a file; more are not walked.
const MAX_BOXES: usize = 1_000_000;

/// The top-level boxes of an MP4 (ISO/IEC 14496-12 4.2), up to the first that is none.
///
/// # Errors
/// The bytes cannot be had.
pub fn top_level_boxes(host: &dyn Host, input: u32) -> io::Result<Vec<TopLevelBox>> {
    let all = host.bytes(input);
    let (mut at, mut boxes) = (0u64, Vec::new());
    while at < all && boxes.len() < MAX_BOXES {
        let mut head = [0u8; 16];
        let n = host.read(input, at, &mut head)?;
        if n < 8 {
            break;
        }
        let short = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        let (size, header) = match short {
            0 => (all - at, 8),
            1 if n == 16 => (u64::from_be_bytes(std::array::from_fn(|i| head[8 + i])), 16),
            size => (size, 8),
        };
        let Some(end) = at.checked_add(size).filter(|_| size >= header) else { break };
        boxes.push(TopLevelBox { kind: [head[4], head[5], head[6], head[7]], payload: (at + header, end) });
        at = end;
    }
    Ok(boxes)
}

/// A host whose bytes are asked for once: a probe opens its source several times, and each time libavformat reads the
/// whole index.
pub struct Remembering<'h> {
    host: &'h dyn Host,
    blocks: RefCell<HashMap<(u32, u64), Vec<u8>>>,
    fetched: Cell<u64>,
}

/// Bytes of a block, and blocks kept: the index of a day. What is read later is not kept.
const BLOCK_BYTES: u64 = 64 * 1024;
const MAX_BLOCKS: usize = 2048;

impl<'h> Remembering<'h> {
    pub fn new(host: &'h dyn Host) -> Self {
        Self { host, blocks: RefCell::default(), fetched: Cell::new(0) }
    }

    /// Bytes had from the host so far.
    pub fn bytes_read(&self) -> u64 {
        self.fetched.get()
    }

    fn fetch(&self, input: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.host.read(input, offset, buffer)?;
        self.fetched.set(self.fetched.get() + read as u64);
        Ok(read)
    }

    /// Copies from the block that holds `offset`; the block is fetched and kept when there is room.
    fn copy(&self, input: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let number = offset / BLOCK_BYTES;
        let mut blocks = self.blocks.borrow_mut();
        if !blocks.contains_key(&(input, number)) {
            if blocks.len() >= MAX_BLOCKS {
                drop(blocks);
                return self.fetch(input, offset, buffer);
            }
            let mut block = vec![0; BLOCK_BYTES as usize];
            let read = self.fetch(input, number * BLOCK_BYTES, &mut block)?;
            block.truncate(read);
            blocks.insert((input, number), block);
        }
        let block = &blocks[&(input, number)];
        let rest = block.get((offset % BLOCK_BYTES) as usize..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

impl Host for Remembering<'_> {
    fn read(&self, input: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.copy(input, offset + filled as u64, &mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    fn bytes(&self, input: u32) -> u64 {
        self.host.bytes(input)
    }

    fn progress(&self, done: u64) {
        self.host.progress(done);
    }
}
