//! Metering: what a job made and what it took, the record it is billed by.
//!
//! Times are whole milliseconds written as seconds, so that they read back exactly and a sum of a million of them is still
//! one. [`metered`] sums a job's markers.

pub mod metered;

use serde::{Deserialize, Serialize};

/// What one job, or several together, used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Output made, by what it is priced by; no two lines are of one kind.
    #[serde(default)]
    pub output: Vec<UsageLine>,
    /// Video frames of all rungs.
    pub frames: u64,
    /// CPU time of the children whose work counts, seconds.
    pub cpu_s: f64,
    /// CPU time of children whose work was thrown away, whoever killed them, seconds, as far as their worker lived to tell.
    pub wasted_cpu_s: f64,
    /// How often work was thrown away.
    pub wasted_attempts: u64,
    /// Parts that are done.
    pub parts: u64,
    pub source_bytes: u64,
    /// Of the objects that the customer keeps.
    pub output_bytes: u64,
}

/// Seconds of output of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageLine {
    /// `h265`, `h264`, `av1`, `aac`.
    pub codec: String,
    /// By the pixels of a frame: `sd`, `hd`, `fhd`, `uhd`; or `audio`.
    pub class: String,
    /// What was done besides scaling and encoding, joined by `+`: `deinterlace`, `hdr`, `tone_map`. Empty: nothing.
    pub feature: String,
    pub seconds: f64,
}

/// A time in whole milliseconds; one that is no time counts nothing.
fn ms(seconds: f64) -> u64 {
    // A float that is too large, negative or not a number becomes the nearest integer, or zero.
    (seconds * 1000.0).round() as u64
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Sums of seconds, kept in milliseconds.
fn sum(a: f64, b: f64) -> f64 {
    seconds(ms(a).saturating_add(ms(b)))
}

impl Usage {
    /// Adds seconds of one kind of output.
    fn line(&mut self, line: UsageLine) {
        if line.seconds <= 0.0 {
            return;
        }
        let key = |l: &UsageLine| (l.codec.clone(), l.class.clone(), l.feature.clone());
        let wanted = key(&line);
        match self.output.binary_search_by_key(&wanted, key) {
            Ok(at) => self.output[at].seconds = sum(self.output[at].seconds, line.seconds),
            Err(at) => self.output.insert(at, line),
        }
    }

    /// Adds work that was thrown away.
    pub fn waste(&mut self, attempts: u64, cpu_s: f64) {
        self.wasted_attempts += attempts;
        self.wasted_cpu_s = sum(self.wasted_cpu_s, cpu_s);
    }

    /// Adds what another job used, or another part of this one.
    pub fn add(&mut self, other: &Usage) {
        other.output.iter().cloned().for_each(|line| self.line(line));
        self.frames += other.frames;
        self.cpu_s = sum(self.cpu_s, other.cpu_s);
        self.waste(other.wasted_attempts, other.wasted_cpu_s);
        self.parts += other.parts;
        self.source_bytes += other.source_bytes;
        self.output_bytes += other.output_bytes;
    }

    /// Minutes of output, every rendition counted: what a quota of minutes is about.
    pub fn minutes(&self) -> f64 {
        self.output.iter().fold(0.0, |total, line| sum(total, line.seconds)) / 60.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(codec: &str, class: &str, feature: &str, seconds: f64) -> UsageLine {
        UsageLine { codec: codec.into(), class: class.into(), feature: feature.into(), seconds }
    }

    #[test]
    fn a_time_that_is_none_counts_nothing() {
        assert_eq!([f64::NAN, -1.0, f64::NEG_INFINITY].map(ms), [0, 0, 0]);
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_the_order_and_read_back_as_they_were(
            times in prop::collection::vec((0_u8..3, 0_u32..100_000_000), 1..40),
        ) {
            let one = |(kind, time): &(u8, u32)| {
                let mut usage = Usage { frames: 1, cpu_s: seconds(u64::from(*time)), ..Usage::default() };
                usage.line(line(["aac", "h264", "h265"][usize::from(*kind)], "sd", "", seconds(u64::from(*time))));
                usage.waste(1, seconds(u64::from(*time)));
                usage
            };
            let total = |all: &mut dyn Iterator<Item = &(u8, u32)>| {
                all.map(one).fold(Usage::default(), |mut sum, u| { sum.add(&u); sum })
            };
            let forth = total(&mut times.iter());
            prop_assert_eq!(&forth, &total(&mut times.iter().rev()));
            let text = serde_json::to_string(&forth).unwrap();
            prop_assert_eq!(&forth, &serde_json::from_str::<Usage>(&text).unwrap());
        }
    }
}
