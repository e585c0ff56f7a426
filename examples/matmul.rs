//! A matrix product, timed on each device and as Divvy places it, and checked against f64.
//!
//!     cargo run --release --example matmul -- --n 1024

use clap::Parser;
use divvy::prelude::*;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

/// Multiply two random matrices on each device, and where Divvy would.
#[derive(Parser)]
struct Args {
    /// Rows and columns of the matrices.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(..=1 << 15))]
    n: u32,
    /// Timed products on each device, after one to warm up.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Seed of the random matrices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has closed the pipe, so this is no failure.
        Err(e) if is_closed_pipe(&*e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let (n, repeat) = (args.n as usize, args.repeat.max(1));
    let elements = n * n;
    let rt = Runtime::new()?;
    let mut out = std::io::stdout().lock();
    let mut rng = fastrand::Rng::with_seed(args.seed);
    let mut random = || (0..elements).map(|_| rng.f32() - 0.5).collect::<Vec<f32>>();
    let (a_host, b_host) = (random(), random());
    let (a, b) = (rt.array_from(&a_host)?, rt.array_from(&b_host)?);

    let gpus = rt.gpus().len();
    let placements = std::iter::once(Placement::Cpu)
        .chain((0..gpus).map(Placement::Gpu))
        .chain([Placement::Auto]);
    writeln!(
        out,
        "{:<8}{:>12}{:>14}{:>12}   ran on",
        "", "ms", "GFLOP/s", "error"
    )?;
    for placement in placements {
        // The poison that remains in elements that no device writes.
        let mut c = rt.filled(elements, f32::NAN)?;
        let mut seconds = Vec::new();
        let mut ran_on = Vec::new();
        for _ in 0..=repeat {
            let (a, b) = (a.as_matrix(n, n)?, b.as_matrix(n, n)?);
            let product = gemm(1.0, a, b, 0.0, c.as_matrix_mut(n, n)?);
            let started = Instant::now();
            let run = rt.run(product.on(placement.clone()))?;
            rt.synchronize()?; // GPUs are asynchronous: wait before reading the clock
            seconds.push(started.elapsed().as_secs_f64());
            ran_on = run
                .report
                .parts
                .iter()
                .map(|part| part.device.to_string())
                .collect();
        }
        // The first product moves the matrices and compiles the shader.
        let mut timed = seconds.split_off(1);
        timed.sort_by(f64::total_cmp);
        let median = timed[timed.len() / 2];
        let gflops = 2.0 * (n as f64).powi(3) / median / 1e9;
        let error = worst_error(&a_host, &b_host, &c.read()?, n, &mut rng);
        writeln!(
            out,
            "{placement:<8}{:>12.3}{gflops:>14.1}{error:>12.1e}   {}",
            median * 1e3,
            ran_on.join(" + ")
        )?;
        let bound = (n + 2) as f64 * f64::from(f32::EPSILON) / 2.0;
        if error > bound || error.is_nan() {
            return Err(format!("the product on {placement} is wrong").into());
        }
    }
    Ok(())
}

/// The largest error of some random elements of C, relative to the sum of the magnitudes of the added terms.
fn worst_error(a: &[f32], b: &[f32], c: &[f32], n: usize, rng: &mut fastrand::Rng) -> f64 {
    (0..256.min(n * n))
        .map(|_| {
            let (row, column) = (rng.usize(..n), rng.usize(..n));
            let (mut want, mut magnitude) = (0.0, f64::MIN_POSITIVE);
            for k in 0..n {
                let term = f64::from(a[row * n + k]) * f64::from(b[k * n + column]);
                want += term;
                magnitude += term.abs();
            }
            (f64::from(c[row * n + column]) - want).abs() / magnitude
        })
        // Unlike `max`, keeps a NaN.
        .fold(0.0, |worst, error| {
            if error.is_nan() {
                error
            } else {
                error.max(worst)
            }
        })
}
