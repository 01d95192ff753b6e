//! The rules of the house that a compiler does not know. `src/README.md` gives the reasons.
//!
//! A rule is a function from files to findings (`path:line: what`). Each is tested twice: that the project keeps it,
//! and that it finds what it is there to find, because a rule that cannot fail is a defect.

#[path = "tidy/scan.rs"]
mod scan;

use scan::{Source, has_word, lines, paths, without_tests};
use std::collections::BTreeMap;
use std::path::Path;

/// No file is longer, lines.
const LONGEST_FILE: usize = 600;
/// Folders that hold nothing of ours.
const NOT_OURS: [&str; 6] = ["target", "demo-out", "node_modules", "python_modules", ".git", ".score"];
/// A text file is at most so long, bytes; longer ones are media.
const LARGEST_TEXT: u64 = 2 * 1024 * 1024;
/// What a fact may not touch: clocks, chance, files, network, processes, the runtime.
const IMPURE: [&str; 12] = [
    "tokio",
    "rand",
    "chrono",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::io::stdin",
];
/// A crate, and the only place that may name it.
const ISLANDS: [(&str, &str); 10] = [
    ("ffmpeg_next", "src/media/"),
    ("ffmpeg_sys_next", "src/media/"),
    ("lapin", "src/broker/rabbit"),
    ("async_rs", "src/broker/rabbit"),
    ("opendal", "src/store/"),
    ("vmaf_head_sys", "src/quality/vmaf"),
    ("prometheus", "src/telemetry"),
    ("opentelemetry_proto", "src/telemetry"),
    ("prost", "src/telemetry"),
    ("sd_notify", "src/cli/notify"),
];
/// The one edge that another may use: who has the pictures shows them to who judges them, which knows no world of its own.
const SHOWN_TO: (&str, &str) = ("media", "quality");
/// Where memory may be handled by hand.
const UNSAFE_PLACES: [&str; 3] = ["src/sandbox/", "src/media/", "src/quality/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the project.
fn project() -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file() && name != ".git" && entry.metadata().unwrap().len() <= LARGEST_TEXT {
                let Ok(text) = std::fs::read_to_string(&path) else { continue };
                files.push(Source::new(path.strip_prefix(root()).unwrap().to_str().unwrap(), &text));
            }
        }
    }
    let test_only = scan::test_only_files(&files);
    files.iter_mut().for_each(|f| f.test_only = test_only.contains(&f.path));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.iter().any(|f| f.path == "src/lib.rs"), "the project was not found at {}", root().display());
    files
}

fn named(path: &str) -> Source {
    Source::new(path, &std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}")))
}

/// Fails with every finding, one a line.
#[track_caller]
fn keep(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// The rule finds exactly one thing in `bad`, and nothing in `good`.
#[track_caller]
fn finds(rule: impl Fn(&[Source]) -> Vec<String>, path: &str, bad: &str, good: &str) {
    let found = rule(&[Source::new(path, bad)]);
    assert_eq!(found.len(), 1, "in {bad:?} the rule found {found:?}");
    let found = rule(&[Source::new(path, good)]);
    assert!(found.is_empty(), "in {good:?} the rule found {found:?}");
}

/// The floor of every module, from the table in the documentation of `src/lib.rs` or in the architecture page.
fn floors(table: &Source) -> BTreeMap<String, u8> {
    let mut floors = BTreeMap::new();
    for row in table.text.lines().filter_map(|l| l.trim_start_matches("//! ").strip_prefix("| F")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [floor, _, modules, ..] = cells[..] else { continue };
        let floor = floor.parse().expect("a floor is a digit");
        for module in modules.split('`').skip(1).step_by(2) {
            floors.insert(module.to_string(), floor);
        }
    }
    floors
}

/// The module that rules know a path by: the longest of its beginnings that has a floor.
fn module_of(path: &str, floors: &BTreeMap<String, u8>) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    (1..=parts.len()).rev().map(|n| parts[..n].join("::")).find(|name| floors.contains_key(name))
}

/// `src/plan/time.rs` is `plan::time`.
fn module_path(file: &str) -> String {
    file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::")
}

/// A path as this file's module means it, from the crate's root; none for paths into other crates.
fn absolute(path: &str, module: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("crate::").or_else(|| path.strip_prefix("narrows::")) {
        return Some(rest.to_string());
    }
    let mut rest = path.strip_prefix("super::")?;
    let mut parts: Vec<&str> = module.split("::").collect();
    parts.pop();
    while let Some(higher) = rest.strip_prefix("super::") {
        parts.pop();
        rest = higher;
    }
    Some(parts.into_iter().chain([rest]).collect::<Vec<_>>().join("::"))
}

fn breaks_a_floor(files: &[Source], floors: &BTreeMap<String, u8>) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.is_product() && f.path != "src/lib.rs") {
        let module = module_path(&file.path);
        let Some(own) = module_of(&module, floors) else {
            findings.push(format!("{}:1: has no floor in the table of src/lib.rs", file.path));
            continue;
        };
        for (line, path) in paths(&file.product_code()) {
            let Some(target) = absolute(&path, &module) else { continue };
            let Some(other) = module_of(&target, floors) else {
                findings.push(format!("{}:{line}: {path} is in no module with a floor", file.path));
                continue;
            };
            let (own_floor, its_floor) = (floors[&own], floors[&other]);
            let why = if its_floor > own_floor {
                "imports point down only"
            } else if own_floor == 1 && its_floor == 1 && own != other && (own.as_str(), other.as_str()) != SHOWN_TO {
                "edges never import each other"
            } else {
                continue;
            };
            findings.push(format!("{}:{line}: `{own}` (F{own_floor}) names `{target}` (F{its_floor}): {why}", file.path));
        }
    }
    findings
}

fn leaves_an_island(files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.is_rust() && f.path.starts_with("src/")) {
        for (name, place) in ISLANDS.iter().filter(|(_, place)| !file.path.starts_with(place)) {
            findings.extend(
                lines(&file.code)
                    .filter(|(_, l)| has_word(l, name))
                    .map(|(n, _)| format!("{}:{n}: {name} only in {place}", file.path)),
            );
        }
    }
    findings
}

fn is_impure(files: &[Source], floors: &BTreeMap<String, u8>) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.is_product()) {
        if module_of(&module_path(&file.path), floors).is_none_or(|m| floors[&m] != 0) {
            continue;
        }
        for (line, path) in paths(&file.product_code()) {
            let named = IMPURE.iter().find(|bad| path == **bad || path.starts_with(&format!("{bad}::")));
            findings.extend(named.map(|bad| format!("{}:{line}: a fact names {bad}; pass it in", file.path)));
        }
    }
    findings
}

fn unsafe_lines(file: &Source) -> impl Iterator<Item = usize> {
    lines(&file.code).filter(|(_, l)| has_word(l, "unsafe")).map(|(n, _)| n)
}

/// `unsafe fn`, whose contract is its callers' and whose body has blocks of its own.
fn declares_a_function(line: &str) -> bool {
    let words: Vec<&str> = line.split("unsafe").nth(1).unwrap_or_default().split_whitespace().collect();
    matches!(words[..], ["fn", ..] | ["extern", "fn", ..])
}

fn is_unsafe_elsewhere(files: &[Source]) -> Vec<String> {
    let outside = |f: &&Source| f.is_rust() && f.path.starts_with("src/") && !UNSAFE_PLACES.iter().any(|p| f.path.starts_with(p));
    let finding = |f: &Source, n| format!("{}:{n}: unsafe only in {}", f.path, UNSAFE_PLACES.join(", "));
    files.iter().filter(outside).flat_map(|f| unsafe_lines(f).map(move |n| finding(f, n))).collect()
}

/// The statement that holds `unsafe` has a SAFETY comment on its line or right above it.
fn is_unsafe_unexplained(files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.is_rust()) {
        let code: Vec<&str> = file.code.lines().map(str::trim).collect();
        let comments: Vec<&str> = file.comments.lines().collect();
        for line in unsafe_lines(file).filter(|n| !declares_a_function(code[n - 1])) {
            let mut n = line - 1;
            // Up over comments and attributes, and over the lines that the statement began on.
            let above = |n: usize| {
                code[n].is_empty() && !comments[n].trim().is_empty()
                    || code[n].starts_with("#[")
                    || !code[n].is_empty() && !code[n].ends_with([';', '{', '}'])
            };
            while n > 0 && above(n - 1) {
                n -= 1;
            }
            let said = comments[n..line].iter().any(|c| c.contains("SAFETY") || c.contains("# Safety"));
            if !said {
                findings.push(format!("{}:{line}: say what makes it sound: // SAFETY: ...", file.path));
            }
        }
    }
    findings
}

fn is_unfinished(files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.is_rust()) {
        for (n, code) in lines(&file.code) {
            let words = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
            let found = words.iter().find(|w| code.contains(**w));
            findings.extend(found.map(|w| format!("{}:{n}: {w} is not finished work", file.path)));
        }
        for (n, comment) in lines(&file.comments) {
            let owned = comment.contains("TODO(#");
            let found = ["FIXME", "XXX", "TODO"].iter().find(|w| has_word(comment, w) && !owned);
            findings.extend(found.map(|w| format!("{}:{n}: {w} without an owner in the tracker, TODO(#number)", file.path)));
        }
    }
    findings
}

fn is_too_long(files: &[Source]) -> Vec<String> {
    let long = |f: &&Source| f.is_rust() && f.text.lines().count() > LONGEST_FILE;
    let finding = |f: &Source| format!("{}: {} lines; split it by subject", f.path, f.text.lines().count());
    files.iter().filter(long).map(finding).collect()
}

fn unwraps(files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.is_product()) {
        for (n, line) in lines(&without_tests(&file.code)) {
            if line.contains(".unwrap()") {
                findings.push(format!("{}:{n}: unwrap(): handle it, or expect(\"what holds\")", file.path));
            }
        }
    }
    findings
}

/// A path that exists on one machine only.
fn names_a_machine(files: &[Source]) -> Vec<String> {
    // Written in two halves, so that this file passes.
    let folders = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")];
    let inner = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "}>)._-/$*".contains(c));
    let mut findings = Vec::new();
    for file in files {
        for (n, line) in lines(&file.text) {
            let absolute = folders.iter().find(|f| line.match_indices(**f).any(|(at, _)| !inner(line[..at].chars().next_back())));
            let shared = Some(&concat!("../sha", "red")).filter(|s| line.contains(**s));
            findings.extend(absolute.or(shared).map(|f| format!("{}:{n}: {f} is a path of one machine", file.path)));
        }
    }
    findings
}

fn is_no_preset(files: &[Source]) -> Vec<String> {
    use narrows::plan::preset::{BUILT_IN, Preset};
    let mut findings = Vec::new();
    for file in files {
        let Some(name) = file.path.strip_prefix("presets/").and_then(|p| p.strip_suffix(".toml")) else { continue };
        match Preset::parse(name, &file.text, &BTreeMap::new()) {
            Err(e) => findings.push(format!("{}: {e}", file.path)),
            Ok(preset) if preset.name != name => findings.push(format!("{}: calls itself {}", file.path, preset.name)),
            Ok(_) if !BUILT_IN.iter().any(|(known, _)| *known == name) => {
                findings.push(format!("{}: is not compiled in (BUILT_IN in src/plan/preset.rs)", file.path));
            }
            Ok(_) => {}
        }
    }
    findings
}

/// The fenced blocks of a page in one language.
fn fenced<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}\n");
    page.split(&open).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// Sections by which a sample is known as settings of the program.
const SECTIONS: [&str; 5] = ["broker", "stores", "worker", "coordinator", "tenants"];

/// What the program would say of these settings.
fn settings_error(text: &str) -> Option<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    narrows::config::Config::load(Some(file.path()), std::iter::empty()).err().map(|e| format!("{}: {}", e.path, e.reason))
}

/// Sample jobs and settings in the pages are ones the program takes.
fn is_no_sample(files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".md")) {
        for sample in fenced(&file.text, "json").into_iter().filter(|s| s.contains("\"input\"")) {
            let error = narrows::job::Job::parse(sample.as_bytes()).err();
            findings.extend(error.map(|e| format!("{}: a sample job does not parse: {e}", file.path)));
        }
        for sample in fenced(&file.text, "toml") {
            let error = match toml::from_str::<toml::Table>(sample) {
                Ok(table) if SECTIONS.iter().any(|name| table.contains_key(*name)) => settings_error(sample),
                parsed => parsed.err().map(|e| e.to_string()),
            };
            findings.extend(error.map(|e| format!("{}: a sample does not parse: {e}", file.path)));
        }
    }
    findings
}

/// `make name` in a page, in backticks or in a fenced block.
fn names_no_target(pages: &[Source], makefile: &str) -> Vec<String> {
    let targets: Vec<&str> =
        makefile.lines().filter(|l| !l.starts_with(['\t', '.', '#'])).filter_map(|l| l.split_once(':')).map(|(t, _)| t).collect();
    let mut findings = Vec::new();
    for page in pages.iter().filter(|p| p.path.ends_with(".md")) {
        for (n, line) in lines(&page.text) {
            let said = line.match_indices("make ").filter(|(at, _)| *at == 0 || line[..*at].ends_with('`'));
            for (at, _) in said {
                let target: String = line[at + 5..].chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
                if !target.is_empty() && !targets.contains(&target.as_str()) {
                    findings.push(format!("{}:{n}: the Makefile has no target {target}", page.path));
                }
            }
        }
    }
    findings
}

/// The architecture page names the files of a job's way in bold: `**`part/probe.rs`**`, under `src/`.
fn names_no_file(page: &Source, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let named = |line: &'_ str| -> Vec<String> {
        line.split("**`").skip(1).filter_map(|rest| rest.split_once("`**")).map(|(name, _)| name.to_string()).collect()
    };
    let all = lines(&page.text).flat_map(|(n, line)| named(line).into_iter().map(move |name| (n, name)));
    all.filter(|(_, name)| !exists(name)).map(|(n, name)| format!("{}:{n}: there is no src/{name}", page.path)).collect()
}

#[path = "tidy/rules.rs"]
mod rules;
