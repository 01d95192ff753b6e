//! Frames and messages as they cross the socket.

use super::*;

#[test]
fn frames_come_out_whole_however_the_bytes_arrive() {
    let progress = FromChild::Progress { frames: 7 };
    let bytes = [message(&progress), frame(KIND_BYTES, b"media")].concat();
    for step in 1..bytes.len() {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(parse::<FromChild>(&frames[0].payload).unwrap(), progress);
        assert_eq!(frames[1], Frame { kind: KIND_BYTES, payload: b"media".to_vec() });
        assert_eq!(frames.len(), 2);
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_found_out_before_anything_is_allocated() {
    let mut decoder = Decoder::default();
    decoder.push(&[0xff, 0xff, 0xff, 0xff, 0]);
    assert!(matches!(decoder.next_frame(), Err(WireError::TooLong(_))));
    let mut decoder = Decoder::default();
    decoder.push(&[1, 0, 0, 0, 9, 0]);
    assert_eq!(decoder.next_frame(), Err(WireError::UnknownKind(9)));
    assert!(matches!(parse::<FromChild>(b"{\"say\":\"sudo\"}"), Err(WireError::Malformed(_))));
}
