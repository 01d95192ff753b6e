//! The `codecs` string of a track (RFC 6381), from what the encoder left in its extradata.
//!
//! Extradata comes in two shapes: the ISO-BMFF configuration record (after a demuxer), or the bare headers of the
//! elementary stream (from an encoder). Both are read.

use crate::media::error::{Result, refuse};
use crate::media::ffi;
use crate::sandbox::protocol::RefusalReason;

/// The string for a track of that sample entry (`avc1`, `hvc1`, `av01`, `mp4a`).
///
/// # Errors
/// Internal: the extradata is not what its codec prescribes, or the codec is none that is ever written.
pub fn rfc6381(parameters: &ffi::AVCodecParameters, sample_entry: &str) -> Result<String> {
    let extradata = if parameters.extradata.is_null() || parameters.extradata_size <= 0 {
        &[][..]
    } else {
        // SAFETY: libavcodec keeps `extradata_size` bytes there while the parameters live.
        unsafe { std::slice::from_raw_parts(parameters.extradata, parameters.extradata_size as usize) }
    };
    let fields = match parameters.codec_id {
        ffi::AVCodecID::AV_CODEC_ID_H264 => avc(extradata),
        ffi::AVCodecID::AV_CODEC_ID_HEVC => hevc(extradata),
        ffi::AVCodecID::AV_CODEC_ID_AV1 => av1(extradata),
        ffi::AVCodecID::AV_CODEC_ID_AAC => aac(extradata),
        _ => None,
    };
    match fields {
        Some(fields) => Ok(format!("{sample_entry}.{fields}")),
        None => refuse(
            RefusalReason::Internal,
            format!("{sample_entry}: the {} byte header of {:?} gives no codecs string", extradata.len(), parameters.codec_id),
        ),
    }
}

/// `PPCCLL` (RFC 6381 3.3): profile_idc, constraint flags and level_idc of the sequence parameter set.
fn avc(extradata: &[u8]) -> Option<String> {
    let sps;
    let profile = if extradata.first() == Some(&1) {
        extradata.get(1..4)?
    } else {
        sps = annex_b(extradata, |header| header & 0x1f == 7)?;
        sps.get(1..4)?
    };
    Some(format!("{:02x}{:02x}{:02x}", profile[0], profile[1], profile[2]))
}

/// By ISO/IEC 14496-15 Annex E.3: profile space and idc, compatibility flags in reverse bit order, tier
/// and level, then the constraint bytes without trailing zeros.
fn hevc(extradata: &[u8]) -> Option<String> {
    let sps;
    // general_profile_space to general_level_idc, 12 bytes, are laid out alike in hvcC and in the SPS, where they
    // follow the NAL header (2 bytes) and one byte of ids (ITU-T H.265 7.3.2.2.1).
    let profile = if extradata.first() == Some(&1) {
        extradata.get(1..13)?
    } else {
        sps = annex_b(extradata, |header| header >> 1 & 0x3f == 33)?;
        sps.get(3..15)?
    };
    let space = ["", "A", "B", "C"][usize::from(profile[0] >> 6)];
    let tier = if profile[0] & 0x20 == 0 { 'L' } else { 'H' };
    let compatibility = u32::from_be_bytes(profile[1..5].try_into().ok()?).reverse_bits();
    let mut text = format!("{space}{}.{compatibility:X}.{tier}{}", profile[0] & 0x1f, profile[11]);
    let constraints = &profile[5..11];
    let used = constraints.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        text.push_str(&format!(".{byte:X}"));
    }
    Some(text)
}

/// `40.<audio object type>` (ISO/IEC 14496-3 1.6.2.1).
fn aac(extradata: &[u8]) -> Option<String> {
    let mut bits = Bits::new(extradata);
    let object = match bits.take(5)? {
        31 => 32 + bits.take(6)?,
        object => object,
    };
    Some(format!("40.{object}"))
}

/// The first NAL unit of an Annex B stream whose first header byte is wanted, emulation prevention removed.
fn annex_b(stream: &[u8], wanted: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let starts: Vec<usize> = stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let nal = starts.iter().map(|&at| &stream[at..]).find(|nal| nal.first().is_some_and(|&header| wanted(header)))?;
    let end = nal.windows(3).position(|w| w == [0, 0, 1]).unwrap_or(nal.len());
    let mut bytes = Vec::with_capacity(end);
    let mut zeros = 0;
    for &byte in &nal[..end] {
        // 00 00 03: the 03 was put in (ITU-T H.264 7.4.1, H.265 7.4.2).
        if byte == 3 && zeros >= 2 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        bytes.push(byte);
    }
    Some(bytes)
}

/// `P.LLT.DD`, and the optional colour fields when one of them is not its default ("Codecs Parameter String" of
/// the AV1 ISO-BMFF binding). Unspecified colour stays in the short form, as players take it.
fn av1(extradata: &[u8]) -> Option<String> {
    // av1C: marker and version, then three bytes, then the OBUs.
    let obus = if extradata.first() == Some(&0x81) { extradata.get(4..)? } else { extradata };
    let s = SequenceHeader::parse(sequence_obu(obus)?)?;
    let tier = if s.high_tier { 'H' } else { 'M' };
    let short = format!("{}.{:02}{tier}.{:02}", s.profile, s.level, s.depth);
    let plain_colour = s.colour.iter().all(|&code| code == 1 || code == 2);
    if plain_colour && !s.monochrome && !s.full_range && s.subsampled == (true, true) {
        return Some(short);
    }
    let position = if s.subsampled == (true, true) { s.chroma_position } else { 0 };
    let [primaries, transfer, matrix] = s.colour;
    Some(format!(
        "{short}.{}.{}{}{position}.{primaries:02}.{transfer:02}.{matrix:02}.{}",
        u8::from(s.monochrome),
        u8::from(s.subsampled.0),
        u8::from(s.subsampled.1),
        u8::from(s.full_range)
    ))
}

/// The payload of the first sequence header OBU (AV1 5.3).
fn sequence_obu(mut obus: &[u8]) -> Option<&[u8]> {
    loop {
        let header = *obus.first()?;
        let mut at = if header & 0x04 == 0 { 1 } else { 2 };
        let mut size = 0usize;
        if header & 0x02 == 0 {
            size = obus.len().checked_sub(at)?;
        } else {
            for i in 0..4 {
                let byte = *obus.get(at)?;
                at += 1;
                size |= usize::from(byte & 0x7f) << (7 * i);
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        let payload = obus.get(at..at.checked_add(size)?)?;
        if header >> 3 & 0x0f == 1 {
            return Some(payload);
        }
        obus = &obus[at + size..];
    }
}

/// What the string needs of a sequence header.
struct SequenceHeader {
    profile: u32,
    level: u32,
    high_tier: bool,
    depth: u8,
    monochrome: bool,
    full_range: bool,
    /// Horizontally and vertically.
    subsampled: (bool, bool),
    chroma_position: u32,
    /// H.273 primaries, transfer, matrix.
    colour: [u32; 3],
}

impl SequenceHeader {
    /// AV1 5.5.1 and 5.5.2.
    fn parse(payload: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(payload);
        let profile = bits.take(3)?;
        bits.take(1)?; // still_picture
        let reduced = bits.flag()?;
        let (level, high_tier) = if reduced { (bits.take(5)?, false) } else { operating_points(&mut bits)? };
        let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
        bits.take(width_bits)?;
        bits.take(height_bits)?;
        if !reduced && bits.flag()? {
            bits.take(7)?; // lengths of the frame ids
        }
        bits.take(3)?; // use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
        if !reduced {
            inter_tools(&mut bits)?;
        }
        bits.take(3)?; // enable_superres, enable_cdef, enable_restoration
        Self::colour(&mut bits, profile, level, high_tier)
    }

    /// AV1 5.5.2.
    fn colour(bits: &mut Bits<'_>, profile: u32, level: u32, high_tier: bool) -> Option<Self> {
        let depth = match (bits.flag()?, profile) {
            (true, 2) if bits.flag()? => 12,
            (true, _) => 10,
            (false, _) => 8,
        };
        let monochrome = profile != 1 && bits.flag()?;
        let colour = if bits.flag()? { [bits.take(8)?, bits.take(8)?, bits.take(8)?] } else { [2, 2, 2] };
        let mut header = Self {
            profile,
            level,
            high_tier,
            depth,
            monochrome,
            full_range: true,
            subsampled: (false, false),
            chroma_position: 0,
            colour,
        };
        if !monochrome && colour == [1, 13, 0] {
            return Some(header); // sRGB: 4:4:4 and full range, nothing more is written
        }
        header.full_range = bits.flag()?;
        header.subsampled = match (monochrome, profile) {
            (true, _) | (false, 0) => (true, true),
            (false, 1) => (false, false),
            _ if depth < 12 => (true, false),
            _ => {
                let across = bits.flag()?;
                (across, across && bits.flag()?)
            }
        };
        if !monochrome && header.subsampled == (true, true) {
            header.chroma_position = bits.take(2)?;
        }
        Some(header)
    }
}

/// Timing and operating points; gives level and tier of the first one.
fn operating_points(bits: &mut Bits<'_>) -> Option<(u32, bool)> {
    let mut delay_bits = None;
    if bits.flag()? {
        bits.take(32)?; // num_units_in_display_tick
        bits.take(32)?; // time_scale
        if bits.flag()? {
            bits.skip_uvlc()?; // num_ticks_per_picture_minus_1
        }
        if bits.flag()? {
            delay_bits = Some(bits.take(5)? + 1);
            bits.take(32)?; // num_units_in_decoding_tick
            bits.take(10)?; // lengths of removal and presentation times
        }
    }
    let display_delay = bits.flag()?;
    let points = bits.take(5)? + 1;
    let mut first = None;
    for _ in 0..points {
        bits.take(12)?; // operating_point_idc
        let level = bits.take(5)?;
        let high_tier = level > 7 && bits.flag()?;
        first.get_or_insert((level, high_tier));
        if let Some(length) = delay_bits
            && bits.flag()?
        {
            bits.take(length)?;
            bits.take(length)?;
            bits.take(1)?;
        }
        if display_delay && bits.flag()? {
            bits.take(4)?;
        }
    }
    first
}

/// The tools of a sequence that is not a still picture.
fn inter_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.take(4)?; // interintra and masked compound, warped motion, dual filter
    let order_hint = bits.flag()?;
    if order_hint {
        bits.take(2)?; // enable_jnt_comp, enable_ref_frame_mvs
    }
    let screen_content = bits.flag()? || bits.flag()?;
    if screen_content && !bits.flag()? {
        bits.take(1)?; // seq_force_integer_mv
    }
    if order_hint {
        bits.take(3)?;
    }
    Some(())
}

/// Bits of a header, most significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.take(1)? == 1)
    }

    /// AV1 4.10.3.
    fn skip_uvlc(&mut self) -> Option<()> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        if zeros < 32 {
            self.take(zeros)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::ffi::AVCodecID::*;

    fn try_string(codec: ffi::AVCodecID, entry: &str, extradata: &mut [u8]) -> Result<String> {
        // SAFETY: parameters are plain data, all zeros is their empty state; the extradata outlives them.
        let mut parameters: ffi::AVCodecParameters = unsafe { std::mem::zeroed() };
        parameters.codec_id = codec;
        parameters.extradata = extradata.as_mut_ptr();
        parameters.extradata_size = extradata.len() as i32;
        rfc6381(&parameters, entry)
    }

    fn string_of(codec: ffi::AVCodecID, extradata: &str) -> String {
        let entry = match codec {
            AV_CODEC_ID_H264 => "avc1",
            AV_CODEC_ID_HEVC => "hvc1",
            AV_CODEC_ID_AV1 => "av01",
            _ => "mp4a",
        };
        try_string(codec, entry, &mut hex::decode(extradata.replace(' ', "")).unwrap()).unwrap()
    }

    #[test]
    fn x264_headers_give_profile_constraints_and_level_in_both_shapes() {
        let avcc = "0164001e ffe1001a 6764001eacd940a02ff97011000003000100000300320f162d96 01000668ebe3cb22c0fdf8f800";
        let annex_b = "00000001 6764001eacd940a02ff97011000003000100000300320f162d96 00000001 68ebe3cb22c0";
        assert_eq!(string_of(AV_CODEC_ID_H264, avcc), "avc1.64001e");
        assert_eq!(string_of(AV_CODEC_ID_H264, annex_b), "avc1.64001e");
    }

    #[test]
    fn x265_headers_give_the_annex_e_string_in_both_shapes() {
        let main = "01016000000090000000000 03ff000fcfdf8f800000f04";
        assert_eq!(string_of(AV_CODEC_ID_HEVC, main), "hvc1.1.6.L63.90");
        // VPS and SPS as libx265 leaves them, emulation prevention within the constraint flags.
        let annex_b = concat!(
            "00000001 40010c01ffff01600000030090000003000003003f959809",
            "00000001 42010101600000030090000003000003003fa0050201696595"
        );
        assert_eq!(string_of(AV_CODEC_ID_HEVC, annex_b), "hvc1.1.6.L63.90");
        assert_eq!(string_of(AV_CODEC_ID_HEVC, "0102200000009000000000003ff000fcfdfafa"), "hvc1.2.4.L63.90");
        let range_extensions = "00000001 4201010408000003009d0800000300003fb005020169";
        assert_eq!(string_of(AV_CODEC_ID_HEVC, range_extensions), "hvc1.4.10.L63.9D.8");
        assert_eq!(string_of(AV_CODEC_ID_HEVC, "01016000000040000000000 03ff000fcfdf8f8"), "hvc1.1.6.L63.40");
        assert_eq!(string_of(AV_CODEC_ID_HEVC, "01226000000000000000000099f000fcfdf8f8"), "hvc1.2.6.H153");
    }

    #[test]
    fn svt_av1_headers_give_the_short_form_unless_the_colour_needs_the_long_one() {
        let sdr = "0a0b0000000cc4ff6700be0010";
        assert_eq!(string_of(AV_CODEC_ID_AV1, sdr), "av01.0.01M.08");
        assert_eq!(string_of(AV_CODEC_ID_AV1, &format!("81010c00{sdr}")), "av01.0.01M.08");
        // BT.2020 and PQ, 10 bits: the string libavformat's DASH muxer gives.
        assert_eq!(string_of(AV_CODEC_ID_AV1, "0a0e0000000cc4ff6700be1424402410"), "av01.0.01M.10.0.110.09.16.09.0");
        let behind_a_temporal_delimiter = format!("1200{sdr}");
        assert_eq!(string_of(AV_CODEC_ID_AV1, &behind_a_temporal_delimiter), "av01.0.01M.08");
    }

    #[test]
    fn aac_gives_its_object_type() {
        assert_eq!(string_of(AV_CODEC_ID_AAC, "1190"), "mp4a.40.2");
    }

    #[test]
    fn broken_headers_are_refused_not_guessed() {
        for (codec, bytes) in [
            (AV_CODEC_ID_H264, &[][..]),
            (AV_CODEC_ID_H264, &[0, 0, 1, 0x67, 0x64]),
            (AV_CODEC_ID_HEVC, &[1, 1, 0x60]),
            (AV_CODEC_ID_HEVC, &[0, 0, 1, 0x42, 1, 1, 1]),
            (AV_CODEC_ID_AV1, &[0x81, 1, 12, 0]),
            (AV_CODEC_ID_AV1, &[0x0a, 0x0b, 0]),
            (AV_CODEC_ID_AAC, &[]),
            (AV_CODEC_ID_MP3, &[0x11, 0x90]),
        ] {
            assert!(try_string(codec, "none", &mut bytes.to_vec()).is_err(), "{codec:?} {bytes:?}");
        }
    }
}
