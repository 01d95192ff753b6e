//! The manual by the real man, the completions by the shells themselves.

use super::installed::{Installed, does, run, said};
use std::process::Command;

/// Columns of the page that man makes.
const COLUMNS: &str = "100";

fn man(words: &[&str]) -> Command {
    let mut man = Command::new("man");
    man.args(words).env("MANWIDTH", COLUMNS).env("LC_ALL", "C.UTF-8").env("MANPAGER", "cat");
    man
}

#[test]
fn every_page_of_the_manual_is_set_without_a_warning_and_found_by_its_name() {
    let installed = Installed::new();
    let folder = installed.path("share/man");
    let mut pages: Vec<_> = std::fs::read_dir(folder.join("man1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(pages.len() > 20, "{pages:?}");
    for page in &pages {
        let output = run(&mut man(&["--warnings", "--encoding=UTF-8", "--local-file", page.to_str().unwrap()]));
        let (text, warned) = (said(&output.stdout), said(&output.stderr));
        assert!(output.status.success() && warned.is_empty(), "{}: {warned}", page.display());
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION"] {
            assert!(text.lines().any(|line| line == section), "{}: no {section}:\n{text}", page.display());
        }
    }
    let worker = does(&mut man(&["--manpath", folder.to_str().unwrap(), "narrows-worker"]));
    let line = |text: &str| worker.lines().any(|line| line.trim() == text);
    assert!(line("EXAMPLES") && line("narrows worker --config fleet.toml --slots 8"), "{worker}");
    assert!(line("EXIT STATUS") && line("0 drained") && line("64 settings"), "{worker}");
    assert!(worker.contains("--slots") && worker.contains("Children that run at once"), "{worker}");
    let program = does(&mut man(&["--manpath", folder.to_str().unwrap(), "narrows"]));
    assert!(program.contains("narrows-transcode(1)"), "{program}");
    // A page is warned of where there is something to warn of.
    let broken = installed.path("broken.1");
    std::fs::write(&broken, ".TH BROKEN 1\n.SH NAME\nbroken \\- not\n.XX\n").unwrap();
    let output = run(&mut man(&["--warnings", "--encoding=UTF-8", "--local-file", broken.to_str().unwrap()]));
    assert!(said(&output.stderr).contains("XX"), "{}", said(&output.stderr));
}

/// What bash offers when these words have been typed, the last of them not yet to its end.
fn offers(installed: &Installed, words: &[&str]) -> Vec<String> {
    let program = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        how=$(complete -p narrows); function=${how#*-F }; function=${function%% *}
        "$function" narrows "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let script = installed.path("share/bash-completion/completions/narrows");
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", program, "complete"]).arg(script).args(words);
    does(&mut bash).lines().map(str::to_string).collect()
}

#[test]
fn bash_completes_commands_and_options_and_every_shell_can_read_its_script() {
    let installed = Installed::new();
    assert_eq!(offers(&installed, &["narrows", "wo"]), ["worker"]);
    assert_eq!(offers(&installed, &["narrows", "worker", "--sl"]), ["--slots"]);
    assert_eq!(offers(&installed, &["narrows", "tenant", "fr"]), ["freeze"]);
    assert!(!offers(&installed, &["narrows", ""]).iter().any(|word| word == "child"), "what is hidden is not offered");
    for (shell, option, script) in [
        ("bash", "-n", "share/bash-completion/completions/narrows"),
        ("zsh", "-n", "share/zsh/site-functions/_narrows"),
        ("fish", "--no-execute", "share/fish/vendor_completions.d/narrows.fish"),
    ] {
        let script = installed.path(script);
        let output = run(Command::new(shell).arg(option).arg(&script));
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", said(&output.stderr));
        let text = std::fs::read_to_string(&script).unwrap();
        std::fs::write(&script, format!("{text}\nif ((\n")).unwrap();
        assert!(!run(Command::new(shell).arg(option).arg(&script)).status.success(), "{shell} reads anything");
        std::fs::write(&script, text).unwrap();
    }
}
