//! The program as its user sees it: how it ends, what it says and where, what it leaves behind, and what happens when it is
//! interrupted, killed, started twice or out of space.

mod exit_codes;
#[path = "../common/media.rs"]
mod media;
mod narrowband;
mod places;
mod stage;
mod stopping;
mod the_same_output;
mod words;
