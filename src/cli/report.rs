//! `narrows report`: one page of a finished job, for people. It needs nothing but a browser, and fetches nothing.

mod axis;
mod curves;
mod fixed;
mod hover;
mod html;
mod over_time;
mod page;
mod plot;
mod read;
mod savings;
mod segments;
mod stills;
mod story;
mod tables;
#[cfg(test)]
mod tests;
mod worst;

use super::exit::{Exit, Failed};
use super::{configure, exit_codes, runtime};
use crate::config::Config;
use crate::part::report::JobReport;
use page::Worst;
use segments::Track;
use std::path::{Path, PathBuf};
use story::{Score, Story};

const EXAMPLES: &str = concat!(
    "Examples:
  narrows report out/ -o report.html
  narrows report out/ -o report.html --source talk.mp4
  narrows report report.json -o report.html --no-stills

Where content decided the ladder, the page shows what was planned beside what was made, and stills of the worst moments where
source and segments are at hand; a jailed child takes them. It loads nothing from anywhere.

",
    exit_codes!("0 done; 2 misuse; 64 configuration; 65 no report, or one that does not parse; 70 our fault")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The output folder of a finished job, or its report.json.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The page to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The source, where it no longer lies where the job found it.
    #[arg(long, value_name = "FILE", conflicts_with = "no_stills")]
    source: Option<PathBuf>,
    /// Leave out the stills of the worst moments.
    #[arg(long)]
    no_stills: bool,
    /// Settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let config = configure(args.config.as_deref())?;
    let read::Found { report, folder } = read::report(&args.out)?;
    let tracks: Vec<Option<Track>> = report.rungs.iter().map(|rung| segments::track(&folder, &rung.name)).collect();
    let story = Story::new(&report, &tracks);
    let worst = worst(args, &config, &report, &story, tracks.first().and_then(Option::as_ref))?;
    let page = page::page(&report, &story, &worst).map_err(|e| Exit::Internal.because(e))?;
    write(&args.output, &page)?;
    Ok(Exit::Done)
}

/// The worst moments, with their pictures where they can be had.
fn worst(args: &Args, config: &Config, report: &JobReport, story: &Story, top: Option<&Track>) -> Result<Worst, Failed> {
    let moments = worst::moments(story);
    let source = stills::source(report, args.source.as_deref())?;
    let without = |moments: Vec<Score>, why: &str| Worst { moments, pairs: Vec::new(), notes: vec![not_shown(why)] };
    let (source, track) = match (source, top) {
        _ if moments.is_empty() => return Ok(Worst { moments, pairs: Vec::new(), notes: Vec::new() }),
        _ if args.no_stills => return Ok(without(moments, "they were not asked for")),
        (Err(why), _) => return Ok(without(moments, &why)),
        (Ok(_), None) => return Ok(without(moments, "the segments of the top rung are not beside the report")),
        (Ok(source), Some(track)) => (source, track),
    };
    let studio = stills::Studio { config, report, track, source: &source };
    let shots = runtime()?.block_on(studio.shoot(&moments))?;
    let mut notes = stills::notes(report);
    for why in shots.iter().filter_map(|shot| shot.as_ref().err()) {
        let note = not_shown(why);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Ok(Worst { moments, pairs: shots.into_iter().map(Result::ok).collect(), notes })
}

fn not_shown(why: &str) -> String {
    format!("Without stills: {}.", why.trim_end_matches('.'))
}

/// Writes the page whole, or not at all.
fn write(path: &Path, page: &str) -> Result<(), Failed> {
    let failed = |e: std::io::Error| Exit::Misuse.because(format!("{}: cannot be written: {e}", path.display()));
    let name = path.file_name().ok_or_else(|| Exit::Misuse.because(format!("{}: is no name of a file", path.display())))?;
    let mut partial = name.to_os_string();
    partial.push(format!(".{}.part", std::process::id()));
    let partial = path.with_file_name(partial);
    let written = std::fs::write(&partial, page).and_then(|()| std::fs::rename(&partial, path));
    written
        .inspect_err(|_| {
            // Whoever reads the error below can do no more about it.
            let _ = std::fs::remove_file(&partial);
        })
        .map_err(failed)
}
