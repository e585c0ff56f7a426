//! `nbody_accelerations` in the catalog.

use super::{Entry, Exact, Generator, NewCase, Size, bind, product};
use crate::kernels::nbody::{MEDIAN_ERROR, WIDTH, WORST_ERROR, exact, nbody_accelerations};

pub(super) const ENTRY: Entry = Entry {
    name: "nbody",
    about: "accelerations of bodies that attract each other (softened, direct sum)",
    size: Size::Bodies,
    types: types!(T: f32 => case),
    bitwise: false,
    bench_sizes: &[256, 1024, 4096, 16_384],
    audit_sizes: &[64, 256, 1024, 2048, 8192],
};

fn case(n: usize, draw: &mut Generator) -> NewCase {
    const SOFTENING: f32 = 0.01;
    let len = product("nbody", n, WIDTH)?;
    let bodies = draw.input_with(len, |_, rng| random_bodies(n, rng))?;
    let (mut a, rows) = (draw.output(len)?, draw.rows(n, 512));
    let kernel = nbody_accelerations(SOFTENING, &bodies.array, &mut a.array).kernel;
    bind(kernel, (bodies, a), move |check, (bodies, a), ()| {
        let (all, _) = bodies.drawn.as_chunks();
        let mut errors = check.rows(a, WIDTH, &rows, |target| {
            let [x, y, z] = exact(&all[target], all, SOFTENING);
            [x, y, z, 0.0].map(Exact::of).to_vec()
        })?;
        check.require(is_near_for_most(&mut errors));
        let written = a.array.read()?;
        let is_fine = |row: &[f32]| row.iter().all(|x| x.is_finite()) && row[3] == 0.0;
        check.require(written.chunks(WIDTH).all(is_fine));
        Ok(())
    })
}

/// Whether half of the errors, as shares of the largest accepted one, are within the bound of the median.
fn is_near_for_most(errors: &mut [f64]) -> bool {
    errors.sort_unstable_by(f64::total_cmp);
    let median = errors.get(errors.len() / 2).unwrap_or(&0.0);
    median * WORST_ERROR <= MEDIAN_ERROR
}

/// Bodies around the origin, some tightly bound and some far away, with masses of several magnitudes. All masses are
/// positive: where attractions cancel, a relative error of the remainder says nothing.
fn random_bodies(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let mut all = Vec::with_capacity(n * WIDTH);
    for _ in 0..n {
        let scale = [1e-3, 1e3].get(rng.usize(..16)).unwrap_or(&1.0);
        all.extend([(); 3].map(|()| scale * (2.0 * rng.f32() - 1.0)));
        all.push(10f32.powf(3.0 * rng.f32() - 3.0));
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_applies_the_bound_of_the_median() {
        let ok = |errors: &[f64]| super::is_near_for_most(&mut errors.to_vec());
        assert!(ok(&[]) && ok(&[0.0]) && ok(&[1e-2, 1e-2, 0.9]) && ok(&[0.9, 0.19, 0.1]));
        assert!(!ok(&[1e-2, 0.21, 0.21]) && !ok(&[1e-2, 0.21]) && !ok(&[f64::INFINITY]));
    }
}
