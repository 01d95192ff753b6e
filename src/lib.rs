//! narrows: a distributed transcode worker fleet.
//!
//! The modules stand in the order the data flows. Imports point down only, floor by floor, and
//! `tests/tidy.rs` fails the build when one does not:
//!
//! | floor | what | modules |
//! | --- | --- | --- |
//! | F0 | facts: no tokio, no clock, no I/O | `address`, `job`, `tenant`, `probe`, `plan`, `reconcile`, `event`, `usage`, `observe`, `trace`, `sandbox::protocol`, `quality::picture`, `quality::score`, `quality::error` |
//! | F1 | edges; they never import each other, but `media` shows its pictures to `quality` | `broker`, `store`, `sandbox`, `media`, `quality`, `shutdown` |
//! | F2 | stages | `part`, `package`, `callback` |
//! | F3 | roles, and what they would do | `worker`, `coordinator`, `simulate` |
//! | F4 | the process | `main`, `cli`, `config`, `telemetry` |
//!
//! The architecture page is `src/README.md`.

pub mod address;
pub mod event;
pub mod job;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod tenant;
pub mod trace;
pub mod usage;

pub mod broker;
pub mod media;
pub mod quality;
pub mod sandbox;
pub mod shutdown;
pub mod store;

pub mod callback;
pub mod package;
pub mod part;

pub mod coordinator;
pub mod worker;

pub mod simulate;

pub mod cli;
pub mod config;
pub mod telemetry;
