//! Two galaxies collide: a gravitational simulation whose bodies stay on the device that computes them.
//!
//! ```text
//! cargo run --release --example nbody -- --png galaxies.png
//! cargo run --release --example nbody -- --bodies 65536 --steps 50 --placement gpu
//! cargo run --release --example nbody -- --checkpoint run.divvy --every 50
//! cargo run --release --example nbody -- --checkpoint run.divvy --every 50 --resume run.divvy
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
use std::f32::consts::{PI, TAU};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Simulates bodies that attract each other, by direct summation and leapfrog steps.
#[derive(Parser)]
struct Args {
    /// The number of bodies.
    #[arg(long, default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    bodies: u32,
    /// The number of time steps.
    #[arg(long, default_value_t = 400)]
    steps: u32,
    /// Where to compute: auto, cpu, gpu, gpu:1, split:0.3 (that share on the first GPU).
    #[arg(long, default_value = "auto")]
    placement: Placement,
    /// The initial arrangement of the bodies.
    #[arg(long, value_enum, default_value_t = Start::Galaxies)]
    start: Start,
    /// The time step; the bodies of a galaxy's rim need about 6 for a turn.
    #[arg(long, default_value_t = 0.02)]
    dt: f32,
    /// The distance below which attraction grows weaker; a galaxy's radius is 1.
    #[arg(long, default_value_t = 0.1)]
    softening: f32,
    /// Chooses the random positions; the same seed gives the same bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draws the final state into this file.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
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

/// The contents of a checkpoint besides arrays.
#[derive(Serialize, Deserialize)]
struct State {
    /// The number of completed steps.
    step: u32,
    choices: Choices,
}

/// The choices that determine the result of a run, apart from the device.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Choices {
    bodies: u32,
    start: Start,
    dt: f32,
    softening: f32,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
enum Start {
    /// Two spinning discs on a collision course.
    Galaxies,
    /// A Plummer sphere, which stays in equilibrium.
    Plummer,
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
    let n = args.bodies as usize;
    let mut rng = fastrand::Rng::with_seed(args.seed);
    let start: Vec<Body> = match args.start {
        Start::Galaxies => galaxies(n, &mut rng),
        Start::Plummer => plummer(n, &mut rng),
    };

    let rt = Runtime::builder()
        .placement(args.placement.clone())
        .build()?;
    let rows: Vec<f32> = start
        .iter()
        .flat_map(|b| [b.at[0], b.at[1], b.at[2], b.mass])
        .collect();
    let mut bodies = rt.array_from(&rows)?;
    let rows: Vec<f32> = start
        .iter()
        .flat_map(|b| [b.v[0], b.v[1], b.v[2], 0.0])
        .collect();
    let mut velocities = rt.array_from(&rows)?;
    let mut accelerations = rt.uninit(4 * n)?;

    let before = nbody_energy(args.softening, &bodies, &velocities)?;
    let mut first = 0;
    if let Some(path) = &args.resume {
        let saved = Checkpoint::open(path)?;
        first = step_of(&saved.value()?, args, path)?;
        saved.restore("bodies", &mut bodies)?;
        saved.restore("velocities", &mut velocities)?;
        saved.restore("accelerations", &mut accelerations)?;
    } else {
        rt.run(nbody_accelerations(
            args.softening,
            &bodies,
            &mut accelerations,
        ))?;
    }
    rt.synchronize()?;

    let bar = progress_bar(args.steps);
    bar.set_position(u64::from(first));
    let mut places = BTreeMap::<String, u32>::new();
    let started = Instant::now();
    for done in first + 1..=args.steps {
        let step = leapfrog_step(
            args.dt,
            args.softening,
            &mut bodies,
            &mut velocities,
            &mut accelerations,
        );
        let report = rt.run(step)?.report;
        *places.entry(place(&report)).or_default() += 1;
        bar.inc(1);
        if let Some(path) = &args.checkpoint
            && (done % args.every == 0 || done == args.steps)
        {
            let state = State {
                step: done,
                choices: choices(args),
            };
            Checkpoint::new(&state)
                .array("bodies", &bodies)
                .array("velocities", &velocities)
                .array("accelerations", &accelerations)
                .save(path)?;
        }
    }
    // Steps on a GPU are only queued until a read waits for them.
    rt.synchronize()?;
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let after = nbody_energy(args.softening, &bodies, &velocities)?;
    let drift = (after.total() - before.total()) / before.total().abs().max(f64::MIN_POSITIVE);
    let steps = f64::from(args.steps - first);
    let gflops = 20.0 * (n as f64).powi(2) * steps / seconds / 1e9;
    let mut out = std::io::stdout().lock();
    writeln!(out, "bodies    {n}, seed {}", args.seed)?;
    if let Some(path) = &args.resume {
        writeln!(out, "resumed   {} after {first} steps", path.display())?;
    }
    writeln!(
        out,
        "time      {seconds:.3} s, {:.3} ms a step",
        seconds / steps.max(1.0) * 1e3
    )?;
    writeln!(out, "speed     {gflops:.1} GFLOP/s at 20 flops per pair")?;
    for (place, steps) in places {
        writeln!(out, "ran on    {place}: {steps} steps")?;
    }
    writeln!(
        out,
        "energy    {:.6} -> {:.6}, drift {drift:+.2e}",
        before.total(),
        after.total()
    )?;
    if let Some(path) = &args.png {
        draw(&bodies.read()?, path)?;
        writeln!(out, "picture   {}", path.display())?;
    }
    Ok(())
}

fn choices(args: &Args) -> Choices {
    Choices {
        bodies: args.bodies,
        start: args.start,
        dt: args.dt,
        softening: args.softening,
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

/// A body at the start. The gravitational constant is 1.
struct Body {
    at: [f32; 3],
    v: [f32; 3],
    mass: f32,
}

/// Two discs of light bodies that circle a heavy one, inclined to each other, on a parabola that brings the two heavy
/// ones to within about a radius.
fn galaxies(n: usize, rng: &mut fastrand::Rng) -> Vec<Body> {
    let first = n.div_ceil(2);
    let mut all = disc(first, 0.3, rng);
    if n > first {
        all.extend(disc(n - first, -0.9, rng));
        let distance = [2.8f32, 2.0, 0.5];
        // Each has a mass of 1. At this speed relative to each other they could just escape.
        let speed = (2.0 * 2.0 / distance.iter().map(|d| d * d).sum::<f32>().sqrt()).sqrt();
        for (i, body) in all.iter_mut().enumerate() {
            let side = if i < first { -0.5 } else { 0.5 };
            for (at, d) in body.at.iter_mut().zip(distance) {
                *at += side * d;
            }
            body.v[0] -= side * speed;
        }
    }
    all
}

/// A galaxy of mass 1 and radius 1: a heavy body and around it a disc, tilted about the x axis.
fn disc(n: usize, tilt: f32, rng: &mut fastrand::Rng) -> Vec<Body> {
    const CENTRE: f32 = 0.9;
    let light = (1.0 - CENTRE) / (n.max(2) - 1) as f32;
    let (sin, cos) = tilt.sin_cos();
    let tilted = |[x, y, z]: [f32; 3]| [x, y * cos - z * sin, y * sin + z * cos];
    let centre = Body {
        at: [0.0; 3],
        v: [0.0; 3],
        mass: CENTRE,
    };
    let around = (1..n).map(|_| {
        let radius = 0.15 + 0.85 * rng.f32();
        let (sin, cos) = (TAU * rng.f32()).sin_cos();
        let height = 0.05 * (rng.f32() - 0.5);
        // On a circle around all the mass that is nearer to the centre.
        let speed = ((CENTRE + (1.0 - CENTRE) * radius) / radius).sqrt();
        Body {
            at: tilted([radius * cos, radius * sin, height]),
            v: tilted([-speed * sin, speed * cos, 0.0]),
            mass: light,
        }
    });
    std::iter::once(centre).chain(around).take(n).collect()
}

/// Plummer's sphere of mass 1 and scale 1 in equilibrium (Aarseth, Hénon and Wielen 1974).
fn plummer(n: usize, rng: &mut fastrand::Rng) -> Vec<Body> {
    let mut body = || {
        let radius = loop {
            let radius = (rng.f32().max(1e-6).powf(-2.0 / 3.0) - 1.0).sqrt();
            if radius < 10.0 {
                break radius;
            }
        };
        // The share of the escape speed, by rejection from q²(1-q²)^3.5, which stays below 0.1.
        let share = loop {
            let (q, height) = (rng.f32(), 0.1 * rng.f32());
            if height < q * q * (1.0 - q * q).powf(3.5) {
                break q;
            }
        };
        let speed = share * (2.0 / (1.0 + radius * radius).sqrt()).sqrt();
        let at = direction(rng).map(|d| d * radius);
        Body {
            at,
            v: direction(rng).map(|d| d * speed),
            mass: 1.0 / n as f32,
        }
    };
    (0..n).map(|_| body()).collect()
}

/// A unit vector, all equally likely.
fn direction(rng: &mut fastrand::Rng) -> [f32; 3] {
    let z = 2.0 * rng.f32() - 1.0;
    let across = (1.0 - z * z).sqrt();
    let (sin, cos) = (2.0 * PI * rng.f32()).sin_cos();
    [across * cos, across * sin, z]
}

/// Draws the bodies as seen along the z axis: the first half blue, the second orange, brighter where there are more.
fn draw(bodies: &[f32], path: &Path) -> Result<(), Box<dyn Error>> {
    const WIDTH: usize = 1200;
    const HEIGHT: usize = 900;
    const COLOURS: [[f32; 3]; 2] = [[0.35, 0.6, 1.0], [1.0, 0.6, 0.3]];
    let n = bodies.len() / 4;
    // All but the outermost fiftieth are in the picture.
    let extent = |axis: usize| {
        let mut all: Vec<f32> = bodies.chunks_exact(4).map(|b| b[axis].abs()).collect();
        all.sort_unstable_by(f32::total_cmp);
        all[all.len() * 49 / 50].max(0.1)
    };
    let scale = (WIDTH as f32 / extent(0)).min(HEIGHT as f32 / extent(1)) * 0.46;

    let mut light = vec![[0f32; 3]; WIDTH * HEIGHT];
    for (i, body) in bodies.chunks_exact(4).enumerate() {
        let x = WIDTH as f32 / 2.0 + body[0] * scale;
        let y = HEIGHT as f32 / 2.0 - body[1] * scale;
        let colour = COLOURS[usize::from(i >= n.div_ceil(2))];
        splat(&mut light, WIDTH, [x, y], colour);
    }
    // The eye sees ratios: logarithms, so that faint tails show beside bright centres.
    let exposure = 40.0 * (8192.0 / n as f32).min(1.0);
    let pixels: Vec<u8> = light
        .as_flattened()
        .iter()
        .map(|light| (255.0 * ((1.0 + exposure * light).ln() / 6.0).min(1.0)) as u8)
        .collect();

    let file = File::create(path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}

/// Adds a soft dot of a few pixels to a picture of the given width.
fn splat(light: &mut [[f32; 3]], width: usize, at: [f32; 2], colour: [f32; 3]) {
    const RADIUS: f32 = 2.5;
    let range = |at: f32, size: usize| {
        let lo = (at - RADIUS).max(0.0) as usize;
        lo..((at + RADIUS).max(0.0) as usize).min(size)
    };
    for y in range(at[1], light.len() / width) {
        for x in range(at[0], width) {
            let d = [x as f32 + 0.5 - at[0], y as f32 + 0.5 - at[1]];
            let strength = (-(d[0] * d[0] + d[1] * d[1])).exp();
            for (light, colour) in light[y * width + x].iter_mut().zip(colour) {
                *light += strength * colour;
            }
        }
    }
}
