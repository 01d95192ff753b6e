//! Where a value stands along the side of a chart, and which values are written there.

/// One side of a chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Equal ratios are equally far apart.
    is_log: bool,
}

/// Least ratio of the ends of a logarithmic axis.
const LEAST_RATIO: f64 = 1.5;
/// Steps that people count in, seconds.
const TIME_STEPS: [f64; 17] =
    [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0];

impl Axis {
    pub fn linear(low: f64, high: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, is_log: false }
    }

    /// Both ends are positive.
    pub fn log(low: f64, high: f64) -> Self {
        let low = low.max(f64::MIN_POSITIVE);
        Self { low, high: high.max(low * LEAST_RATIO), is_log: true }
    }

    /// Place of a value: 0 at the low end, 1 at the high one, beyond that outside the chart.
    pub fn place(&self, value: f64) -> f64 {
        if self.is_log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    pub fn shows(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    pub fn high(&self) -> f64 {
        self.high
    }

    /// Round values within the axis, `most` of them or a few less.
    pub fn ticks(&self, most: usize) -> Vec<f64> {
        let ticks =
            if self.is_log { self.log_ticks(most) } else { self.even_ticks(round_step((self.high - self.low) / most as f64)) };
        ticks.into_iter().filter(|tick| self.shows(*tick)).collect()
    }

    /// The same of a time axis, in seconds.
    pub fn time_ticks(&self, most: usize) -> Vec<f64> {
        let wanted = (self.high - self.low) / most as f64;
        let last = TIME_STEPS[TIME_STEPS.len() - 1];
        let step = TIME_STEPS.into_iter().find(|step| *step >= wanted).unwrap_or((wanted / last).ceil() * last);
        self.even_ticks(step)
    }

    fn even_ticks(&self, step: f64) -> Vec<f64> {
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        (first..=last).map(|n| n as f64 * step).collect()
    }

    fn log_ticks(&self, most: usize) -> Vec<f64> {
        let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let of = |digits: &[f64]| -> Vec<f64> {
            let all = decades.clone().flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
            all.filter(|tick| self.shows(*tick)).collect()
        };
        let dense: [&[f64]; 5] = [
            &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
            &[1.0, 2.0, 3.0, 5.0, 7.0],
            &[1.0, 2.0, 5.0],
            &[1.0],
        ];
        let fitting = dense.iter().map(|digits| of(digits)).find(|ticks| ticks.len() <= most);
        fitting.unwrap_or_else(|| {
            let powers = of(&[1.0]);
            let apart = powers.len().div_ceil(most.max(1)).max(1);
            powers.into_iter().step_by(apart).collect()
        })
    }
}

/// The smallest of 1, 2, 5, 10, ... that is not below `wanted`.
fn round_step(wanted: f64) -> f64 {
    let decade = 10f64.powf(wanted.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * decade).find(|step| *step >= wanted * (1.0 - 1e-9)).unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_proportion_to_what_they_are_or_to_their_ratio() {
        let (linear, log) = (Axis::linear(80.0, 100.0), Axis::log(10.0, 1000.0));
        assert_eq!([linear.place(80.0), linear.place(95.0), linear.place(100.0)], [0.0, 0.75, 1.0]);
        assert!((log.place(100.0) - 0.5).abs() < 1e-12 && log.place(5.0) < 0.0);
        assert!(Axis::linear(5.0, 5.0).place(5.0).is_finite() && Axis::log(0.0, 0.0).place(0.0).is_finite());
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(Axis::linear(84.0, 100.0).ticks(4), [85.0, 90.0, 95.0, 100.0]);
        assert_eq!(Axis::log(11.0, 420.0).ticks(6), [20.0, 50.0, 100.0, 200.0]);
        assert_eq!(Axis::log(150.0, 1800.0).ticks(6), [200.0, 300.0, 500.0, 700.0, 1000.0]);
        assert_eq!(Axis::linear(0.0, 10.01).time_ticks(8), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Axis::linear(0.0, 36_000.0).time_ticks(8).len(), 6);
        let week = Axis::linear(0.0, 604_800.0).time_ticks(8);
        assert!((2..=9).contains(&week.len()), "{week:?}");
    }
}
