//! `divvy audit`: how close `Placement::Auto` comes to the best of all variants.
//!
//! Every variant of a kernel is forced and timed in turns ([`variants`]). Those that may be the best and Auto then take
//! turns ([`duel`]). Auto's runtime learns only from its own calls: the forced variants run on other runtimes. The result
//! is a table, a JSON document and a page ([`page`]).

mod duel;
mod page;
mod plot;
mod row;
mod statistics;
mod subject;
mod summary;
mod task;
mod variants;

use super::args::{StartLocation, kernel, runtime, size};
use super::failure::Failure;
use super::output::{self, Reader, aligned};
use super::progress::Progress;
use divvy::Error;
use divvy::catalog::{CATALOG, Entry};
use divvy::cost::Thoroughness;
use divvy::units::{count, seconds};
use row::Row;
use serde::Serialize;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use summary::{Meta, Summary, Totals};
use task::AuditTask;
use variants::Forced;

/// Compares automatic placement with the best of all placements, found by trying.
///
/// For each kernel, size and residency, one CPU thread, all threads, each GPU and splits between devices are timed in
/// turns; hopeless variants are soon given up. Those close to the best then take turns with automatic placement, in a
/// runtime that knows the devices' speeds but has not run anything yet: 20 calls while it is cold, and more when it is
/// warm. Half of the turns choose the best variant (the oracle), the other half give its time. Without arguments this
/// takes some minutes, in which nothing else should run. The profile is read, but what is learned here is not saved.
///
/// T is the time of a call that was placed automatically, O that of the oracle. Regret is the sum of T - O over all rows,
/// divided by the sum of O, both of mean times. T/O is the ratio of their medians.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy audit --html audit.html
  divvy audit --kernels axpy,gemm --sizes 1Ki,1Mi --residency host
  divvy audit --json - | jq .summary

With --json one object is printed:
  {\"summary\": {\"regret_cold\", \"regret_warm\", \"geomean_warm\", \"worst_warm\", \"within_5pct\",
    \"prediction_error_median\", \"exploration_share\", \"decision_ns\"},
   \"rows\": [{\"kernel\", \"n\", \"residency\", \"cpu\", \"gpu\", \"split\", \"split_fraction\", \"oracle\", \"chosen\",
     \"chosen_parts\": [{\"device\", \"threads\", \"range\", \"fraction\"}], \"oracle_variant\", \"ratio\", \"same_plan\", ...}],
   \"meta\": {\"version\", \"date\", \"cpu\", \"threads\", \"gpus\", \"always_cpu_total\", \"auto_total\", ...},
   \"failures\": [{\"kernel\", \"n\", \"residency\", \"error\"}]}
`within_5pct` is the share of rows with T/O of at most 1.05, `prediction_error_median` the median of
|predicted - actual| / actual, `exploration_share` the share of automatic placement's time that went into trying other
variants, `decision_ns` the nanoseconds of a decision. Times of rows are medians in seconds: `cpu` is the better of one
thread and all, `gpu` the best GPU alone, `split` the best split and `split_fraction` the share of GPUs in it; each is
null where there is none. `date` is in seconds since 1970.")]
pub struct Args {
    /// Only these kernels, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = kernel(), value_name = "KERNELS")]
    kernels: Vec<&'static Entry>,

    /// These sizes instead of each kernel's own five, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = size, value_name = "SIZES")]
    sizes: Vec<usize>,

    /// Where arrays are before a call, and where results are wanted
    #[arg(long, value_enum, default_value_t)]
    residency: Residencies,

    /// Write one JSON object to this file; `-` prints it instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<OsString>,

    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// CPU threads; without it, DIVVY_THREADS or one per core
    #[arg(long)]
    threads: Option<usize>,

    /// Seed of the random input
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The residencies to audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Residencies {
    /// Inputs start on the host and outputs are wanted there: all transfers count
    Host,
    /// Arrays are already where the kernel ran before, and stay there
    Device,
    /// One after the other
    #[default]
    Both,
}

impl Residencies {
    fn each(self) -> &'static [StartLocation] {
        match self {
            Self::Host => &[StartLocation::Host],
            Self::Device => &[StartLocation::Device],
            Self::Both => &[StartLocation::Host, StartLocation::Device],
        }
    }
}

/// The result of an audit.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// The figures over all rows.
    pub summary: Summary,
    /// One for each kernel, residency and size.
    pub rows: Vec<Row>,
    /// The machine and the time.
    pub meta: Meta,
    /// The rows that could not be measured.
    pub failures: Vec<Failed>,
}

/// A row that could not be measured.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// The kernel.
    pub kernel: &'static str,
    /// Its size.
    pub n: usize,
    /// Where its arrays were.
    pub residency: StartLocation,
    /// Why.
    pub error: String,
}

/// Measures row by row, prints each row, and writes the files at the end.
pub fn run(args: &Args) -> Result<(), Failure> {
    let started = Instant::now();
    let on_stdout = args.json.as_ref().is_some_and(|path| path == "-");
    let json = args.json.as_ref().filter(|_| !on_stdout).map(PathBuf::from);
    // Opens the files before minutes of measuring: one may not be writable.
    json.iter().chain(&args.html).try_for_each(|path| {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map(drop).map_err(|source| file_error(path, source))
    })?;

    let devices = runtime(args.threads)?;
    // Measures carefully: the predictions for kernels that never ran depend on these figures.
    devices.calibrate(Thoroughness::Quick, |_| ())?;
    let machine = (*devices.measured_machine()?).clone();
    // All runtimes share the same devices: the threads of two pools would compete.
    let forced = Forced::new(&devices, &machine)?;
    let auto = devices.with_machine(machine)?;

    let tasks = tasks(args);
    let mut table = Table::begin(!on_stdout, tasks.len())?;
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for task in tasks {
        if table.reader == Reader::Gone {
            return Ok(());
        }
        table.announce(&task);
        match row::measure(&task, &forced, &auto) {
            Ok(row) => {
                table.add(&row)?;
                rows.push(row);
            }
            Err(error) => {
                table.failed(&task, &error);
                failures.push(Failed {
                    kernel: task.entry.name,
                    n: task.n,
                    residency: task.residency,
                    error: error.to_string(),
                });
            }
        }
        table.progress.step();
    }
    let date = SystemTime::now().duration_since(UNIX_EPOCH);
    let audit = Audit {
        summary: Summary::of(&rows),
        meta: Meta {
            version: env!("CARGO_PKG_VERSION"),
            date: date.map_or(0, |since| since.as_secs()),
            seconds: started.elapsed().as_secs_f64(),
            cpu: devices.cpu_name().to_owned(),
            threads: devices.threads(),
            gpus: summary::gpus(&devices),
            seed: args.seed,
            totals: Totals::of(&rows),
        },
        rows,
        failures,
    };
    table.end(&audit)?;
    if let Some(path) = &args.html {
        fs::write(path, page::page(&audit)).map_err(|source| file_error(path, source))?;
    }
    if let Some(path) = &json {
        let text = format!("{}\n", output::json(&audit)?);
        fs::write(path, text).map_err(|source| file_error(path, source))?;
    }
    if on_stdout {
        output::finish(output::json(&audit)?)?;
    }
    match audit.failures.len() {
        0 => Ok(()),
        failures => Err(Failure::Some(format!("{failures} could not be measured"))),
    }
}

fn file_error(path: &std::path::Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// The rows to measure.
fn tasks(args: &Args) -> Vec<AuditTask> {
    let kernels: Vec<&'static Entry> = match args.kernels.as_slice() {
        [] => CATALOG.iter().collect(),
        chosen => chosen.to_vec(),
    };
    let mut tasks = Vec::new();
    for entry in kernels {
        let sizes = match args.sizes.as_slice() {
            [] => entry.audit_sizes,
            chosen => chosen,
        };
        for &residency in args.residency.each() {
            tasks.extend(sizes.iter().map(|&n| AuditTask {
                entry,
                n,
                residency,
                seed: args.seed,
            }));
        }
    }
    tasks
}

/// A table that prints each row at once.
struct Table {
    /// Whether anything is printed.
    shown: bool,
    reader: Reader,
    progress: Progress,
}

/// Wide enough for every row: the later ones are unknown when the first is printed.
const WIDTHS: [usize; 9] = [14, 9, 6, 7, 7, 14, 21, 7, 6];

impl Table {
    fn begin(shown: bool, rows: usize) -> Result<Self, Failure> {
        let header = [
            "kernel", "n", "arrays", "cpu", "gpu", "split", "oracle", "auto", "T/O",
        ];
        let reader = match shown {
            true => output::print(format!(
                "{}  auto ran on",
                aligned(WIDTHS, &header.map(String::from))
            ))?,
            false => Reader::Listening,
        };
        Ok(Self {
            shown,
            reader,
            progress: Progress::new(rows as u64),
        })
    }

    fn announce(&self, task: &AuditTask) {
        let what = format!("{} {}", task.entry.name, count(task.n));
        self.progress.doing(what);
    }

    fn add(&mut self, row: &Row) -> Result<(), Failure> {
        if !self.shown {
            return Ok(());
        }
        let time = |time: Option<f64>| time.map_or_else(|| "-".into(), seconds);
        let split = row.split.zip(row.split_fraction).map_or_else(
            || "-".into(),
            |(time, share)| format!("{} {:3.0} %", seconds(time), 100.0 * share),
        );
        let cells = [
            row.kernel.to_owned(),
            count(row.n),
            row.residency.name().into(),
            time(row.cpu),
            time(row.gpu),
            split,
            row.oracle_variant.clone(),
            seconds(row.chosen),
            format!("{:.3}", row.ratio),
        ];
        let text = format!("{}  {}", aligned(WIDTHS, &cells), row.chosen_name());
        self.reader = self.progress.hidden_while(|| output::print(text))?;
        Ok(())
    }

    fn failed(&self, task: &AuditTask, error: &Error) {
        let AuditTask { entry, n, .. } = task;
        self.progress
            .hidden_while(|| eprintln!("error: {} n={n}: {error}", entry.name));
    }

    fn end(self, audit: &Audit) -> Result<(), Failure> {
        if !self.shown || self.reader == Reader::Gone {
            return Ok(());
        }
        let mut text = String::new();
        for (name, figure) in audit.summary.lines() {
            text.push_str(&format!("\n{name:<17}  {figure}"));
        }
        output::finish(format!("{text}\n\n{}", audit.meta.totals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An audit with these rows.
    pub fn audit(rows: Vec<Row>) -> Audit {
        Audit {
            summary: Summary::of(&rows),
            meta: Meta {
                version: "0.0.0",
                date: 0,
                seconds: 1.0,
                cpu: "a processor".into(),
                threads: 2,
                gpus: Vec::new(),
                seed: 1,
                totals: Totals::of(&rows),
            },
            rows,
            failures: Vec::new(),
        }
    }

    #[test]
    fn every_kernel_is_audited_at_five_sizes() {
        for entry in CATALOG {
            assert_eq!(entry.audit_sizes.len(), 5, "{}", entry.name);
            assert!(entry.audit_sizes.is_sorted(), "{}", entry.name);
        }
    }
}
