//! `narrows child`, hidden: what runs in the jail.

use crate::media::{self, Host};
use crate::sandbox::child::{self, Parent};
use crate::sandbox::protocol::Order;
use std::io;
use std::process::ExitCode;

/// The subcommand. Only the sandbox uses it.
pub const WORD: &str = "child";

/// Takes one order from the parent, does it in the jail, reports.
pub fn run() -> ExitCode {
    child::run(|order, parent| media::child::work(order, &Outside { order, parent }))
}

/// What the media code sees of the world: its parent.
struct Outside<'a> {
    order: &'a Order,
    parent: &'a Parent,
}

impl Host for Outside<'_> {
    fn read(&self, input: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.parent.read(input, offset, buffer)
    }

    fn bytes(&self, input: u32) -> u64 {
        self.order.inputs.get(input as usize).map_or(0, |i| i.bytes)
    }

    fn progress(&self, done: u64) {
        self.parent.progress(done);
    }
}
