//! The sample counts of a track, as `iTunSMPB` in the init segment.
//!
//! The edit list is what CMAF and browsers go by. Libavformat's demuxer does not apply it to the samples of a
//! fragmented file and would play the priming; it does honour this tag, as Apple's players do, which also learn the
//! padding of the last access unit from it.

use crate::media::boxes::find;
use crate::media::error::{Result, refuse};
use crate::sandbox::protocol::RefusalReason;

/// The init segment with the tag: `priming` samples before and what is left of `coded` after `samples` of sound.
///
/// # Errors
/// Internal: the bytes are no init segment.
pub fn with_sample_counts(init: &[u8], priming: u32, coded: u64, samples: u64) -> Result<Vec<u8>> {
    let padding = coded.saturating_sub(samples + u64::from(priming));
    let text = format!(" 00000000 {priming:08X} {padding:08X} {samples:016X}{}", " 00000000".repeat(8));
    let item = [
        boxed(*b"mean", &[&[0; 4], b"com.apple.iTunes"]),
        boxed(*b"name", &[&[0; 4], b"iTunSMPB"]),
        // Type 1: UTF-8 text; no locale.
        boxed(*b"data", &[&[0, 0, 0, 1, 0, 0, 0, 0], text.as_bytes()]),
    ];
    let list = boxed(*b"ilst", &[&boxed(*b"----", &[&item[0], &item[1], &item[2]])]);
    let handler = boxed(*b"hdlr", &[&[0; 8], b"mdirappl", &[0; 9]]);
    let user_data = boxed(*b"udta", &[&boxed(*b"meta", &[&[0; 4], &handler, &list])]);
    let Some((start, end)) = find(init, 0, init.len(), *b"moov") else {
        return refuse(RefusalReason::Internal, "the init segment has no moov");
    };
    // The muxer's own user data is an empty list.
    let (cut_from, cut_to) = find(init, start + 8, end, *b"udta").unwrap_or((end, end));
    let mut moov = init[start + 8..cut_from].to_vec();
    moov.extend_from_slice(&init[cut_to..end]);
    let moov = boxed(*b"moov", &[&moov, &user_data]);
    Ok([&init[..start], &moov, &init[end..]].concat())
}

fn boxed(kind: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let size = u32::try_from(content.len() + 8).expect("an init segment under 4 GiB");
    [&size.to_be_bytes()[..], &kind, &content].concat()
}
