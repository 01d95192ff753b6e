//! What a container tells a decoder, as plain data and back: a child decodes with what another one found.

use crate::media::demux::{Stream, av_rational, rational};
use crate::media::error::{Result, allocated, c, refuse, string};
use crate::media::ffi;
use crate::probe::DecoderParameters;
use crate::sandbox::protocol::RefusalReason;
use std::ffi::c_int;

/// Most bytes of a codec's own header.
const MAX_EXTRADATA_BYTES: usize = 1024 * 1024;

/// Orders of fields, by the names that the `ffprobe` program gives them.
const FIELD_ORDERS: [(&str, ffi::AVFieldOrder); 5] = [
    ("progressive", ffi::AVFieldOrder::AV_FIELD_PROGRESSIVE),
    ("tt", ffi::AVFieldOrder::AV_FIELD_TT),
    ("bb", ffi::AVFieldOrder::AV_FIELD_BB),
    ("tb", ffi::AVFieldOrder::AV_FIELD_TB),
    ("bt", ffi::AVFieldOrder::AV_FIELD_BT),
];

/// The parameters of an open container's stream.
pub fn of(stream: Stream<'_>) -> DecoderParameters {
    let p = stream.parameters();
    let extradata = if p.extradata.is_null() || p.extradata_size <= 0 {
        &[][..]
    } else {
        // SAFETY: extradata holds `extradata_size` bytes.
        unsafe { std::slice::from_raw_parts(p.extradata, p.extradata_size as usize) }
    };
    let field_order = FIELD_ORDERS.iter().find(|(_, order)| *order == p.field_order);
    // SAFETY: all names are constants of the library; `format` is what libavformat put there for a video stream.
    let (pixel_format, range, primaries, transfer, matrix, chroma) = unsafe {
        (
            string(ffi::av_get_pix_fmt_name(std::mem::transmute::<c_int, ffi::AVPixelFormat>(p.format))),
            string(ffi::av_color_range_name(p.color_range)),
            string(ffi::av_color_primaries_name(p.color_primaries)),
            string(ffi::av_color_transfer_name(p.color_trc)),
            string(ffi::av_color_space_name(p.color_space)),
            string(ffi::av_chroma_location_name(p.chroma_location)),
        )
    };
    DecoderParameters {
        codec: stream.codec_name(),
        codec_tag: p.codec_tag,
        extradata: hex::encode(extradata),
        pixel_format,
        profile: p.profile,
        level: p.level,
        width: p.width,
        height: p.height,
        sample_aspect: rational(p.sample_aspect_ratio),
        field_order: field_order.map_or_else(String::new, |(name, _)| (*name).to_string()),
        colour_range: range,
        colour_primaries: primaries,
        colour_transfer: transfer,
        colour_matrix: matrix,
        chroma_location: chroma,
        reorder_frames: p.video_delay,
        bits_per_coded_sample: p.bits_per_coded_sample,
        bits_per_raw_sample: p.bits_per_raw_sample,
        bit_rate: p.bit_rate,
        frame_rate: rational(stream.0.avg_frame_rate),
    }
}

/// An owned AVCodecParameters.
pub struct Parameters(*mut ffi::AVCodecParameters);

impl Parameters {
    /// # Errors
    /// Internal: they name what this FFmpeg does not know, so another version found them.
    pub fn new(from: &DecoderParameters) -> Result<Self> {
        // SAFETY: no arguments.
        let parameters = Self(allocated(unsafe { ffi::avcodec_parameters_alloc() }, "a stream's parameters")?);
        parameters.fill(from)?;
        parameters.fill_colour(from);
        parameters.set_extradata(&from.extradata)?;
        Ok(parameters)
    }

    pub fn get(&self) -> &ffi::AVCodecParameters {
        // SAFETY: never null once made, and filled with values of the library's own.
        unsafe { &*self.0 }
    }

    fn fill(&self, from: &DecoderParameters) -> Result<()> {
        let (codec, format) = (c(&from.codec), c(&from.pixel_format));
        // SAFETY: look-ups by terminated names; a descriptor is a constant of the library; the parameters are ours.
        unsafe {
            let descriptor = ffi::avcodec_descriptor_get_by_name(codec.as_ptr());
            if descriptor.is_null() {
                return refuse(RefusalReason::Internal, format!("this FFmpeg knows no codec '{}'", from.codec));
            }
            let p = &mut *self.0;
            p.codec_type = ffi::AVMediaType::AVMEDIA_TYPE_VIDEO;
            p.codec_id = (*descriptor).id;
            p.codec_tag = from.codec_tag;
            p.format = ffi::av_get_pix_fmt(format.as_ptr()) as c_int;
            p.profile = from.profile;
            p.level = from.level;
            p.width = from.width;
            p.height = from.height;
            p.sample_aspect_ratio = av_rational(from.sample_aspect);
            if let Some((_, order)) = FIELD_ORDERS.iter().find(|(name, _)| *name == from.field_order) {
                p.field_order = *order;
            }
            p.video_delay = from.reorder_frames;
            p.bits_per_coded_sample = from.bits_per_coded_sample;
            p.bits_per_raw_sample = from.bits_per_raw_sample;
            p.bit_rate = from.bit_rate;
        }
        Ok(())
    }

    fn fill_colour(&self, from: &DecoderParameters) {
        let (range, primaries, transfer) = (c(&from.colour_range), c(&from.colour_primaries), c(&from.colour_transfer));
        let (matrix, location) = (c(&from.colour_matrix), c(&from.chroma_location));
        // SAFETY: look-ups by terminated names; of fields only the addresses are taken.
        let found = unsafe {
            let p = self.0;
            [
                (ffi::av_color_range_from_name(range.as_ptr()), (&raw mut (*p).color_range).cast::<c_int>()),
                (ffi::av_color_primaries_from_name(primaries.as_ptr()), (&raw mut (*p).color_primaries).cast()),
                (ffi::av_color_transfer_from_name(transfer.as_ptr()), (&raw mut (*p).color_trc).cast()),
                (ffi::av_color_space_from_name(matrix.as_ptr()), (&raw mut (*p).color_space).cast()),
                (ffi::av_chroma_location_from_name(location.as_ptr()), (&raw mut (*p).chroma_location).cast()),
            ]
        };
        // A name that says nothing gives a negative code.
        for (value, field) in found.into_iter().filter(|(value, _)| *value >= 0) {
            // SAFETY: the field is one of ours and an int to the library, whose own value of the enumeration it gets.
            unsafe { *field = value };
        }
    }

    fn set_extradata(&self, hexadecimal: &str) -> Result<()> {
        let bytes = hex::decode(hexadecimal).unwrap_or_default();
        if bytes.len() * 2 != hexadecimal.len() || bytes.len() > MAX_EXTRADATA_BYTES {
            return refuse(RefusalReason::Internal, "the codec's header in the packet table is broken");
        }
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: a zeroed buffer with the padding that decoders read over, freed with the parameters; the copy fits.
        unsafe {
            let buffer = ffi::av_mallocz(bytes.len() + ffi::AV_INPUT_BUFFER_PADDING_SIZE as usize).cast::<u8>();
            let buffer = allocated(buffer, "a codec's header")?;
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer, bytes.len());
            (*self.0).extradata = buffer;
            (*self.0).extradata_size = bytes.len() as c_int;
        }
        Ok(())
    }
}

impl Drop for Parameters {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::avcodec_parameters_free(&mut self.0) };
    }
}
