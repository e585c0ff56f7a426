//! Every kernel of the catalog on the CPU with each instruction set that the processor has.
//!
//! `cargo bench --bench simd [-- KERNEL...]`. The sets run in turn within one process, in rounds, and the medians are
//! printed, with how many times faster than the baseline each is: the median of the ratios within rounds. `--markdown` prints
//! the table in the form that `docs/results` keeps.

#[path = "support/timing.rs"]
mod timing;

use divvy::array::ElementType;
use divvy::catalog::{CATALOG, Entry, Size};
use divvy::simd::InstructionSet;
use divvy::{Placement, Runtime};
use std::time::{Duration, Instant};
use timing::{SAMPLE, quartiles, time};

/// How long a kernel is measured at a size, with all sets, roughly.
const BUDGET: Duration = Duration::from_millis(1500);
/// Rounds at the least.
const ROUNDS: usize = 15;
/// Elements that the caches of one core hold, and as a side, and bodies.
const ITEMS: usize = 1 << 14;
const SIDE: usize = 128;
const BODIES: usize = 512;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let markdown = arguments.iter().any(|argument| argument == "--markdown");
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    // On one thread: how loops are compiled, not how the pool shares them out.
    let runtimes: Vec<Runtime> = InstructionSet::available()
        .into_iter()
        .map(|set| {
            let builder = Runtime::builder().cpu_only().threads(1).no_profile();
            let rt = builder.simd(set).build().expect("a runtime");
            rt.measured_machine().expect("calibration");
            rt
        })
        .collect();
    let heading = runtimes.iter().map(|rt| rt.instruction_set().to_string());
    let heading = ["kernel".into(), "type".into(), "n".into()]
        .into_iter()
        .chain(heading);
    println!("{}, one thread\n", runtimes[0].cpu_name());
    print_row(markdown, heading.collect());
    if markdown {
        print_row(true, vec!["---".into(); 3 + runtimes.len()]);
    }
    for entry in CATALOG {
        if !wanted.is_empty() && !wanted.iter().any(|name| entry.name.contains(name.as_str())) {
            continue;
        }
        for dtype in entry.element_types() {
            print_row(markdown, row(entry, dtype, &runtimes));
        }
    }
}

fn row(entry: &Entry, dtype: ElementType, runtimes: &[Runtime]) -> Vec<String> {
    let n = match entry.size {
        Size::Items => ITEMS,
        Size::Side => SIDE,
        Size::Bodies => BODIES,
    };
    let mut cases: Vec<_> = runtimes
        .iter()
        .map(|rt| (rt, entry.bind(n, dtype, 7).expect("arguments")))
        .collect();
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let started = Instant::now();
    while samples[0].len() < ROUNDS || started.elapsed() < BUDGET {
        for ((rt, case), samples) in cases.iter_mut().zip(&mut samples) {
            let mut run = || {
                case.run(rt, Placement::Cpu).expect("it runs");
            };
            let once = time(&mut run, 1).max(1e-9);
            let repeats = (SAMPLE.as_secs_f64() / once).ceil().max(1.0) as u32;
            samples.push(time(&mut run, repeats));
        }
    }
    let mut row = vec![entry.name.into(), dtype.to_string(), n.to_string()];
    for set in &samples {
        let faster = samples[0].iter().zip(set).map(|(base, set)| base / set);
        let [_, faster, _] = quartiles(faster.collect());
        let [_, seconds, _] = quartiles(set.clone());
        row.push(format!("{:.2} µs ({faster:.2})", seconds * 1e6));
    }
    row
}

fn print_row(markdown: bool, cells: Vec<String>) {
    if markdown {
        println!("| {} |", cells.join(" | "));
    } else {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:<18}")).collect();
        println!("{}", cells.concat().trim_end());
    }
}
