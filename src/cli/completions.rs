//! `narrows completions`: what a shell needs to complete the command line, made of its definition.

use super::Cli;
use super::exit::{Exit, Failed};
use super::presets::write_out;
use clap::CommandFactory;
use clap_complete::Shell;

const EXAMPLES: &str = "Examples:
  narrows completions bash >~/.local/share/bash-completion/completions/narrows
  narrows completions zsh >~/.zfunc/_narrows
  narrows completions fish >~/.config/fish/completions/narrows.fish

Exit codes: 0 done; 2 misuse.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), super::NAME, &mut script);
    let script = String::from_utf8(script).map_err(|e| Exit::Internal.because(e))?;
    write_out(&script)
}
