//! `divvy run`: runs and times one kernel on random input, and checks it on request.

use super::args::{Job, StartLocation, is_software, unit};
use super::failure::Failure;
use super::measure::{self, Repeats, Setup, Spread, Timing};
use super::output;
use super::progress::Progress;
use divvy::array::ElementType;
use divvy::catalog::Check;
use divvy::kernel::Work;
use divvy::units::{count, quantity, seconds};
use divvy::{DeviceId, Error, Runtime};
use serde::Serialize;
use std::fmt;

/// Runs a kernel on random input and prints where it ran, how long it took, and its rates.
///
/// The kernel runs once to warm up and is then timed. Rates are those of the median.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy run axpy --n 16Mi --check
  divvy run gemm --n 1024 --placement gpu --residency device
  divvy run nbody --n 4096 --placement split:0.25 --repeat 5 --json
  divvy run sum --dtype u32 --threads 1 --json | jq .seconds.median

With --json one object is printed:
  {\"kernel\", \"n\", \"dtype\", \"residency\", \"repeat\", \"parts\": [{\"device\", \"range\": [lo, hi]}],
   \"seconds\": {\"min\", \"median\", \"max\"}, \"predicted_seconds\", \"gflops\", \"gbytes_per_s\",
   \"check\": {\"max_error\", \"tolerance\", \"ok\"}}
`check` is null without --check. The exit status is 1 if the check fails.")]
pub struct Args {
    #[command(flatten)]
    job: Job,

    /// How often it is timed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,

    /// Compare the result with an f64 reference
    #[arg(long)]
    check: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the kernel and prints the result.
pub fn run(args: &Args) -> Result<(), Failure> {
    let rt = args.job.runtime()?;
    let outcome = measure(args, &rt).map_err(|error| Failure::with_gpus(error, &rt))?;
    if args.json {
        output::finish(output::json(&outcome)?)?;
    } else {
        output::finish(&outcome)?;
    }
    verdict(outcome.kernel, outcome.check)
}

/// Fails if there was a check and it failed.
fn verdict(kernel: &str, check: Option<Check>) -> Result<(), Failure> {
    match check {
        Some(check) if !check.ok => Err(Failure::Check(format!(
            "{kernel}: the check failed: the largest error is {:.3e}, the tolerance {:.3e}",
            check.max_error, check.tolerance
        ))),
        _ => Ok(()),
    }
}

fn measure(args: &Args, rt: &Runtime) -> Result<Outcome, Error> {
    let job = &args.job;
    let mut case = job.bind()?;
    let progress = Progress::new(u64::from(args.repeat) + 1 + u64::from(args.check));
    let setup = Setup {
        rt,
        placement: &job.placement,
        residency: job.residency,
        repeats: Repeats::Exactly(args.repeat as usize),
    };
    let timing = measure::time(&setup, &mut *case, &progress)?;
    let check = if args.check {
        progress.doing("checking");
        case.reset()?;
        case.run(rt, job.placement.clone())?;
        Some(finite(case.check()?))
    } else {
        None
    };
    Ok(Outcome::new(rt, job, &timing, case.spec().work(), check))
}

/// JSON has no infinity: an infinite error becomes the largest number.
fn finite(check: Check) -> Check {
    let max_error = if check.max_error.is_finite() {
        check.max_error
    } else {
        f64::MAX
    };
    Check { max_error, ..check }
}

/// The output: a JSON object with `--json`, else text.
#[derive(Serialize)]
struct Outcome {
    kernel: &'static str,
    n: usize,
    dtype: ElementType,
    residency: StartLocation,
    repeat: usize,
    parts: Vec<Part>,
    seconds: Spread,
    predicted_seconds: f64,
    gflops: f64,
    gbytes_per_s: f64,
    check: Option<Check>,
    #[serde(skip)]
    unit: &'static str,
}

#[derive(Serialize)]
struct Part {
    device: DeviceId,
    range: [usize; 2],
    #[serde(skip)]
    threads: usize,
    #[serde(skip)]
    software: bool,
}

impl Outcome {
    fn new(rt: &Runtime, job: &Job, timing: &Timing, work: Work, check: Option<Check>) -> Self {
        let parts = timing.report.parts.iter().map(|part| Part {
            device: part.device,
            range: [part.range.start, part.range.end],
            threads: part.threads,
            software: is_software(rt, part.device),
        });
        Self {
            kernel: job.kernel.name,
            n: job.n(),
            dtype: job.dtype(),
            residency: job.residency,
            repeat: timing.repeats(),
            parts: parts.collect(),
            seconds: timing.spread(),
            predicted_seconds: timing.predicted_seconds,
            gflops: timing.rate(work.flops) / 1e9,
            gbytes_per_s: timing.rate(work.bytes()) / 1e9,
            check,
            unit: unit(job.kernel.size),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrays = match self.residency {
            StartLocation::Host => "arrays on the host, transfers counted",
            StartLocation::Device => "arrays where it runs",
        };
        let (n, times) = (count(self.n), if self.repeat == 1 { "run" } else { "runs" });
        writeln!(
            f,
            "{}, {}, {n} {}, {arrays}",
            self.kernel, self.dtype, self.unit
        )?;
        for part in &self.parts {
            let [start, end] = part.range;
            let device = match (part.device, part.threads) {
                (DeviceId::Cpu, 1) => "cpu, 1 thread".into(),
                (DeviceId::Cpu, threads) => format!("cpu, {threads} threads"),
                (gpu, _) if part.software => format!("{gpu}, a software adapter"),
                (gpu, _) => gpu.to_string(),
            };
            writeln!(f, "where      {device}: {}..{}", count(start), count(end))?;
        }
        let Spread { min, median, max } = self.seconds;
        writeln!(
            f,
            "median     {} of {} {times}, from {} to {}",
            seconds(median),
            count(self.repeat),
            seconds(min),
            seconds(max)
        )?;
        writeln!(f, "predicted  {}", seconds(self.predicted_seconds))?;
        write!(
            f,
            "rate       {}, {}",
            quantity(self.gflops * 1e9, "FLOP/s"),
            quantity(self.gbytes_per_s * 1e9, "B/s")
        )?;
        if let Some(check) = &self.check {
            let verdict = if check.ok { "ok" } else { "FAILED" };
            write!(
                f,
                "\ncheck      {verdict}: largest error {:.3e}, tolerance {:.3e}",
                check.max_error, check.tolerance
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_check_fails_the_command() {
        let check = |max_error, ok| Check {
            max_error,
            tolerance: 1.0,
            ok,
        };
        assert!(verdict("k", None).is_ok());
        assert!(verdict("k", Some(check(0.5, true))).is_ok());
        let failure = verdict("k", Some(check(2.5, false))).expect_err("it is too far off");
        let text = failure.to_string();
        assert!(text.contains("k: ") && text.contains("2.5"), "{text}");
    }

    #[test]
    fn an_infinite_error_is_a_number_in_json() {
        let check = finite(Check {
            max_error: f64::INFINITY,
            tolerance: 1.0,
            ok: false,
        });
        assert_eq!(check.max_error, f64::MAX);
        assert!(!check.ok);
    }
}
