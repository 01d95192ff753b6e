//! The table at the end of a job.

use super::rows::Rows;
use crate::part::report::JobReport;

/// The report in a person's words.
pub(super) fn text(report: &JobReport) -> String {
    let mut rows = head();
    for r in &report.rungs {
        let size = format!("{}x{}", r.width, r.height);
        rows.push(cells(&r.name, size, r.kbps, r.frames.to_string(), r.duration_s, r.bytes, r.cpu_s));
    }
    for a in &report.audio {
        let size = format!("{} ch", a.channels);
        rows.push(cells(&a.name, size, a.kbps, "-".into(), a.duration_s, a.bytes, a.cpu_s));
    }
    let mut text = rows.table();
    let damage = &report.damage;
    if damage.lost_frames + damage.damaged_frames > 0 {
        let first = damage.first_bad_s.map_or(String::new(), |s| format!(", the first at {s:.3} s"));
        text += &format!("damaged source: {} frames lost, {} damaged{first}\n", damage.lost_frames, damage.damaged_frames);
    }
    report.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    text
}

fn head() -> Rows<7> {
    Rows::new(["rung", "size", "kbit/s", "frames", "seconds", "MB", "CPU s"], 2)
}

fn cells(name: &str, size: String, kbps: f64, frames: String, seconds: f64, bytes: u64, cpu_s: f64) -> [String; 7] {
    let megabytes = bytes as f64 / 1e6;
    let numbers = [format!("{kbps:.0}"), frames, format!("{seconds:.3}"), format!("{megabytes:.2}"), format!("{cpu_s:.1}")];
    let [kbps, frames, seconds, megabytes, cpu_s] = numbers;
    [name.to_string(), size, kbps, frames, seconds, megabytes, cpu_s]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_under_each_other() {
        let mut rows = head();
        rows.push(cells("1080p", "1920x1080".into(), 5123.4, "1500".into(), 60.0, 38_400_000, 90.25));
        let expected = "\
rung   size       kbit/s  frames  seconds     MB  CPU s
1080p  1920x1080    5123    1500   60.000  38.40   90.2
";
        assert_eq!(rows.table(), expected);
    }
}
