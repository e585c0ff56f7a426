//! Arrays several times as large as a GPU's memory of 64 MiB. Those that take minutes on a software adapter run in
//! `scripts/scarce.sh`.

#[path = "support/memory.rs"]
mod scarce;
mod support;

use divvy::prelude::*;
use divvy::{Array, Runtime};
use scarce::watched;
use std::time::Instant;

const GPU: Placement = Placement::Gpu(0);
const BUDGET: u64 = 64 << 20;

/// A runtime whose GPU has 64 MiB; `None`, said aloud, if there is no GPU.
fn runtime() -> Option<Runtime> {
    let rt = support::build(Runtime::builder().gpu_memory_budget(BUDGET));
    support::has_gpu(&rt).then_some(rt)
}

fn check_budget(rt: &Runtime) {
    let memory = rt.gpu_memory().next().expect("a GPU");
    assert!(memory.peak_bytes <= BUDGET, "{memory:?}");
}

/// A number from -1 to 1 for each index, always the same.
fn number(i: usize) -> f32 {
    let mixed = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    mixed as f32 / (1 << 23) as f32 - 1.0
}

fn array(rt: &Runtime, n: usize, first: usize) -> Array<f32> {
    let elements: Vec<f32> = (first..first + n).map(number).collect();
    rt.array_from(&elements).expect("host memory")
}

#[test]
fn axpy_sum_and_scan_of_several_times_the_memory() {
    let Some(rt) = runtime() else { return };
    let n = 24 << 20;
    let (x, mut y) = (array(&rt, n, 0), array(&rt, n, n));
    rt.run(axpy(0.5, &x, &mut y).on(GPU)).expect("axpy");
    let total = rt.run(sum(&y).on(GPU)).expect("sum").value;
    let mut sums = rt.uninit(n).expect("host memory");
    rt.run(inclusive_scan(&y, &mut sums).on(GPU)).expect("scan");
    check_budget(&rt);
    // The same bits as on the CPU, which other tests hold against exact sums.
    let mut there = rt.uninit(n).expect("host memory");
    let y_elements = y.read().expect("y");
    for i in (0..n).step_by(997) {
        let want = 0.5 * f64::from(number(i)) + f64::from(number(n + i));
        assert!((f64::from(y_elements[i]) - want).abs() <= 2e-7 * 1.5, "{i}");
    }
    drop(y_elements);
    let cpu_total = rt.run(sum(&y).on(Placement::Cpu)).expect("sum").value;
    assert_eq!(total.to_bits(), cpu_total.to_bits());
    rt.run(inclusive_scan(&y, &mut there).on(Placement::Cpu))
        .expect("scan");
    assert!(*sums.read().expect("sums") == *there.read().expect("sums"));
}

/// A row after one step of heat from `before`, the rows above, at and below it, in f64.
fn heated(r: f64, before: [&[f64]; 3]) -> Vec<f64> {
    let [above, at, below] = before;
    let last = at.len() - 1;
    let beside = |j: usize| at[j.saturating_sub(1)] + at[(j + 1).min(last)];
    (0..=last)
        .map(|j| at[j] + r * (above[j] + below[j] + beside(j) - 4.0 * at[j]))
        .collect()
}

#[test]
fn two_steps_of_heat_on_a_grid_of_several_times_the_memory() {
    const SIDE: usize = 8192;
    const R: f32 = 0.2;
    let Some(rt) = runtime() else { return };
    let mut u = array(&rt, SIDE * SIDE, 0);
    let mut next = rt.uninit(SIDE * SIDE).expect("host memory");
    for _ in 0..2 {
        let step = heat_step(SIDE, SIDE, R, Border::Insulated, &u, &mut next);
        rt.run(step.on(GPU)).expect("a step");
        std::mem::swap(&mut u, &mut next);
    }
    check_budget(&rt);
    // Rows within the bounds of the grid, at its ends, and everywhere between, also at the borders of pieces.
    let first = |row: usize| -> Vec<f64> {
        let row = row.min(SIDE - 1) * SIDE;
        (row..row + SIDE).map(|i| f64::from(number(i))).collect()
    };
    let second = |row: usize| {
        let [above, below] = [row.saturating_sub(1), row + 1];
        heated(f64::from(R), [&first(above), &first(row), &first(below)])
    };
    let got = u.read().expect("u");
    for row in [0, 1, SIDE - 2, SIDE - 1]
        .into_iter()
        .chain((2..SIDE - 2).step_by(61))
    {
        let [above, below] = [row.saturating_sub(1), (row + 1).min(SIDE - 1)];
        let want = heated(f64::from(R), [&second(above), &second(row), &second(below)]);
        for (j, (got, want)) in got[row * SIDE..][..SIDE].iter().zip(want).enumerate() {
            // 7u for each step.
            let error = (f64::from(*got) - want).abs();
            assert!(error <= 14.0 * 6e-8, "row {row}, column {j}: {error:e}");
        }
    }
}

#[test]
#[ignore = "takes a minute on a software adapter: scripts/scarce.sh runs it"]
fn a_product_of_several_times_the_memory() {
    const SIDE: usize = 4096;
    let Some(rt) = runtime() else { return };
    watched("gemm", move || {
        let n = SIDE * SIDE;
        let (a, b) = (array(&rt, n, 0), array(&rt, n, n));
        let mut c = rt.uninit(n).expect("host memory");
        let started = Instant::now();
        let bytes = 4 * n as u64;
        let [av, bv] = [&a, &b].map(|m| m.as_matrix(SIDE, SIDE).expect("square"));
        let cv = c.as_matrix_mut(SIDE, SIDE).expect("square");
        let run = rt.run(gemm(1.0, av, bv, 0.0, cv).on(GPU)).expect("gemm");
        let moved = run.report.moved;
        rt.synchronize().expect("done");
        // A once, and B for each of a few pieces.
        assert!(moved.to_device <= 8 * bytes, "{moved:?}");
        eprintln!("gemm of 4096: {:?}, moved {:?}", started.elapsed(), moved);
        check_budget(&rt);
        // Freivalds (1977): C v = A (B v) for random v, row by row, which a wrong element would break.
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..3 {
            let v: Vec<f64> = (0..SIDE).map(|_| f64::from(rng.i8(..)) / 128.0).collect();
            let times = |m: &[f32], v: &[f64]| -> Vec<f64> {
                let dot = |row: &[f32]| row.iter().zip(v).map(|(m, v)| f64::from(*m) * v).sum();
                m.chunks_exact(SIDE).map(dot).collect()
            };
            let (a, b, c) = (
                a.read().expect("a"),
                b.read().expect("b"),
                c.read().expect("c"),
            );
            let (want, got) = (times(&a, &times(&b, &v)), times(&c, &v));
            for (row, (want, got)) in want.iter().zip(&got).enumerate() {
                // Errors of about K·u for each of 4096 elements of about 20, of random signs.
                assert!((want - got).abs() < 0.05, "row {row}: {want} {got}");
            }
        }
    });
}

#[test]
#[ignore = "takes minutes on a software adapter: scripts/scarce.sh runs it"]
fn bodies_that_fit_beside_little_else() {
    const BODIES: usize = 262_144;
    let Some(rt) = runtime() else { return };
    watched("n-body", move || {
        let mut bodies = array(&rt, 4 * BODIES, 0);
        // Masses are positive.
        for body in bodies.write().expect("bodies").chunks_exact_mut(4) {
            body[3] = body[3].abs() / BODIES as f32;
        }
        let mut velocities = rt.filled(4 * BODIES, 0.0f32).expect("host memory");
        let mut accelerations = rt.uninit(4 * BODIES).expect("host memory");
        let started = Instant::now();
        rt.run(nbody_accelerations(0.05, &bodies, &mut accelerations).on(GPU))
            .expect("accelerations");
        for _ in 0..2 {
            let step = leapfrog_step(1e-3, 0.05, &mut bodies, &mut velocities, &mut accelerations);
            rt.run(step.on(GPU)).expect("a step");
        }
        rt.synchronize().expect("done");
        eprintln!("3 evaluations of n-body 262,144: {:?}", started.elapsed());
        check_budget(&rt);
        let (bodies, got) = (
            bodies.to_vec().expect("bodies"),
            accelerations.to_vec().expect("accelerations"),
        );
        let mut worst = 0.0f64;
        for target in (0..BODIES).step_by(20_011) {
            let at = |i: usize, axis: usize| f64::from(bodies[4 * i + axis]);
            let mut want = [0.0; 3];
            for i in 0..BODIES {
                let d: [f64; 3] = std::array::from_fn(|axis| at(i, axis) - at(target, axis));
                let square = d.iter().map(|d| d * d).sum::<f64>() + 0.05f64.powi(2);
                let strength = at(i, 3) / (square * square.sqrt());
                (0..3).for_each(|axis| want[axis] += strength * d[axis]);
            }
            let error: [f64; 3] =
                std::array::from_fn(|axis| f64::from(got[4 * target + axis]) - want[axis]);
            let norm = |vector: [f64; 3]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
            worst = worst.max(norm(error) / norm(want));
        }
        eprintln!("the worst error of a force is {worst:.1e} of it");
        assert!(worst <= 1e-5);
    });
}
