//! The command `divvy`: one file per subcommand, and their shared modules.
//!
//! The command uses only the library's public interface, and takes the kernels from the catalog: none is named here.
//! Arguments become validated values before anything runs. All output goes through `output`, so that a closed pipe ends
//! the command quietly.

mod args;
mod audit;
mod bench;
mod calibrate;
mod completions;
mod devices;
mod explain;
mod failure;
mod figures;
mod measure;
mod output;
mod params;
mod profile;
mod progress;
mod run;
mod simulate;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs data-parallel kernels on the best available device: the CPU, a GPU, or several at once.
#[derive(Parser)]
#[command(name = "divvy", version, after_long_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  divvy devices
  divvy run axpy --n 16Mi --check
  divvy run gemm --n 1024 --placement gpu --residency device --json
  divvy bench --kernels sum,gemm
  divvy explain axpy --n 64Ki
  divvy calibrate --quick
  divvy profile show
  divvy audit --kernels sum,gemm --html audit.html
  divvy simulate benches/machines/*.json

Environment:
  DIVVY_DEVICES     cpu, gpu or all: which devices may be used
  DIVVY_THREADS     how many threads the CPU's pool has
  DIVVY_SIMD        baseline, avx2, avx512 or neon: the widest vector instructions that the CPU's loops use
  DIVVY_PROFILE     the file of this machine's figures and of what was learned of kernels, or `off`
  DIVVY_GPU_MEMORY  bytes of each GPU's memory that may be used, as in `4 GiB`
  DIVVY_VERIFY      the share of parts, from 0 to 1, that are computed again on another device and compared

Exit status:
  0 all went well, 1 a run or a check failed, 2 the arguments or the environment cannot be used";

#[derive(Subcommand)]
enum Command {
    Devices(devices::Args),
    Run(run::Args),
    Bench(bench::Args),
    Explain(explain::Args),
    Calibrate(calibrate::Args),
    Profile(profile::Args),
    Audit(audit::Args),
    Simulate(simulate::Args),
    Completions(completions::Args),
}

/// Parses the process's arguments, runs the subcommand, and returns the exit status.
fn main() -> ExitCode {
    quiet_mesa();
    show_warnings();
    let done = match Cli::parse().command {
        Command::Devices(args) => devices::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Disables Mesa's layer that sorts adapters where there is no desktop session, as on servers. The layer asks the session
/// for its preferred adapter, and writes to standard error without one. Divvy lists every adapter, and does not need it.
fn quiet_mesa() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: this is the first thing the process does; there are no other threads.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// Prints the library's warnings, such as that about an unreadable profile.
fn show_warnings() {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_declared_consistently() {
        Cli::command().debug_assert();
    }
}
