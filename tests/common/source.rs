//! Constants of the program that nothing but its source tells: what charts and units have to agree with.

use std::path::Path;
use std::time::Duration;

/// A time that a file of the project has as a constant of its own: `const NAME: Duration = Duration::from_...(N);`
#[track_caller]
pub fn constant(file: &str, name: &str) -> Duration {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
    let line = text.lines().find(|line| line.contains(&format!("const {name}: Duration = Duration::from_")));
    let line = line.unwrap_or_else(|| panic!("{file}: no constant {name}"));
    let (unit, number) = line.split("Duration::from_").nth(1).unwrap().split_once('(').unwrap();
    let number: u64 = number.trim_end_matches(");").replace('_', "").parse().unwrap();
    match unit {
        "secs" => Duration::from_secs(number),
        "millis" => Duration::from_millis(number),
        other => panic!("{file}: {name}: {other}"),
    }
}
