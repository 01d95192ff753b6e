//! What a hostile child can do to its parent: nothing.
//!
//! The test program is its own child: started as `child...`, it is the sandboxed program, and the order's file name says
//! which deed it is to try (`deeds.rs`). Every test runs one deed through [`Sandbox`], asserts how it ended, and that no
//! process of its group is left. The harness is libtest-mimic, since a libtest harness owns `main`.

mod bench;
mod deeds;
mod driver;
mod escapes;
mod life;
mod limits;
mod wire;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(child) = deeds::child_of(std::env::args().nth(1).as_deref()) {
        return child;
    }
    let tests = [escapes::TESTS, driver::TESTS, limits::TESTS, life::TESTS, wire::TESTS].concat();
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
