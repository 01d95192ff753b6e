//! The moments at which the top rung is furthest from its source.

use super::html::{clock, escaped, grouped};
use super::story::{Score, Story, value_at};
use super::tables::crf_at;
use std::fmt::Write as _;

/// So many are shown.
const MOST: usize = 3;
/// Two of them are at least this far apart, seconds: the same moment is not shown twice.
const LEAST_APART_S: f64 = 2.0;

/// The pictures of one moment, as JPEG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub source: Vec<u8>,
    pub rung: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

/// The worst scored pictures, each of another moment, worst first.
pub(super) fn moments(story: &Story) -> Vec<Score> {
    let mut by_score: Vec<&Score> = story.scores.iter().collect();
    by_score.sort_by(|a, b| a.vmaf.total_cmp(&b.vmaf).then(a.time_s.total_cmp(&b.time_s)));
    let mut moments: Vec<Score> = Vec::with_capacity(MOST);
    for score in by_score {
        if moments.len() < MOST && moments.iter().all(|other| (other.time_s - score.time_s).abs() >= LEAST_APART_S) {
            moments.push(*score);
        }
    }
    moments
}

/// Each moment in words, with its pictures where they could be had.
pub(super) fn html(story: &Story, moments: &[Score], pairs: &[Option<Pair>]) -> String {
    let mut html = String::new();
    for (n, moment) in moments.iter().enumerate() {
        html += &figure(story, moment, n, pairs.get(n).and_then(Option::as_ref));
    }
    html
}

fn figure(story: &Story, moment: &Score, n: usize, pair: Option<&Pair>) -> String {
    let Some(rung) = story.rungs.first() else { return String::new() };
    let name = escaped(&rung.name);
    let (at, neg) = (clock(moment.time_s), grouped(moment.vmaf, 1));
    let mean = story.chunk_means.iter().find(|mean| mean.start_s <= moment.time_s && moment.time_s < mean.end_s);
    let chunk = story.chunks.get(moment.chunk).map_or(0.0, |chunk| chunk.value);
    let mut says = format!("<b>{at}</b> <span>VMAF-NEG <b>{neg}</b>, chunk {}", grouped(chunk, 0));
    if let Some(mean) = mean {
        let _ = write!(says, " at {} on the whole", grouped(mean.value, 1));
    }
    if let Some(planned) = value_at(&rung.planned_vmaf, moment.time_s) {
        let _ = write!(says, ", planned {}", grouped(planned, 1));
    }
    let _ = write!(says, ", CRF {}</span>", crf_at(&rung.crf, moment.time_s));
    let Some(Pair { source, rung: made, width, height }) = pair else {
        return format!(r#"<figure class="moment"><figcaption>{says}</figcaption></figure>"#);
    };
    let image = |bytes: &[u8], class: &str, alt: String| {
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        format!(r#"<img class="{class}" src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{alt}">"#)
    };
    format!(
        r#"<figure class="moment"><figcaption>{says}<label class="wipe" hidden><input type="checkbox" data-wipe> one over the other</label></figcaption><div class="pair" style="--w:{width};--h:{height}"><div class="side">{}<small>source</small></div><div class="side over">{}<small>{name}</small></div><input type="range" min="0" max="100" value="50" hidden aria-label="How much of the source is seen, moment {}"></div></figure>"#,
        image(source, "of-source", format!("The source at {at}")),
        image(made, "of-rung", format!("Rung {name} at {at}")),
        n + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_moments_are_apart_and_the_worst_comes_first() {
        let score = |time_s: f64, vmaf: f64| Score { time_s, vmaf, chunk: 0, picture: 0 };
        let scores =
            vec![score(0.0, 90.0), score(1.0, 80.0), score(1.5, 81.0), score(3.1, 85.0), score(9.0, 80.0), score(20.0, 99.0)];
        let story = Story { scores, ..empty() };
        let found: Vec<(f64, f64)> = moments(&story).iter().map(|m| (m.time_s, m.vmaf)).collect();
        assert_eq!(found, [(1.0, 80.0), (9.0, 80.0), (3.1, 85.0)]);
        assert_eq!(moments(&empty()), []);
    }

    fn empty() -> Story {
        Story {
            name: String::new(),
            duration_s: 1.0,
            rungs: Vec::new(),
            chunks: Vec::new(),
            segment_seams: Vec::new(),
            cuts: Vec::new(),
            scores: Vec::new(),
            chunk_means: Vec::new(),
            repaired: Vec::new(),
        }
    }
}
