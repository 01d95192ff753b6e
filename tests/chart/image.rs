//! The image's root file system, made without Docker, and the program in it as a restricted pod runs it: with the settings
//! that the chart renders, as its user, with nothing to write to but its volumes, and behind a runtime's filter.

use super::helm;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the filters of container runtimes refuse to whoever has no capability: what the jail could do without Landlock.
const RUNTIME_DEFAULT: &str = "unshare,chroot";
/// A kernel or a runtime that has no Landlock.
const NO_LANDLOCK: &str = "landlock_create_ruleset,landlock_add_rule,landlock_restrict_self";

/// The file system of the image, with the rendered settings and the secret that they name.
struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = Self { folder };
        let mut made = Command::new(helm::root().join("image/rootfs"));
        let status = made.arg(env!("CARGO_BIN_EXE_narrows")).arg(image.root()).status().unwrap();
        assert!(status.success(), "image/rootfs: {status}");
        let platform = helm::all().into_iter().find(|(set, _)| set == "platform").unwrap().1;
        let settings = platform.object("ConfigMap", "transcoding-worker-cpu")["data"]["fleet.toml"].as_str().unwrap();
        std::fs::create_dir(image.settings()).unwrap();
        std::fs::write(image.settings().join("fleet.toml"), settings).unwrap();
        let secret = image.root().join("run/secrets/narrows/narrows-broker/uri");
        std::fs::create_dir_all(secret.parent().unwrap()).unwrap();
        // Nobody listens there: the broker is not what is looked at.
        std::fs::write(secret, "amqp://127.0.0.1:1/").unwrap();
        image
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("settings")
    }

    /// What the doctor finds in it, the broker left out, while these system calls are denied: the check, is it fine, and what.
    fn doctor(&self, denied: &str) -> Vec<(String, bool, String)> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "python3"]).arg(helm::root().join("tests/chart/confine.py"));
        command.arg(self.root()).arg(self.settings()).arg(denied).args([
            "doctor",
            "--config",
            "/etc/narrows/fleet.toml",
            "--json",
        ]);
        let answer = command.output().unwrap();
        let told = String::from_utf8_lossy(&answer.stderr);
        let said: Value = serde_json::from_slice(&answer.stdout)
            .unwrap_or_else(|error| panic!("{error}: {told}; mounting and giving up rights needs the rights of root"));
        let findings = said["findings"].as_array().unwrap().iter().map(|finding| {
            let text = |field: &str| finding[field].as_str().unwrap().to_string();
            (text("check"), finding["ok"] == true, text("found"))
        });
        findings.filter(|(check, ..)| check != "broker").collect()
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path(), found),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn holds_nothing_but_the_program_and_its_libraries(image: &Image) {
    let root = image.root();
    let mut found = Vec::new();
    files(&root.join("usr"), &mut found);
    for path in &found {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o222, 0, "{} can be written to", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_known = path == &root.join("usr/bin/narrows") || name.contains(".so") || name == "copyright";
        assert!(is_known, "{} is neither the program nor a library nor a licence", path.display());
    }
    let packages: Vec<String> = std::fs::read_dir(root.join("var/lib/dpkg/status.d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // Their names go on with a version.
    for package in ["libc6", "libavcodec", "libx265", "ca-certificates"] {
        assert!(packages.iter().any(|known| known.starts_with(package)), "{package} is not told: {packages:?}");
    }
    for package in packages {
        assert!(root.join("usr/share/doc").join(&package).join("copyright").is_file(), "{package} has no licence");
    }
}

#[test]
fn in_the_image_a_user_without_any_right_gets_the_jail_that_the_charts_readme_promises() {
    let image = Image::new();
    holds_nothing_but_the_program_and_its_libraries(&image);
    // With Landlock, behind the default filter of a runtime: everything works, in the tightest jail.
    let restricted = image.doctor(RUNTIME_DEFAULT);
    assert!(restricted.len() > 6, "{restricted:?}");
    for (check, is_fine, found) in &restricted {
        assert!(is_fine, "{check}: {found}");
    }
    let jail = |findings: &[(String, bool, String)]| findings.iter().find(|(check, ..)| check == "jail").unwrap().clone();
    assert!(jail(&restricted).2.starts_with("full"), "{restricted:?}");
    // Without: media is not touched, and the message says why.
    let weak = jail(&image.doctor(&format!("{NO_LANDLOCK},{RUNTIME_DEFAULT}")));
    assert!(!weak.1 && weak.2.contains("is Limits, and Seccomp is asked for"), "{weak:?}");
    // With a filter that lets a child have its own user namespace and root: the second row.
    let by_namespace = image.doctor(NO_LANDLOCK);
    assert!(jail(&by_namespace).1 && jail(&by_namespace).2.starts_with("seccomp"), "{by_namespace:?}");
    assert!(by_namespace.iter().filter(|(check, ..)| check.starts_with("encoder")).all(|(_, is_fine, _)| *is_fine));
}

#[test]
fn the_dockerfile_runs_the_program_as_the_user_of_the_chart() {
    let text = std::fs::read_to_string(helm::root().join("Dockerfile")).unwrap();
    let values = helm::ask("values", &serde_json::json!({ "chart": helm::chart() }));
    let security = &values["security"];
    let user = format!("\nUSER {}:{}\n", security["runAsUser"], security["runAsGroup"]);
    assert!(text.contains(&user), "{user:?}");
    // The chart gives arguments only.
    assert!(text.contains("\nENTRYPOINT [\"/usr/bin/narrows\"]\n"));
    let stages: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(
        stages,
        ["rust:1-bookworm AS build", "build AS root", "scratch"],
        "Debian 12 throughout, and none of it in the image"
    );
    assert!(text.contains("image/rootfs target/release/narrows /image") && text.contains("\nCOPY --from=root /image/ /\n"));
}
