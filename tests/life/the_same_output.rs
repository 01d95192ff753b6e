//! The same job gives the same bytes, however it is worked on.

use crate::stage::{PROGRAM, Stage, files, run, succeeds};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything a customer gets, by path, without the report, which holds times.
fn output(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = files(folder).into_iter().filter(|path| !path.starts_with(folder.join(".narrows")));
    let kept = all.filter(|path| path != &folder.join("report.json"));
    kept.map(|path| (path.strip_prefix(folder).unwrap().to_path_buf(), fs::read(&path).unwrap())).collect()
}

#[track_caller]
fn are_equal(one: &Path, other: &Path) {
    let (one, other) = (output(one), output(other));
    assert!(one.len() >= 16, "{:?}", one.keys());
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    let different: Vec<_> = one.iter().filter(|(path, bytes)| other[*path] != **bytes).map(|(path, _)| path).collect();
    assert!(different.is_empty(), "{different:?}");
}

#[track_caller]
fn is_made(stage: &Stage, presets: &[(&str, &str)], one: &[&str], other: &[&str]) {
    for (preset, speed) in presets {
        let folders = [stage.path(&format!("{preset}-one")), stage.path(&format!("{preset}-other"))];
        for (folder, more) in folders.iter().zip([one, other]) {
            succeeds(&run(stage.command_into(folder, preset, speed).args(["--set", "packaging.mp4=true"]).args(more)));
        }
        are_equal(&folders[0], &folders[1]);
    }
}

#[test]
fn is_made_by_any_number_of_slots() {
    let presets = [("h264", "ultrafast"), ("h265", "ultrafast"), ("av1", "12")];
    is_made(&Stage::new(150), &presets, &["--slots", "1"], &["--slots", "2"]);
}

#[test]
fn is_made_of_ranges_and_of_a_file() {
    is_made(&Stage::new(150), &[("h264", "ultrafast")], &[], &["--ranges"]);
}

#[test]
fn is_made_of_a_job_document_and_of_arguments() {
    let stage = Stage::new(150);
    succeeds(&run(&mut stage.command()));
    let job = serde_json::json!({
        "input": { "uri": stage.source },
        "output": { "uri": "from-document/" },
        "preset": "h264",
        "set": {
            "video.speed": "ultrafast", "packaging.segment_s": 1,
            "chunk.grid": "fixed", "chunk.target_s": 2, "chunk.shortest_s": 1
        },
    });
    let document = stage.path("job.json");
    fs::write(&document, job.to_string()).unwrap();
    let mut command = Command::new(PROGRAM);
    succeeds(&run(command.args(["transcode", "--job", "job.json", "--json"]).current_dir(stage.path(""))));
    are_equal(&stage.out(), &stage.path("from-document"));
}

#[test]
fn is_made_with_the_work_folder_elsewhere() {
    let stage = Stage::new(150);
    succeeds(&run(&mut stage.command()));
    let other = stage.path("other");
    succeeds(&run(stage.command_into(&other, "h264", "ultrafast").arg("--work").arg(stage.path("work"))));
    are_equal(&stage.out(), &other);
    assert!(files(&stage.path("work")).iter().any(|path| path.ends_with("done/package.json")));
}
