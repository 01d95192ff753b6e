//! One program: the command line, and the jailed child that it starts itself as.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, and before any thread: a child is this program again, and nothing but the child's work may run in it.
    if std::env::args_os().nth(1).is_some_and(|word| word == narrows::cli::child::WORD) {
        return narrows::cli::child::run();
    }
    narrows::cli::run()
}
