//! `divvy explain`: where a kernel would run, and why.

use super::args::{Job, StartLocation};
use super::failure::Failure;
use super::output;
use divvy::plan::Explanation;
use divvy::{Error, Runtime};

/// Prints where a kernel would run, and why: every way to run it, its predicted time, and the components of that time.
///
/// `*` marks the chosen way, `-` those that are ruled out. With `--residency host` all arrays are on the host, and the call
/// is the first of its process: where a GPU would have to compile the kernel first, another device is chosen meanwhile.
/// With `--residency device` the kernel first runs once at the same placement, and its arrays stay where that run left
/// them. Measurements of earlier runs count if they are in the profile.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy explain axpy --n 64Ki
  divvy explain gemm --n 2048 --residency device --placement gpu
  divvy explain sum --n 16Mi --json | jq '.candidates[.choice].name'

With --json one object is printed:
  {\"kernel\", \"items\", \"placement\",
   \"candidates\": [{\"name\", \"predicted_seconds\", \"combine_seconds\", \"samples\", \"uncertainty\", \"eligible\",
     \"parts\": [{\"device\", \"threads\", \"range\": [lo, hi], \"samples\", \"uncertainty\", \"extrapolated\",
       \"predicted\": {\"wait\", \"launch\", \"upload\", \"compute\", \"download\"}}]}],
   \"choice\", \"reason\", \"advantage\", \"ruled_out\": [{\"device\", \"name\", \"reason\"}]}
Times are in seconds. `choice` is the index of the chosen candidate, `advantage` the ratio of the best other candidate's
time to its time (null if there is none). `uncertainty` is the standard deviation of a time's natural logarithm: 0.1 means
about 10 %. `samples` is the number of measurements behind a time, at the nearest measured size, the fewest of any part;
without any, a time is predicted from the rates of the device alone.")]
pub struct Args {
    #[command(flatten)]
    job: Job,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the explanation.
pub fn run(args: &Args) -> Result<(), Failure> {
    let rt = args.job.runtime()?;
    let explanation = explain(&args.job, &rt).map_err(|error| Failure::with_gpus(error, &rt))?;
    if args.json {
        output::finish(output::json(&explanation)?)
    } else {
        output::finish(explanation)
    }
}

fn explain(job: &Job, rt: &Runtime) -> Result<Explanation, Error> {
    let mut case = job.bind()?;
    case.reset()?;
    if job.residency == StartLocation::Device {
        case.run(rt, job.placement.clone())?;
        rt.synchronize()?;
    }
    case.explain(rt, job.placement.clone())
}
