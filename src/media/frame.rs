//! Owned packets and frames.

use crate::media::error::{Result, allocated, check, string};
use crate::media::ffi;
use crate::quality::{Format, Plane, Planes, Samples};
use crate::sandbox::protocol::RefusalReason;
use sha2::{Digest, Sha256};

/// An owned AVPacket.
pub struct Packet(pub *mut ffi::AVPacket);

impl Packet {
    pub fn new() -> Result<Self> {
        // SAFETY: no arguments.
        Ok(Self(allocated(unsafe { ffi::av_packet_alloc() }, "a packet")?))
    }

    pub fn get(&self) -> &ffi::AVPacket {
        // SAFETY: never null once made.
        unsafe { &*self.0 }
    }

    pub fn get_mut(&mut self) -> &mut ffi::AVPacket {
        // SAFETY: never null once made, and borrowed mutably.
        unsafe { &mut *self.0 }
    }

    pub fn unref(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::av_packet_unref(self.0) };
    }

    /// The payload; empty for a side-data-only packet.
    pub fn data(&self) -> &[u8] {
        let p = self.get();
        if p.data.is_null() || p.size <= 0 {
            return &[];
        }
        // SAFETY: libavcodec keeps `size` bytes at `data` while the packet lives.
        unsafe { std::slice::from_raw_parts(p.data, p.size as usize) }
    }

    pub fn is_key(&self) -> bool {
        self.get().flags & ffi::AV_PKT_FLAG_KEY != 0
    }

    /// Decoded, but not to be shown (edit lists, preroll).
    pub fn is_discarded(&self) -> bool {
        self.get().flags & ffi::AV_PKT_FLAG_DISCARD != 0
    }

    pub fn pts(&self) -> Option<i64> {
        known(self.get().pts)
    }

    pub fn dts(&self) -> Option<i64> {
        known(self.get().dts)
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::av_packet_free(&mut self.0) };
    }
}

/// What a picture shows of its fields, whatever its flags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldsSeen {
    TopFirst,
    BottomFirst,
    Progressive,
    /// Nothing moves.
    Undecided,
}

/// A timestamp, when it is one.
pub fn known(ticks: i64) -> Option<i64> {
    (ticks != ffi::AV_NOPTS_VALUE).then_some(ticks)
}

/// An owned AVFrame.
pub struct Frame(pub *mut ffi::AVFrame);

impl Frame {
    pub fn new() -> Result<Self> {
        // SAFETY: no arguments.
        Ok(Self(allocated(unsafe { ffi::av_frame_alloc() }, "a frame")?))
    }

    pub fn get(&self) -> &ffi::AVFrame {
        // SAFETY: never null once made.
        unsafe { &*self.0 }
    }

    pub fn get_mut(&mut self) -> &mut ffi::AVFrame {
        // SAFETY: never null once made, and borrowed mutably.
        unsafe { &mut *self.0 }
    }

    pub fn unref(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::av_frame_unref(self.0) };
    }

    /// The same picture once more: its samples are shared, and kept as long as either is.
    ///
    /// # Errors
    /// Out of memory.
    pub fn shared(&self) -> Result<Self> {
        let copy = Self::new()?;
        // SAFETY: both are ours; the copy is blank.
        check(unsafe { ffi::av_frame_ref(copy.0, self.0) }, RefusalReason::Memory, "a shared frame")?;
        Ok(copy)
    }

    pub fn best_pts(&self) -> Option<i64> {
        known(self.get().best_effort_timestamp)
    }

    /// The decoder says that what it gives is damaged.
    pub fn is_damaged(&self) -> bool {
        let f = self.get();
        f.flags & ffi::AV_FRAME_FLAG_CORRUPT != 0 || f.decode_error_flags != 0
    }

    /// A copy with both dimensions even: the last column and row of every plane that grows are repeated. libavfilter's
    /// own padding would round an odd 4:2:0 width down first and lose a column.
    ///
    /// # Errors
    /// Out of memory.
    pub fn padded_to_even(&self) -> Result<Self> {
        let mut padded = Self::new()?;
        let f = self.get();
        // SAFETY: the new frame gets buffers for its own, larger size; each plane is copied and extended within them.
        unsafe {
            (*padded.0).format = f.format;
            (*padded.0).width = f.width + (f.width & 1);
            (*padded.0).height = f.height + (f.height & 1);
            let code = ffi::av_frame_get_buffer(padded.0, 0);
            check(code, RefusalReason::Memory, "a padded frame")?;
            check(ffi::av_frame_copy_props(padded.0, self.0), RefusalReason::Internal, "a padded frame")?;
            for plane in 0..4 {
                let (from, to) = (self.plane_shape(plane), padded.plane_shape(plane));
                if from.0 > 0 && !f.data[plane].is_null() {
                    extend_plane(
                        (f.data[plane], f.linesize[plane]),
                        from,
                        (padded.get_mut().data[plane], padded.get().linesize[plane]),
                        to,
                    );
                }
            }
        }
        Ok(padded)
    }

    /// The samples of a frame of that format, lent; `None` when it has another one.
    pub fn planes(&self, format: &Format) -> Option<Planes<'_>> {
        let f = self.get();
        let expected = match format.bits {
            8 => ffi::AVPixelFormat::AV_PIX_FMT_YUV420P,
            _ => ffi::AVPixelFormat::AV_PIX_FMT_YUV420P10LE,
        };
        let size = (u32::try_from(f.width).ok()?, u32::try_from(f.height).ok()?);
        if f.format != expected as i32 || size != (format.width, format.height) {
            return None;
        }
        Some(Planes([self.plane(0, format)?, self.plane(1, format)?, self.plane(2, format)?]))
    }

    fn plane(&self, n: usize, format: &Format) -> Option<Plane<'_>> {
        let f = self.get();
        let (width, height) = format.plane(n);
        let (data, bytes) = (f.data[n], usize::try_from(f.linesize[n]).ok()?);
        let sample_bytes = if format.bits == 8 { 1 } else { size_of::<u16>() };
        let stride = bytes / sample_bytes;
        let is_aligned = bytes.is_multiple_of(sample_bytes) && data.cast::<u16>().is_aligned();
        if data.is_null() || stride < width || height == 0 || (sample_bytes > 1 && !is_aligned) {
            return None;
        }
        let samples = (height - 1) * stride + width;
        // SAFETY: a frame of this format and size has `height` rows of `width` samples in each plane, `linesize` bytes apart,
        // and keeps them while it is borrowed; words are aligned.
        let samples = unsafe {
            match sample_bytes {
                1 => Samples::Bytes(std::slice::from_raw_parts(data, samples)),
                _ => Samples::Words(std::slice::from_raw_parts(data.cast::<u16>(), samples)),
            }
        };
        Some(Plane { samples, stride })
    }

    /// What the field detector saw in this frame and those before it.
    pub fn fields_seen(&self) -> FieldsSeen {
        // SAFETY: the frame's metadata is null or a dictionary; a value found is a terminated string.
        let word = unsafe {
            let entry = ffi::av_dict_get(self.get().metadata, c"lavfi.idet.multiple.current_frame".as_ptr(), std::ptr::null(), 0);
            if entry.is_null() { String::new() } else { string((*entry).value) }
        };
        match word.as_str() {
            "tff" => FieldsSeen::TopFirst,
            "bff" => FieldsSeen::BottomFirst,
            "progressive" => FieldsSeen::Progressive,
            _ => FieldsSeen::Undecided,
        }
    }

    /// Side data of the frame as bytes.
    pub fn side_data(&self, kind: ffi::AVFrameSideDataType) -> Option<&[u8]> {
        // SAFETY: the frame is ours; its side data lives as long as it does.
        unsafe {
            let data = ffi::av_frame_get_side_data(self.0, kind);
            (!data.is_null()).then(|| std::slice::from_raw_parts((*data).data, (*data).size))
        }
    }

    /// First 16 hexadecimal digits of the SHA-256 of the visible pixels, plane by plane.
    pub fn pixel_digest(&self) -> String {
        let f = self.get();
        let mut hash = Sha256::new();
        for plane in 0..4 {
            let (row_bytes, rows) = self.plane_shape(plane);
            if row_bytes == 0 || f.data[plane].is_null() {
                continue;
            }
            for row in 0..rows {
                // SAFETY: the frame holds `rows` rows of at least `row_bytes` bytes, `linesize` apart.
                let bytes = unsafe {
                    std::slice::from_raw_parts(f.data[plane].offset(row as isize * f.linesize[plane] as isize), row_bytes)
                };
                hash.update(bytes);
            }
        }
        hex::encode(&hash.finalize()[..8])
    }

    /// Bytes in a row, and rows, of a plane of a video frame.
    fn plane_shape(&self, plane: usize) -> (usize, usize) {
        let f = self.get();
        // SAFETY: `format` of a decoded video frame is a pixel format of this library.
        unsafe {
            let format = std::mem::transmute::<i32, ffi::AVPixelFormat>(f.format);
            let descriptor = ffi::av_pix_fmt_desc_get(format);
            if descriptor.is_null() {
                return (0, 0);
            }
            let row_bytes = ffi::av_image_get_linesize(format, f.width, plane as i32);
            let shift = if plane == 1 || plane == 2 { (*descriptor).log2_chroma_h } else { 0 };
            let rows = (f.height + (1 << shift) - 1) >> shift;
            (row_bytes.max(0) as usize, rows.max(0) as usize)
        }
    }
}

/// Copies a plane into a larger one and repeats its last sample of each row, and its last row.
///
/// # Safety
/// Both planes hold the rows and row bytes said, and their line sizes are positive.
unsafe fn extend_plane(source: (*mut u8, i32), from: (usize, usize), target: (*mut u8, i32), to: (usize, usize)) {
    // Row bytes grow by one sample: one or two bytes, or a whole packed pixel.
    let sample = to.0.saturating_sub(from.0);
    for row in 0..to.1 {
        let seen = row.min(from.1 - 1);
        // SAFETY: the caller's promise; `seen` and `row` are rows of their planes.
        unsafe {
            let source = source.0.add(seen * source.1 as usize);
            let target = target.0.add(row * target.1 as usize);
            std::ptr::copy_nonoverlapping(source, target, from.0);
            std::ptr::copy_nonoverlapping(source.add(from.0.saturating_sub(sample)), target.add(from.0), sample);
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::av_frame_free(&mut self.0) };
    }
}
