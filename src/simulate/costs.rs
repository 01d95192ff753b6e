//! What parts cost: given, or measured by the reports of jobs.

use super::SimulateError;
use crate::plan::time::Rational;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The costs where nothing else is said.
const DEFAULT: &str = include_str!("costs.toml");
/// Largest cost of anything, seconds: a day.
const MOST_S: f64 = 86_400.0;

/// What parts cost, seconds of one slot.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    pub submission_s: f64,
    pub probe_s: f64,
    pub package_s: f64,
    /// From the end of a child to the moment at which the next part can be taken.
    pub hand_over_s: f64,
    /// An audio rendition, for each second of media.
    pub audio: f64,
    /// Standard deviation of the logarithm of a part's time; its mean stays.
    pub spread: f64,
    /// Share of parts whose child crashes, 0 to 1.
    pub crash_share: f64,
    /// A chunk with all its rungs, for each second of media, by preset.
    pub encode: BTreeMap<String, f64>,
}

/// What is looked at of a job's `report.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Measured {
    preset: String,
    rungs: Vec<MeasuredRung>,
    chunks: Vec<MeasuredChunk>,
    audio: Vec<MeasuredSound>,
}

#[derive(Clone, Debug, Deserialize)]
struct MeasuredRung {
    frame_rate: Rational,
}

#[derive(Clone, Debug, Deserialize)]
struct MeasuredChunk {
    frames: u64,
    wall_s: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct MeasuredSound {
    duration_s: f64,
    wall_s: f64,
}

impl Default for Costs {
    fn default() -> Self {
        toml::from_str(DEFAULT).expect("the costs that are compiled in are tested")
    }
}

impl Costs {
    /// The compiled-in costs with those of `text` over them.
    ///
    /// # Errors
    /// Names the field.
    pub fn parse(text: &str) -> Result<Self, SimulateError> {
        let table = |text: &str| toml::from_str::<toml::Table>(text).map_err(|e| SimulateError::Costs(e.to_string()));
        let mut all = table(DEFAULT)?;
        for (name, value) in table(text)? {
            match (all.get_mut(&name), value) {
                (Some(toml::Value::Table(below)), toml::Value::Table(above)) => below.extend(above),
                (_, value) => drop(all.insert(name, value)),
            }
        }
        let costs: Self = serde_path_to_error::deserialize(all)
            .map_err(|e| SimulateError::Costs(format!("{}: {}", e.path(), e.inner().to_string().trim())))?;
        costs.check()?;
        Ok(costs)
    }

    fn check(&self) -> Result<(), SimulateError> {
        let plain = [
            ("submission_s", self.submission_s, MOST_S),
            ("probe_s", self.probe_s, MOST_S),
            ("package_s", self.package_s, MOST_S),
            ("hand_over_s", self.hand_over_s, MOST_S),
            ("audio", self.audio, MOST_S),
            // Beyond that a mean says nothing.
            ("spread", self.spread, 3.0),
            ("crash_share", self.crash_share, 1.0),
        ];
        let encode = self.encode.iter().map(|(preset, cost)| (preset.as_str(), *cost, MOST_S));
        match plain.into_iter().chain(encode).find(|(_, value, most)| !(0.0..=*most).contains(value)) {
            Some((name, value, most)) => Err(SimulateError::Costs(format!("{name}: is {value}; allowed are 0 to {most}"))),
            None => Ok(()),
        }
    }

    /// Takes what chunks and audio renditions of these jobs took, and how far apart the chunks of a preset were.
    pub fn measure(&mut self, reports: &[Measured]) {
        let mut chunks: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        let (mut sound_s, mut sound_wall_s) = (0.0, 0.0);
        for report in reports {
            let rate = report.rungs.first().map_or(0.0, |rung| rung.frame_rate.as_f64());
            let measured = report.chunks.iter().filter(|chunk| rate > 0.0 && chunk.frames > 0 && chunk.wall_s > 0.0);
            let measured = measured.map(|chunk| (chunk.frames as f64 / rate, chunk.wall_s));
            chunks.entry(&report.preset).or_default().extend(measured);
            sound_s += report.audio.iter().map(|rendition| rendition.duration_s).sum::<f64>();
            sound_wall_s += report.audio.iter().map(|rendition| rendition.wall_s).sum::<f64>();
        }
        let (mut squares, mut count) = (0.0, 0);
        for (preset, chunks) in chunks.into_iter().filter(|(_, chunks)| !chunks.is_empty()) {
            let (media_s, wall_s) = chunks.iter().fold((0.0, 0.0), |(media, wall), chunk| (media + chunk.0, wall + chunk.1));
            let mean = wall_s / media_s;
            squares += chunks.iter().map(|(media_s, wall_s)| (wall_s / media_s / mean).ln().powi(2)).sum::<f64>();
            count += chunks.len();
            self.encode.insert(preset.to_string(), mean);
        }
        if count > 1 {
            self.spread = (squares / count as f64).sqrt();
        }
        if sound_s > 0.0 {
            self.audio = sound_wall_s / sound_s;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_said_of_costs_stands_over_what_is_compiled_in() {
        let costs = Costs::parse("probe_s = 2\n[encode]\nh264 = 1.5\n").unwrap();
        let mut expected = Costs { probe_s: 2.0, ..Costs::default() };
        expected.encode.insert("h264".into(), 1.5);
        assert_eq!(costs, expected);
        let wrong = |text: &str| Costs::parse(text).unwrap_err().to_string();
        assert!(wrong("probes = 2").contains("probes"), "{}", wrong("probes = 2"));
        assert_eq!(wrong("crash_share = 1.5"), "costs: crash_share: is 1.5; allowed are 0 to 1");
        assert_eq!(wrong("[encode]\nh265 = -1.0"), "costs: h265: is -1; allowed are 0 to 86400");
        assert!(wrong("probe_s = nan").contains("NaN"));
    }

    #[test]
    fn reports_say_what_a_second_of_media_costs_and_how_far_chunks_are_apart() {
        let report = |preset: &str, walls: [f64; 2]| {
            let chunk = |wall_s: f64| json!({ "chunk": 0, "frames": 250, "wall_s": wall_s });
            let audio = json!([{ "duration_s": 20.0, "wall_s": 1.0, "name": "audio-0-128k" }]);
            let rungs = json!([{ "name": "1080p", "frame_rate": [25, 1] }]);
            let report = json!({ "preset": preset, "rungs": rungs, "chunks": walls.map(chunk), "audio": audio, "version": 1 });
            serde_json::from_value::<Measured>(report).unwrap()
        };
        let mut costs = Costs::default();
        costs.measure(&[report("h265", [40.0, 60.0]), report("h264", [10.0, 10.0])]);
        assert_eq!((costs.encode["h265"], costs.encode["h264"], costs.audio), (5.0, 1.0, 0.05));
        let squares: f64 = [0.8_f64, 1.2, 1.0, 1.0].map(|ratio| ratio.ln().powi(2)).iter().sum();
        assert!((costs.spread - (squares / 4.0).sqrt()).abs() < 1e-12, "{}", costs.spread);
        assert_eq!(costs.probe_s, Costs::default().probe_s, "reports do not say");
    }
}
