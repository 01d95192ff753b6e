//! Rational time: ticks of a time base, never floating seconds.

use serde::{Deserialize, Serialize};

/// A ratio of two integers, as `[num, den]` in JSON. As a time base it is the seconds one tick lasts;
/// as a frame rate, frames a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, i64)", into = "(i64, i64)")]
pub struct Rational {
    pub num: i64,
    pub den: i64,
}

impl From<(i64, i64)> for Rational {
    fn from((num, den): (i64, i64)) -> Self {
        Self { num, den }
    }
}

impl From<Rational> for (i64, i64) {
    fn from(r: Rational) -> Self {
        (r.num, r.den)
    }
}

impl Rational {
    pub const fn new(num: i64, den: i64) -> Self {
        Self { num, den }
    }

    /// Both parts are positive: a usable time base, rate or aspect ratio.
    pub fn is_positive(self) -> bool {
        self.num > 0 && self.den > 0
    }

    pub fn inverse(self) -> Self {
        Self { num: self.den, den: self.num }
    }

    /// For people and for bit rates only; no boundary is ever computed from it.
    pub fn as_f64(self) -> f64 {
        if self.den == 0 { 0.0 } else { self.num as f64 / self.den as f64 }
    }

    /// The same ratio in lowest terms.
    pub fn reduced(self) -> Self {
        let g = gcd(self.num.unsigned_abs(), self.den.unsigned_abs()).max(1) as i64;
        Self { num: self.num / g, den: self.den / g }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// `value * mul / div`, rounded to nearest, halves away from zero, without overflow in between.
///
/// # Panics
/// When `div` is zero or the result does not fit 64 bits: both are caller bugs.
pub fn mul_div_round(value: i64, mul: i64, div: i64) -> i64 {
    let product = i128::from(value) * i128::from(mul);
    let div = i128::from(div);
    let half = div.abs() / 2;
    let rounded = if (product >= 0) == (div > 0) { product.abs() + half } else { -(product.abs() + half) };
    i64::try_from(rounded / div.abs()).expect("a time fits 64 bits")
}

/// Ticks of `from` as ticks of `to`, rounded to nearest.
pub fn rescale(ticks: i64, from: Rational, to: Rational) -> i64 {
    let num = i128::from(ticks) * i128::from(from.num) * i128::from(to.den);
    let den = i128::from(from.den) * i128::from(to.num);
    let half = den.abs() / 2;
    let rounded = if (num >= 0) == (den > 0) { num.abs() + half } else { -(num.abs() + half) };
    i64::try_from(rounded / den.abs()).expect("a time fits 64 bits")
}

/// Whole seconds as ticks of `base`.
pub fn ticks_of_seconds(seconds: f64, base: Rational) -> i64 {
    (seconds * base.den as f64 / base.num as f64).round() as i64
}

/// Ticks of `base` as seconds, for people and manifests.
pub fn seconds(ticks: i64, base: Rational) -> f64 {
    ticks as f64 * base.num as f64 / base.den as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaling_rounds_to_nearest_and_survives_large_products() {
        assert_eq!(rescale(1, Rational::new(1, 25), Rational::new(1, 90_000)), 3_600);
        assert_eq!(rescale(1, Rational::new(1001, 30_000), Rational::new(1, 1000)), 33);
        assert_eq!(rescale(-1, Rational::new(1001, 30_000), Rational::new(1, 1000)), -33);
        assert_eq!(rescale(i64::MAX / 90_000, Rational::new(1, 1), Rational::new(1, 90_000)), i64::MAX / 90_000 * 90_000);
        assert_eq!(mul_div_round(7, 1, 2), 4);
        assert_eq!(mul_div_round(-7, 1, 2), -4);
    }

    #[test]
    fn a_ratio_reads_and_writes_as_a_pair() {
        let r: Rational = serde_json::from_str("[30000,1001]").unwrap();
        assert_eq!(r, Rational::new(30_000, 1001));
        assert_eq!(serde_json::to_string(&r).unwrap(), "[30000,1001]");
    }
}
