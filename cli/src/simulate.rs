//! `divvy simulate`: how well the planner places calls on simulated machines.

use super::args::size;
use super::failure::Failure;
use super::output::{self, Reader, aligned};
use super::progress::Progress;
use divvy::catalog;
use divvy::sim::SimulatedMachine;
use divvy::sim::{
    DataLocation, Options, Outcome, PartShare, Recovery, Row, SimulatedCase, fleet, simulate,
};
use divvy::units::{count, seconds};
use serde::Serialize;
use std::path::PathBuf;

/// Simulates calls on machines that are tables, and prints how far their placement is from the best possible one.
///
/// A machine is a JSON file of tables: seconds of each kernel at a few sizes on each device, transfer times, launch
/// overheads, how much devices slow each other down, noise, and changes over time; benches/machines has examples and
/// describes the format. The planner, the policy and the learner run unchanged and start with the figures of a calibration
/// only. `auto` is their choice; the others are simple rules: always the CPU; always the GPU that is best in total; the
/// best single threshold in bytes of all arrays, CPU below and that GPU above; an even split; and trying each device and
/// the even split twice, then keeping the fastest.
///
/// T is the true time, without noise, of the choice, O that of the best choice: one device, or the best shares over any
/// subset of them (software adapters do not share). The regret is the sum of T - O over the sum of O: `cold` over the
/// first 20 calls of each kernel and size, `warm` over the rest. `worst` is the greatest ratio of the warm calls' T to
/// their O of any kernel, size and residency; `exploring` is the share of time spent on exploring calls.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy simulate benches/machines/desktop-rtx4090.json
  divvy simulate benches/machines/*.json --calls 400 --seed 7
  divvy simulate benches/machines/laptop-m2.json --residency host --cases
  divvy simulate benches/machines/*.json --json | jq '.fleet.rows[0]'

With --json one object is printed:
  {\"machines\": [{\"name\", \"devices\", \"rows\": [ROW], \"cases\": [{\"kernel\", \"n\", \"residency\",
     \"oracle_seconds\", \"oracle_parts\": [{\"device\", \"share\"}], \"chosen_parts\", \"rows\": [ROW]}],
     \"recovery\": [{\"after_call\", \"device\", \"factor\", \"regret\"}]}],
   \"fleet\": {\"calls\", \"seed\", \"rows\": [ROW]}}
where ROW is {\"policy\", \"regret_cold\", \"regret_warm\", \"worst_warm\", \"exploration_share\", \"seconds\",
\"oracle_seconds\"}; a figure without calls is null. Recovery is the regret from 20 to 40 calls after a device became
slower.")]
pub struct Args {
    /// Files of machines
    #[arg(required = true, value_name = "MACHINE.json")]
    machines: Vec<PathBuf>,

    /// Calls of each kernel and size
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    calls: u32,

    /// These sizes instead of up to six of each kernel's own table, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = positive_size, value_name = "SIZES")]
    sizes: Vec<usize>,

    /// Where arrays are
    #[arg(long, value_enum, default_value_t)]
    residency: Residencies,

    /// Seed of the noise
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Also print each kernel, size and residency
    #[arg(long, conflicts_with = "json")]
    cases: bool,

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

fn positive_size(text: &str) -> Result<usize, String> {
    size(text).and_then(|n| match n {
        0 => Err("expected a size of at least 1".into()),
        n => Ok(n),
    })
}

/// Prints a table for each machine, then one for all.
pub fn run(args: &Args) -> Result<(), Failure> {
    // Loads all files first: an error in the last one should not appear after minutes.
    let machines: Vec<SimulatedMachine> = args
        .machines
        .iter()
        .map(SimulatedMachine::load)
        .collect::<Result<_, _>>()?;
    let mut options = Options::default();
    options.calls = args.calls as usize;
    options.sizes = args.sizes.clone();
    options.residencies = match args.residency {
        Residencies::Host => vec![DataLocation::Host],
        Residencies::Device => vec![DataLocation::Device],
        Residencies::Both => vec![DataLocation::Host, DataLocation::Device],
    };
    options.seed = args.seed;
    let progress = Progress::new(machines.len() as u64 * u64::from(args.calls));
    let mut outcomes: Vec<Outcome> = Vec::new();
    for machine in &machines {
        progress.doing(&machine.name);
        let outcome = simulate(machine, &catalog::spec, &options, || progress.step())?;
        if !args.json {
            let text = of_machine(&outcome, args.cases);
            if progress.hidden_while(|| output::print(text))? == Reader::Gone {
                return Ok(());
            }
        }
        outcomes.push(outcome);
    }
    let fleet = fleet(&outcomes);
    if args.json {
        let (calls, seed, rows) = (args.calls, args.seed, fleet);
        output::finish(output::json(&Json {
            machines: outcomes,
            fleet: Fleet { calls, seed, rows },
        })?)
    } else if outcomes.len() > 1 {
        output::finish(table("all machines", &fleet))
    } else {
        Ok(())
    }
}

#[derive(Serialize)]
struct Json {
    machines: Vec<Outcome>,
    fleet: Fleet,
}

#[derive(Serialize)]
struct Fleet {
    calls: u32,
    seed: u64,
    rows: Vec<Row>,
}

/// The text about a machine.
fn of_machine(outcome: &Outcome, cases: bool) -> String {
    let devices: Vec<String> = outcome.devices.iter().map(ToString::to_string).collect();
    let title = format!("{} ({})", outcome.name, devices.join(", "));
    let mut text = table(&title, &outcome.rows);
    for recovery in &outcome.recovery {
        let Recovery {
            after_call,
            device,
            factor,
            regret,
            ..
        } = recovery;
        text.push_str(&format!(
            "\nfrom call {after_call} on {device} takes {factor} times as long: regret {regret:.3} from 20 to 40 calls later"
        ));
    }
    if cases {
        text.push('\n');
        text.push_str(&table_of_cases(&outcome.cases));
    }
    text.push('\n');
    text
}

const WIDTHS: [usize; 5] = [12, 10, 10, 10, 10];

/// The scores of the policies.
fn table(title: &str, rows: &[Row]) -> String {
    let header = ["", "cold", "warm", "worst", "exploring"].map(String::from);
    let mut text = format!("{title}\n{}", aligned(WIDTHS, &header));
    for Row { policy, score, .. } in rows {
        let cells = [
            (*policy).to_owned(),
            decimals(score.cold.regret()),
            decimals(score.warm.regret()),
            decimals(score.worst_warm),
            format!("{:.1} %", 100.0 * score.exploration_share()),
        ];
        text.push('\n');
        text.push_str(&aligned(WIDTHS, &cells));
    }
    text
}

const CASE_WIDTHS: [usize; 8] = [16, 11, 9, 12, 24, 24, 8, 8];

/// The best and the chosen placement of each case.
fn table_of_cases(cases: &[SimulatedCase]) -> String {
    let header = [
        "kernel",
        "n",
        "arrays",
        "best",
        "is",
        "chosen last",
        "cold",
        "warm",
    ];
    let mut lines = vec![aligned(CASE_WIDTHS, &header.map(String::from))];
    for case in cases {
        let auto = case.rows.first().map(|row| row.score).unwrap_or_default();
        lines.push(aligned(
            CASE_WIDTHS,
            &[
                case.kernel.clone(),
                count(case.n),
                case.residency.name().to_owned(),
                seconds(case.oracle_seconds),
                shares(&case.oracle_parts),
                shares(&case.chosen_parts),
                decimals(auto.cold.regret()),
                decimals(auto.warm.regret()),
            ],
        ));
    }
    lines.join("\n")
}

/// `cpu`, or `gpu0 85 + cpu 15`, in percent.
fn shares(parts: &[PartShare]) -> String {
    match parts {
        [only] => only.device.to_string(),
        parts => {
            let part = |part: &PartShare| format!("{} {:.0}", part.device, 100.0 * part.share);
            parts.iter().map(part).collect::<Vec<_>>().join(" + ")
        }
    }
}

fn decimals(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}
