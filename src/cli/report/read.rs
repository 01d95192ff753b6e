//! The report of a finished job, from its folder or by its own name.

use crate::cli::exit::{Exit, Failed};
use crate::part::report::{JobReport, REPORT_PATH, VERSION};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Largest report that is read, bytes: one of ten hours has a tenth of it.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// A report and where it lies.
pub(super) struct Found {
    pub report: JobReport,
    /// The folder of the job's outputs.
    pub folder: PathBuf,
}

/// # Errors
/// Misuse: there is nothing of that name. Media: the folder holds no report, or what is there is none; the message names the
/// field.
pub(super) fn report(out: &Path) -> Result<Found, Failed> {
    let meta = fs::metadata(out).map_err(|e| Exit::Misuse.because(format!("{}: {e}", out.display())))?;
    let path = if meta.is_dir() { out.join(REPORT_PATH) } else { out.to_path_buf() };
    let name = path.display();
    let bytes = match fs::metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let what = "holds no report.json: it is not the output of a finished job";
            return Err(Exit::Media.because(format!("{}: {what}", out.display())));
        }
        Err(e) => return Err(Exit::Misuse.because(format!("{name}: {e}"))),
        Ok(meta) => meta.len(),
    };
    if bytes > MOST_BYTES {
        return Err(Exit::Media.because(format!("{name}: {bytes} bytes are no report")));
    }
    let text = fs::read(&path).map_err(|e| Exit::Misuse.because(format!("{name}: {e}")))?;
    let report = parse(&text).map_err(|why| Exit::Media.because(format!("{name}: {why}")))?;
    Ok(Found { report, folder: path.parent().map(Path::to_path_buf).unwrap_or_default() })
}

/// A report, or which field is wrong with it.
fn parse(text: &[u8]) -> Result<JobReport, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let report: JobReport = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let (path, why) = (e.path().to_string(), e.inner().to_string());
        if path == "." { format!("is no report: {why}") } else { format!("{path}: {why}") }
    })?;
    json.end().map_err(|e| format!("is no report: {e}"))?;
    if report.version != VERSION {
        return Err(format!("version: is {}, and this program reads {VERSION}", report.version));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_report_is_refused_with_the_field() {
        let home = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            let failed = report(path).err().unwrap();
            (failed.exit, failed.message)
        };
        assert_eq!(refused(&home.path().join("none")).0, Exit::Misuse);
        let (exit, message) = refused(home.path());
        assert_eq!((exit, message.contains("no report.json")), (Exit::Media, true), "{message}");
        let file = home.path().join("report.json");
        let sample = super::super::tests::sample();
        let mut wrong = sample.clone();
        wrong["chunks"][0]["rungs"][0]["bytes"] = "many".into();
        let mut newer = sample.clone();
        newer["version"] = 2.into();
        for (value, named) in [
            (wrong.to_string(), "chunks[0].rungs[0].bytes"),
            (newer.to_string(), "version"),
            ("{".into(), "report"),
            (format!("{sample} {sample}"), "report"),
        ] {
            fs::write(&file, value).unwrap();
            for path in [home.path(), &file] {
                let (exit, message) = refused(path);
                assert_eq!((exit, message.contains(named)), (Exit::Media, true), "{message}");
            }
        }
        fs::write(&file, sample.to_string()).unwrap();
        let found = report(&file).ok().unwrap();
        assert_eq!((found.report.rungs.len(), found.folder.as_path()), (3, home.path()));
    }
}
