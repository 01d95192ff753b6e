//! `narrows usage`: what a tenant's jobs used.

use super::exit::{Exit, Failed};
use super::exit_codes;
use super::fleet::{self, ASKED, Settings};
use super::presets::write_out;
use super::rows::{Rows, plain, size};
use super::words::{self, Day};
use crate::coordinator::ops::{self, UsageReport};
use crate::usage::Usage;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows usage --tenant acme --from 2026-11-01 --to 2026-11-30 --config fleet.toml
  narrows usage --tenant acme --from 2026-11-01 --to 2026-11-30 --csv > november.csv
  narrows usage --tenant acme --from 2026-11-30 --to 2026-11-30 --json

Days are in UTC, and both are counted. A job belongs to the day on which it ended, and counts once however often its parts
were delivered again. CSV has one row for each day and measure: output_s by codec, class and feature, then frames, cpu_s and
so on for the day as a whole.

",
    exit_codes!("0 done; 2 misuse; 64 configuration; 70 our fault")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Whose.
    #[arg(long, value_name = "T")]
    tenant: String,
    /// First day.
    #[arg(long, value_name = "D", value_parser = words::day)]
    from: Day,
    /// Last day.
    #[arg(long, value_name = "D", value_parser = words::day)]
    to: Day,
    /// Print it as CSV, day by day.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print it as one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    if args.to < args.from {
        return Err(Exit::Misuse.because("--from is after --to"));
    }
    fleet::run(&args.settings, ASKED, async |fleet| {
        let report = ops::usage(&fleet, &args.tenant, args.from.as_str(), args.to.as_str()).await?;
        if report.jobs == 0 && fleet.tenants.get(&args.tenant).is_none() {
            // One that is no longer configured has its records all the same.
            eprintln!("no tenant '{}' is configured, and none of that name used anything in these days", plain(&args.tenant));
        }
        if args.csv {
            return write_out(&csv(&report));
        }
        if args.json {
            let document = serde_json::to_string_pretty(&report).map_err(|e| Exit::Internal.because(e))?;
            return write_out(&(document + "\n"));
        }
        write_out(&text(&report))
    })
}

/// The sum in a person's words: output by what it is priced by, then what it took.
fn text(report: &UsageReport) -> String {
    let total = &report.total;
    let mut rows = Rows::new(["codec", "class", "feature", "minutes"], 3);
    for line in &total.output {
        let feature = if line.feature.is_empty() { "-" } else { &line.feature };
        rows.push([line.codec.clone(), line.class.clone(), feature.into(), format!("{:.2}", line.seconds / 60.0)]);
    }
    rows.push(["all".into(), String::new(), String::new(), format!("{:.2}", total.minutes())]);
    let (from, to) = (&report.from, &report.to);
    let days = if from == to { format!("on {from}") } else { format!("from {from} to {to}") };
    format!(
        "{}: {} jobs {days}\n{}{} parts, {} frames, {:.1} CPU seconds; {} attempts and {:.1} CPU seconds wasted; {} read, {} kept\n",
        report.tenant,
        report.jobs,
        rows.table(),
        total.parts,
        total.frames,
        total.cpu_s,
        total.wasted_attempts,
        total.wasted_cpu_s,
        size(total.source_bytes),
        size(total.output_bytes),
    )
}

fn csv(report: &UsageReport) -> String {
    let mut rows = Rows::new(["tenant", "day", "jobs", "measure", "codec", "class", "feature", "value"], 8);
    for day in &report.days {
        let mut push = |measure: &str, kind: [&str; 3], value: String| {
            let [codec, class, feature] = kind.map(String::from);
            rows.push([
                report.tenant.clone(),
                day.day.clone(),
                day.jobs.to_string(),
                measure.into(),
                codec,
                class,
                feature,
                value,
            ]);
        };
        for line in &day.usage.output {
            push("output_s", [&line.codec, &line.class, &line.feature], line.seconds.to_string());
        }
        for (measure, value) in measures(&day.usage) {
            push(measure, [""; 3], value);
        }
    }
    rows.csv()
}

fn measures(usage: &Usage) -> [(&'static str, String); 7] {
    [
        ("frames", usage.frames.to_string()),
        ("parts", usage.parts.to_string()),
        ("cpu_s", usage.cpu_s.to_string()),
        ("wasted_cpu_s", usage.wasted_cpu_s.to_string()),
        ("wasted_attempts", usage.wasted_attempts.to_string()),
        ("source_bytes", usage.source_bytes.to_string()),
        ("output_bytes", usage.output_bytes.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::ops::UsageDay;
    use crate::usage::UsageLine;

    fn report() -> UsageReport {
        let line = |codec: &str, class: &str, feature: &str, seconds| UsageLine {
            codec: codec.into(),
            class: class.into(),
            feature: feature.into(),
            seconds,
        };
        let usage = Usage {
            output: vec![line("aac", "audio", "", 90.0), line("h265", "fhd", "hdr", 60.125)],
            frames: 1500,
            cpu_s: 12.5,
            wasted_cpu_s: 0.25,
            wasted_attempts: 1,
            parts: 7,
            source_bytes: 6_249_820,
            output_bytes: 1000,
        };
        let day = UsageDay { day: "2026-11-30".into(), jobs: 2, usage: usage.clone() };
        let (from, to) = ("2026-11-01".to_string(), "2026-11-30".to_string());
        UsageReport { tenant: "acme".into(), from, to, jobs: 2, total: usage, days: vec![day] }
    }

    #[test]
    fn a_person_reads_minutes_and_what_they_took() {
        let expected = "\
acme: 2 jobs from 2026-11-01 to 2026-11-30
codec  class  feature  minutes
aac    audio  -           1.50
h265   fhd    hdr         1.00
all                       2.50
7 parts, 1500 frames, 12.5 CPU seconds; 1 attempts and 0.2 CPU seconds wasted; 6.2 MB read, 1.0 kB kept
";
        assert_eq!(text(&report()), expected);
    }

    #[test]
    fn a_spreadsheet_gets_exact_values_one_a_row() {
        let csv = csv(&report());
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[0], "tenant,day,jobs,measure,codec,class,feature,value");
        assert_eq!(lines[2], "acme,2026-11-30,2,output_s,h265,fhd,hdr,60.125");
        assert_eq!(lines[3], "acme,2026-11-30,2,frames,,,,1500");
        assert_eq!(lines.last(), Some(&"acme,2026-11-30,2,output_bytes,,,,1000"));
        assert_eq!(lines.len(), 1 + 2 + 7);
    }
}
