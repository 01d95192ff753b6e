//! The command line: one file per subcommand.

mod cancel;
mod check_config;
pub mod child;
mod completions;
mod confirm;
mod coordinator;
mod doctor;
mod exit;
mod fleet;
mod folder;
mod follow;
mod list;
mod local;
mod man;
mod measure;
mod meter;
mod notify;
mod presets;
mod probe;
mod purge;
mod replay;
mod report;
mod rows;
mod scratch;
mod simulate;
mod status;
mod submit;
mod table;
mod tenant;
mod transcode;
mod usage;
mod view;
mod watch;
mod words;
mod worker;

/// The end of every command's help: the house's exit codes, and what they mean here.
macro_rules! exit_codes {
    ($meaning:literal) => {
        concat!("Exit codes: ", $meaning, "; 130 interrupted; 143 terminated.")
    };
}
use exit_codes;

use clap::{Parser, Subcommand};
use exit::{Exit, Failed};
use std::path::Path;
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:
  narrows transcode talk.mp4 -o out/
  narrows transcode talk.mp4 -o out/ --preset h264 --set packaging.segment_s=4 --slots 2 --json
  narrows probe talk.mp4
  narrows measure talk.mp4 out/720p/index.m3u8
  narrows report out/ -o report.html
  narrows presets show h265
  narrows doctor --config fleet.toml
  narrows submit job.json --config fleet.toml --wait

Exit codes: 0 done; 2 misuse; 3 the job that was waited for was canceled; 64 configuration, preset or job; 65 the media; 70 our
fault; 130 interrupted; 143 terminated.";

/// What the program is called.
const NAME: &str = "narrows";

/// Video in, a frame-exact ladder out: encoded in parallel, inside a jail.
#[derive(Parser)]
#[command(name = NAME, version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a ladder of renditions of one source. The same command again takes up what was broken off.
    Transcode(transcode::Args),
    /// Show what a source holds.
    Probe(probe::Args),
    /// Compare a video with its original, frame by frame: VMAF and XPSNR.
    Measure(measure::Args),
    /// Make one page of a finished job: what was decided, what came of it, and how it looks.
    Report(report::Args),
    /// List the presets, or show one.
    Presets(presets::Args),
    /// Work for a fleet: take parts off the broker's queues, and jobs.
    Worker(worker::Args),
    /// Turn what workers tell into what customers see, and answer HTTP.
    Coordinator(coordinator::Args),
    /// Give the fleet a job.
    Submit(submit::Args),
    /// Show where a job is.
    Status(status::Args),
    /// List jobs, the newest first.
    List(list::Args),
    /// Show a job's progress until it has ended, and end as it does.
    Watch(watch::Args),
    /// End a job before it is done.
    Cancel(cancel::Args),
    /// Send a job's callbacks again.
    Replay(replay::Args),
    /// Delete everything that a job or a tenant stored.
    Purge(purge::Args),
    /// Sum what a tenant's jobs used.
    Usage(usage::Args),
    /// Freeze a tenant, or let it go on.
    Tenant(tenant::Args),
    /// Say what a settings file means; connects to nothing.
    CheckConfig(check_config::Args),
    /// See whether everything that the fleet needs works from here.
    Doctor(doctor::Args),
    /// Say what a fleet would do with jobs to come, and what that would cost.
    Simulate(simulate::Args),
    /// Print a page of the manual, or write all of them.
    Man(man::Args),
    /// Print what a shell needs to complete the command line.
    Completions(completions::Args),
}

/// Runs the program.
pub fn run() -> ExitCode {
    // Once for the process: brokers, stores and callbacks all speak TLS by it. That somebody was first is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help_or_error) => {
            // Nobody to tell when the terminal is gone.
            let _ = help_or_error.print();
            return if help_or_error.use_stderr() { Exit::Misuse.into() } else { Exit::Done.into() };
        }
    };
    let result = match cli.command {
        Command::Transcode(args) => transcode::run(args),
        Command::Probe(args) => probe::run(&args),
        Command::Measure(args) => measure::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Presets(args) => presets::run(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Coordinator(args) => coordinator::run(&args),
        Command::Submit(args) => submit::run(&args),
        Command::Status(args) => status::run(&args),
        Command::List(args) => list::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Cancel(args) => cancel::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Purge(args) => purge::run(&args),
        Command::Usage(args) => usage::run(&args),
        Command::Tenant(args) => tenant::run(&args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failed) => {
            if !failed.message.is_empty() {
                eprintln!("narrows: {}", failed.message);
            }
            failed.exit.into()
        }
    }
}

/// The settings of this process, and its logs.
fn configure(file: Option<&Path>) -> Result<crate::config::Config, Failed> {
    let config = load(file)?;
    crate::telemetry::start(&config.log);
    Ok(config)
}

/// The settings of this process.
fn load(file: Option<&Path>) -> Result<crate::config::Config, Failed> {
    // A variable that is no text is none of ours.
    let environment = std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
    crate::config::Config::load(file, environment).map_err(|e| Exit::Settings.because(e))
}

/// The runtime of a command that runs children.
fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    /// The parent mostly waits; two threads keep an upload from holding up a range request.
    const THREADS: usize = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    runtime.map_err(|e| Exit::Internal.because(format!("the runtime did not start: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn misuse_is_told_from_help() {
        let parse = |words: &[&str]| Cli::try_parse_from(["narrows"].iter().chain(words)).err().map(|e| e.use_stderr());
        assert_eq!(parse(&["--help"]), Some(false));
        for wrong in [
            &["transcode"][..],
            &["transcode", "a.mp4"],
            &["transcode", "a.mp4", "-o", "out", "--set", "packaging.segment_s"],
            &["transcode", "a.mp4", "-o", "out", "--job", "job.json"],
            &["transcode", "a.mp4", "-o", "out", "--slots", "0"],
            &["child"],
        ] {
            assert_eq!(parse(wrong), Some(true), "{wrong:?}");
        }
        for right in [
            &["transcode", "a.mp4", "-o", "out", "--set", "packaging.segment_s=4", "--set", "video.speed=fast"][..],
            &["transcode", "--job", "job.json", "--json"],
            &["presets", "show", "h265"],
            &["presets"],
        ] {
            assert_eq!(parse(right), None, "{right:?}");
        }
    }
}
