//! Random elements, and the poison of unwritten ones.

use super::Exact;
use crate::array::Element;

/// Elements that a kernel must write hold this before it runs: these two bytes, repeated. It is a NaN in every
/// floating-point type, and no integer that results are likely to have.
pub const POISON: [u8; 2] = 0x7ffd_u16.to_ne_bytes();

/// Element types for which random arguments can be drawn.
pub trait Sample: Element {
    /// `n` random elements: both signs if the type has them, tiny and large magnitudes.
    fn random(n: usize, rng: &mut fastrand::Rng) -> Vec<Self>;

    /// The value, exactly.
    fn exact(self) -> Exact;

    /// The nearest element; for integers, the lowest bits.
    fn rounded(exact: Exact) -> Self;
}

impl Sample for f32 {
    fn random(n: usize, rng: &mut fastrand::Rng) -> Vec<Self> {
        random_f32(n, rng)
    }

    fn exact(self) -> Exact {
        Exact::of(self.into())
    }

    fn rounded(exact: Exact) -> Self {
        exact.real as Self
    }
}

macro_rules! integers {
    ($($T:ident),*) => {$(
        impl Sample for $T {
            fn random(n: usize, rng: &mut fastrand::Rng) -> Vec<Self> {
                let mut next = || rng.$T(..) >> (8 * rng.u32(0..size_of::<$T>() as u32));
                (0..n).map(|_| next()).collect()
            }

            fn exact(self) -> Exact {
                let integer = self as u64;
                Exact { integer, ..Exact::of(self as f64) }
            }

            fn rounded(exact: Exact) -> Self {
                exact.integer as Self
            }
        }
    )*};
}
integers!(u32, i32);

/// Random inputs: both signs, tiny and large magnitudes, no subnormals.
pub fn random_f32(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let mut next = || {
        let magnitude = [1e-6, 1e4].get(rng.usize(..16)).unwrap_or(&1.0);
        let x = (rng.f32() * 2.0 - 1.0) * magnitude;
        if x.is_subnormal() { 0.0 } else { x }
    };
    (0..n).map(|_| next()).collect()
}
