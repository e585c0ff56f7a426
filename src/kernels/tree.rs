//! The one tree that adds up floating-point sums, for every device and every split of the array.
//!
//! Blocks of [`BLOCK`] elements are 256 columns by 16 rows. Each column adds its rows serially, starting from +0. The
//! 256 columns fold by halving (column c gains column c + 128, then c + 64, and so on). The same procedure then sums
//! the sums of the blocks, until one is left. The shape depends only on the number of elements. It keeps every lane of
//! a vector or a workgroup busy, and is 16 + 8 additions deep per level, so that the error stays far below that of a
//! serial sum.
//!
//! Missing elements of the last block add nothing. This module is the CPU's implementation and works on slices only.
//! `shaders/fold.wgsl` sums a block in the same way.

use crate::array::{Element, ElementType};
use crate::simd::{Lanes, Simd, VectorLoop};
use std::marker::PhantomData;

/// The elements of a block.
pub(crate) const BLOCK: usize = COLUMNS * ROWS;
/// Sums that a block computes side by side.
const COLUMNS: usize = 256;
/// Elements that a column adds serially.
const ROWS: usize = 16;

/// A type whose sums and scans Divvy computes: `f32`, and `u32` and `i32`, which wrap.
pub trait Addend: Element {
    /// The neutral element.
    const ZERO: Self;
    /// The type in which shaders add. One type serves all integers of a size, since wrapping addition is the same.
    #[doc(hidden)]
    const ADDED_AS: ElementType;

    /// The sum of two values; integers wrap.
    fn plus(self, other: Self) -> Self;

    /// A canonical value among those with the same meaning: +0 for the zeros, one bit pattern for all NaN.
    fn canonical(self) -> Self;
}

impl Addend for f32 {
    const ZERO: Self = 0.0;
    const ADDED_AS: ElementType = ElementType::F32;

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn canonical(self) -> Self {
        if self.is_nan() { Self::NAN } else { self + 0.0 }
    }
}

macro_rules! wrapping_addend {
    ($($T:ty),*) => {$(
        impl Addend for $T {
            const ZERO: Self = 0;
            const ADDED_AS: ElementType = ElementType::U32;

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            fn canonical(self) -> Self {
                self
            }
        }
    )*};
}
wrapping_addend!(u32, i32);

/// The terms of a sum: each is made of one element of each of `N` arrays.
pub trait Summand<T, const N: usize> {
    /// Computes the term. Must be `#[inline(always)]`.
    fn of(elements: [T; N]) -> T;
}

/// The terms of [`sum()`](super::sum()): the elements themselves.
#[derive(Debug)]
pub enum Itself {}

impl<T: Addend> Summand<T, 1> for Itself {
    #[inline(always)]
    fn of([x]: [T; 1]) -> T {
        x
    }
}

/// The sums of consecutive blocks. A term is made of the elements of `inputs` at one index. The slices have equal
/// length; `sums` has one element for each block that begins in them.
pub(crate) fn block_sums<T: Addend, Of: Summand<T, N>, const N: usize>(
    simd: Simd,
    inputs: [&[T]; N],
    sums: &mut [T],
) {
    let n = inputs[0].len();
    assert!(inputs.iter().all(|input| input.len() == n) && sums.len() == n.div_ceil(BLOCK));
    let of = PhantomData::<Of>;
    simd.run(BlockSums { inputs, sums, of });
}

/// The loop of [`block_sums`].
struct BlockSums<'a, T, Of, const N: usize> {
    inputs: [&'a [T]; N],
    sums: &'a mut [T],
    of: PhantomData<Of>,
}

impl<T: Addend, Of: Summand<T, N>, const N: usize> VectorLoop for BlockSums<'_, T, Of, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let n = self.inputs[0].len();
        for (b, sum) in self.sums.iter_mut().enumerate() {
            let elements = b * BLOCK..n.min((b + 1) * BLOCK);
            *sum = block_sum::<T, Of, N>(self.inputs.map(
                #[inline(always)]
                |input| &input[elements.clone()],
            ));
        }
    }
}

/// The sum of all elements, from their block sums. 0 if there are none.
pub(crate) fn total<T: Addend>(simd: Simd, sums: &[T]) -> T {
    match sums {
        [] => T::ZERO,
        [sum] => sum.canonical(),
        sums => {
            let mut next = vec![T::ZERO; sums.len().div_ceil(BLOCK)];
            block_sums::<T, Itself, 1>(simd, [sums], &mut next);
            total(simd, &next)
        }
    }
}

/// The sum of the terms of one block, or of those that exist of the last block.
#[inline(always)]
fn block_sum<T: Addend, Of: Summand<T, N>, const N: usize>(inputs: [&[T]; N]) -> T {
    // In two halves, because the compiler keeps an array of this length in registers, but not one of 256. Rows go in
    // order, so that memory is read forwards.
    const HALF: usize = COLUMNS / 2;
    let mut left = [T::ZERO; HALF];
    let mut right = [T::ZERO; HALF];
    let rows = inputs.map(|input| input.as_chunks::<COLUMNS>().0);
    for r in 0..rows[0].len() {
        let row = rows.map(|rows| &rows[r]);
        for (c, sum) in left.iter_mut().enumerate() {
            *sum = sum.plus(Of::of(row.map(|row| row[c])));
        }
        for (c, sum) in right.iter_mut().enumerate() {
            *sum = sum.plus(Of::of(row.map(|row| row[HALF + c])));
        }
    }
    let mut columns = [T::ZERO; COLUMNS];
    columns[..HALF].copy_from_slice(&left);
    columns[HALF..].copy_from_slice(&right);
    let rest = inputs.map(|input| input.as_chunks::<COLUMNS>().1);
    for (c, sum) in columns.iter_mut().enumerate().take(rest[0].len()) {
        *sum = sum.plus(Of::of(rest.map(|rest| rest[c])));
    }
    let mut half = HALF;
    while half > 0 {
        let (low, high) = columns.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low = low.plus(*high);
        }
        half /= 2;
    }
    columns[0]
}

/// The most roundings between an element and the sum of `n` elements. They bound its error, in units of u·Σ|x|.
pub(crate) fn depth(n: usize) -> usize {
    (ROWS + COLUMNS.ilog2() as usize) * levels(n, BLOCK)
}

/// The levels of a tree that reduces `block` elements to one; at least one level.
pub(super) fn levels(n: usize, block: usize) -> usize {
    match n.div_ceil(block) {
        0 | 1 => 1,
        blocks => 1 + levels(blocks, block),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;
    use proptest::prelude::*;

    const SIZES: &[usize] = &[
        0,
        1,
        2,
        255,
        256,
        257,
        1000,
        4095,
        4096,
        4097,
        100_003,
        4096 * 4096 + 1,
    ];

    fn sum<T: Addend>(x: &[T]) -> T {
        sum_with(Simd::best(), x)
    }

    fn sum_with<T: Addend>(simd: Simd, x: &[T]) -> T {
        let mut sums = vec![T::ZERO; x.len().div_ceil(BLOCK)];
        block_sums::<T, Itself, 1>(simd, [x], &mut sums);
        total(simd, &sums)
    }

    /// The tree as the module describes it, element by element.
    fn by_the_book(x: &[f32]) -> f32 {
        let mut level = x.to_vec();
        loop {
            level = level
                .chunks(4096)
                .map(|block| {
                    let mut columns = [0.0f32; 256];
                    block
                        .iter()
                        .enumerate()
                        .for_each(|(i, x)| columns[i % 256] += x);
                    for half in [128, 64, 32, 16, 8, 4, 2, 1] {
                        (0..half).for_each(|c| columns[c] += columns[c + half]);
                    }
                    columns[0]
                })
                .collect();
            if level.len() <= 1 {
                return level.first().map_or(0.0, |sum| sum + 0.0);
            }
        }
    }

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n)
            .map(|_| (rng.f32() * 2.0 - 1.0) * 10f32.powi(rng.i32(-6..5)))
            .collect()
    }

    #[test]
    fn sums_follow_the_documented_tree_bit_by_bit() {
        for &n in SIZES {
            let x = random(n, n as u64);
            for set in InstructionSet::available() {
                let simd = Simd::new(set).expect("it is available");
                let (got, want) = (sum_with(simd, &x), by_the_book(&x));
                assert_eq!(got.to_bits(), want.to_bits(), "n={n} {set}");
            }
        }
    }

    #[test]
    fn sums_stay_within_the_error_bound_of_the_tree() {
        for &n in SIZES {
            let x = random(n, 7 + n as u64);
            let exact: f64 = x.iter().map(|x| f64::from(*x)).sum();
            let magnitude: f64 = x.iter().map(|x| f64::from(x.abs())).sum();
            let error = (f64::from(sum(&x)) - exact).abs();
            let bound = depth(n) as f64 * f64::from(f32::EPSILON) / 2.0 * magnitude;
            assert!(error <= bound, "n={n}: {error:e} > {bound:e}");
        }
    }

    #[test]
    fn integers_wrap() {
        let x: Vec<i32> = (0..10_000).map(|i| i32::MAX - i).collect();
        assert_eq!(sum(&x), x.iter().fold(0, |a: i32, x| a.wrapping_add(*x)));
        let x: Vec<u32> = (0..10_000).map(|i| u32::MAX - i).collect();
        assert_eq!(sum(&x), x.iter().fold(0, |a: u32, x| a.wrapping_add(*x)));
    }

    #[test]
    fn zeros_and_nan_have_one_bit_pattern() {
        assert_eq!(sum(&[-0.0f32; 300]).to_bits(), 0);
        assert_eq!(sum::<f32>(&[]).to_bits(), 0);
        let odd_nan = f32::from_bits(0xffc0_1234);
        assert_eq!(sum(&[1.0, odd_nan, 2.0]).to_bits(), f32::NAN.to_bits());
        assert_eq!(sum(&[f32::INFINITY, 1.0]), f32::INFINITY);
    }

    proptest! {
        #[test]
        fn cuts_at_block_borders_do_not_change_the_sum(
            n in 0usize..30_000, cuts in prop::collection::vec(0usize..8, 0..4), seed: u64,
        ) {
            let x = random(n, seed);
            let mut borders: Vec<usize> = cuts.into_iter().map(|c| (c * BLOCK).min(n)).collect();
            borders.extend([0, n]);
            borders.sort_unstable();
            let mut sums = Vec::new();
            for part in borders.windows(2) {
                let mut part_sums = vec![0.0; (part[1] - part[0]).div_ceil(BLOCK)];
                let part = &x[part[0]..part[1]];
                block_sums::<f32, Itself, 1>(Simd::best(), [part], &mut part_sums);
                sums.extend(part_sums);
            }
            prop_assert_eq!(total(Simd::best(), &sums).to_bits(), sum(&x).to_bits());
        }
    }
}
