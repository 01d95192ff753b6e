//! Boxes of an ISO-BMFF file (ISO/IEC 14496-12 4.2) in memory, as far as our own init segments need reading.

/// Start and end of the first box of that type between `at` and `end`.
pub fn find(bytes: &[u8], mut at: usize, end: usize, kind: [u8; 4]) -> Option<(usize, usize)> {
    while let Some(head) = bytes.get(at..end.min(at + 8)).filter(|head| head.len() == 8) {
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let next = at.checked_add(size.max(8)).filter(|&next| next <= end)?;
        if head[4..] == kind {
            return Some((at, next));
        }
        at = next;
    }
    None
}

/// `media_time` of the one edit of an init segment, track ticks; 0 when there is none.
pub fn media_time(init: &[u8]) -> Option<i64> {
    let mut inside = (0, init.len());
    for kind in [*b"moov", *b"trak", *b"edts", *b"elst"] {
        let Some((start, end)) = find(init, inside.0, inside.1, kind) else {
            return if kind == *b"moov" { None } else { Some(0) };
        };
        inside = (start + 8, end);
    }
    let list = &init[inside.0..inside.1];
    // Version, flags, count; then duration, time, rate: 64 bits each of the first two in version 1.
    match list.first()? {
        0 => Some(i64::from(i32::from_be_bytes(list.get(12..16)?.try_into().ok()?))),
        _ => Some(i64::from_be_bytes(list.get(16..24)?.try_into().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
    }

    fn init(list: &[u8]) -> Vec<u8> {
        let track = [boxed(b"tkhd", &[0; 84]), boxed(b"edts", &boxed(b"elst", list))].concat();
        [boxed(b"ftyp", b"iso6"), boxed(b"moov", &boxed(b"trak", &track))].concat()
    }

    #[test]
    fn the_edit_is_read_in_both_versions() {
        let narrow = [&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0][..], &1024u32.to_be_bytes(), &[0, 1, 0, 0]].concat();
        assert_eq!(media_time(&init(&narrow)), Some(1024));
        let wide = [&[1, 0, 0, 0, 0, 0, 0, 1][..], &[0; 8], &(1i64 << 40).to_be_bytes(), &[0, 1, 0, 0]].concat();
        assert_eq!(media_time(&init(&wide)), Some(1 << 40));
        assert_eq!(media_time(&boxed(b"moov", &boxed(b"trak", &[]))), Some(0));
        assert_eq!(media_time(&boxed(b"free", &[])), None);
        assert_eq!(media_time(&init(&narrow)[..40]), None);
    }
}
