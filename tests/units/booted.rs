//! The installed units under the real systemd, which runs as the first process of namespaces of its own (`boot`): what they
//! promise holds behind every restriction that they ask for.

use super::common::server::{descendants, started_at, until};
use super::common::{Home, RabbitNode, Server, free_port, wait_for};
use super::installed::{does, install, run, said};
use super::media::Clip;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/units/boot");
/// Longest wait for what a fleet does, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(200);
/// Of every unit here: where it writes, what it logs, and a watchdog that need not be waited for.
const OF_THE_TEST: &str = "[Service]\nReadWritePaths=/srv\nStandardOutput=append:/run/%n.log\nStandardError=append:/run/%n.log\n\
                           Environment=NARROWS_LOG__LEVEL=narrows=info,warn\nWatchdogSec=3\nRestartSec=100ms\n";
/// Turns an instance of the worker into a doctor who works under the very same restrictions.
const DOCTOR: &str = "[Service]\nType=oneshot\nRestart=no\nExecStart=\n\
                      ExecStart=/usr/local/bin/narrows doctor --config /etc/narrows/fleet.toml --json\n\
                      StandardOutput=truncate:/run/doctor.json\n";
/// Drop-ins of all folders are read in the order of their names.
const LAST: &str = "zz-doctor.conf";
/// A kernel that has no Landlock answers as this does.
const NO_LANDLOCK: &str = "SystemCallFilter=~landlock_create_ruleset landlock_add_rule landlock_restrict_self\n";
/// What the unit's own comment says for such a kernel.
const BY_NAMESPACE: &str = "RestrictNamespaces=user\nSystemCallFilter=chroot\n";

/// A machine that systemd runs.
struct Machine {
    systemd: Server,
    pid: u32,
    home: Home,
}

impl Machine {
    /// Boots, with the program, its units and these settings of a fleet.
    #[track_caller]
    fn boot(broker: &str) -> Self {
        let home = Home::new();
        install(home.path(), "/usr/local");
        for folder in ["srv/work", "srv/media", "etc", "units/narrows-worker@.service.d", "units/narrows-coordinator.service.d"] {
            std::fs::create_dir_all(home.join(folder)).unwrap();
        }
        home.write("units/narrows-worker@.service.d/test.conf", OF_THE_TEST);
        home.write("units/narrows-coordinator.service.d/test.conf", OF_THE_TEST);
        let text = format!(
            "broker = {{ kind = \"rabbitmq\", uri = \"{broker}\", publish_timeout_s = 5 }}\nwork = {{ store = \"work\" }}\n\
             stores.work = {{ type = \"fs\", root = \"/srv/work\" }}\nstores.media = {{ type = \"fs\", root = \"/srv/media\" }}\n\
             worker.slots = 1\nscratch.part_bytes = 1000000\ncoordinator.listen = \"127.0.0.1:{}\"\n",
            free_port()
        );
        home.write("etc/fleet.toml", text);
        let mut systemd = Server::start(&home, "systemd", Command::new(BOOT).arg(home.path()));
        let pid = wait_for("systemd", || {
            let ended = systemd.ended();
            let why = "namespaces, mounts and control groups need the rights of root";
            assert!(ended.is_none(), "{ended:?}: {why}: {}", systemd.log());
            let is_systemd =
                |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "systemd\n");
            descendants(systemd.pid()).into_keys().find(is_systemd)
        });
        let machine = Self { systemd, pid, home };
        wait_for("systemd to answer", || machine.systemctl(&["is-active", "try.target"]).status.success().then_some(()));
        machine
    }

    /// Runs a program on it.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--"]).args(words);
        command
    }

    fn systemctl(&self, words: &[&str]) -> Output {
        run(self.command(&["systemctl"]).args(words))
    }

    #[track_caller]
    fn manages(&self, words: &[&str]) {
        let output = self.systemctl(words);
        let logs = words.last().map(|unit| self.read(&format!("run/{unit}.service.log")));
        assert!(output.status.success(), "{words:?}: {}\n{logs:?}\n{}", said(&output.stderr), self.systemd.log());
    }

    fn property(&self, unit: &str, name: &str) -> String {
        does(self.command(&["systemctl"]).args(["show", "--value", "--property", name, unit])).trim().to_string()
    }

    /// Where a file of it is, from outside.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid)).join(path)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// What the doctor finds as a worker with these further lines in its unit, the broker left out.
    #[track_caller]
    fn doctor(&self, lines: &str) -> Vec<(String, bool, String)> {
        let folder = self.path("run/units/narrows-worker@doctor.service.d");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(LAST), format!("{DOCTOR}{lines}")).unwrap();
        self.manages(&["daemon-reload"]);
        // It ends unhappily: nobody listens where the broker should be.
        self.systemctl(&["start", "narrows-worker@doctor"]);
        let text = self.read("run/doctor.json");
        let log = || format!("{}\n{}", self.read("run/narrows-worker@doctor.service.log"), self.systemd.log());
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}\n{}", log()));
        let findings = document["findings"].as_array().unwrap().iter().map(|finding| {
            let text = |field: &str| finding[field].as_str().unwrap().to_string();
            (text("check"), finding["ok"] == true, text("found"))
        });
        findings.filter(|(check, ..)| check != "broker").collect()
    }

    /// Children that encode now, as this machine knows them.
    fn children(&self) -> Vec<u32> {
        let is_child = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) == Some(b"child")
        };
        descendants(self.pid).into_keys().filter(is_child).filter(|pid| started_at(*pid).is_some()).collect()
    }

    /// Looks again and again until there is something; nothing in time is a failed test, with what was said.
    #[track_caller]
    fn wait_for<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        until(PATIENCE, look).unwrap_or_else(|| {
            let logs = std::fs::read_dir(self.path("run")).into_iter().flatten().flatten().map(|entry| entry.path());
            let logs = logs.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
            let all: Vec<String> = logs.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect();
            let files = does(Command::new("find").arg(self.home.join("srv")).args(["-type", "f", "-printf", "%TT %u %p\\n"]));
            panic!("{what}: not within {PATIENCE:?}\n{}\n{files}\n{}", all.join("\n---\n"), self.systemd.log())
        })
    }

    /// Parts of a job that are done.
    fn done(&self, job: &str, kind: &str) -> usize {
        std::fs::read_dir(self.home.join(&format!("srv/work/jobs/{job}/done/{kind}"))).map_or(0, Iterator::count)
    }
}

#[test]
fn behind_every_restriction_of_the_unit_children_get_the_tightest_jail_and_all_encoders_work() {
    let machine = Machine::boot("amqp://127.0.0.1:1/%2f");
    let jail = |findings: &[(String, bool, String)]| findings.iter().find(|(check, ..)| check == "jail").unwrap().clone();
    let found = machine.doctor("");
    assert!(found.len() > 6, "{found:?}");
    for (check, is_fine, what) in &found {
        assert!(is_fine, "{check}: {what}");
    }
    assert!(jail(&found).2.starts_with("full"), "{found:?}");
    // Without Landlock media is not touched, and the message says why.
    let weak = jail(&machine.doctor(NO_LANDLOCK));
    assert!(!weak.1 && weak.2.contains("is Limits, and Seccomp is asked for"), "{weak:?}");
    // Unless the unit allows what its comment says.
    let found = machine.doctor(&format!("{NO_LANDLOCK}{BY_NAMESPACE}"));
    assert!(jail(&found).1 && jail(&found).2.starts_with("seccomp"), "{found:?}");
    assert!(found.iter().filter(|(check, ..)| check.starts_with("encoder")).all(|(_, is_fine, _)| *is_fine), "{found:?}");
}

#[test]
fn under_systemd_a_stopped_worker_finishes_its_part_and_one_that_hangs_is_started_again() {
    let rabbit = RabbitNode::start();
    let machine = Machine::boot(&rabbit.uri("/"));
    let source = Clip { frames: 250, ..Clip::default() }.make();
    std::fs::copy(source, machine.home.join("srv/media/talk.mp4")).unwrap();
    // Parts of a few seconds.
    let set = json!({
        "packaging.segment_s": 1, "chunk.grid": "fixed", "chunk.target_s": 2, "chunk.shortest_s": 1, "video.speed": "veryslow",
    });
    let job = json!({
        "id": "talk", "preset": "h265", "set": set,
        "input": { "uri": "/srv/media/talk.mp4" }, "output": { "uri": "/srv/media/out/" },
    });
    machine.home.write("srv/job.json", job.to_string());
    // Returns when it said that it is ready.
    machine.manages(&["start", "narrows-coordinator", "narrows-worker@1"]);
    assert_eq!(machine.property("narrows-worker@1", "ActiveState"), "active");
    machine.wait_for("a word of what it does", || {
        (machine.property("narrows-worker@1", "StatusText") == "working, 0 open").then_some(())
    });

    // As the services' user: what it writes into the work store they must be able to change.
    let narrows = ["runuser", "--user", "narrows", "--", "/usr/local/bin/narrows"];
    let submit = ["submit", "/srv/job.json", "--config", "/etc/narrows/fleet.toml"];
    does(machine.command(&narrows).args(submit));
    let (child, before) = machine.wait_for("a chunk that is being encoded", || {
        let child = *machine.children().first()?;
        (machine.done("talk", "encode") > 0).then(|| (child, machine.done("talk", "encode")))
    });
    let started = started_at(child);
    machine.manages(&["stop", "narrows-worker@1"]);
    assert_eq!(machine.property("narrows-worker@1", "Result"), "success");
    assert_eq!(machine.property("narrows-worker@1", "ExecMainStatus"), "0");
    let log = machine.read("run/narrows-worker@1.service.log");
    assert!(log.contains("leaving: nothing further is taken") && !log.contains("were dropped"), "{log}");
    assert!(started_at(child).is_none() || started_at(child) != started, "a child outlives its worker");
    assert!(machine.done("talk", "encode") > before, "what it was at is done: {log}");

    // Another one goes on where it ended. It hangs, and systemd finds out.
    machine.manages(&["start", "narrows-worker@2"]);
    let hangs = machine.property("narrows-worker@2", "MainPID");
    does(&mut machine.command(&["kill", "-STOP", &hangs]));
    machine.wait_for("the watchdog", || (machine.property("narrows-worker@2", "NRestarts") == "1").then_some(()));
    machine.wait_for("a worker that is ready again", || {
        let main = machine.property("narrows-worker@2", "MainPID");
        (machine.property("narrows-worker@2", "ActiveState") == "active" && main != hangs).then_some(())
    });
    let report =
        machine.wait_for("the end of the job", || serde_json::from_str::<Value>(&machine.read("srv/media/out/report.json")).ok());
    let attempts = report["chunks"].as_array().unwrap().iter().map(|chunk| chunk["attempt"].as_u64().unwrap());
    assert!(attempts.clone().count() >= 5, "{report}");
    // Of the worker that was stopped nothing came again; of the one that hung, what it held came back, uncounted.
    assert!(attempts.clone().all(|attempt| attempt == 1), "{:?}", attempts.collect::<Vec<_>>());
    let coordinator = machine.property("narrows-coordinator", "NRestarts");
    machine.manages(&["stop", "narrows-coordinator", "narrows-worker@2"]);
    assert_eq!((coordinator.as_str(), machine.property("narrows-coordinator", "Result").as_str()), ("0", "success"));
}
