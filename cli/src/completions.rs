//! `divvy completions`: scripts for shells that complete arguments and kernel names.

use super::failure::Failure;
use super::{Cli, output};
use clap::CommandFactory;
use clap_complete::Shell;

/// Prints a script that makes a shell complete divvy's arguments.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy completions bash > ~/.local/share/bash-completion/completions/divvy
  divvy completions zsh > ~/.zfunc/_divvy
  divvy completions fish > ~/.config/fish/completions/divvy.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> Result<(), Failure> {
    // Written to memory first: the generator panics if a pipe closes.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "divvy", &mut script);
    output::finish(String::from_utf8_lossy(&script).trim_end())
}
