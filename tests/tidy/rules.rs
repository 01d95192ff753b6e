//! Every rule, kept by the project and tried on what it must find.

use super::*;

fn house() -> BTreeMap<String, u8> {
    floors(&named("src/lib.rs"))
}

#[test]
fn imports_point_down_only_and_edges_never_import_each_other() {
    keep(breaks_a_floor(&project(), &house()));
}

#[test]
fn the_architecture_page_shows_the_floors_as_they_are() {
    assert_eq!(floors(&named("src/README.md")), house());
}

#[test]
fn a_broken_floor_is_found() {
    let house = house();
    assert_eq!((house["job"], house["sandbox::protocol"], house["sandbox"], house["cli"]), (0, 0, 1, 4));
    let rule = |files: &[Source]| breaks_a_floor(files, &house);
    finds(rule, "src/plan/x.rs", "use crate::worker::Slot;", "use crate::job::Job;");
    finds(rule, "src/store/x.rs", "use crate::broker::Broker;", "use crate::sandbox::protocol::Order;");
    finds(rule, "src/store/x.rs", "use crate::{job::Job, media::open};", "use crate::{job::Job, store::key::Key};");
    finds(rule, "src/sandbox/protocol.rs", "use super::jail;", "use crate::plan::Chunk;");
    finds(rule, "src/quality/x.rs", "use crate::media::Host;", "use crate::plan::time::Rational;");
    finds(rule, "src/store/x.rs", "use crate::quality::Vmaf;", "use crate::quality::score::pool;");
    assert!(rule(&[Source::new("src/media/x.rs", "use crate::quality::Vmaf;")]).is_empty(), "the one edge that is shown pictures");
    finds(rule, "src/sandbox/spawn.rs", "use super::super::store::Key;", "use super::protocol::Order;");
    finds(rule, "src/package/x.rs", "fn f() { crate::worker::run() }", "fn f() { crate::media::open() }");
    assert_eq!(rule(&[Source::new("src/attic.rs", "")]).len(), 1, "a module without a floor");
    assert_eq!(rule(&[Source::new("src/job.rs", "use crate::attic::old;")]).len(), 1, "a use of one");
    finds(rule, "src/job.rs", "use crate::cli::run;", "#[cfg(test)]\nmod tests {\n    use crate::cli::run;\n}");
}

#[test]
fn each_foreign_crate_stays_on_its_island() {
    keep(leaves_an_island(&project()));
}

#[test]
fn a_crate_off_its_island_is_found() {
    finds(leaves_an_island, "src/part/x.rs", "use ffmpeg_next as av;", "// ffmpeg_next does it");
    finds(leaves_an_island, "src/broker/memory.rs", "use lapin::Channel;", "use std::sync::Arc;");
    finds(leaves_an_island, "src/cli/x.rs", "fn f(o: opendal::Operator) {}", "fn f(o: &str) { say(\"opendal\") }");
    assert!(leaves_an_island(&[Source::new("src/store/fs.rs", "use opendal::Operator;")]).is_empty());
}

#[test]
fn facts_know_no_clock_no_chance_and_no_io() {
    keep(is_impure(&project(), &house()));
}

#[test]
fn an_impure_fact_is_found() {
    let house = house();
    let rule = |files: &[Source]| is_impure(files, &house);
    for bad in [
        "use std::{collections::BTreeMap, fs};",
        "use std::time::{Duration, Instant};",
        "fn now() { std::time::SystemTime::now() }",
        "use tokio::sync::mpsc;",
        "use rand::Rng;",
    ] {
        finds(rule, "src/plan/x.rs", bad, "use std::time::Duration;");
    }
    assert!(rule(&[Source::new("src/store/x.rs", "use std::fs;")]).is_empty(), "an edge may touch files");
}

#[test]
fn memory_is_handled_by_hand_in_three_places_only() {
    keep(is_unsafe_elsewhere(&project()));
}

#[test]
fn unsafe_code_elsewhere_is_found() {
    finds(is_unsafe_elsewhere, "src/store/x.rs", "fn f() { unsafe { g() } }", "// unsafe\nfn f() { let unsafe_ = \"unsafe\"; }");
    assert!(is_unsafe_elsewhere(&[Source::new("src/media/x.rs", "unsafe { g() }")]).is_empty());
}

#[test]
fn every_unsafe_block_says_what_makes_it_sound() {
    keep(is_unsafe_unexplained(&project()));
}

#[test]
fn an_unexplained_unsafe_block_is_found() {
    let rule = is_unsafe_unexplained;
    finds(rule, "src/media/x.rs", "a();\nunsafe { g() }", "// SAFETY: g has no requirements.\nunsafe { g() }");
    finds(rule, "src/media/x.rs", "// SAFETY: for f.\nf();\nunsafe { g() }", "// SAFETY: owned.\nlet x =\n    unsafe { g() };");
    finds(rule, "src/media/x.rs", "unsafe impl Send for X {}", "unsafe extern \"C\" fn g() {}");
}

#[test]
fn nothing_is_left_unfinished() {
    keep(is_unfinished(&project()));
}

#[test]
fn unfinished_work_is_found() {
    for bad in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!() }",
        "let x = dbg!(y);",
        "#[ignore]\nfn t() {}",
        "// FIXME: later",
        "// TODO: later",
    ] {
        finds(is_unfinished, "src/x.rs", bad, "// TODO(#12): when the broker can\nfn f() { say(\"todo!() FIXME\") }");
    }
}

#[test]
fn no_file_is_longer_than_a_subject() {
    keep(is_too_long(&project()));
}

#[test]
fn a_file_that_is_too_long_is_found() {
    finds(is_too_long, "src/x.rs", &"a();\n".repeat(LONGEST_FILE + 1), &"a();\n".repeat(LONGEST_FILE));
}

#[test]
fn nothing_but_tests_unwraps() {
    keep(unwraps(&project()));
}

#[test]
fn an_unwrap_outside_tests_is_found() {
    let good = "// .unwrap()\nfn f() { a.unwrap_or(b) }\n#[cfg(test)]\nmod tests {\n    fn t() { a.unwrap(); }\n}";
    finds(unwraps, "src/x.rs", "fn f() { a.unwrap(); }", good);
    assert!(unwraps(&[Source::new("tests/x.rs", "a.unwrap();")]).is_empty());
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    keep(names_a_machine(&project()));
}

#[test]
fn a_path_of_one_machine_is_found() {
    let bad = concat!("see /ho", "me/ann/clips");
    finds(names_a_machine, "README.md", bad, "see s3://bucket/work/jobs and target/demo/");
    finds(names_a_machine, "Makefile", concat!("cp /wo", "rk/x ."), "cp ./work/x .");
    finds(names_a_machine, "src/README.md", concat!("in ../sha", "red/clips"), "in ../share");
}

#[test]
fn every_preset_file_parses_and_is_compiled_in() {
    let project = project();
    assert!(project.iter().filter(|f| f.path.starts_with("presets/")).count() >= 8);
    keep(is_no_preset(&project));
}

#[test]
fn a_preset_that_does_not_parse_is_found() {
    let good = named("presets/h265.toml").text;
    finds(is_no_preset, "presets/h265.toml", &good.replace("crf = 23", "crv = 23"), &good);
    finds(is_no_preset, "presets/h265.toml", &good.replace("name = \"h265\"", "name = \"other\""), &good);
    let stray = Source::new("presets/stray.toml", &good.replace("name = \"h265\"", "name = \"stray\""));
    assert_eq!(is_no_preset(&[stray]).len(), 1, "a file that nobody compiles in");
}

#[test]
fn every_sample_in_the_pages_parses() {
    keep(is_no_sample(&project()));
}

#[test]
fn a_sample_that_does_not_parse_is_found() {
    let good = "```json\n{\"input\":{\"uri\":\"a\"},\"output\":{\"uri\":\"o\"}}\n```\n```toml\na = 1\n```";
    finds(is_no_sample, "README.md", &good.replace("uri\":\"a", "url\":\"a"), good);
    finds(is_no_sample, "README.md", &good.replace("a = 1", "a = = 1"), good);
    finds(is_no_sample, "README.md", &good.replace("a = 1", "[worker]\nslot = 1"), &good.replace("a = 1", "[worker]\nslots = 1"));
}

#[test]
fn every_make_command_in_the_pages_exists() {
    let makefile = named("Makefile").text;
    let readme = named("README.md");
    assert!(readme.text.contains("make demo"), "the page shows the first command");
    keep(names_no_target(&project(), &makefile));
}

#[test]
fn a_make_command_that_does_not_exist_is_found() {
    let rule = |files: &[Source]| names_no_target(files, "demo: build\n\tcargo run\n");
    finds(rule, "README.md", "```\nmake demos\n```", "run `make demo`, and make everybody happy");
}

#[test]
fn every_file_on_the_way_of_a_job_is_where_the_page_says() {
    keep(names_no_file(&named("src/README.md"), |name| root().join("src").join(name).exists()));
}

#[test]
fn a_page_that_names_a_file_that_is_gone_is_found() {
    let rule = |files: &[Source]| names_no_file(&files[0], |name| name == "job.rs");
    finds(rule, "src/README.md", "**`job.rs`** then **`attic.rs`** parses", "**`job.rs`** parses; `attic.rs` is gone");
}
