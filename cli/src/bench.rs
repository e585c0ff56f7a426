//! `divvy bench`: every kernel on every device, compared with the device's roofline.

use super::args::{StartLocation, is_software, kernel, runtime, size};
use super::failure::Failure;
use super::measure::{self, Repeats, Setup, Spread};
use super::output::{self, Reader, aligned};
use super::progress::Progress;
use divvy::array::ElementType;
use divvy::catalog::{CATALOG, Case, Entry};
use divvy::cost::prior::{Demand, compute_seconds};
use divvy::kernel::Work;
use divvy::units::{count, quantity, seconds};
use divvy::{DeviceId, Error, Placement, Runtime};
use serde::Serialize;

/// Times kernels on each device and prints how close they come to the device's roofline.
///
/// Arrays are already on the device, as with `divvy run --residency device`. The roofline is the time that the arithmetic
/// or the memory traffic takes at the device's measured rates, whichever is longer; `roofline` is the share of it that
/// the kernel reaches. `*` marks the device that the planner chooses for arrays on the host.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy bench
  divvy bench --kernels sum,gemm
  divvy bench --kernels axpy --n 64Ki,16Mi --json | jq '.[] | [.n, .device, .seconds.median]'

With --json one array of objects is printed:
  {\"kernel\", \"n\", \"dtype\", \"device\", \"software\", \"repeat\",
   \"seconds\": {\"min\", \"median\", \"max\"}, \"gflops\", \"gbytes_per_s\",
   \"roofline_seconds\", \"roofline_fraction\", \"chosen\"}")]
pub struct Args {
    /// Only these kernels, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = kernel(), value_name = "KERNELS")]
    kernels: Vec<&'static Entry>,

    /// These sizes instead of each kernel's own, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = size, value_name = "SIZES")]
    n: Vec<usize>,

    /// How often each is timed; without it, for about 0.3 s
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: Option<u32>,

    /// CPU threads; without it, DIVVY_THREADS or one per core
    #[arg(long)]
    threads: Option<usize>,

    /// Seed of the random input
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Prints a row for each kernel, size and device as soon as it is measured.
pub fn run(args: &Args) -> Result<(), Failure> {
    let rt = runtime(args.threads)?;
    let devices: Vec<DeviceId> = {
        let machine = rt.measured_machine()?;
        machine.devices.iter().map(|d| d.id).collect()
    };
    let kernels: Vec<&Entry> = match args.kernels.as_slice() {
        [] => CATALOG.iter().collect(),
        chosen => chosen.to_vec(),
    };
    let sizes = |entry: &Entry| match args.n.as_slice() {
        [] => entry.bench_sizes.to_vec(),
        chosen => chosen.to_vec(),
    };
    let steps: usize = kernels.iter().map(|entry| sizes(entry).len()).sum();
    let mut table = Table::begin(args.json, steps * devices.len())?;
    for entry in kernels {
        for n in sizes(entry) {
            if table.reader == Reader::Gone {
                return Ok(());
            }
            bench_size(args, &rt, &devices, entry, n, &mut table)?;
        }
    }
    table.end()
}

/// Measures one kernel at one size on every device.
fn bench_size(
    args: &Args,
    rt: &Runtime,
    devices: &[DeviceId],
    entry: &'static Entry,
    n: usize,
    table: &mut Table,
) -> Result<(), Failure> {
    let prepared = entry
        .bind(n, entry.default_type(), args.seed)
        .and_then(|mut case| Ok((chosen_devices(rt, &mut *case)?, case)));
    let (chosen, mut case) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            table.failed(&format!("{} n={n}: {error}", entry.name));
            return Ok(());
        }
    };
    for &device in devices {
        if table.reader == Reader::Gone {
            return Ok(());
        }
        table
            .progress
            .doing(format!("{} {} on {device}", entry.name, count(n)));
        match measure_on(args, rt, device, &mut *case) {
            Ok(Measured {
                timing,
                roofline_seconds,
            }) => {
                let work = case.spec().work();
                table.add(&Row {
                    kernel: entry.name,
                    n,
                    dtype: entry.default_type(),
                    device,
                    software: is_software(rt, device),
                    repeat: timing.repeats(),
                    seconds: timing.spread(),
                    gflops: timing.rate(work.flops) / 1e9,
                    gbytes_per_s: timing.rate(work.bytes()) / 1e9,
                    roofline_seconds,
                    roofline_fraction: timing.rate(roofline_seconds),
                    chosen: chosen.contains(&device),
                })?;
            }
            Err(error) => table.failed(&format!("{} n={n} on {device}: {error}", entry.name)),
        }
        table.progress.step();
    }
    Ok(())
}

/// The devices that the planner chooses for arrays on the host.
fn chosen_devices(rt: &Runtime, case: &mut dyn Case) -> Result<Vec<DeviceId>, Error> {
    case.reset()?;
    let explanation = case.explain(rt, Placement::Auto)?;
    let parts = &explanation.candidates[explanation.choice].parts;
    Ok(parts.iter().map(|part| part.device).collect())
}

/// The times of a kernel on a device, and its roofline there.
struct Measured {
    timing: measure::Timing,
    roofline_seconds: f64,
}

fn measure_on(
    args: &Args,
    rt: &Runtime,
    device: DeviceId,
    case: &mut dyn Case,
) -> Result<Measured, Error> {
    let setup = Setup {
        rt,
        placement: &Placement::from(device),
        residency: StartLocation::Device,
        repeats: args
            .repeat
            .map_or(Repeats::Enough, |repeat| Repeats::Exactly(repeat as usize)),
    };
    let timing = measure::time(&setup, case, &Progress::none())?;
    let spec = case.spec();
    Ok(Measured {
        timing,
        roofline_seconds: roofline(rt, device, spec.work(), spec.footprint())?,
    })
}

/// The least seconds that a device needs for `work`, by its measured rates. The CPU may use one thread or all.
fn roofline(rt: &Runtime, device: DeviceId, work: Work, footprint: usize) -> Result<f64, Error> {
    let demand = Demand {
        flops: work.flops,
        traffic_bytes: work.bytes(),
        footprint_bytes: footprint as f64,
    };
    let machine = rt.machine()?;
    let model = machine.device(device);
    let engines = model.iter().flat_map(|model| &model.engines);
    Ok(engines
        .map(|engine| compute_seconds(engine, &demand))
        .min_by(f64::total_cmp)
        .unwrap_or(0.0))
}

/// One kernel at one size on one device.
#[derive(Serialize)]
struct Row {
    kernel: &'static str,
    n: usize,
    dtype: ElementType,
    device: DeviceId,
    software: bool,
    repeat: usize,
    seconds: Spread,
    gflops: f64,
    gbytes_per_s: f64,
    roofline_seconds: f64,
    roofline_fraction: f64,
    chosen: bool,
}

/// A table that prints each row at once, as text or as one JSON array.
struct Table {
    json: bool,
    rows: usize,
    failures: usize,
    reader: Reader,
    progress: Progress,
}

/// Wide enough for every row: the later ones are unknown when the first is printed.
const WIDTHS: [usize; 7] = [16, 11, 15, 8, 12, 12, 8];

impl Table {
    fn begin(json: bool, steps: usize) -> Result<Self, Failure> {
        let header = [
            "kernel",
            "n",
            "device",
            "median",
            "memory",
            "arithmetic",
            "roofline",
        ];
        let reader = if json {
            output::print("[")?
        } else {
            output::print(aligned(WIDTHS, &header.map(String::from)))?
        };
        Ok(Self {
            json,
            rows: 0,
            failures: 0,
            reader,
            progress: Progress::new(steps as u64),
        })
    }

    fn add(&mut self, row: &Row) -> Result<(), Failure> {
        let text = if self.json {
            let comma = if self.rows == 0 { " " } else { "," };
            format!("{comma}{}", output::json(row)?)
        } else {
            let device = match row.software {
                true => format!("{} (software)", row.device),
                false => row.device.to_string(),
            };
            let cells = [
                row.kernel.to_owned(),
                count(row.n),
                device,
                seconds(row.seconds.median),
                quantity(row.gbytes_per_s * 1e9, "B/s"),
                quantity(row.gflops * 1e9, "FLOP/s"),
                format!("{:.1} %", 100.0 * row.roofline_fraction),
            ];
            let mark = if row.chosen { " *" } else { "" };
            format!("{}{mark}", aligned(WIDTHS, &cells))
        };
        self.rows += 1;
        self.reader = self.progress.hidden_while(|| output::print(text))?;
        Ok(())
    }

    fn failed(&mut self, what: &str) {
        self.failures += 1;
        self.progress.hidden_while(|| eprintln!("error: {what}"));
    }

    fn end(self) -> Result<(), Failure> {
        if self.json && self.reader == Reader::Listening {
            output::finish("]")?;
        }
        match self.failures {
            0 => Ok(()),
            failures => Err(Failure::Some(format!("{failures} could not be measured"))),
        }
    }
}
