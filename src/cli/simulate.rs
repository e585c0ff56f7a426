//! `divvy simulate`: how well calls would be placed on machines that exist only as files.

use super::args::size;
use super::failure::Failure;
use super::output::{self, Reader, aligned};
use super::progress::Progress;
use divvy::device::SimulatedMachine;
use divvy::dispatch::replay::{Options, Outcome, Residency, Row, fleet, replay};
use divvy::kernels::catalog;
use std::path::PathBuf;

/// Replays calls on simulated machines and prints how far the planner is from the best possible, beside simple rules.
#[derive(clap::Args)]
pub struct Args {
    /// Files of machines
    #[arg(required = true, value_name = "MACHINE.json")]
    machines: Vec<PathBuf>,

    /// Calls of each kernel and size
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,

    /// These sizes instead of up to six of each kernel's own, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = size, value_name = "SIZES")]
    sizes: Vec<usize>,

    /// Where arrays are
    #[arg(long, value_enum, default_value_t)]
    residency: Residencies,

    /// Seed of the noise
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Where the arrays of a simulated call are.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Residencies {
    /// Inputs start on the host and outputs are wanted there
    Host,
    /// Arrays are valid everywhere, and nothing is wanted back
    Device,
    /// Each kernel and size both ways
    #[default]
    Both,
}

/// Prints a table for each machine, then one for all.
pub fn run(args: &Args) -> Result<(), Failure> {
    let machines: Vec<SimulatedMachine> = args
        .machines
        .iter()
        .map(SimulatedMachine::load)
        .collect::<Result<_, _>>()?;
    let options = Options {
        calls: args.calls as usize,
        sizes: args.sizes.clone(),
        residencies: match args.residency {
            Residencies::Host => vec![Residency::Host],
            Residencies::Device => vec![Residency::Device],
            Residencies::Both => vec![Residency::Host, Residency::Device],
        },
        seed: args.seed,
        ..Options::default()
    };
    let progress = Progress::new(machines.len() as u64 * u64::from(args.calls));
    let mut outcomes: Vec<Outcome> = Vec::new();
    for machine in &machines {
        progress.doing(&machine.name);
        let outcome = replay(machine, &catalog::outline, &options, || progress.step())?;
        if progress.hidden_while(|| table(&outcome.machine, &outcome.rows))? == Reader::Gone {
            return Ok(());
        }
        outcomes.push(outcome);
    }
    table("all machines", &fleet(&outcomes)).map(drop)
}

const WIDTHS: [usize; 5] = [12, 10, 10, 8, 11];

fn table(title: &str, rows: &[Row]) -> Result<Reader, Failure> {
    let header = ["", "cold", "warm", "worst", "exploration"].map(String::from);
    let mut text = format!("{title}\n{}", aligned(WIDTHS, &header));
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    for Row { policy, score } in rows {
        let cells = [
            (*policy).to_owned(),
            number(score.cold.regret()),
            number(score.warm.regret()),
            number(score.worst_warm),
            format!("{:.1} %", 100.0 * score.exploration_share()),
        ];
        text.push('\n');
        text.push_str(&aligned(WIDTHS, &cells));
    }
    output::print(text)
}
