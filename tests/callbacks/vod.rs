//! The format `vod-2017` as a receiver of that service sees it.

use super::receiver::{Receiver, status};
use super::stage::{Stage, VOD_KEY, endpoint, job};
use md5::{Digest, Md5};
use narrows::job::{Callback, CallbackFormat};
use serde_json::json;

#[tokio::test]
async fn a_receiver_of_that_service_hears_of_streams_and_of_the_end() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    // Only 200 means that it arrived.
    receiver.script([status(204)]);
    receiver.otherwise(status(200));
    let hook = Callback { format: CallbackFormat::Vod2017, ..endpoint(&receiver.url("/your/callback")) };
    let talk = job("talk");
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    let rendition = json!({
        "rendition": "1080p", "playlist": "1080p/index.m3u8",
        "media": {
            "codecs": "hvc1.1.6.L120.90", "width": 1920, "height": 1080, "frame_rate": [25, 1], "average_bps": 2_500_400,
            "bytes": 9_000_000, "duration_ms": 28_800,
        },
    });
    // Sound is no stream of its own there.
    let media = json!({"codecs": "mp4a.40.2", "average_bps": 128_000, "bytes": 480_000, "duration_ms": 28_800});
    let sound = json!({"rendition": "audio", "playlist": "audio/index.m3u8", "media": media});
    stage.record(&talk, 1, "job.accepted", json!({})).await;
    stage.record(&talk, 2, "rendition.completed", rendition).await;
    stage.record(&talk, 3, "job.progress", json!({"percent": 50})).await;
    stage.record(&talk, 4, "rendition.completed", sound).await;
    stage.record(&talk, 5, "job.completed", json!({"report": "report.json"})).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    let taken = receiver.take(3).await;
    stage.cursor_when(&talk, &hook, |c| c.next_sequence == 6 && c.delivered == 2).await;
    running.stop().await;

    for request in &taken {
        let at = request.header("x-vod-timestamp");
        assert!(at.len() == 10 && at.bytes().all(|b| b.is_ascii_digit()), "{at}");
        let content = format!("{}|{at}|{VOD_KEY}", hook.url);
        assert_eq!(request.header("x-vod-signature"), hex::encode(Md5::digest(content)));
        assert_eq!(request.header("webhook-signature"), "");
        let body = request.json();
        assert_eq!((&body["VideoId"], &body["Extend"]), (&json!("talk"), &json!("order 7")));
        assert_eq!(body["EventTime"], "2026-11-20T21:04:05Z");
    }
    let [failed, stream, end] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!(failed.body, stream.body, "204 is no success, and the same comes again");
    let stream = stream.json();
    assert_eq!((&stream["EventType"], &stream["Status"]), (&json!("StreamTranscodeComplete"), &json!("success")));
    assert_eq!((&stream["Bitrate"], &stream["Fps"]), (&json!("2500"), &json!("25")));
    assert_eq!((&stream["Height"], &stream["Width"], &stream["Size"]), (&json!(1080), &json!(1920), &json!(9_000_000)));
    let end = end.json();
    assert_eq!((&end["EventType"], &end["Status"]), (&json!("TranscodeComplete"), &json!("success")));
    assert_eq!(end["StreamInfos"][0]["FileUrl"], "s3://out/a/1080p/index.m3u8");
    assert_eq!(end["StreamInfos"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn without_a_key_that_format_is_sent_unsigned_as_the_service_did() {
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    stage.tenant.vod_key = None;
    receiver.otherwise(status(200));
    let hook = Callback { format: CallbackFormat::Vod2017, ..endpoint(&receiver.url("/")) };
    let talk = job("talk");
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record(&talk, 1, "job.failed", json!({"failure": {"cause": "media", "message": "no index"}})).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    let taken = receiver.next().await;
    stage.cursor_when(&talk, &hook, |c| c.delivered == 1).await;
    running.stop().await;
    assert!(!taken.headers.contains_key("x-vod-signature") && !taken.headers.contains_key("x-vod-timestamp"));
    assert_eq!((&taken.json()["Status"], &taken.json()["StreamInfos"][0]["ErrorMessage"]), (&json!("fail"), &json!("no index")));
}
