//! The callbacks of a video-on-demand service of 2017, for customers whose receivers were written for it.
//!
//! Its bodies know three events. Rates are texts, sizes are numbers, and receivers depend on it. A delivery has arrived
//! only with status 200. The signature covers URL and time, not the body: whoever can choose takes the standard format.

use super::record::Told;
use crate::event::rfc3339;
use md5::{Digest, Md5};
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// The only status that means "arrived".
pub const ARRIVED: u16 = 200;
/// Longest text of a failure that is passed on, characters.
const LONGEST_MESSAGE: usize = 1024;

/// The key that tenant and receiver share. It is never shown.
#[derive(Clone)]
pub struct VodKey(Vec<u8>);

impl VodKey {
    pub fn new(key: &[u8]) -> Self {
        Self(key.to_vec())
    }
}

impl fmt::Debug for VodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VodKey(...)")
    }
}

/// The value of `X-VOD-SIGNATURE`: MD5 of `url|timestamp|key`, the URL as the customer wrote it.
pub fn sign(key: &VodKey, url: &str, timestamp_s: u64) -> String {
    let mut content = format!("{url}|{timestamp_s}|").into_bytes();
    content.extend_from_slice(&key.0);
    hex::encode(Md5::digest(content))
}

/// What a body says beside its event.
#[derive(Clone, Debug, Default)]
pub struct Surroundings<'a> {
    /// The job's `extend`, given back as it came.
    pub extend: Option<&'a str>,
    /// The job's output URI, before every path.
    pub output: &'a str,
    /// The renditions that were completed so far, as their events tell them.
    pub renditions: &'a [Told],
}

/// Has this type of event a counterpart?
pub fn knows(kind: &str) -> bool {
    name(kind).is_some()
}

/// Is there a message for this event? Sound beside a picture is no stream of its own there.
pub fn tells(told: &Told) -> bool {
    knows(&told.kind) && (told.kind != "rendition.completed" || !is_sound(told))
}

fn is_sound(told: &Told) -> bool {
    let media = &told.data["media"];
    media.is_object() && media["height"].is_null()
}

/// Is this the event that tells the end, and so lists all renditions?
pub fn is_last(kind: &str) -> bool {
    name(kind) == Some("TranscodeComplete")
}

fn name(kind: &str) -> Option<&'static str> {
    match kind {
        "rendition.completed" => Some("StreamTranscodeComplete"),
        "images.completed" => Some("SnapshotComplete"),
        "job.completed" | "job.failed" | "job.canceled" | "job.rejected" => Some("TranscodeComplete"),
        _ => None,
    }
}

/// The body for this event; `None` when there is no counterpart.
pub fn body(told: &Told, around: &Surroundings<'_>) -> Option<Vec<u8>> {
    let event_type = name(&told.kind)?;
    let mut message = Message {
        event_time: utc_seconds(&told.at),
        event_type,
        video_id: told.job.as_str(),
        status: "success",
        extend: around.extend,
        ..Message::default()
    };
    match told.kind.as_str() {
        "rendition.completed" => message.stream = Some(stream(told, around.output)),
        "images.completed" => snapshots(&mut message, told, around.output),
        "job.completed" => {
            let pictures = || around.renditions.iter().filter(|told| !is_sound(told));
            let is_sound_only = pictures().next().is_none();
            let streams = around.renditions.iter().filter(|told| is_sound_only || !is_sound(told));
            message.stream_infos = streams.map(|told| stream_info(told, around.output)).collect();
        }
        kind => {
            message.status = "fail";
            message.stream_infos = vec![failure(told, kind)];
        }
    }
    serde_json::to_vec(&message).ok()
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message<'a> {
    event_time: String,
    event_type: &'static str,
    video_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    extend: Option<&'a str>,
    /// `StreamTranscodeComplete` has the fields of its one stream among its own.
    #[serde(flatten)]
    stream: Option<Stream>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stream_infos: Vec<StreamInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cover_url: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snapshot_infos: Vec<SnapshotInfo>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamInfo {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    #[serde(flatten)]
    stream: Option<Stream>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stream {
    /// Kilobits a second, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    bitrate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<&'static str>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    encrypt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
    /// Frames a second, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    fps: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u64>,
    job_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SnapshotInfo {
    status: &'static str,
    snapshot_type: &'static str,
    snapshot_count: u64,
    /// Path with `{SnapshotCount}` for the five digits of a number.
    snapshot_format: String,
    /// The same as a whole URL.
    snapshot_regular: String,
    job_id: String,
}

fn stream(told: &Told, output: &str) -> Stream {
    let media = &told.data["media"];
    let (width, height) = (media["width"].as_u64(), media["height"].as_u64());
    let playlist = told.data["playlist"].as_str();
    Stream {
        bitrate: media["average_bps"].as_u64().map(|bps| (bps.saturating_add(500) / 1000).to_string()),
        definition: width.zip(height).map(|(width, height)| definition(width.min(height))),
        duration: media["duration_ms"].as_f64().map(|ms| ms / 1000.0),
        encrypt: false,
        // As the event says; events of before it did name the store.
        file_url: told.data["url"].as_str().map(str::to_string).or_else(|| playlist.map(|path| under(output, path))),
        format: playlist.map(|path| if path.ends_with(".mp4") { "mp4" } else { "m3u8" }),
        fps: rate(&media["frame_rate"]),
        height,
        size: media["bytes"].as_u64(),
        width,
        job_id: told.job.to_string(),
    }
}

fn stream_info(told: &Told, output: &str) -> StreamInfo {
    StreamInfo { status: "success", error_code: None, error_message: None, stream: Some(stream(told, output)) }
}

fn failure(told: &Told, kind: &str) -> StreamInfo {
    let data = &told.data;
    let text = |value: &Value| value.as_str().map(str::to_string);
    let (code, message) = match kind {
        "job.rejected" => {
            let path = data["path"].as_str().unwrap_or(".");
            ("InvalidParameter".to_string(), text(&data["reason"]).map(|reason| format!("{path}: {reason}")))
        }
        "job.canceled" => ("JobCanceled".to_string(), Some("the job was canceled".to_string())),
        _ => {
            let code = match data["failure"]["cause"].as_str() {
                Some("media") => "InvalidMedia",
                Some("settings") => "InvalidParameter",
                _ => "InternalError",
            };
            (code.to_string(), text(&data["failure"]["message"]))
        }
    };
    let message = message.map(|m| m.chars().take(LONGEST_MESSAGE).collect());
    StreamInfo { status: "fail", error_code: Some(code), error_message: message, stream: None }
}

/// `images` lists series of pictures: `{kind, count, path}`, the path with `{n}` for the five digits of a number.
fn snapshots(message: &mut Message<'_>, told: &Told, output: &str) {
    let series = told.data["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    message.cover_url = told.data["cover"].as_str().map(|path| under(output, path));
    message.snapshot_infos = series
        .iter()
        .map(|series| {
            let path = series["path"].as_str().unwrap_or_default().replace("{n}", "{SnapshotCount}");
            SnapshotInfo {
                status: "success",
                snapshot_type: match series["kind"].as_str() {
                    Some("cover") => "CoverSnapshot",
                    Some("sprite") => "SpriteSnapshot",
                    _ => "NormalSnapshot",
                },
                snapshot_count: series["count"].as_u64().unwrap_or_default(),
                snapshot_regular: under(output, &path),
                snapshot_format: path,
                job_id: told.job.to_string(),
            }
        })
        .collect();
}

/// The name of a size in that service, by the shorter side.
fn definition(lines: u64) -> &'static str {
    match lines {
        0..=400 => "FD",
        401..=599 => "LD",
        600..=899 => "SD",
        900..=1259 => "HD",
        1260..=1799 => "2K",
        _ => "4K",
    }
}

/// `[30000, 1001]` as `29.97`, `[25, 1]` as `25`.
fn rate(value: &Value) -> Option<String> {
    let (num, den) = (value[0].as_f64()?, value[1].as_f64()?);
    let text = (den > 0.0).then(|| format!("{:.2}", num / den))?;
    Some(text.trim_end_matches('0').trim_end_matches('.').to_string())
}

fn under(output: &str, path: &str) -> String {
    format!("{}/{path}", output.trim_end_matches('/'))
}

/// `yyyy-MM-ddTHH:mm:ssZ`. A time that is none is passed on as it is: the event is worth more than its time.
fn utc_seconds(at: &str) -> String {
    let Some(at_ms) = rfc3339::parse(at) else { return at.to_string() };
    format!("{}Z", rfc3339::format(at_ms).split('.').next().unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(kind: &str, data: Value) -> Told {
        let record = json!({
            "version": 1, "id": format!("talk/{kind}"), "job": "talk", "tenant": "acme", "sequence": 7,
            "at": "2026-11-20T22:04:05.678+01:00", "type": kind, "data": data, "status": {"state": "started"},
        });
        serde_json::from_value(record).unwrap()
    }

    fn rendition(name: &str, width: u64, height: u64) -> Told {
        let data = json!({
            "rendition": name, "playlist": format!("{name}/index.m3u8"),
            "media": {
                "codecs": "avc1.640028", "width": width, "height": height, "frame_rate": [30000, 1001],
                "average_bps": 924_600, "bytes": 1_815_321, "duration_ms": 15_500,
            },
        });
        told("rendition.completed", data)
    }

    fn of(told: &Told, extend: Option<&str>, renditions: &[Told]) -> Value {
        let around = Surroundings { extend, output: "s3://media/talk/", renditions };
        serde_json::from_slice(&body(told, &around).unwrap()).unwrap()
    }

    #[test]
    fn the_published_signature_comes_out() {
        let signature = sign(&VodKey::new(b"test123"), "https://www.example.com/your/callback", 1_519_375_990);
        assert_eq!(signature, "c72b60894140fa98920f1279219b7ed4");
        assert!(!format!("{:?}", VodKey::new(b"test123")).contains("test123"));
    }

    #[test]
    fn one_stream_is_told_with_its_fields_at_the_top() {
        let expected = json!({
            "EventTime": "2026-11-20T21:04:05Z", "EventType": "StreamTranscodeComplete", "VideoId": "talk",
            "Status": "success", "Extend": "test data", "Bitrate": "925", "Definition": "LD", "Duration": 15.5,
            "Encrypt": false, "FileUrl": "s3://media/talk/540p/index.m3u8", "Format": "m3u8", "Fps": "29.97",
            "Height": 960, "Size": 1_815_321, "Width": 540, "JobId": "talk",
        });
        assert_eq!(of(&rendition("540p", 540, 960), Some("test data"), &[]), expected);
    }

    #[test]
    fn a_stream_is_where_its_event_says_that_everybody_can_read_it() {
        let mut published = rendition("540p", 540, 960);
        published.data["url"] = json!("https://cdn.example.com/talk%201/540p/index.m3u8");
        assert_eq!(of(&published, None, &[])["FileUrl"], "https://cdn.example.com/talk%201/540p/index.m3u8");
        let done = of(&told("job.completed", json!({})), None, &[published, rendition("360p", 640, 360)]);
        assert_eq!(done["StreamInfos"][0]["FileUrl"], "https://cdn.example.com/talk%201/540p/index.m3u8");
        assert_eq!(done["StreamInfos"][1]["FileUrl"], "s3://media/talk/360p/index.m3u8");
    }

    #[test]
    fn the_end_lists_every_stream() {
        let renditions = [rendition("1080p", 1920, 1080), rendition("360p", 640, 360)];
        let done = of(&told("job.completed", json!({"report": "report.json"})), None, &renditions);
        assert_eq!((&done["EventType"], &done["Status"]), (&json!("TranscodeComplete"), &json!("success")));
        assert!(done.get("Extend").is_none() && done.get("Bitrate").is_none() && done.get("SnapshotInfos").is_none());
        let streams = done["StreamInfos"].as_array().unwrap();
        assert_eq!(streams.len(), 2);
        for (stream, definition) in streams.iter().zip(["HD", "FD"]) {
            assert_eq!((&stream["Status"], &stream["Definition"]), (&json!("success"), &json!(definition)));
            assert!(stream["Bitrate"].is_string() && stream["Fps"].is_string());
            assert!(stream["Height"].is_u64() && stream["Width"].is_u64() && stream["Size"].is_u64());
        }
    }

    #[test]
    fn sound_is_a_stream_only_where_there_is_no_picture() {
        let media = json!({"codecs": "mp4a.40.2", "average_bps": 128_000, "bytes": 480_000, "duration_ms": 30_000});
        let sound = told("rendition.completed", json!({"rendition": "audio", "playlist": "audio/index.m3u8", "media": media}));
        let picture = rendition("720p", 1280, 720);
        let bare = told("rendition.completed", json!({"rendition": "720p", "playlist": "720p/index.m3u8"}));
        assert!(!tells(&sound) && tells(&picture) && tells(&bare));
        let streams = |renditions: &[Told]| {
            let done = of(&told("job.completed", json!({})), None, renditions);
            done["StreamInfos"].as_array().unwrap().iter().map(|s| s["Bitrate"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(streams(&[picture, sound.clone()]), [json!("925")]);
        assert_eq!(streams(&[sound]), [json!("128")]);
    }

    #[test]
    fn every_other_end_is_a_failure_that_says_why() {
        let failed = json!({"failure": {"cause": "media", "message": "no index"}});
        let rejected = json!({"path": "preset", "reason": "no such preset"});
        for (kind, data, code, message) in [
            ("job.failed", failed, "InvalidMedia", "no index"),
            ("job.rejected", rejected, "InvalidParameter", "preset: no such preset"),
            ("job.canceled", json!({}), "JobCanceled", "the job was canceled"),
        ] {
            let body = of(&told(kind, data), None, &[]);
            assert_eq!((&body["EventType"], &body["Status"]), (&json!("TranscodeComplete"), &json!("fail")));
            let expected = json!([{"Status": "fail", "ErrorCode": code, "ErrorMessage": message}]);
            assert_eq!(body["StreamInfos"], expected);
        }
    }

    #[test]
    fn pictures_are_told_by_pattern_and_number() {
        let data = json!({
            "cover": "images/cover-00002.jpg",
            "images": [{"kind": "cover", "count": 2, "path": "images/cover-{n}.jpg"},
                       {"kind": "sprite", "count": 1, "path": "images/sprite-{n}.jpg"}],
        });
        let body = of(&told("images.completed", data), Some("order 7"), &[]);
        assert_eq!(body["EventType"], "SnapshotComplete");
        assert_eq!(body["Extend"], "order 7");
        assert_eq!(body["CoverUrl"], "s3://media/talk/images/cover-00002.jpg");
        let first = json!({
            "Status": "success", "SnapshotType": "CoverSnapshot", "SnapshotCount": 2,
            "SnapshotFormat": "images/cover-{SnapshotCount}.jpg",
            "SnapshotRegular": "s3://media/talk/images/cover-{SnapshotCount}.jpg", "JobId": "talk",
        });
        assert_eq!(body["SnapshotInfos"][0], first);
        assert_eq!(body["SnapshotInfos"][1]["SnapshotType"], "SpriteSnapshot");
    }

    #[test]
    fn what_the_service_did_not_know_is_not_told() {
        for kind in ["job.accepted", "job.started", "job.progress", "stage.completed", "part.failed", "tenant.frozen"] {
            assert!(!knows(kind) && body(&told(kind, json!({})), &Surroundings::default()).is_none(), "{kind}");
        }
        assert!(is_last("job.failed") && !is_last("rendition.completed"));
    }

    #[test]
    fn rates_are_written_as_people_write_them() {
        for (value, text) in
            [(json!([25, 1]), "25"), (json!([24000, 1001]), "23.98"), (json!([100, 1]), "100"), (json!([25, 2]), "12.5")]
        {
            assert_eq!(rate(&value).as_deref(), Some(text));
        }
        assert_eq!(rate(&json!([25, 0])), None);
        assert_eq!(rate(&Value::Null), None);
    }
}
