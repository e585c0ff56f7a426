//! The `divvy` command: parses its arguments and hands over.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
