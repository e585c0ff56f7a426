//! Gravity between all pairs, written by hand for AVX-512 as such loops usually are: the estimate of the reciprocal
//! square root, one Newton step, two vectors of targets at once. What the CPU kernel is measured against.

use rayon::prelude::*;

/// Bodies as columns, padded with massless ones to a multiple of [`TARGETS`].
pub struct Bodies {
    x: Vec<f32>,
    y: Vec<f32>,
    z: Vec<f32>,
    mass: Vec<f32>,
}

/// Targets at once: two vectors.
const TARGETS: usize = 32;

impl Bodies {
    /// From rows of x, y, z and mass. `None` where there is no AVX-512.
    pub fn new(rows: &[f32]) -> Option<Self> {
        let len = (rows.len() / 4).next_multiple_of(TARGETS);
        let column = |axis: usize| {
            let mut column: Vec<f32> = rows.chunks_exact(4).map(|row| row[axis]).collect();
            column.resize(len, 0.0);
            column
        };
        supported().then(|| Self {
            x: column(0),
            y: column(1),
            z: column(2),
            mass: column(3),
        })
    }

    /// Room for the accelerations: three columns for each group of [`TARGETS`].
    pub fn room(&self) -> Vec<f32> {
        vec![0.0; 3 * self.x.len()]
    }

    /// Computes all accelerations, on all of rayon's threads.
    pub fn attract(&self, softening2: f32, accelerations: &mut [f32]) {
        accelerations
            .par_chunks_exact_mut(3 * TARGETS)
            .enumerate()
            .for_each(|(group, accelerations)| {
                let first = group * TARGETS;
                assert!(first + TARGETS <= self.x.len() && accelerations.len() == 3 * TARGETS);
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `new` made sure of AVX-512, and the ranges were just checked.
                unsafe {
                    self.attract_group(softening2, first, accelerations);
                }
                #[cfg(not(target_arch = "x86_64"))]
                let _ = (softening2, &self.y, &self.z, &self.mass);
            });
    }

    /// # Safety
    /// The processor has AVX-512F; `first + TARGETS` bodies and `3 * TARGETS` accelerations exist.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn attract_group(&self, softening2: f32, first: usize, accelerations: &mut [f32]) {
        use std::arch::x86_64::*;
        let softening2 = _mm512_set1_ps(softening2);
        let half = _mm512_set1_ps(0.5);
        let three_halves = _mm512_set1_ps(1.5);
        // SAFETY: two vectors from `first` are within the columns.
        let load = |column: &[f32]| unsafe {
            let start = column.as_ptr().add(first);
            [_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(16))]
        };
        let (x, y, z) = (load(&self.x), load(&self.y), load(&self.z));
        let mut sums = [[_mm512_setzero_ps(); 2]; 3];
        let sources = self.x.iter().zip(&self.y).zip(&self.z).zip(&self.mass);
        for (((sx, sy), sz), mass) in sources {
            let [sx, sy, sz, mass] = [sx, sy, sz, mass].map(|value| _mm512_set1_ps(*value));
            for k in 0..2 {
                let dx = _mm512_sub_ps(sx, x[k]);
                let dy = _mm512_sub_ps(sy, y[k]);
                let dz = _mm512_sub_ps(sz, z[k]);
                let d = _mm512_fmadd_ps(dz, dz, softening2);
                let d = _mm512_fmadd_ps(dx, dx, _mm512_fmadd_ps(dy, dy, d));
                let inverse = _mm512_rsqrt14_ps(d);
                let error = _mm512_mul_ps(_mm512_mul_ps(half, d), inverse);
                let newton = _mm512_fnmadd_ps(error, inverse, three_halves);
                let inverse = _mm512_mul_ps(inverse, newton);
                let strength = _mm512_mul_ps(
                    _mm512_mul_ps(mass, inverse),
                    _mm512_mul_ps(inverse, inverse),
                );
                sums[0][k] = _mm512_fmadd_ps(strength, dx, sums[0][k]);
                sums[1][k] = _mm512_fmadd_ps(strength, dy, sums[1][k]);
                sums[2][k] = _mm512_fmadd_ps(strength, dz, sums[2][k]);
            }
        }
        for (i, sum) in sums.as_flattened().iter().enumerate() {
            // SAFETY: six vectors are 3 * TARGETS accelerations.
            unsafe { _mm512_storeu_ps(accelerations.as_mut_ptr().add(16 * i), *sum) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn supported() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn supported() -> bool {
    false
}
