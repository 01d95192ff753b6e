//! Seeded chance: the same seed makes the same choices on every machine, and a failing one can be tried again.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::ops::Range;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From zero to `bound`, which is left out.
    pub fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound.max(1)
    }

    /// From `low` to `high`, both included.
    pub fn number(&mut self, low: u32, high: u32) -> u32 {
        low + u32::try_from(self.next() % u64::from(high - low + 1)).unwrap()
    }

    /// A stretch of up to `longest` in `[0, all)`.
    pub fn stretch(&mut self, all: usize, longest: usize) -> Range<usize> {
        let start = self.below(all);
        start..(start + 1 + self.below(longest)).min(all)
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub fn yes(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// A number that a person may set, such as a seed or how many cases there are.
pub fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}
