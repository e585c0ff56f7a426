//! Bodies that attract each other and heat on a grid: what their physics promises, wherever they are computed.
//!
//! That single steps are accurate at all placements is tested for the whole catalog in `catalog.rs`.

mod support;

use divvy::prelude::*;
use divvy::{Error, Result};

const SOFTENING: f32 = 0.05;

/// A cloud of light bodies, slowly turning about the z axis: positions and masses, and velocities.
fn cloud(n: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut bodies, mut velocities) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let [x, y, z] = [(); 3].map(|()| rng.f32() * 2.0 - 1.0);
        bodies.extend([x, y, z, 1.0 / n as f32]);
        velocities.extend([-0.3 * y, 0.3 * x, 0.0, 7.0]);
    }
    (bodies, velocities)
}

/// A simulation under way.
struct Simulation<'r> {
    rt: &'r Runtime,
    placement: Placement,
    softening: f32,
    bodies: Array<f32>,
    velocities: Array<f32>,
    accelerations: Array<f32>,
}

impl<'r> Simulation<'r> {
    fn new(
        rt: &'r Runtime,
        placement: Placement,
        softening: f32,
        (bodies, velocities): (&[f32], &[f32]),
    ) -> Result<Self> {
        let bodies = rt.array_from(bodies)?;
        let mut accelerations = rt.uninit(bodies.len())?;
        let forces = nbody_accelerations(softening, &bodies, &mut accelerations);
        rt.run(forces.on(placement.clone()))?;
        let velocities = rt.array_from(velocities)?;
        Ok(Self {
            rt,
            placement,
            softening,
            bodies,
            velocities,
            accelerations,
        })
    }

    fn step(&mut self, dt: f32) -> Result<divvy::Report> {
        let Self {
            bodies,
            velocities,
            accelerations,
            ..
        } = self;
        let step = leapfrog_step(dt, self.softening, bodies, velocities, accelerations);
        Ok(self.rt.run(step.on(self.placement.clone()))?.report)
    }

    fn steps(&mut self, dt: f32, steps: usize) -> Result<()> {
        (0..steps).try_for_each(|_| self.step(dt).map(drop))
    }

    fn energy(&self) -> Result<f64> {
        Ok(nbody_energy(self.softening, &self.bodies, &self.velocities)?.total())
    }
}

/// The largest difference between elements.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |max, d| if d <= max { max } else { d })
}

#[test]
fn bodies_at_the_same_place_do_not_attract_each_other_even_without_softening() -> Result<()> {
    let rt = support::runtime();
    // Three at one place and one apart.
    let mut rows = [1.0, 2.0, 3.0, 1e6].repeat(3);
    rows.extend([2.0, 2.0, 3.0, 1.0]);
    for placement in support::placements(rt) {
        let bodies = rt.array_from(&rows)?;
        let mut accelerations = rt.uninit(rows.len())?;
        rt.run(nbody_accelerations(0.0, &bodies, &mut accelerations).on(placement.clone()))?;
        let mut want = [1.0, 0.0, 0.0, 0.0].repeat(3);
        want.extend([-3e6, 0.0, 0.0, 0.0]);
        for (got, want) in accelerations.read()?.iter().zip(&want) {
            assert!(
                (got - want).abs() <= 1e-6 * want.abs(),
                "{placement}: {got} for {want}"
            );
        }
    }
    Ok(())
}

#[test]
fn accelerations_hold_for_extreme_units() -> Result<()> {
    let rt = support::runtime();
    for placement in support::placements(rt) {
        for (distance, mass) in [(1e12f32, 1e20f32), (1e-6, 1e-12), (1e-3, 1e7), (1e15, 1e30)] {
            let bodies = rt.array_from(&[0.0, 0.0, 0.0, mass, 0.0, distance, 0.0, mass])?;
            let mut accelerations = rt.uninit(8)?;
            rt.run(nbody_accelerations(0.0, &bodies, &mut accelerations).on(placement.clone()))?;
            let want = f64::from(mass) / f64::from(distance).powi(2);
            let got = accelerations.to_vec()?;
            for (i, sign) in [(1, 1.0), (5, -1.0)] {
                let got = sign * f64::from(got[i]);
                assert!(
                    (got / want - 1.0).abs() < 2e-6,
                    "{placement}: {got:e} for {want:e} at a distance of {distance:e}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn momentum_and_energy_are_kept_and_masses_are_left_alone() -> Result<()> {
    let rt = support::runtime();
    let (bodies, velocities) = cloud(700, 1);
    for placement in support::placements(rt) {
        let mut run = Simulation::new(rt, placement.clone(), SOFTENING, (&bodies, &velocities))?;
        let momentum = |velocities: &[f32], axis: usize| -> f64 {
            velocities
                .chunks_exact(4)
                .map(|v| f64::from(v[axis]))
                .sum::<f64>()
                / 700.0
        };
        let energy = run.energy()?;
        run.steps(0.005, 100)?;
        let drift = (run.energy()? / energy - 1.0).abs();
        assert!(drift < 2e-4, "{placement}: the energy changed by {drift:e}");
        let after = run.velocities.to_vec()?;
        for axis in 0..3 {
            let change = momentum(&after, axis) - momentum(&velocities, axis);
            assert!(
                change.abs() < 1e-6,
                "{placement}: the momentum changed by {change:e}"
            );
        }
        assert!(
            after.chunks_exact(4).all(|v| v[3] == 7.0),
            "{placement}: fourth elements"
        );
        assert!(
            run.bodies
                .read()?
                .chunks_exact(4)
                .all(|b| b[3] == 1.0 / 700.0),
            "{placement}"
        );
        assert!(
            distance(&run.bodies.read()?, &bodies) > 0.01,
            "{placement}: nothing moved"
        );
    }
    Ok(())
}

#[test]
fn steps_back_in_time_lead_back() -> Result<()> {
    let rt = support::runtime();
    let (bodies, velocities) = cloud(300, 2);
    for placement in support::placements(rt) {
        let mut run = Simulation::new(rt, placement.clone(), SOFTENING, (&bodies, &velocities))?;
        run.steps(0.01, 50)?;
        assert!(
            distance(&run.bodies.read()?, &bodies) > 0.05,
            "{placement}: nothing moved"
        );
        run.steps(-0.01, 50)?;
        let away = distance(&run.bodies.read()?, &bodies);
        let faster = distance(&run.velocities.read()?, &velocities);
        assert!(
            away < 5e-5 && faster < 5e-4,
            "{placement}: {away:e} away, {faster:e} faster"
        );
    }
    Ok(())
}

#[test]
fn half_the_step_is_a_quarter_of_the_error() -> Result<()> {
    let rt = support::runtime();
    for placement in support::placements(rt) {
        // A light body on a circle, after one turn: all that is left is the error.
        let error = |steps: u16| -> Result<f64> {
            let bodies = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1e-9];
            let velocities = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
            let start = (&bodies[..], &velocities[..]);
            let mut run = Simulation::new(rt, placement.clone(), 0.0, start)?;
            run.steps(std::f32::consts::TAU / f32::from(steps), steps.into())?;
            let r = run.bodies.to_vec()?;
            Ok(f64::from(r[4] - 1.0).hypot(f64::from(r[5])))
        };
        let ratio = error(40)? / error(80)?;
        assert!((3.8..4.2).contains(&ratio), "{placement}: {ratio}");
    }
    Ok(())
}

#[test]
fn bodies_stay_where_they_are_computed_and_a_split_exchanges_only_positions() -> Result<()> {
    let rt = support::runtime();
    if !support::has_gpu(rt) {
        return Ok(());
    }
    let (bodies, velocities) = cloud(256, 3);
    let moved = |placement: Placement| -> Result<(u64, u64)> {
        let mut run = Simulation::new(rt, placement, SOFTENING, (&bodies, &velocities))?;
        run.steps(0.01, 2)?;
        let moved = run.step(0.01)?.moved;
        Ok((moved.to_device, moved.to_host))
    };
    assert_eq!(moved(Placement::Cpu)?, (0, 0));
    assert_eq!(moved(Placement::Gpu(0))?, (0, 0));
    // Each device needs the positions, of 16 bytes, of the other's bodies.
    assert_eq!(moved(Placement::split(0.5))?, (128 * 16, 128 * 16));
    assert_eq!(moved(Placement::split(0.25))?, (192 * 16, 64 * 16));
    Ok(())
}

#[test]
fn no_bodies_and_one_body_are_simulations_too() -> Result<()> {
    let rt = support::runtime();
    for placement in support::placements(rt) {
        let mut none = Simulation::new(rt, placement.clone(), 0.0, (&[], &[]))?;
        none.step(1.0)?;
        assert_eq!(none.energy()?, 0.0);
        let start: (&[f32], &[f32]) = (&[1.0, 2.0, 3.0, 4.0], &[0.5, 0.0, -0.5, 0.0]);
        let mut one = Simulation::new(rt, placement.clone(), 0.0, start)?;
        one.step(2.0)?;
        assert_eq!(*one.bodies.read()?, [2.0, 2.0, 2.0, 4.0], "{placement}");
    }
    Ok(())
}

#[test]
fn mistakes_in_simulations_are_explained_and_change_nothing() -> Result<()> {
    let rt = support::runtime();
    let text = |result: Result<()>| result.expect_err("it is a mistake").to_string();
    let (bodies, velocities) = cloud(8, 4);
    let [mut r, mut v] = [rt.array_from(&bodies)?, rt.array_from(&velocities)?];
    let mut a = rt.filled(32, 1.0f32)?;
    let mut short = rt.filled(28, 0.0f32)?;
    for (dt, softening, expected) in [
        (f32::NAN, 0.1, "`dt` is NaN"),
        (f32::INFINITY, 0.1, "`dt` is inf"),
        (0.1, -0.5, "`softening` is -0.5"),
        (0.1, f32::NAN, "`softening` is NaN"),
        (0.1, 1e30, "from 0 to 1e19"),
    ] {
        let step = leapfrog_step(dt, softening, &mut r, &mut v, &mut a);
        let text = text(rt.run(step).map(drop));
        assert!(text.contains(expected), "{text}");
    }
    let message = text(
        rt.run(leapfrog_step(0.1, 0.1, &mut r, &mut short, &mut a))
            .map(drop),
    );
    assert!(
        message.contains("`velocities` has 28") && message.contains("32 are needed"),
        "{message}"
    );
    let message = text(
        rt.run(leapfrog_step(0.1, 0.1, &mut r, &mut v, &mut short))
            .map(drop),
    );
    assert!(message.contains("`accelerations` has 28"), "{message}");
    let odd = rt.filled(30, 0.0f32)?;
    let message = text(rt.run(nbody_accelerations(0.1, &odd, &mut a)).map(drop));
    assert!(
        message.contains("30 elements") && message.contains("x, y, z and its mass"),
        "{message}"
    );
    let message = text(nbody_energy(0.1, &r, &short).map(drop));
    assert!(message.contains("`velocities` has 28"), "{message}");
    assert_eq!(r.to_vec()?, bodies);
    assert_eq!(v.to_vec()?, velocities);
    assert_eq!(a.to_vec()?, [1.0; 32]);
    Ok(())
}

/// Steps of a grid on the given placement.
fn heat(
    placement: &Placement,
    shape: (usize, usize),
    r: f32,
    border: Border,
    cells: &[f32],
    steps: usize,
) -> Result<Vec<f32>> {
    let rt = support::runtime();
    let mut u = rt.array_from(cells)?;
    let mut next = rt.filled(cells.len(), f32::NAN)?;
    for _ in 0..steps {
        rt.run(heat_step(shape.0, shape.1, r, border, &u, &mut next).on(placement.clone()))?;
        std::mem::swap(&mut u, &mut next);
    }
    u.to_vec()
}

/// The same in f64, written as the definition reads.
fn exact_heat(
    (rows, cols): (usize, usize),
    r: f32,
    border: Border,
    cells: &[f32],
    steps: usize,
) -> Vec<f64> {
    let mut u: Vec<f64> = cells.iter().map(|u| f64::from(*u)).collect();
    for _ in 0..steps {
        let at = |i: usize, j: usize| u[i * cols + j];
        let mut next = u.clone();
        for i in 0..rows {
            for j in 0..cols {
                let edge = i == 0 || j == 0 || i + 1 == rows || j + 1 == cols;
                if edge && border == Border::Fixed {
                    continue;
                }
                let up = if i > 0 { at(i - 1, j) } else { at(i, j) };
                let down = if i + 1 < rows { at(i + 1, j) } else { at(i, j) };
                let left = if j > 0 { at(i, j - 1) } else { at(i, j) };
                let right = if j + 1 < cols { at(i, j + 1) } else { at(i, j) };
                let flow = up + down + left + right - 4.0 * at(i, j);
                next[i * cols + j] = at(i, j) + f64::from(r) * flow;
            }
        }
        u = next;
    }
    u
}

#[test]
fn heat_agrees_with_f64_over_many_steps_for_every_shape_and_cut() -> Result<()> {
    const STEPS: usize = 10;
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    // Splits cut at multiples of 64 rows.
    let shapes = [
        (1, 1),
        (1, 64),
        (1, 257),
        (200, 1),
        (300, 2),
        (130, 3),
        (257, 16),
        (193, 33),
    ];
    for shape in shapes {
        let cells: Vec<f32> = (0..shape.0 * shape.1)
            .map(|_| rng.f32() * 2.0 - 1.0)
            .collect();
        for border in [Border::Insulated, Border::Fixed] {
            let want = exact_heat(shape, 0.23, border, &cells, STEPS);
            for placement in support::placements(support::runtime()) {
                let got = heat(&placement, shape, 0.23, border, &cells, STEPS)?;
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        error <= STEPS as f64 * 7.0 * f64::from(f32::EPSILON) / 2.0,
                        "{shape:?} {border:?} on {placement}, cell {i}: {got} for {want}, seed {seed}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_insulated_plate_keeps_its_heat_and_a_fixed_border_its_temperature() -> Result<()> {
    let shape = (150, 40);
    let mut rng = fastrand::Rng::with_seed(5);
    let cells: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.f32()).collect();
    let total = |cells: &[f32]| cells.iter().map(|u| f64::from(*u)).sum::<f64>();
    for placement in support::placements(support::runtime()) {
        let end = heat(&placement, shape, 0.25, Border::Insulated, &cells, 200)?;
        let share = total(&end) / total(&cells);
        assert!(
            (share - 1.0).abs() < 1e-6,
            "{placement}: {share} of the heat is left"
        );
        let spread = |cells: &[f32]| {
            cells.iter().fold(f32::MIN, |max, u| max.max(*u))
                - cells.iter().fold(f32::MAX, |min, u| min.min(*u))
        };
        assert!(
            spread(&end) < 0.3 * spread(&cells),
            "{placement}: it does not even out"
        );

        let end = heat(&placement, shape, 0.25, Border::Fixed, &cells, 200)?;
        for (i, (before, after)) in cells.iter().zip(&end).enumerate() {
            let (row, col) = (i / shape.1, i % shape.1);
            if row == 0 || row + 1 == shape.0 || col == 0 || col + 1 == shape.1 {
                assert_eq!(before, after, "{placement}: cell ({row}, {col})");
            }
        }
    }
    Ok(())
}

#[test]
fn grids_longer_than_a_dispatch_in_either_direction_are_stepped() -> Result<()> {
    // More workgroups than a dispatch has along x, and more strips than it has along y.
    for shape in [(1, 64 * 65_535 + 5), (8 * 65_535 + 3, 1)] {
        let cells: Vec<f32> = (0..shape.0 * shape.1).map(|i| (i % 7) as f32).collect();
        let want = exact_heat(shape, 0.2, Border::Insulated, &cells, 1);
        for placement in support::placements(support::runtime()) {
            let got = heat(&placement, shape, 0.2, Border::Insulated, &cells, 1)?;
            let wrong = got
                .iter()
                .zip(&want)
                .position(|(g, w)| (f64::from(*g) - w).abs() > 3e-6);
            assert_eq!(wrong, None, "{shape:?} on {placement}");
        }
    }
    Ok(())
}

#[test]
fn empty_grids_are_stepped_without_effect() -> Result<()> {
    for placement in support::placements(support::runtime()) {
        for shape in [(0, 0), (0, 5), (5, 0)] {
            assert!(heat(&placement, shape, 0.2, Border::Fixed, &[], 2)?.is_empty());
        }
    }
    Ok(())
}

#[test]
fn mistakes_in_heat_steps_are_explained() -> Result<()> {
    let rt = support::runtime();
    let u = rt.filled(12, 1.0f32)?;
    let mut next = rt.filled(12, 2.0f32)?;
    for r in [0.0, -0.1, 0.2501, f32::NAN, f32::INFINITY] {
        let error = rt
            .run(heat_step(3, 4, r, Border::Fixed, &u, &mut next))
            .map(drop);
        let text = error.expect_err("unstable").to_string();
        assert!(
            text.contains(&format!("`r` is {r}")) && text.contains("0.25"),
            "{text}"
        );
    }
    let error = rt
        .run(heat_step(3, 5, 0.1, Border::Fixed, &u, &mut next))
        .map(drop);
    let text = error.expect_err("too few").to_string();
    assert!(
        text.contains("`u` has 12") && text.contains("3 rows of 5"),
        "{text}"
    );
    let mut short = rt.filled(11, 2.0f32)?;
    let error = rt
        .run(heat_step(3, 4, 0.1, Border::Fixed, &u, &mut short))
        .map(drop);
    assert!(
        error
            .expect_err("too few")
            .to_string()
            .contains("`next` has 11")
    );
    let error = rt.run(heat_step(usize::MAX, 2, 0.1, Border::Fixed, &u, &mut next));
    assert!(matches!(error, Err(Error::TooLarge { .. })));
    assert_eq!(next.to_vec()?, [2.0; 12]);
    Ok(())
}

#[test]
fn no_body_is_left_out_of_more_than_a_software_adapter_loops_over() {
    let rt = support::runtime();
    if !support::has_gpu(rt) {
        return;
    }
    // One at the origin, all others at one place, where they do not attract each other.
    let n = 70_000;
    let mass = 2f32.powi(-17);
    let mut elements = [1.0, 0.0, 0.0, mass].repeat(n);
    elements[0] = 0.0;
    let bodies = rt.array_from(&elements).expect("bodies");
    let mut accelerations = rt.uninit(4 * n).expect("accelerations");
    let call = nbody_accelerations(0.0, &bodies, &mut accelerations);
    rt.run(call.on(Placement::Gpu(0))).expect("it runs");
    let got = accelerations.read().expect("accelerations");
    let want = (n - 1) as f32 * mass;
    assert!((got[0] - want).abs() <= 1e-5 * want, "{} {want}", got[0]);
    let last = got[4 * (n - 1)];
    assert!((last + mass).abs() <= 1e-5 * mass, "{last} {mass}");
}
