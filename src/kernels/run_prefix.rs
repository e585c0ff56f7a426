//! Prefix sums of sixteen elements in vector registers, which compilers do not find by themselves.
//!
//! Every implementation adds the same pairs in the same order (Sklansky 1960): pairs of elements, then fours, eights
//! and all sixteen, where in each the right half gains the last sum of the left half. Where a vector instruction adds
//! to all lanes, the others gain 0, which can only turn -0 into +0.

use super::tree::Addend;

/// Elements of a run.
pub(crate) const RUN: usize = 16;

/// What there is to compute prefix sums with.
pub(crate) trait Lanes: Copy {
    /// The sums of the elements up to each, with it.
    fn prefix<T: Addend>(self, run: [T; RUN]) -> [T; RUN];

    /// 0 and all elements but the last.
    #[inline(always)]
    fn shifted<T: Addend>(self, run: [T; RUN]) -> [T; RUN] {
        let mut shifted = [T::ZERO; RUN];
        shifted[1..].copy_from_slice(&run[..RUN - 1]);
        shifted
    }
}

/// Work that is compiled for whatever lanes there are.
pub(crate) trait WithLanes {
    /// Does it. Must be `#[inline(always)]`.
    fn run<L: Lanes>(self, lanes: L);
}

/// Does `work` with the widest lanes that the processor at hand has.
pub(crate) fn with_lanes(work: impl WithLanes) {
    #[cfg(target_arch = "x86_64")]
    match pulp::Arch::new() {
        pulp::Arch::V4(simd) => return simd.vectorize(x86::Vectorised(simd, work)),
        pulp::Arch::V3(simd) => return simd.vectorize(x86::Vectorised(simd, work)),
        _ => {}
    }
    work.run(Portable);
}

/// Lanes of any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Lanes for Portable {
    #[inline(always)]
    fn prefix<T: Addend>(self, mut run: [T; RUN]) -> [T; RUN] {
        let mut half = 1;
        while half < RUN {
            for i in 0..RUN {
                if i & half != 0 {
                    run[i] = run[i].plus(run[(i & !(half - 1)) - 1]);
                }
            }
            half *= 2;
        }
        run
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Addend, Lanes, RUN, WithLanes};
    use crate::array::ElementType;
    use bytemuck::cast;
    use pulp::x86::{V3, V4};
    use std::arch::x86_64::{__m256, __m512i};

    /// Work with the lanes it is done with.
    pub(super) struct Vectorised<L, W>(pub(super) L, pub(super) W);

    impl<L: Lanes, W: WithLanes> pulp::NullaryFnOnce for Vectorised<L, W> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            self.1.run(self.0);
        }
    }

    /// Where the last sum of the left half is, for lanes in a right half of `half` lanes.
    const fn left_ends<const N: usize>(half: usize) -> [u32; N] {
        let mut index = [0; N];
        let mut i = 0;
        while i < N {
            if i & half != 0 {
                index[i] = ((i & !(half - 1)) - 1) as u32;
            }
            i += 1;
        }
        index
    }

    /// AVX-512: one register.
    impl Lanes for V4 {
        #[inline(always)]
        fn prefix<T: Addend>(self, run: [T; RUN]) -> [T; RUN] {
            let v = cast::<[u32; RUN], __m512i>(cast(run));
            let v = gain::<T>(self, v, 0b1010_1010_1010_1010, const { left_ends(1) });
            let v = gain::<T>(self, v, 0b1100_1100_1100_1100, const { left_ends(2) });
            let v = gain::<T>(self, v, 0b1111_0000_1111_0000, const { left_ends(4) });
            let v = gain::<T>(self, v, 0b1111_1111_0000_0000, const { left_ends(8) });
            cast(cast::<__m512i, [u32; RUN]>(v))
        }

        #[inline(always)]
        fn shifted<T: Addend>(self, run: [T; RUN]) -> [T; RUN] {
            let v = cast::<[u32; RUN], __m512i>(cast(run));
            let v = self
                .avx512f
                ._mm512_alignr_epi32::<15>(v, self.avx512f._mm512_setzero_si512());
            cast(cast::<__m512i, [u32; RUN]>(v))
        }
    }

    /// The lanes of `right` gain those at `index`.
    #[inline(always)]
    fn gain<T: Addend>(simd: V4, v: __m512i, right: u16, index: [u32; RUN]) -> __m512i {
        let gained = simd
            .avx512f
            ._mm512_maskz_permutexvar_epi32(right, cast(index), v);
        if T::TYPE == ElementType::F32 {
            cast(simd.avx512f._mm512_add_ps(cast(v), cast(gained)))
        } else {
            simd.avx512f._mm512_add_epi32(v, gained)
        }
    }

    /// AVX2: two registers.
    impl Lanes for V3 {
        #[inline(always)]
        fn prefix<T: Addend>(self, run: [T; RUN]) -> [T; RUN] {
            let [low, high]: [[u32; 8]; 2] = cast(cast::<_, [u32; RUN]>(run));
            let low = prefix_of_eight::<T>(self, cast(low));
            let high = prefix_of_eight::<T>(self, cast(high));
            let last = self.avx2._mm256_permutevar8x32_ps(low, cast([7u32; 8]));
            let high = add::<T>(self, high, last);
            cast::<[u32; RUN], _>(cast([cast::<_, [u32; 8]>(low), cast(high)]))
        }
    }

    #[inline(always)]
    fn prefix_of_eight<T: Addend>(simd: V3, v: __m256) -> __m256 {
        let zero = simd.avx._mm256_setzero_ps();
        let gained = simd.avx._mm256_permute_ps::<0b10_10_00_00>(v);
        let v = add::<T>(
            simd,
            v,
            simd.avx._mm256_blend_ps::<0b1010_1010>(zero, gained),
        );
        let gained = simd.avx._mm256_permute_ps::<0b01_01_01_01>(v);
        let v = add::<T>(
            simd,
            v,
            simd.avx._mm256_blend_ps::<0b1100_1100>(zero, gained),
        );
        let gained = simd.avx2._mm256_permutevar8x32_ps(v, cast([3u32; 8]));
        add::<T>(
            simd,
            v,
            simd.avx._mm256_blend_ps::<0b1111_0000>(zero, gained),
        )
    }

    #[inline(always)]
    fn add<T: Addend>(simd: V3, a: __m256, b: __m256) -> __m256 {
        if T::TYPE == ElementType::F32 {
            simd.avx._mm256_add_ps(a, b)
        } else {
            cast(simd.avx2._mm256_add_epi32(cast(a), cast(b)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Both<'a, T>([T; RUN], &'a mut Vec<[[T; RUN]; 2]>);

    impl<T: Addend> WithLanes for Both<'_, T> {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            let prefix = lanes.prefix(self.0);
            self.1.push([prefix, lanes.shifted(prefix)]);
        }
    }

    /// What every kind of lanes that this processor has makes of a run.
    fn everywhere<T: Addend>(run: [T; RUN]) -> Vec<[[T; RUN]; 2]> {
        let mut all = Vec::new();
        Both(run, &mut all).run(Portable);
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = pulp::x86::V3::try_new() {
                simd.vectorize(x86::Vectorised(simd, Both(run, &mut all)));
            }
            if let Some(simd) = pulp::x86::V4::try_new() {
                simd.vectorize(x86::Vectorised(simd, Both(run, &mut all)));
            }
        }
        with_lanes(Both(run, &mut all));
        all
    }

    #[test]
    fn all_lanes_give_the_same_bits() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..1000 {
            let run: [f32; RUN] =
                std::array::from_fn(|_| (rng.f32() - 0.5) * 10f32.powi(rng.i32(-8..8)));
            let all = everywhere(run);
            let bits = |v: &[[f32; RUN]; 2]| v.map(|v| v.map(f32::to_bits));
            assert!(all.iter().all(|v| bits(v) == bits(&all[0])), "{run:?}");
        }
    }

    #[test]
    fn integers_give_the_prefix_sums_that_wrap() {
        let run: [i32; RUN] = std::array::from_fn(|i| i32::MAX - 7 * i as i32);
        let mut sum = 0i32;
        let want = run.map(|x| {
            sum = sum.wrapping_add(x);
            sum
        });
        for [prefix, shifted] in everywhere(run) {
            assert_eq!(prefix, want);
            assert_eq!((shifted[0], &shifted[1..]), (0, &want[..RUN - 1]));
        }
    }
}
