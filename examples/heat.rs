//! Warm and cold spots on a plate even out. The picture shows the plate at the end.
//!
//! ```text
//! cargo run --release --example heat
//! cargo run --release --example heat -- --size 2000x3000 --steps 5000 --border fixed --placement gpu
//! cargo run --release --example heat -- --checkpoint run.divvy --every 500
//! cargo run --release --example heat -- --checkpoint run.divvy --every 500 --resume run.divvy
//! ```
//!
//! A run that is killed and resumed ends with the same bits as an uninterrupted one, if both are computed on the same
//! device. The CPU and each GPU round differently, so name a device with `--placement`.

use clap::{Parser, ValueEnum};
use divvy::prelude::*;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

/// Solves the heat equation on a plate by explicit steps.
#[derive(Parser)]
struct Args {
    /// Cells of the plate: ROWSxCOLUMNS, or the side of a square one.
    #[arg(long, default_value = "512")]
    size: Size,
    /// The number of time steps.
    #[arg(long, default_value_t = 1000)]
    steps: u32,
    /// α·Δt/Δx², how far heat gets in a step; stable up to 0.25.
    #[arg(long, default_value_t = 0.25)]
    r: f32,
    /// What happens at the plate's border.
    #[arg(long, value_enum, default_value_t = BorderArg::Insulated)]
    border: BorderArg,
    /// Where to compute: auto, cpu, gpu, gpu:1, split:0.3 (that share on the first GPU).
    #[arg(long, default_value = "auto")]
    placement: Placement,
    /// Chooses where the spots are.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The file of the picture.
    #[arg(long, value_name = "FILE", default_value = "heat.png")]
    png: PathBuf,
    /// Saves the state into this file at intervals, and at the end.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The number of steps from one checkpoint to the next.
    #[arg(long, value_name = "STEPS", default_value_t = 100, requires = "checkpoint",
          value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Resumes from a checkpoint; repeat the arguments of the original run.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

/// The contents of a checkpoint besides the plate.
#[derive(Serialize, Deserialize)]
struct State {
    /// The number of completed steps.
    step: u32,
    choices: Choices,
}

/// The choices that determine the result of a run, apart from the device.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Choices {
    size: Size,
    r: f32,
    border: BorderArg,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
enum BorderArg {
    /// No heat gets out.
    Insulated,
    /// The border keeps its temperature: hot at the top, cold at the bottom.
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Size {
    rows: usize,
    cols: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rows, cols) = text.split_once('x').unwrap_or((text, text));
        // A picture has at least one pixel; larger ones than this are of no use.
        let side = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|side| (1..=1 << 15).contains(side))
        };
        match (side(rows), side(cols)) {
            (Some(rows), Some(cols)) => Ok(Self {
                rows: rows as usize,
                cols: cols as usize,
            }),
            _ => Err("expected ROWSxCOLUMNS, as in 512x1024, or one side, as in 512; sides are from 1 to 32768".into()),
        }
    }
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

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let Size { rows, cols } = args.size;
    let border = match args.border {
        BorderArg::Insulated => Border::Insulated,
        BorderArg::Fixed => Border::Fixed,
    };
    let plate = plate(args.size, border, &mut fastrand::Rng::with_seed(args.seed));

    let rt = Runtime::builder()
        .placement(args.placement.clone())
        .build()?;
    let mut u = rt.array_from(&plate)?;
    let mut next = rt.uninit(plate.len())?;

    let mut first = 0;
    if let Some(path) = &args.resume {
        let saved = Checkpoint::open(path)?;
        first = step_of(&saved.value()?, args, path)?;
        saved.restore("plate", &mut u)?;
    }

    let bar = progress_bar(args.steps);
    bar.set_position(u64::from(first));
    let mut places = BTreeMap::<String, u32>::new();
    let started = Instant::now();
    for done in first + 1..=args.steps {
        let report = rt
            .run(heat_step(rows, cols, args.r, border, &u, &mut next))?
            .report;
        std::mem::swap(&mut u, &mut next);
        *places.entry(place(&report)).or_default() += 1;
        bar.inc(1);
        if let Some(path) = &args.checkpoint
            && (done % args.every == 0 || done == args.steps)
        {
            let state = State {
                step: done,
                choices: choices(args),
            };
            Checkpoint::new(&state).array("plate", &u).save(path)?;
        }
    }
    // Steps on a GPU are only queued until a read waits for them.
    rt.synchronize()?;
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let end = u.read()?;
    let steps = f64::from(args.steps - first);
    let cell_steps = plate.len() as f64 * steps;
    let mut out = std::io::stdout().lock();
    writeln!(out, "plate     {rows} x {cols} cells, seed {}", args.seed)?;
    if let Some(path) = &args.resume {
        writeln!(out, "resumed   {} after {first} steps", path.display())?;
    }
    let step = seconds / steps.max(1.0);
    writeln!(out, "time      {seconds:.3} s, {:.1} µs a step", step * 1e6)?;
    writeln!(
        out,
        "speed     {:.2} GB/s at 8 bytes per cell",
        8.0 * cell_steps / seconds / 1e9
    )?;
    for (place, steps) in places {
        writeln!(out, "ran on    {place}: {steps} steps")?;
    }
    let [before, after] = [&plate[..], &end].map(summary);
    writeln!(out, "before    {before}")?;
    writeln!(out, "after     {after}")?;
    draw(&end, args.size, &args.png)?;
    writeln!(out, "picture   {}", args.png.display())?;
    Ok(())
}

fn choices(args: &Args) -> Choices {
    Choices {
        size: args.size,
        r: args.r,
        border: args.border,
        seed: args.seed,
    }
}

/// The number of steps of a saved run, if it is the requested run.
fn step_of(state: &State, args: &Args, path: &Path) -> Result<u32, String> {
    let (path, given) = (path.display(), choices(args));
    if state.choices != given {
        return Err(format!(
            "{path}: it is of a run with {:?}, this one has {given:?}; give the same arguments",
            state.choices
        ));
    }
    if state.step > args.steps {
        return Err(format!(
            "{path}: it is of a run after {} steps, expected at most {} as --steps says; ask for more steps",
            state.step, args.steps
        ));
    }
    Ok(state.step)
}

/// A lukewarm plate (0.3) with hot (up to 1) and cold (0) spots.
fn plate(size: Size, border: Border, rng: &mut fastrand::Rng) -> Vec<f32> {
    let Size { rows, cols } = size;
    let mut plate = vec![0.3; rows * cols];
    let side = rows.min(cols) as f32;
    for _ in 0..40 {
        let centre = [rng.f32() * rows as f32, rng.f32() * cols as f32];
        let radius = side * (0.01 + 0.07 * rng.f32());
        let temperature = if rng.f32() < 0.3 {
            0.0
        } else {
            0.5 + 0.5 * rng.f32()
        };
        let range = |at: f32, end: usize| {
            (at - radius).max(0.0) as usize..((at + radius + 1.0) as usize).min(end)
        };
        for i in range(centre[0], rows) {
            for j in range(centre[1], cols) {
                if (i as f32 - centre[0]).hypot(j as f32 - centre[1]) < radius {
                    plate[i * cols + j] = temperature;
                }
            }
        }
    }
    if border == Border::Fixed {
        for (i, row) in plate.chunks_mut(cols).enumerate() {
            let temperature = 1.0 - i as f32 / (rows - 1).max(1) as f32;
            row[0] = temperature;
            row[cols - 1] = temperature;
            if i == 0 || i + 1 == rows {
                row.fill(temperature);
            }
        }
    }
    plate
}

fn summary(cells: &[f32]) -> String {
    let (lo, hi) = cells
        .iter()
        .fold((f32::MAX, f32::MIN), |(lo, hi), u| (lo.min(*u), hi.max(*u)));
    let mean = cells.iter().map(|u| f64::from(*u)).sum::<f64>() / cells.len() as f64;
    format!("{lo:.4} to {hi:.4}, mean {mean:.6}")
}

/// Where a step ran, from its report.
fn place(report: &divvy::Report) -> String {
    let parts = report.parts.iter().map(|part| {
        let threads = match part.threads {
            1 => String::new(),
            threads => format!(" ({threads} threads)"),
        };
        format!("{}{threads} {:?}", part.device, part.range)
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// A bar on a terminal; hidden when the output goes elsewhere.
fn progress_bar(steps: u32) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} steps, {eta} left")
        .expect("the template is valid");
    ProgressBar::with_draw_target(Some(u64::from(steps)), target).with_style(style)
}

fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

fn draw(cells: &[f32], size: Size, path: &Path) -> Result<(), Box<dyn Error>> {
    let pixels: Vec<[u8; 3]> = cells.iter().map(|u| inferno(*u)).collect();
    let file = File::create(path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), size.cols as u32, size.rows as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()?
        .write_image_data(pixels.as_flattened())?;
    Ok(())
}

/// Matplotlib's colour map "inferno", from every 32nd of its colours.
fn inferno(value: f32) -> [u8; 3] {
    const COLOURS: [[f32; 3]; 9] = [
        [0.0, 0.0, 4.0],
        [31.0, 12.0, 72.0],
        [85.0, 15.0, 109.0],
        [136.0, 34.0, 106.0],
        [186.0, 54.0, 85.0],
        [227.0, 89.0, 51.0],
        [249.0, 140.0, 10.0],
        [249.0, 201.0, 50.0],
        [252.0, 255.0, 164.0],
    ];
    let at = value.clamp(0.0, 1.0) * 8.0;
    let low = (at as usize).min(7);
    let share = at - low as f32;
    std::array::from_fn(|c| ((1.0 - share) * COLOURS[low][c] + share * COLOURS[low + 1][c]) as u8)
}
