//! `narrows probe`: the facts of a source, from one jailed child.

use super::exit::{Exit, Failed};
use super::presets::write_out;
use super::scratch::Scratch;
use super::{configure, local, runtime};
use crate::part::report::Facts;
use crate::probe::{Clock, DynamicRange, Interlace, Probe, Scan, VideoStream};
use crate::sandbox::protocol::{Refusal, RefusalReason, Report, Task};
use crate::sandbox::{InputSource, Outcome, Sandbox};
use crate::shutdown::{Signal, Signals};
use crate::store::LocalFile;
use std::path::PathBuf;
use std::sync::Mutex;

const EXAMPLES: &str = "Examples:
  narrows probe talk.mp4
  narrows probe talk.mp4 --json";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A media file.
    source: PathBuf,
    /// Print the facts as JSON.
    #[arg(long)]
    json: bool,
    /// Settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let config = configure(args.config.as_deref())?;
    let source = local::source(&args.source)?;
    let name = args.source.display().to_string();
    let file = LocalFile::open(&source).map_err(|e| Exit::Misuse.because(format!("{name}: {e}")))?;
    let scratch = Scratch::new(&std::env::temp_dir(), "probe")
        .map_err(|e| Exit::Internal.because(format!("no scratch folder could be made: {e}")))?;
    let signalled = Mutex::new(None);
    let finished = runtime()?.block_on(async {
        let mut signals = Signals::listen().map_err(|e| Exit::Internal.because(e))?;
        let stop = async {
            let signal = signals.next().await;
            *signalled.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(signal);
        };
        let inputs = vec![InputSource::File(file.file)];
        let sandbox = Sandbox::from(&config.sandbox);
        Ok::<_, Failed>(sandbox.run(Task::Probe, inputs, config.limits.clone(), scratch.path(), &mut |_| {}, stop).await)
    })?;
    let signal = signalled.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match finished.outcome {
        Outcome::Done(report) => match *report {
            Report::Probe(probe) if args.json => write_out(&json(&probe)?),
            Report::Probe(probe) => write_out(&text(&name, &probe)),
            _ => Err(Exit::Internal.because("the child gave no probe")),
        },
        Outcome::Stopped => Err(Exit::Signalled(signal.unwrap_or(Signal::Interrupt)).because("interrupted")),
        Outcome::Refused(Refusal { reason: RefusalReason::Jail | RefusalReason::Internal | RefusalReason::Input, message }) => {
            Err(Exit::Internal.because(format!("{name}: {message}")))
        }
        Outcome::Refused(refusal) => Err(Exit::Media.because(format!("{name}: {}", refusal.message))),
        outcome => Err(Exit::Internal.because(format!("{name}: {outcome}; {}", finished.stderr_tail.trim()))),
    }
}

fn json(probe: &Probe) -> Result<String, Failed> {
    let text = serde_json::to_string_pretty(&Facts::of(probe));
    Ok(text.map_err(|e| Exit::Internal.because(e))? + "\n")
}

/// The facts in a person's words.
fn text(name: &str, probe: &Probe) -> String {
    let scan = match probe.scan {
        Scan::Index => "from its index",
        Scan::Packets => "from a scan of all packets",
    };
    let mut lines = vec![format!("{name}: {}, {} bytes, read {scan} ({} bytes)", probe.container, probe.bytes, probe.bytes_read)];
    for v in &probe.video {
        let seconds = crate::plan::time::seconds(v.end_pts - v.first_pts, v.time_base);
        let rate = v.frame_rate.num as f64 / v.frame_rate.den.max(1) as f64;
        let constant = if v.constant_rate { "constant" } else { "variable" };
        lines.push(format!(
            "  video #{}: {} {}x{} {}, {rate:.3} fps {constant}, {seconds:.3} s, {} frames, {} keyframes, {} kbit/s",
            v.index,
            v.codec,
            v.width,
            v.height,
            v.pixel_format,
            v.packets,
            v.keyframes.len(),
            v.bit_rate / 1000,
        ));
        lines.push(format!("    {}", picture(v)));
        if let Clock::Untrusted { why } = &v.clock {
            lines.push(format!("    timestamps cannot be trusted: {why}"));
        }
    }
    for a in &probe.audio {
        let language = a.language.as_deref().unwrap_or("language not given");
        let title = a.title.as_ref().map_or(String::new(), |t| format!(", \"{t}\""));
        lines.push(format!("  audio #{}: {} {} Hz {}, {language}{title}", a.index, a.codec, a.sample_rate, a.layout));
    }
    for i in &probe.ignored {
        lines.push(format!("  #{} {} {} is left out: {}", i.index, i.kind, i.codec, i.why));
    }
    lines.extend(probe.notes.iter().map(|note| format!("  note: {note}")));
    lines.join("\n") + "\n"
}

/// What is particular about the picture.
fn picture(v: &VideoStream) -> String {
    let mut words = vec![match v.colour.dynamic_range {
        DynamicRange::Sdr => "SDR".to_string(),
        DynamicRange::Pq => "HDR (PQ)".to_string(),
        DynamicRange::Hlg => "HDR (HLG)".to_string(),
    }];
    let colour: Vec<&str> = [&v.colour.primaries, &v.colour.transfer, &v.colour.matrix].into_iter().map(String::as_str).collect();
    words.push(match colour.as_slice() {
        ["", "", ""] => "colour not stated".into(),
        [a, b, c] if a == b && b == c => (*a).to_string(),
        other => other.iter().map(|name| if name.is_empty() { "?" } else { name }).collect::<Vec<_>>().join("/"),
    });
    words.push(if v.colour.full_range { "full range" } else { "limited range" }.into());
    words.push(match v.interlace {
        Interlace::Progressive => "progressive".into(),
        Interlace::TopFirst => "interlaced, top field first".into(),
        Interlace::BottomFirst => "interlaced, bottom field first".into(),
    });
    if v.rotation != 0 {
        words.push(format!("shown turned by {} degrees clockwise", v.rotation));
    }
    if v.sample_aspect.num != v.sample_aspect.den {
        words.push(format!("sample aspect {}:{}", v.sample_aspect.num, v.sample_aspect.den));
    }
    words.join(", ")
}
