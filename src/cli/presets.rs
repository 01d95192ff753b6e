//! `narrows presets`.

use super::exit::{Exit, Failed};
use crate::plan::preset::{BUILT_IN, Preset};
use clap::Subcommand;
use std::collections::BTreeMap;
use std::io::Write;

const EXAMPLES: &str = "Examples:
  narrows presets
  narrows presets show h265";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Print one preset as the file it is; any of its fields can be changed with `transcode --set`.
    Show { name: String },
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let text = match &args.action {
        None => list()?,
        Some(Action::Show { name }) => show(name)?,
    };
    write_out(&text)
}

fn list() -> Result<String, Failed> {
    let mut text = String::new();
    for (name, _) in BUILT_IN {
        let preset = Preset::built_in(name, &BTreeMap::new()).map_err(|e| Exit::Internal.because(e))?;
        text += &format!("{name:<12} {}\n", preset.description);
    }
    Ok(text)
}

fn show(name: &str) -> Result<String, Failed> {
    // The error of an unknown name lists those there are.
    Preset::built_in(name, &BTreeMap::new()).map_err(|e| Exit::Settings.because(e))?;
    let found = BUILT_IN.iter().find(|(known, _)| *known == name);
    Ok(found.map(|(_, text)| (*text).to_string()).unwrap_or_default())
}

/// Writes to stdout. A reader that went away is no error of ours.
pub(super) fn write_out(text: &str) -> Result<Exit, Failed> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Exit::Internal.because(format!("stdout: {e}"))),
        _ => Ok(Exit::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_listed_and_shown_and_an_unknown_one_is_a_settings_error() {
        let listed = list().unwrap();
        for (name, text) in BUILT_IN {
            assert!(listed.lines().any(|l| l.starts_with(name)), "{name}");
            assert_eq!(show(name).unwrap(), *text);
        }
        let unknown = show("h266").unwrap_err();
        assert_eq!(unknown.exit, Exit::Settings);
        assert!(unknown.message.contains("mezzanine"), "{}", unknown.message);
    }
}
