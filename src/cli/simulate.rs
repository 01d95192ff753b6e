//! `narrows simulate`: what a fleet would do with jobs to come, and what that would cost.

use super::exit::{Exit, Failed};
use super::presets::write_out;
use super::rows::Rows;
use super::{fleet, load, worker};
use crate::config::Config;
use crate::simulate::costs::Measured;
use crate::simulate::report::Spread;
use crate::simulate::{Arrival, Costs, Fleet, Report, Scaling, SimulateError, Synthetic, arrivals, plot};
use clap::builder::RangedU64ValueParser;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  narrows simulate --workers 20 --slots 8 --jobs 5000 --over 24h --daily
  narrows simulate --workers 2 --trace jobs.jsonl --report out/report.json --json
  narrows simulate --workers 50 --jobs 2000 --tenant big=1000 --tenant small=1 --config fleet.toml
  narrows simulate --workers 2 --scale-to 200 --jobs 20000 --plot day.svg --slot-hour 0.04

A line of a trace: {\"at_s\": 12.5, \"media_s\": 600, \"tenant\": \"acme\", \"lane\": \"high\", \"preset\": \"h265\"}; all but the first two
may be left out. Lanes, window, retries and quotas are those of the settings file. What parts cost is taken from reports, from
a file of costs (fields as in src/simulate/costs.toml), or is what one machine measured. The same arguments give the same figures.

Exit codes: 0 done; 2 misuse; 64 settings, trace, costs or reports; 70 the plot cannot be written.";

/// Largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Where nothing else is said: looks of the autoscaler, and how long a lower need must have lasted, seconds.
const LOOK_EVERY_S: u64 = 15;
const DOWN_AFTER_S: u64 = 600;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    settings: fleet::Settings,
    /// Workers from the beginning on.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Slots of each. [default: worker.slots, or one for each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: Option<u16>,
    /// The jobs, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    drawn: Drawn,
    /// What parts cost.
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// A report.json that says what the chunks of its preset cost; may be given again.
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,
    #[command(flatten)]
    scaling: ScalingArgs,
    /// Price of one slot for one hour, in any money.
    #[arg(long, value_name = "PRICE")]
    slot_hour: Option<f64>,
    /// What chance begins with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draw what waited and what worked, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Jobs that are drawn.
#[derive(clap::Args)]
struct Drawn {
    /// So many jobs are drawn.
    #[arg(long, value_name = "COUNT", conflicts_with = "trace", required_unless_present = "trace",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=crate::simulate::MAX_JOBS as u64))]
    jobs: Option<usize>,
    /// They arrive within this time.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    over: Duration,
    /// More of them in the evening than in the morning.
    #[arg(long)]
    daily: bool,
    /// Mean length of their titles.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    media: Duration,
    /// Standard deviation of the logarithm of these lengths.
    #[arg(long, value_name = "SIGMA", default_value_t = 0.8)]
    media_spread: f64,
    /// Their preset.
    #[arg(long, default_value = "h265")]
    preset: String,
    /// Shares of the lanes high, normal and low.
    #[arg(long, value_name = "SHARES", default_value = "1,8,1", value_parser = lanes)]
    lanes: [f64; 3],
    /// A tenant and its share of the jobs, NAME=SHARE; may be given again. [default: one, "local"]
    #[arg(long, value_name = "TENANT", value_parser = tenant)]
    tenant: Vec<(String, f64)>,
}

/// Workers that come and go.
#[derive(clap::Args)]
struct ScalingArgs {
    /// As many workers as the queues need, from --workers up to so many, as the chart's ScaledObjects do it.
    #[arg(long, value_name = "WORKERS")]
    scale_to: Option<usize>,
    /// From the wish for a worker to its first part.
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = humantime::parse_duration, requires = "scale_to")]
    scale_start: Duration,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let mut config = load(args.settings.file())?;
    if let Some(slots) = args.slots {
        config.worker.slots = usize::from(slots);
    }
    let jobs = jobs(args)?;
    let report = crate::simulate::run(&simulated(args, &config), &costs(args)?, &jobs, args.seed, args.slot_hour);
    let report = report.map_err(wrong)?;
    if let Some(file) = &args.plot {
        let written = std::fs::write(file, plot::svg(&report));
        written.map_err(|e| Exit::Internal.because(format!("{}: {e}", file.display())))?;
    }
    if args.json {
        let document = serde_json::to_string_pretty(&report).map_err(|e| Exit::Internal.because(e))?;
        return write_out(&format!("{document}\n"));
    }
    write_out(&text(&report))
}

fn wrong(error: SimulateError) -> Failed {
    Exit::Settings.because(error)
}

fn read(path: &Path) -> Result<String, Failed> {
    let failed = |reason: String| Exit::Settings.because(format!("{}: {reason}", path.display()));
    let bytes = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(failed(format!("{bytes} bytes; at most {MAX_FILE_BYTES} are read")));
    }
    std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))
}

fn jobs(args: &Args) -> Result<Vec<Arrival>, Failed> {
    if let Some(trace) = &args.trace {
        let said = |e: SimulateError| Exit::Settings.because(format!("{}: {e}", trace.display()));
        return arrivals::read(&read(trace)?).map_err(said);
    }
    let drawn = &args.drawn;
    let synthetic = Synthetic {
        jobs: drawn.jobs.unwrap_or_default(),
        over_s: drawn.over.as_secs_f64(),
        is_daily: drawn.daily,
        media_s: drawn.media.as_secs_f64(),
        media_spread: drawn.media_spread,
        preset: drawn.preset.clone(),
        lanes: drawn.lanes,
        tenants: drawn.tenant.clone(),
    };
    Ok(synthetic.draw(args.seed))
}

fn costs(args: &Args) -> Result<Costs, Failed> {
    let mut costs = match &args.costs {
        Some(file) => Costs::parse(&read(file)?).map_err(|e| Exit::Settings.because(format!("{}: {e}", file.display())))?,
        None => Costs::default(),
    };
    let mut reports = Vec::new();
    for file in &args.report {
        let report = serde_json::from_str::<Measured>(&read(file)?);
        reports.push(report.map_err(|e| Exit::Settings.because(format!("{}: {e}", file.display())))?);
    }
    costs.measure(&reports);
    Ok(costs)
}

fn simulated(args: &Args, config: &Config) -> Fleet {
    let settings = worker::settings(config);
    let scaling = args.scaling.scale_to.map(|most| Scaling {
        fewest: args.workers,
        most,
        messages_per_worker: settings.slots,
        every_s: LOOK_EVERY_S,
        start_s: args.scaling.scale_start.as_secs(),
        down_after_s: DOWN_AFTER_S,
    });
    let quotas = config.tenants.iter().map(|(name, tenant)| (name.clone(), tenant.quota)).collect();
    Fleet { workers: args.workers, settings, window: config.worker.window, quotas, scaling }
}

/// Three shares, of which one at least is some.
fn lanes(text: &str) -> Result<[f64; 3], String> {
    let shares: Vec<f64> = text.split(',').map(share).collect::<Result<_, _>>()?;
    let shares = <[f64; 3]>::try_from(shares).map_err(|_| "are three numbers with commas between them: 1,8,1".to_string())?;
    if shares.iter().sum::<f64>() > 0.0 { Ok(shares) } else { Err("are all nothing".into()) }
}

fn tenant(text: &str) -> Result<(String, f64), String> {
    let (name, share) = text.split_once('=').ok_or("is a name and its share: acme=3")?;
    if !crate::job::is_safe_name(name) {
        return Err("a tenant's name is 1 to 64 letters, digits, '.', '_' or '-'".into());
    }
    let share = self::share(share)?;
    if share > 0.0 { Ok((name.into(), share)) } else { Err("a tenant's share is more than nothing".into()) }
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|share| share.is_finite() && *share >= 0.0);
    number.ok_or_else(|| format!("'{text}' is no share"))
}

/// The report in a person's words.
fn text(report: &Report) -> String {
    let mut text = format!(
        "{} jobs: {} completed, {} failed, {} refused; {} parts, {} crashes\n\
         makespan {}; slots {:.1} % busy; {} to {} workers\n\
         {:.1} slot hours for {:.1} hours of output: {:.3} an hour\n",
        report.jobs,
        report.completed,
        report.failed,
        report.refused,
        report.parts,
        report.crashes,
        plot::clock(report.makespan_s),
        report.utilisation * 100.0,
        report.fewest_workers,
        report.most_workers,
        report.slot_hours,
        report.output_hours,
        report.slot_hours_per_output_hour,
    );
    if let (Some(cost), Some(each)) = (report.cost, report.cost_per_output_hour) {
        text += &format!("cost {cost:.2}, {each:.4} for each hour of output\n");
    }
    let mut rows = Rows::new(["seconds", "of", "count", "mean", "p50", "p90", "p99", "longest"], 2);
    let mut put = |what: &str, of: &str, spread: &Spread| {
        let [mean, p50, p90, p99, longest] =
            [spread.mean, spread.p50, spread.p90, spread.p99, spread.longest].map(|seconds| format!("{seconds:.1}"));
        rows.push([what.into(), of.into(), spread.count.to_string(), mean, p50, p90, p99, longest]);
    };
    report.queue_age_s.iter().for_each(|(lane, spread)| put("in the queue", lane, spread));
    report.latency_s.iter().for_each(|(tenant, spread)| put("to the end", tenant, spread));
    text + &rows.table()
}
