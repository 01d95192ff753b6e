//! `narrows usage`: what a tenant's jobs used.

use super::exit::{Exit, Failed};
use super::fleet::{self, Fleet, Settings};
use super::presets::write_out;
use super::rows::{Rows, size};
use super::words::{self, Day};
use super::{exit_codes, words::day};
use crate::usage::Usage;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows usage --tenant acme --from 2026-11-01 --to 2026-11-30 --config fleet.toml
  narrows usage --tenant acme --from 2026-11-01 --to 2026-11-30 --csv > november.csv
  narrows usage --tenant acme --from 2026-11-30 --to 2026-11-30 --json

Days are in UTC, and both are counted. A job belongs to the day on which it ended, and is counted once however often it was
delivered again.

",
    exit_codes!("0 done; 2 misuse; 64 configuration; 70 our fault")
);
