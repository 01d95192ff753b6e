//! The whole page, from a small report of three chunks and three rungs.

use super::page::{Worst, page};
use super::savings::{Saved, short_side};
use super::story::Story;
use super::worst::{Pair, moments};
use super::{fixed, segments::Segment, segments::Track};
use crate::part::report::JobReport;
use serde_json::{Value, json};

const SAMPLE: &str = include_str!("../../../tests/report/narrowband.json");

pub(super) fn sample() -> Value {
    serde_json::from_str(SAMPLE).unwrap()
}

fn report(value: Value) -> JobReport {
    serde_json::from_value(value).unwrap()
}

/// Of a preset with a fixed ladder.
fn ordinary() -> Value {
    let mut value = sample();
    value.as_object_mut().unwrap().remove("narrowband");
    value["preset"] = "h265".into();
    for rung in value["chunks"].as_array_mut().unwrap().iter_mut().flat_map(|chunk| chunk["rungs"].as_array_mut().unwrap()) {
        let rung = rung.as_object_mut().unwrap();
        rung.remove("planned");
        rung.remove("measured");
    }
    value
}

/// The page, with pictures of the first moment.
fn made(report: &JobReport) -> String {
    let story = Story::new(report, &[]);
    let pair = Pair { source: vec![0xff, 0xd8, 0xff, 1], rung: vec![0xff, 0xd8, 0xff, 2], width: 64, height: 36 };
    let worst = Worst { moments: moments(&story), pairs: vec![Some(pair)], notes: vec!["Without stills: a <reason>.".into()] };
    page(report, &story, &worst).unwrap()
}

/// Elements that have no end (HTML 13.1.2), and those whose content is no markup.
const VOID: [&str; 4] = ["img", "input", "link", "meta"];
const RAW: [&str; 2] = ["script", "style"];

/// Every element that is begun is ended, in its place; drawings end theirs at once.
#[track_caller]
fn nests(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("it says that it is HTML");
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{open:?}");
        } else if !VOID.contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
        if RAW.contains(&name) && !tag.starts_with('/') {
            rest = &rest[rest.find(&format!("</{name}>")).expect("raw text ends")..];
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// No figure on it came of a division by nothing.
#[track_caller]
fn is_sound(page: &str) {
    nests(page);
    for wrong in ["NaN", "inf ", "inf\"", "inf<", "infZ", "-inf"] {
        assert!(!page.contains(wrong), "{wrong}: {}", &page[page.find(wrong).unwrap().saturating_sub(200)..][..400]);
    }
}

#[test]
fn a_report_is_told_by_time() {
    let story = Story::new(&report(sample()), &[]);
    assert_eq!((story.name.as_str(), story.duration_s), ("three scenes.mp4", 24.0));
    let cuts: Vec<f64> = story.cuts.iter().map(|cut| (cut * 1000.0).round() / 1000.0).collect();
    assert_eq!(cuts, [3.6, 7.2, 11.0, 19.4]);
    assert_eq!(story.chunk_seams(), [7.2, 16.0]);
    assert_eq!(story.repaired.iter().map(|step| (step.start_s, step.value)).collect::<Vec<_>>(), [(7.2, 23.5)]);
    let first = story.scores.iter().find(|score| score.chunk == 1).unwrap();
    assert!((first.time_s - (7.2 + 12.0 / 25.0)).abs() < 1e-9 && first.picture == 12, "{first:?}");
    let second = story.scores.iter().filter(|score| score.chunk == 1).nth(1).unwrap();
    assert!((second.time_s - (7.2 + 24.0 / 25.0)).abs() < 1e-9 && second.picture == 24, "{second:?}");
    assert_eq!(story.rungs[0].made.len(), 3, "by chunk, as no segments are at hand");
    let bytes = sample()["chunks"][0]["rungs"][0]["bytes"].as_f64().unwrap();
    assert!((story.rungs[0].made[0].value - bytes * 8.0 / 1000.0 / 7.2).abs() < 1e-6);
}

#[test]
fn rates_are_by_segment_where_segments_are_at_hand() {
    let segment = |start_s, bytes| Segment { path: "0.m4s".into(), start_s, duration_s: 2.0, bytes };
    let track = Track { init: "init.mp4".into(), segments: vec![segment(0.0, 1000), segment(2.0, 250)] };
    let story = Story::new(&report(sample()), &[Some(track), None, None]);
    assert_eq!(story.rungs[0].made.iter().map(|step| step.value).collect::<Vec<_>>(), [4.0, 1.0]);
    assert_eq!((story.rungs[1].made.len(), &story.segment_seams), (3, &vec![2.0]));
}

#[test]
fn what_was_decided_and_measured_is_on_the_page() {
    let report = report(sample());
    let page = made(&report);
    is_sound(&page);
    for id in ["time", "curves", "savings", "worst", "pilots", "repairs", "cost", "renditions", "soundness", "chunks"] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    for words in [
        "three scenes.mp4",
        "narrowband-h265",
        "below the floor",
        "Without stills: a &lt;reason&gt;.",
        "data:image/jpeg;base64,/9j/AQ==",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let fixed = fixed::ladder(report.narrowband.as_ref().unwrap().grounds.decision.codec, 720);
    assert_eq!(short_side(&report, report.narrowband.as_ref().unwrap()), 720);
    let saved = Saved::of(&report, &fixed).unwrap();
    assert_eq!(saved.fixed_kbps, 3400.0 + 2400.0 + 1600.0 + 900.0 + 600.0 + 300.0 + 145.0);
    let kbps: f64 = report.rungs.iter().map(|rung| rung.kbps).sum();
    assert!(
        (saved.share() - (1.0 - kbps / saved.fixed_kbps)).abs() < 1e-12 && page.contains("of the fixed ladder's 9,345 kbit/s")
    );
}

#[test]
fn a_report_of_a_fixed_ladder_shows_what_there_is() {
    let page = made(&report(ordinary()));
    is_sound(&page);
    for id in ["time", "renditions", "soundness", "chunks"] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    for id in ["curves", "savings", "worst", "pilots", "repairs", "cost"] {
        assert!(!page.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    assert!(page.contains("data-plot=\"rate\"") && !page.contains("data-plot=\"top\""));
}

#[test]
fn the_page_loads_nothing_and_runs_one_script() {
    for value in [sample(), ordinary()] {
        let page = made(&report(value));
        for loading in
            ["http:", "https:", "url(", "@import", "<iframe", "<object", "<embed", "<base", " srcset", "fetch(", "import("]
        {
            assert!(!page.contains(loading), "{loading}");
        }
        for attribute in ["src=\"", "href=\""] {
            assert!(page.split(attribute).skip(1).all(|value| value.starts_with("data:")), "{attribute}");
        }
        assert_eq!(page.matches("<script").count(), 2, "the data, and what reads it");
        assert!(page.contains("script-src 'sha256-") && page.contains("default-src 'none'"));
    }
}

#[test]
fn no_word_of_a_report_is_markup() {
    const HOSTILE: &str = "\"'></script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;";
    fn poison(value: &mut Value, key: &str) {
        match value {
            Value::String(text) if ["name", "size", "uri", "job", "preset", "codecs", "notes"].contains(&key) => *text += HOSTILE,
            Value::Array(items) => items.iter_mut().for_each(|item| poison(item, key)),
            Value::Object(fields) => fields.iter_mut().for_each(|(key, field)| poison(field, key)),
            _ => {}
        }
    }
    let mut value = sample();
    poison(&mut value, "");
    value["source"]["facts"]["video"][0]["codec"] = HOSTILE.into();
    value["audio"] = json!([{ "name": HOSTILE, "language": HOSTILE, "encoder": HOSTILE, "codecs": HOSTILE, "sample_rate": 48000,
        "channels": 2, "samples": 1, "priming": 0, "filled": 0, "trimmed": 0, "duration_s": 1.0, "segments": 1, "bytes": 1,
        "kbps": 1.0, "attempt": 1, "wall_s": 1.0, "cpu_s": 1.0, "peak_bytes": 1 }]);
    let page = made(&report(value));
    is_sound(&page);
    assert!(!page.contains("<script>alert") && !page.contains("<img src=x"));
    assert_eq!(page.matches("<script").count(), 2);
    assert!(page.matches("&quot;&#39;&gt;&lt;/script&gt;&lt;script&gt;alert(1)").count() > 10, "it is there, as text");
}

#[test]
fn a_report_with_nothing_in_it_has_a_page() {
    let mut empty = ordinary();
    for list in ["rungs", "chunks", "notes"] {
        empty[list] = json!([]);
    }
    empty["totals"]["duration_s"] = 0.0.into();
    empty["seams"] = json!({ "chunks": 0, "proved": 0 });
    empty["source"]["facts"] = json!({});
    is_sound(&made(&report(empty)));
    let mut bare = sample();
    for chunk in bare["chunks"].as_array_mut().unwrap() {
        chunk["duration_s"] = 0.0.into();
        chunk["frames"] = 0.into();
    }
    for rung in bare["rungs"].as_array_mut().unwrap() {
        rung["kbps"] = 0.0.into();
    }
    bare["narrowband"]["cost"]["ladder_s"] = 0.0.into();
    bare["narrowband"]["decision"]["candidates"] = json!([]);
    bare["narrowband"]["decision"]["hull"] = json!([]);
    is_sound(&made(&report(bare)));
    let mut strange = sample();
    strange["chunks"][1]["start_s"] = (-1e300).into();
    strange["narrowband"]["decision"]["rungs"][0]["predicted_kbps"] = 1e300.into();
    strange["narrowband"]["repairs"]["chunks"][0]["chunk"] = 99.into();
    strange["narrowband"]["adjustment"]["pilots"][0]["chunk"] = 99.into();
    is_sound(&made(&report(strange)));
}
