//! Units and program say the same: settings, times, exit codes.

use super::common::source::constant;
use super::installed::{PROGRAM, UNITS, Unit, run, said};
use narrows::config::{Config, SAMPLE};
use narrows::worker::health::LONGEST_SILENCE;
use std::process::Command;
use std::time::Duration;

/// The program's settings with a unit's environment over a fleet's sample file.
fn config(unit: &Unit) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SAMPLE).unwrap();
    // What systemd puts in for the host and the instance.
    let filled = |value: String| value.replace("%l", "encoder").replace("%i", "1");
    let environment = unit.environment().into_iter().map(|(name, value)| (name, filled(value)));
    Config::load(Some(file.path()), environment).unwrap()
}

#[test]
fn a_worker_can_finish_any_part_and_is_killed_only_after_it_would_have_left() {
    let unit = Unit::named(UNITS[0]);
    let worker = config(&unit).worker;
    // What the program keeps of its time for leaving itself: a part that begins as the signal comes needs that on top.
    let leaving = constant("src/cli/worker.rs", "LEAVING") + constant("src/worker/settings.rs", "STOP_GRACE");
    let (drain, part) = (Duration::from_secs(worker.drain_s), Duration::from_secs(worker.part_deadline_s));
    assert!(drain >= part + leaving, "{drain:?} for a part of {part:?}");
    let stop = unit.seconds("TimeoutStopSec");
    assert!(stop > drain && stop > part, "killed after {stop:?}, gone after {drain:?}");
    // Children that got the signal, too, would end in the middle of their parts.
    assert_eq!(unit.value("KillMode"), "mixed");
    assert_eq!(unit.value("OOMPolicy"), "continue");
}

#[test]
fn a_coordinator_has_time_for_the_requests_under_way_and_one_callback() {
    let unit = Unit::named(UNITS[1]);
    let needed = constant("src/coordinator/api/serve.rs", "DRAIN") + Duration::from_secs(config(&unit).callbacks.timeout_s);
    assert!(unit.seconds("TimeoutStopSec") >= needed, "{needed:?}");
}

#[test]
fn a_workers_scratch_folder_is_the_one_that_its_unit_makes() {
    let unit = Unit::named(UNITS[0]);
    let made = format!("/var/cache/{}", unit.value("CacheDirectory"));
    assert_eq!(config(&unit).scratch.folder.unwrap().to_str().unwrap(), made);
    assert_eq!(config(&unit).worker.name.as_deref(), Some("encoder-1"), "instances are told apart");
}

#[test]
fn the_watchdog_is_not_faster_than_the_program_finds_out_that_it_hangs() {
    for unit in UNITS.map(Unit::named) {
        assert_eq!((unit.value("Type"), unit.value("NotifyAccess")), ("notify", "main"));
        assert!(unit.seconds("WatchdogSec") > LONGEST_SILENCE);
    }
}

#[test]
fn what_is_set_up_wrongly_is_not_started_again_and_again() {
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), "[worker]\nslot = 2\n").unwrap();
    for (name, role) in UNITS.into_iter().zip(["worker", "coordinator"]) {
        let unit = Unit::named(name);
        assert_eq!(unit.value("Restart"), "on-failure");
        let kept: Vec<i32> = unit.value("RestartPreventExitStatus").split(' ').map(|code| code.parse().unwrap()).collect();
        let config = wrong.path().to_str().unwrap();
        for words in [[role, "--config", config], [role, "--configure", config]] {
            let output = run(Command::new(PROGRAM).args(words));
            let code = output.status.code().unwrap();
            assert!(kept.contains(&code), "{words:?} ends with {code}: {}", said(&output.stderr));
        }
        let words: Vec<&str> = unit.value("ExecStart").split(' ').collect();
        assert_eq!(words, ["/usr/local/bin/narrows", role, "--config", "/etc/narrows/fleet.toml"]);
    }
}
