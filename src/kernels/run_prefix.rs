//! Prefix sums of sixteen elements in vector registers. Compilers do not find this code by themselves.
//!
//! Every implementation adds the same pairs in the same order (Sklansky 1960): pairs of elements, then fours, eights
//! and all sixteen. At each level the right half gains the last sum of the left half. Where a vector instruction adds
//! to all lanes, the others gain 0, which can only turn -0 into +0.

use super::tree::Addend;
use crate::simd::Lanes;
#[cfg(target_arch = "x86_64")]
use crate::simd::Token;

/// Elements of a run.
pub(crate) const RUN: usize = 16;

/// The inclusive prefix sums.
#[inline(always)]
pub(crate) fn prefix_of_run<T: Addend, L: Lanes>(lanes: L, run: [T; RUN]) -> [T; RUN] {
    match lanes.token() {
        #[cfg(target_arch = "x86_64")]
        Token::Avx512(simd) => x86::prefix_of_sixteen(simd, run),
        #[cfg(target_arch = "x86_64")]
        Token::Avx2(simd) => x86::prefix_of_two_eights(simd, run),
        _ => prefix_by_halves(run),
    }
}

/// 0, followed by all elements but the last.
#[inline(always)]
pub(crate) fn shifted<T: Addend, L: Lanes>(lanes: L, run: [T; RUN]) -> [T; RUN] {
    match lanes.token() {
        #[cfg(target_arch = "x86_64")]
        Token::Avx512(simd) => x86::shifted_sixteen(simd, run),
        #[cfg(target_arch = "x86_64")]
        Token::Avx2(simd) => x86::shifted_two_eights(simd, run),
        _ => {
            let mut shifted = [T::ZERO; RUN];
            shifted[1..].copy_from_slice(&run[..RUN - 1]);
            shifted
        }
    }
}

/// The same elements with another last one.
#[inline(always)]
pub(crate) fn with_last<T: Addend, L: Lanes>(lanes: L, mut run: [T; RUN], last: T) -> [T; RUN] {
    match lanes.token() {
        #[cfg(target_arch = "x86_64")]
        Token::Avx512(simd) => x86::sixteen_with_last(simd, run, last),
        _ => {
            run[RUN - 1] = last;
            run
        }
    }
}

/// The sums in portable code.
#[inline(always)]
fn prefix_by_halves<T: Addend>(mut run: [T; RUN]) -> [T; RUN] {
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

/// Sixteen elements are one register of AVX-512, or two of AVX2.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Addend, RUN};
    use crate::array::ElementType;
    use bytemuck::cast;
    use pulp::x86::{V3, V4};
    use std::arch::x86_64::{__m256, __m256i, __m512i};

    #[inline(always)]
    pub(super) fn prefix_of_sixteen<T: Addend>(simd: V4, run: [T; RUN]) -> [T; RUN] {
        let v = cast::<[u32; RUN], __m512i>(cast(run));
        let zero = simd.avx512f._mm512_setzero_ps();
        let gained = simd.avx512f._mm512_slli_epi64::<32>(v);
        let v = add_16::<T>(simd, v, gained);
        let gained = simd
            .avx512f
            ._mm512_shuffle_ps::<0b01_01_00_00>(zero, cast(v));
        let v = add_16::<T>(simd, v, cast(gained));
        let gained = simd.avx512f._mm512_maskz_permutexvar_epi32(
            0b1111_0000_1111_0000,
            cast([3u32, 3, 3, 3, 3, 3, 3, 3, 11, 11, 11, 11, 11, 11, 11, 11]),
            v,
        );
        let v = add_16::<T>(simd, v, gained);
        let gained = simd.avx512f._mm512_maskz_permutexvar_epi32(
            0b1111_1111_0000_0000,
            cast([7u32; RUN]),
            v,
        );
        let v = add_16::<T>(simd, v, gained);
        cast(cast::<__m512i, [u32; RUN]>(v))
    }

    #[inline(always)]
    pub(super) fn shifted_sixteen<T: Addend>(simd: V4, run: [T; RUN]) -> [T; RUN] {
        let v = cast::<[u32; RUN], __m512i>(cast(run));
        let zero = simd.avx512f._mm512_setzero_si512();
        let v = simd.avx512f._mm512_alignr_epi32::<15>(v, zero);
        cast(cast::<__m512i, [u32; RUN]>(v))
    }

    #[inline(always)]
    pub(super) fn sixteen_with_last<T: Addend>(simd: V4, run: [T; RUN], last: T) -> [T; RUN] {
        let v = cast::<[u32; RUN], __m512i>(cast(run));
        let v = simd
            .avx512f
            ._mm512_mask_set1_epi32(v, 1 << (RUN - 1), cast(last));
        cast(cast::<__m512i, [u32; RUN]>(v))
    }

    #[inline(always)]
    fn add_16<T: Addend>(simd: V4, a: __m512i, b: __m512i) -> __m512i {
        if T::TYPE == ElementType::F32 {
            cast(simd.avx512f._mm512_add_ps(cast(a), cast(b)))
        } else {
            simd.avx512f._mm512_add_epi32(a, b)
        }
    }

    #[inline(always)]
    pub(super) fn prefix_of_two_eights<T: Addend>(simd: V3, run: [T; RUN]) -> [T; RUN] {
        let [low, high]: [[u32; 8]; 2] = cast(cast::<_, [u32; RUN]>(run));
        let low = prefix_of_eight::<T>(simd, cast(low));
        let high = prefix_of_eight::<T>(simd, cast(high));
        let last = simd.avx2._mm256_permutevar8x32_ps(low, cast([7u32; 8]));
        let high = add_8::<T>(simd, high, last);
        cast::<[u32; RUN], _>(cast([cast::<_, [u32; 8]>(low), cast(high)]))
    }

    #[inline(always)]
    pub(super) fn shifted_two_eights<T: Addend>(simd: V3, run: [T; RUN]) -> [T; RUN] {
        let [low, high]: [[u32; 8]; 2] = cast(cast::<_, [u32; RUN]>(run));
        let (low, high): (__m256i, __m256i) = (cast(low), cast(high));
        // The four elements before each half of a register, none before the first.
        let before_low = simd.avx._mm256_permute2f128_si256::<0x08>(low, low);
        let before_high = simd.avx._mm256_permute2f128_si256::<0x21>(low, high);
        let low = simd.avx2._mm256_alignr_epi8::<12>(low, before_low);
        let high = simd.avx2._mm256_alignr_epi8::<12>(high, before_high);
        cast::<[u32; RUN], _>(cast([cast::<_, [u32; 8]>(low), cast(high)]))
    }

    #[inline(always)]
    fn prefix_of_eight<T: Addend>(simd: V3, v: __m256) -> __m256 {
        let zero = simd.avx._mm256_setzero_ps();
        let gained = simd.avx._mm256_permute_ps::<0b10_10_00_00>(v);
        let v = add_8::<T>(
            simd,
            v,
            simd.avx._mm256_blend_ps::<0b1010_1010>(zero, gained),
        );
        let gained = simd.avx._mm256_permute_ps::<0b01_01_01_01>(v);
        let v = add_8::<T>(
            simd,
            v,
            simd.avx._mm256_blend_ps::<0b1100_1100>(zero, gained),
        );
        let gained = simd.avx2._mm256_permutevar8x32_ps(v, cast([3u32; 8]));
        add_8::<T>(
            simd,
            v,
            simd.avx._mm256_blend_ps::<0b1111_0000>(zero, gained),
        )
    }

    #[inline(always)]
    fn add_8<T: Addend>(simd: V3, a: __m256, b: __m256) -> __m256 {
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
    use crate::simd::{InstructionSet, Simd, VectorLoop};

    struct Both<T>([T; RUN]);

    impl<T: Addend> VectorLoop for Both<T> {
        type Output = [[T; RUN]; 2];

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> [[T; RUN]; 2] {
            let prefix = prefix_of_run(lanes, self.0);
            [prefix, shifted(lanes, prefix)]
        }
    }

    /// The results of every instruction set of this processor for one run.
    fn everywhere<T: Addend>(run: [T; RUN]) -> Vec<[[T; RUN]; 2]> {
        let sets = InstructionSet::available().into_iter();
        sets.map(|set| Simd::new(set).expect("it is available").run(Both(run)))
            .collect()
    }

    #[test]
    fn all_instruction_sets_give_the_same_bits() {
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
    fn integer_prefix_sums_wrap() {
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
