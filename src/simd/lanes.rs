//! The registers of each instruction set, as types, and the few operations on them that pulp lacks or implements slowly
//! on some sets.

use super::InstructionSet;
use bytemuck::cast;
#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use pulp::x86::{V3, V4};

/// The registers of an instruction set. Only Divvy implements it.
pub trait Lanes: sealed::Registers {
    /// The set.
    const SET: InstructionSet;
}

/// The baseline's registers, of 16 bytes on every architecture that has any. pulp's operations on them are arithmetic
/// on arrays; this crate uses [`sealed::Registers`] instead.
pub type Baseline = pulp::Scalar128b;

/// Operations on the baseline's vectors of f32.
#[cfg(target_arch = "x86_64")]
mod baseline {
    use bytemuck::{AnyBitPattern, NoUninit, cast};
    use std::arch::x86_64::{
        __m128, _mm_add_ps, _mm_and_ps, _mm_andnot_ps, _mm_cmplt_ps, _mm_div_ps, _mm_mul_ps,
        _mm_or_ps, _mm_set1_ps, _mm_sqrt_ps, _mm_sub_ps,
    };

    /// Functions that call an instruction.
    macro_rules! instructions {
        ($($name:ident($($argument:ident),*) = $value:expr;)*) => {$(
            #[inline(always)]
            pub(super) fn $name<V: NoUninit + AnyBitPattern>($($argument: V),*) -> V {
                $(let $argument: __m128 = cast($argument);)*
                // SAFETY: every x86-64 processor has SSE.
                cast(unsafe { $value })
            }
        )*};
    }
    instructions! {
        add(a, b) = _mm_add_ps(a, b);
        sub(a, b) = _mm_sub_ps(a, b);
        mul(a, b) = _mm_mul_ps(a, b);
        and(a, b) = _mm_and_ps(a, b);
        reciprocal_sqrt(a) = _mm_div_ps(_mm_set1_ps(1.0), _mm_sqrt_ps(a));
    }

    #[inline(always)]
    pub(super) fn splat<V: AnyBitPattern>(value: f32) -> V {
        // SAFETY: as above.
        cast(unsafe { _mm_set1_ps(value) })
    }

    #[inline(always)]
    pub(super) fn select_less<V: NoUninit + AnyBitPattern>(a: V, b: V, less: V, other: V) -> V {
        let (a, b): (__m128, __m128) = (cast(a), cast(b));
        let (less, other): (__m128, __m128) = (cast(less), cast(other));
        // SAFETY: as above.
        cast(unsafe {
            let mask = _mm_cmplt_ps(a, b);
            _mm_or_ps(_mm_and_ps(mask, less), _mm_andnot_ps(mask, other))
        })
    }
}

/// The same operations, where the compiler vectorises arithmetic on arrays.
#[cfg(not(target_arch = "x86_64"))]
mod baseline {
    use bytemuck::{AnyBitPattern, NoUninit, cast};

    /// Functions that compute element by element.
    macro_rules! elementwise {
        ($($name:ident($($argument:ident),*) = $value:expr;)*) => {$(
            #[inline(always)]
            pub(super) fn $name<V: NoUninit + AnyBitPattern>($($argument: V),*) -> V {
                $(let $argument: [f32; 4] = cast($argument);)*
                let mut values = [0.0f32; 4];
                for (i, value) in values.iter_mut().enumerate() {
                    $(let $argument = $argument[i];)*
                    *value = $value;
                }
                cast(values)
            }
        )*};
    }
    elementwise! {
        add(a, b) = a + b;
        sub(a, b) = a - b;
        mul(a, b) = a * b;
        and(a, b) = f32::from_bits(a.to_bits() & b.to_bits());
        reciprocal_sqrt(a) = 1.0 / a.sqrt();
        select_less(a, b, less, other) = if a < b { less } else { other };
    }

    #[inline(always)]
    pub(super) fn splat<V: AnyBitPattern>(value: f32) -> V {
        cast([value; 4])
    }
}

/// A set that the processor has. A token of pulp exists only after a check of the processor, so a value of this type is
/// the proof.
#[derive(Clone, Copy, Debug)]
pub enum Token {
    Baseline(Baseline),
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx2(V3),
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx512(V4),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Token {
    /// The baseline, which every processor has.
    pub(crate) const BASELINE: Self = Self::Baseline(pulp::Scalar128b);

    /// The set, if the processor has it.
    pub(crate) fn new(set: InstructionSet) -> Option<Self> {
        match set {
            InstructionSet::Baseline => Some(Self::BASELINE),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx2 => V3::try_new().map(Self::Avx2),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            InstructionSet::Avx512 => V4::try_new().map(Self::Avx512),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => Neon::try_new().map(Self::Neon),
            _ => None,
        }
    }

    /// Which set it is.
    pub(crate) fn set(self) -> InstructionSet {
        match self {
            Self::Baseline(_) => InstructionSet::Baseline,
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx2(_) => InstructionSet::Avx2,
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx512(_) => InstructionSet::Avx512,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => InstructionSet::Neon,
        }
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.set() == other.set()
    }
}

impl Eq for Token {}

macro_rules! lanes {
    ($($registers:ident: $set:ident),*) => {$(
        impl Lanes for $registers {
            const SET: InstructionSet = InstructionSet::$set;
        }

        impl sealed::Registers for $registers {
            #[inline(always)]
            fn token(self) -> Token {
                Token::$set(self)
            }
        }
    )*};
}
lanes!(Baseline: Baseline);
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
lanes!(V3: Avx2, V4: Avx512);
#[cfg(target_arch = "aarch64")]
lanes!(Neon: Neon);

/// Operations that only this crate calls.
mod sealed {
    use super::{Token, baseline, cast};

    /// Vectors of f32, in this crate's terms. A `match` on the token costs nothing: every copy of a loop is compiled
    /// for one token, and the compiler removes the other branches.
    pub trait Registers: pulp::Simd {
        /// The set of this copy.
        fn token(self) -> Token;

        /// This value in every element.
        #[inline(always)]
        fn splat(self, value: f32) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::splat(value),
                _ => self.splat_f32s(value),
            }
        }

        /// `a + b`
        #[inline(always)]
        fn add(self, a: Self::f32s, b: Self::f32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::add(a, b),
                _ => self.add_f32s(a, b),
            }
        }

        /// `a - b`
        #[inline(always)]
        fn sub(self, a: Self::f32s, b: Self::f32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::sub(a, b),
                _ => self.sub_f32s(a, b),
            }
        }

        /// `a·b`
        #[inline(always)]
        fn mul(self, a: Self::f32s, b: Self::f32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::mul(a, b),
                _ => self.mul_f32s(a, b),
            }
        }

        /// The bits of `a` that are set in `mask` too.
        #[inline(always)]
        fn and(self, a: Self::f32s, mask: Self::u32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::and(a, cast(mask)),
                _ => cast(self.and_u32s(cast(a), mask)),
            }
        }

        /// `less` where `a < b`, else `other`.
        #[inline(always)]
        fn select_less(
            self,
            a: Self::f32s,
            b: Self::f32s,
            less: Self::f32s,
            other: Self::f32s,
        ) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::select_less(a, b, less, other),
                _ => self.select_f32s(self.less_than_f32s(a, b), less, other),
            }
        }

        /// `a·b + c`, rounded once where the set has such an instruction, else twice: without the instruction, rounding
        /// once would call the mathematical library for every element.
        #[inline(always)]
        fn multiply_add(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::add(baseline::mul(a, b), c),
                _ => self.mul_add_f32s(a, b, c),
            }
        }

        /// `c - a·b`, rounded as in [`Registers::multiply_add`].
        #[inline(always)]
        fn negate_multiply_add(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::sub(c, baseline::mul(a, b)),
                _ => self.negate_mul_add_f32s(a, b, c),
            }
        }

        /// `1/√a` with a relative error of at most 2^-11, for positive normal numbers.
        #[inline(always)]
        fn reciprocal_sqrt_estimate(self, a: Self::f32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => baseline::reciprocal_sqrt(a),
                // The instruction's estimate is within 1.5·2^-12.
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Token::Avx2(simd) => cast(simd.approx_reciprocal_sqrt_f32x8(cast(a))),
                // The instruction's estimate is within 2^-14.
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Token::Avx512(simd) => cast(simd.avx512f._mm512_rsqrt14_ps(cast(a))),
                // The instruction's estimate has 8 bits. A Newton step doubles them.
                #[cfg(target_arch = "aarch64")]
                Token::Neon(simd) => {
                    let a: std::arch::aarch64::float32x4_t = cast(a);
                    let y = simd.neon.vrsqrteq_f32(a);
                    let step = simd.neon.vrsqrtsq_f32(simd.neon.vmulq_f32(a, y), y);
                    cast(simd.neon.vmulq_f32(y, step))
                }
            }
        }

        /// The last element of `before`, then all of `here` but its last.
        #[inline(always)]
        fn neighbours_before(self, before: Self::f32s, here: Self::f32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => {
                    let (before, here): ([f32; 4], [f32; 4]) = (cast(before), cast(here));
                    cast([before[3], here[0], here[1], here[2]])
                }
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Token::Avx2(simd) => {
                    let straddling = simd
                        .avx
                        ._mm256_permute2f128_ps::<0x21>(cast(before), cast(here));
                    cast(
                        simd.avx2
                            ._mm256_alignr_epi8::<12>(cast(here), cast(straddling)),
                    )
                }
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Token::Avx512(simd) => cast(
                    simd.avx512f
                        ._mm512_alignr_epi32::<15>(cast(here), cast(before)),
                ),
                #[cfg(target_arch = "aarch64")]
                Token::Neon(simd) => cast(simd.neon.vextq_f32::<3>(cast(before), cast(here))),
            }
        }

        /// All of `here` but its first element, then the first of `after`.
        #[inline(always)]
        fn neighbours_after(self, here: Self::f32s, after: Self::f32s) -> Self::f32s {
            match self.token() {
                Token::Baseline(_) => {
                    let (here, after): ([f32; 4], [f32; 4]) = (cast(here), cast(after));
                    cast([here[1], here[2], here[3], after[0]])
                }
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Token::Avx2(simd) => {
                    let straddling = simd
                        .avx
                        ._mm256_permute2f128_ps::<0x21>(cast(here), cast(after));
                    cast(
                        simd.avx2
                            ._mm256_alignr_epi8::<4>(cast(straddling), cast(here)),
                    )
                }
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Token::Avx512(simd) => cast(
                    simd.avx512f
                        ._mm512_alignr_epi32::<1>(cast(after), cast(here)),
                ),
                #[cfg(target_arch = "aarch64")]
                Token::Neon(simd) => cast(simd.neon.vextq_f32::<1>(cast(here), cast(after))),
            }
        }
    }
}
