//! Keys are a type: the path of an object, its content type and how long it may be cached.

mod fleet;

use crate::job::{Class, JobId};
use crate::plan::Revision;
use crate::plan::marker::PartId;

/// What an object is, and so how it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ours; never served.
    Work,
    /// Named by its content: never changes.
    Immutable,
    /// Written again when the job is.
    Replaceable,
}

/// The name of one object in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    path: String,
    kind: Kind,
}

/// A path that is no safe place for an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no path under an output folder")]
pub struct UnsafePath(pub String);

impl Key {
    fn work(job: &JobId, rest: &str) -> Self {
        Self { path: format!("jobs/{job}/{rest}"), kind: Kind::Work }
    }

    /// The job as it was accepted.
    pub fn job(job: &JobId) -> Self {
        Self::work(job, "job.json")
    }

    /// The facts of the source.
    pub fn probe(job: &JobId) -> Self {
        Self::work(job, "probe.json")
    }

    /// Where every packet of a stream lies.
    pub fn packets(job: &JobId, stream: usize) -> Self {
        Self::work(job, &format!("packets/{stream}.bin"))
    }

    /// Everything decided before encoding, but for what content decides.
    pub fn plan(job: &JobId) -> Self {
        Self::work(job, "plan.json")
    }

    /// The plan with more of what content decides, and the grounds; written once.
    pub fn revision(job: &JobId, revision: Revision) -> Self {
        Self::work(job, &format!("plan-{}.json", revision.name()))
    }

    /// Says that a part is done.
    pub fn marker(job: &JobId, part: PartId) -> Self {
        Self::work(job, &format!("done/{part}.json"))
    }

    /// The folder of all markers of a job.
    pub fn markers(job: &JobId) -> String {
        format!("jobs/{job}/done/")
    }

    /// The part whose marker has this path.
    pub fn part_of_marker(job: &JobId, path: &str) -> Option<PartId> {
        path.strip_prefix(&Self::markers(job))?.strip_suffix(".json")?.parse().ok()
    }

    /// Says that a part is done; of a chunk, by the encoders of a class. Each class has its own.
    pub fn marker_in(job: &JobId, class: Class, part: PartId) -> Self {
        if part.encodes() && class.is_device() {
            return Self::work(job, &format!("done-{class}/{part}.json"));
        }
        Self::marker(job, part)
    }

    /// The folder of the markers of chunks that were encoded in a class of devices.
    pub fn markers_in(job: &JobId, class: Class) -> String {
        if class.is_device() { format!("jobs/{job}/done-{class}/") } else { Self::markers(job) }
    }

    /// The part whose marker, in this class, has this path.
    pub fn part_of_marker_in(job: &JobId, class: Class, path: &str) -> Option<PartId> {
        path.strip_prefix(&Self::markers_in(job, class))?.strip_suffix(".json")?.parse().ok()
    }

    /// Says that a job that began on a device is encoded in software.
    pub fn fallback(job: &JobId) -> Self {
        Self::work(job, "fallback.json")
    }

    /// A note on one attempt that came to nothing; the name says what it cost.
    pub fn wasted(job: &JobId, name: &str) -> Self {
        Self::work(job, &format!("wasted/{name}"))
    }

    /// The folder of those of a job.
    pub fn wasted_folder(job: &JobId) -> String {
        format!("jobs/{job}/wasted/")
    }

    /// Says that a job is to end without a result.
    pub fn cancel(job: &JobId) -> Self {
        Self::work(job, "cancel.json")
    }

    /// How the job ended.
    pub fn result(job: &JobId) -> Self {
        Self::work(job, "result.json")
    }

    /// Media that is needed only until the package part is done, by its path under an output folder.
    ///
    /// # Errors
    /// The path would leave the folder.
    pub fn intermediate(job: &JobId, path: &str) -> Result<Self, UnsafePath> {
        safe(path)?;
        Ok(Self::work(job, &format!("media/{path}")))
    }

    /// An object of the customer, by its path under the job's output URI.
    ///
    /// # Errors
    /// The path would leave the folder.
    pub fn output(path: &str) -> Result<Self, UnsafePath> {
        safe(path)?;
        let kind = if is_content_named(path) { Kind::Immutable } else { Kind::Replaceable };
        Ok(Self { path: path.into(), kind })
    }

    /// The path in its store.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The media type (RFC 8216bis 4, ISO/IEC 23009-1 annex C, RFC 4337).
    pub fn content_type(&self) -> &'static str {
        match self.path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("m3u8") => "application/vnd.apple.mpegurl",
            Some("mpd") => "application/dash+xml",
            Some("m4s") => "video/iso.segment",
            Some("mp4") => "video/mp4",
            Some("json") => "application/json",
            _ => "application/octet-stream",
        }
    }

    /// The `Cache-Control` it is served with.
    pub fn cache_control(&self) -> &'static str {
        match self.kind {
            Kind::Work => "no-store",
            Kind::Immutable => "public, max-age=31536000, immutable",
            Kind::Replaceable => "no-cache",
        }
    }
}

/// The path of an object whose name holds its content: `1080p/00012.m4s` of that digest is
/// `1080p/00012.3fa9c1d2.m4s`.
///
/// # Panics
/// When the digest has fewer than 8 characters or the name no extension: both are our own making.
pub fn content_named(path: &str, sha256: &str) -> String {
    let (stem, extension) = path.rsplit_once('.').expect("an object's name has an extension");
    format!("{stem}.{}.{extension}", &sha256[..8])
}

/// Has the name the form `<stem>.<8 hexadecimal digits>.<extension>`?
fn is_content_named(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut fields = name.rsplit('.').skip(1);
    let digest = fields.next().unwrap_or_default();
    fields.next().is_some() && digest.len() == 8 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn safe(path: &str) -> Result<(), UnsafePath> {
    let element = |e: &str| !e.is_empty() && !e.starts_with('.') && !e.contains(['\\', '\0']);
    if path.split('/').all(element) { Ok(()) } else { Err(UnsafePath(path.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        JobId::try_from("talk-1".to_string()).unwrap()
    }

    #[test]
    fn work_objects_lie_where_the_design_lists_them() {
        let paths = [
            (Key::job(&job()), "jobs/talk-1/job.json"),
            (Key::probe(&job()), "jobs/talk-1/probe.json"),
            (Key::packets(&job(), 3), "jobs/talk-1/packets/3.bin"),
            (Key::plan(&job()), "jobs/talk-1/plan.json"),
            (Key::revision(&job(), Revision::Decided), "jobs/talk-1/plan-decided.json"),
            (Key::marker(&job(), PartId::Analyse(3)), "jobs/talk-1/done/analyse/00003.json"),
            (Key::marker(&job(), PartId::Decide), "jobs/talk-1/done/decide.json"),
            (Key::marker(&job(), PartId::Encode(12)), "jobs/talk-1/done/encode/00012.json"),
            (Key::marker(&job(), PartId::Probe), "jobs/talk-1/done/probe.json"),
            (Key::marker_in(&job(), Class::Nvenc, PartId::Encode(12)), "jobs/talk-1/done-nvenc/encode/00012.json"),
            (Key::marker_in(&job(), Class::Cpu, PartId::Encode(12)), "jobs/talk-1/done/encode/00012.json"),
            (Key::marker_in(&job(), Class::Nvenc, PartId::Audio(0)), "jobs/talk-1/done/audio/00000.json"),
            (Key::fallback(&job()), "jobs/talk-1/fallback.json"),
            (Key::cancel(&job()), "jobs/talk-1/cancel.json"),
            (Key::result(&job()), "jobs/talk-1/result.json"),
        ];
        for (key, path) in paths {
            assert_eq!((key.path(), key.cache_control()), (path, "no-store"));
        }
    }

    #[test]
    fn a_marker_is_found_again_by_its_path() {
        for part in [PartId::Probe, PartId::Analyse(2), PartId::Survey, PartId::Repair(7), PartId::Audio(1), PartId::Package] {
            assert_eq!(Key::part_of_marker(&job(), Key::marker(&job(), part).path()), Some(part));
        }
        let on_device = Key::marker_in(&job(), Class::Qsv, PartId::Encode(2));
        assert_eq!(Key::part_of_marker_in(&job(), Class::Qsv, on_device.path()), Some(PartId::Encode(2)));
        assert_eq!(Key::part_of_marker(&job(), on_device.path()), None, "no class takes another's for its own");
        assert_eq!(Key::part_of_marker(&job(), "jobs/other/done/probe.json"), None);
        assert_eq!(Key::part_of_marker(&job(), "jobs/talk-1/done/probe.json.tmp"), None);
    }

    #[test]
    fn what_is_named_by_its_content_is_cached_for_ever_and_a_manifest_never() {
        let named = content_named("1080p/00012.m4s", "3fa9c1d2ffff");
        assert_eq!(named, "1080p/00012.3fa9c1d2.m4s");
        let key = Key::output(&named).unwrap();
        assert_eq!(key.content_type(), "video/iso.segment");
        assert!(key.cache_control().contains("immutable"));
        for path in ["master.m3u8", "1080p.mp4", "a.b.m4s", "1080p/deadbeef.m4s"] {
            assert_eq!(Key::output(path).unwrap().cache_control(), "no-cache", "{path}");
        }
    }

    #[test]
    fn no_output_leaves_its_folder() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".narrows/jobs/x", "a\\b", "a\0b"] {
            assert_eq!(Key::output(path), Err(UnsafePath(path.into())));
            assert!(Key::intermediate(&job(), path).is_err());
        }
    }
}
