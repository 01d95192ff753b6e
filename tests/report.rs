//! `narrows report` as a shell and a browser see it: a real job, its page, and the page in Chromium.
//!
//! Needs node, npm and Chromium (`CHROMIUM` names another than `/usr/bin/chromium`). The screenshots stand in
//! `target/playback/report`.

#[path = "common/node.rs"]
mod node;

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn narrows(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
    // Settings of who runs the tests are none of theirs.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NARROWS_")) {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::null()).output().expect("the program starts")
}

#[track_caller]
fn succeeds(words: &[&str]) {
    let output = narrows(words);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn fails(words: &[&str], code: i32, named: &[&str]) {
    let output = narrows(words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    named.iter().for_each(|word| assert!(said.contains(word), "{words:?}: {word:?} is not in: {said}"));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a test is text")
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Every way in which a page is looked at, and the two that differ most.
const ALL_VIEWS: [&str; 4] = ["light", "dark", "phone-light", "phone-dark"];
const TWO_VIEWS: [&str; 2] = ["light", "phone-dark"];

/// What Chromium sees of a page.
fn looked_at(page: &Path, shots: &str, views: &[&str]) -> Value {
    let shots = node::workplace().join("report").join(shots);
    let mut look = Command::new("node");
    look.arg("look.mjs").arg(page).arg(&shots).arg(views.join(",")).current_dir(node::project(&["report/look.mjs"]));
    let seen: Value = serde_json::from_slice(&node::run(&mut look)).expect("look.mjs prints JSON");
    assert_eq!(seen.as_object().map(|seen| seen.len()), Some(views.len()));
    for name in views {
        let bytes = fs::metadata(shots.join(format!("{name}.png"))).unwrap_or_else(|e| panic!("{name}: {e}")).len();
        assert!(bytes > 10_000, "the screenshot {name} shows a page: {bytes} bytes");
    }
    seen
}

/// What holds of every page in every view.
#[track_caller]
fn is_a_good_page(seen: &Value) {
    for (name, view) in seen.as_object().unwrap() {
        assert_eq!(view["said"], json!([]), "{name}: the console is empty");
        assert_eq!(view["asked"], json!([]), "{name}: nothing is asked for");
        assert_eq!((&view["mode"], &view["broken"], &view["unnamed"]), (&json!("CSS1Compat"), &json!(0), &json!(0)), "{name}");
        assert!(view["overflows"].as_i64().unwrap() <= 0, "{name}: the page is as wide as the screen: {view:#}");
        assert!(view["images"].as_array().unwrap().iter().all(|size| size[0].as_u64() > Some(1)), "{name}: {}", view["images"]);
        for (plot, hover) in view["hover"].as_object().unwrap() {
            assert!(!hover["pointed"].as_str().unwrap().is_empty(), "{name}: {plot} answers a pointer");
            assert!(!hover["keyed"].as_str().unwrap().is_empty(), "{name}: {plot} answers the arrow keys");
            assert_eq!(hover["left"], false, "{name}: {plot}");
        }
    }
    assert_ne!(seen["light"]["background"], seen["phone-dark"]["background"], "there is a dark page");
}

#[test]
fn a_kept_report_is_a_page_in_light_and_dark_on_a_desk_and_on_a_phone() {
    let home = tempfile::tempdir().unwrap();
    let page = home.path().join("report.html");
    succeeds(&["report", text(&kept("report/narrowband.json")), "-o", text(&page)]);
    let seen = looked_at(&page, "kept", &ALL_VIEWS);
    is_a_good_page(&seen);
    let light = &seen["light"];
    assert_eq!(light["plots"], json!(["rate", "top", "planned", "strip", "curves"]));
    let tip = light["hover"]["rate"]["pointed"].as_str().unwrap();
    assert!(
        ["0:12.0", "chunk 1", "encoded once more", "720p", "540p", "360p", "23.50"].iter().all(|word| tip.contains(word)),
        "{tip}"
    );
    let [before, without, after] = [0, 1, 2].map(|n| light["chosen"][n].as_u64().unwrap());
    assert!(before > 0 && without == 0 && after == before, "{before}, {without}, {after}");
    let said = fs::read_to_string(&page).unwrap();
    assert!(said.contains("the source is at s3://media/in/three scenes.mp4"), "it says why there are no stills");
}

/// Two scenes of two seconds, 320x192, and what content decides of them.
fn job(home: &Path, preset: &str) -> (PathBuf, PathBuf) {
    let (source, out) = (home.join("two-scenes.mp4"), home.join("out"));
    let scenes = "[0]format=yuv420p[a];[1]noise=alls=6:allf=t:all_seed=7,format=yuv420p[b];[a][b]concat=n=2:v=1";
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", "gradients=s=320x192:r=25:d=2:seed=3:speed=0.005"]);
    command.args(["-f", "lavfi", "-i", "testsrc2=s=320x192:r=25:d=2", "-filter_complex", scenes]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-g", "25", "-threads", "1"]).arg(&source);
    node::run(&mut command);
    let mut words = vec!["transcode", text(&source), "-o", text(&out), "--preset", preset, "--json"];
    let mut set = vec!["chunk.grid=frames", "chunk.frames=30", "video.speed=ultrafast"];
    if preset.starts_with("narrowband") {
        set.extend(["narrowband.grid.shortest_s=0.5", "narrowband.grid.nominal_s=1"]);
    }
    set.iter().for_each(|set| words.extend(["--set", set]));
    succeeds(&words);
    (source, out)
}

#[test]
fn the_worst_moments_of_a_real_job_are_seen_beside_their_source() {
    let home = tempfile::tempdir().unwrap();
    let (source, out) = job(home.path(), "narrowband-h264");
    let page = home.path().join("report.html");
    succeeds(&["report", text(&out), "-o", text(&page)]);
    let seen = looked_at(&page, "narrowband", &TWO_VIEWS);
    is_a_good_page(&seen);
    let images = seen["light"]["images"].as_array().unwrap();
    assert!(!images.is_empty() && images.len().is_multiple_of(2), "{images:?}");
    assert!(images.iter().all(|size| *size == json!([320, 192])), "{images:?}");
    assert_eq!(seen["light"]["wiped"], 1);
    let html = fs::read_to_string(&page).unwrap();
    pictures_show_the_same(&html);

    // Elsewhere, and then not at all.
    let moved = home.path().join("moved.mp4");
    fs::rename(&source, &moved).unwrap();
    succeeds(&["report", text(&out.join("report.json")), "-o", text(&page), "--source", text(&moved)]);
    assert_eq!(fs::read_to_string(&page).unwrap(), html, "the same pictures, to the byte");
    for (more, why) in [(&[][..], "--source names the source where it lies now"), (&["--no-stills"], "they were not asked for")] {
        succeeds(&[&["report", text(&out), "-o", text(&page)], more].concat());
        let html = fs::read_to_string(&page).unwrap();
        assert!(!html.contains("<img") && html.contains(why), "{why}");
    }
    fails(&["report", text(&out), "-o", text(&page), "--source", "none.mp4"], 2, &["none.mp4"]);
}

/// Each pair is one picture twice: near to each other, as `ffmpeg` sees them, and not the very same.
#[track_caller]
fn pictures_show_the_same(html: &str) {
    let home = tempfile::tempdir().unwrap();
    let pictures: Vec<Vec<u8>> = html
        .split("data:image/jpeg;base64,")
        .skip(1)
        .map(|rest| {
            use base64::Engine;
            let jpeg = base64::engine::general_purpose::STANDARD.decode(rest.split('"').next().unwrap()).unwrap();
            let file = home.path().join("still.jpg");
            fs::write(&file, jpeg).unwrap();
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-v", "error", "-i"]).arg(&file).args(["-f", "rawvideo", "-pix_fmt", "gray", "-"]);
            node::run(&mut command)
        })
        .collect();
    let distance = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64;
    for (n, pair) in pictures.chunks_exact(2).enumerate() {
        let apart = distance(&pair[0], &pair[1]);
        assert!(apart > 0.0 && apart < 6.0, "pair {n}: {apart}");
        let others = pictures.chunks_exact(2).enumerate().filter(|(other, _)| *other != n);
        others.for_each(|(_, other)| assert!(distance(&pair[0], &other[1]) > apart, "pair {n} is of one moment"));
    }
}

#[test]
fn a_job_of_a_fixed_ladder_has_a_page_of_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let (_, out) = job(home.path(), "h264");
    let page = home.path().join("report.html");
    succeeds(&["report", text(&out), "-o", text(&page)]);
    let seen = looked_at(&page, "fixed", &TWO_VIEWS);
    is_a_good_page(&seen);
    assert_eq!(seen["light"]["plots"], json!(["rate", "strip"]));
    assert!(fs::read_to_string(&page).unwrap().contains("kbit/s, by segment"));
}

#[test]
fn what_goes_wrong_has_its_exit_code_and_its_name() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_string();
    let (page, kept) = (path("report.html"), kept("report/narrowband.json"));
    fails(&["report", "no-such-folder", "-o", &page], 2, &["no-such-folder"]);
    fails(&["report", text(&kept)], 2, &["--output"]);
    fails(&["report", text(&kept), "-o", &path("none/report.html")], 2, &["none/report.html"]);
    fails(&["report", text(home.path()), "-o", &page], 65, &["no report.json"]);
    fs::write(path("report.json"), fs::read_to_string(&kept).unwrap().replacen("\"frames\": 600", "\"frames\": \"x\"", 1))
        .unwrap();
    fails(&["report", text(home.path()), "-o", &page], 65, &["report.json", "rungs[0].frames"]);
    fs::write(path("bad.toml"), "[worker]\nslot = 1\n").unwrap();
    fails(&["report", text(&kept), "-o", &page, "--config", &path("bad.toml")], 64, &["worker.slot"]);
    assert!(!Path::new(&page).exists() && fs::read_dir(home.path()).unwrap().count() == 2, "no page was begun");
    let help = String::from_utf8(narrows(&["report", "--help"]).stdout).unwrap();
    assert!(["Examples:", "Exit codes:", "--no-stills"].iter().all(|word| help.contains(word)), "{help}");
}
