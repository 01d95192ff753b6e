//! What systemd itself says of the units.

use super::installed::{Installed, UNITS, run, said};
use std::path::Path;
use std::process::{Command, Output};

/// The exposure that no unit may exceed, in tenths as `--threshold` takes it. Both are services that speak to the network,
/// which alone counts 1.0.
const MOST_EXPOSED: u32 = 15;

fn exposure(unit: &Path) -> (Output, f64) {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager", &format!("--threshold={MOST_EXPOSED}")]).arg(unit);
    let output = run(&mut analyze);
    let text = said(&output.stdout);
    let level = text.lines().find_map(|line| line.split_once("Overall exposure level for ")?.1.split_once(": "));
    let (_, level) = level.unwrap_or_else(|| panic!("no level: {text}{}", said(&output.stderr)));
    let level = level.split_whitespace().next().unwrap().parse().unwrap();
    (output, level)
}

#[test]
fn no_unit_is_more_exposed_than_the_threshold() {
    let installed = Installed::new();
    for name in UNITS {
        let unit = installed.unit(name);
        let (output, level) = exposure(&unit);
        assert!(output.status.success() && level <= f64::from(MOST_EXPOSED) / 10.0, "{name}: {level}\n{}", said(&output.stdout));
        // The gate is one: without a few of its lines the same unit does not pass.
        let text = std::fs::read_to_string(&unit).unwrap();
        let weaker: Vec<&str> = text.lines().filter(|line| !line.starts_with("SystemCallFilter=")).collect();
        std::fs::write(&unit, weaker.join("\n")).unwrap();
        let (output, level) = exposure(&unit);
        assert!(!output.status.success() && level > f64::from(MOST_EXPOSED) / 10.0, "{name}: {level}");
    }
}

/// What systemd finds wrong, the pages of the manual that the units name among it.
fn verify(installed: &Installed) -> Output {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=yes"]).args(UNITS.map(|name| installed.unit(name)));
    run(analyze.env("MANPATH", installed.path("share/man")))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let installed = Installed::new();
    let fine = verify(&installed);
    assert!(fine.status.success() && fine.stderr.is_empty(), "{}: {}", fine.status, said(&fine.stderr));
    for (right, wrong, named) in [
        ("KillMode=mixed", "KillMode=gently", "gently"),
        ("ExecStart=", "ExecStart=/nowhere", "not executable"),
        ("man:narrows-worker(1)", "man:narrows-walker(1)", "narrows-walker"),
    ] {
        let unit = installed.unit(UNITS[0]);
        let text = std::fs::read_to_string(&unit).unwrap();
        assert!(text.contains(right), "{right}");
        std::fs::write(&unit, text.replace(right, wrong)).unwrap();
        let output = verify(&installed);
        assert!(said(&output.stderr).contains(named), "{wrong}: {}", said(&output.stderr));
        std::fs::write(&unit, text).unwrap();
    }
}
