//! Values as unsigned ranks: a comparison of ranks is a comparison of integers, with one answer on every device.
//!
//! A device decides how it compares floats that are NaN, signed zeros or subnormals. Ranks are computed with integer
//! operations only, here and, from the same parameters, in `shaders/extremum.wgsl` and `shaders/zip.wgsl`.

use crate::array::Element;
use bytemuck::{Pod, Zeroable};

/// An element type whose values are ordered: `f32`, `u32` and `i32`.
pub trait Ordered: Element {
    /// The bits to flip in negative values, so that bits order as `i32` do (or, if none are flipped, as `u32` do).
    #[doc(hidden)]
    const FLIP: u32;
    /// The bits of the least number.
    #[doc(hidden)]
    const LEAST: u32;
    /// The bits of the greatest number.
    #[doc(hidden)]
    const GREATEST: u32;
}

impl Ordered for f32 {
    const FLIP: u32 = 0x7fff_ffff;
    const LEAST: u32 = f32::NEG_INFINITY.to_bits();
    const GREATEST: u32 = f32::INFINITY.to_bits();
}

impl Ordered for u32 {
    const FLIP: u32 = 0;
    const LEAST: u32 = u32::MIN;
    const GREATEST: u32 = u32::MAX;
}

impl Ordered for i32 {
    const FLIP: u32 = 0;
    const LEAST: u32 = i32::MIN as u32;
    const GREATEST: u32 = i32::MAX as u32;
}

/// The ranking of a type's values: the preferred value has rank 0, and NaN ranks after every number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct Ranking {
    /// The bits to flip in negative values.
    flip: u32,
    /// 1 if -0 ranks with +0, else -0 ranks before +0.
    merge: u32,
    /// 1 if the greatest comes first, 0 if the least does.
    descending: u32,
    /// The ordinal that has rank 0.
    origin: u32,
}

impl Ranking {
    /// The least first.
    pub(crate) const fn ascending<T: Ordered>() -> Self {
        Self {
            flip: T::FLIP,
            merge: 0,
            descending: 0,
            origin: 0,
        }
        .from(T::LEAST)
    }

    /// The greatest first.
    pub(crate) const fn descending<T: Ordered>() -> Self {
        Self {
            flip: T::FLIP,
            merge: 0,
            descending: 1,
            origin: 0,
        }
        .from(T::GREATEST)
    }

    /// The same ranking, but equal numbers have equal ranks: -0 that of +0.
    pub(crate) const fn equal_zeros<T: Ordered>(self) -> Self {
        let first = if self.descending == 0 {
            T::LEAST
        } else {
            T::GREATEST
        };
        Self {
            merge: self.flip & 1,
            ..self
        }
        .from(first)
    }

    const fn from(self, first: u32) -> Self {
        Self {
            origin: self.ordinal(first),
            ..self
        }
    }

    /// Maps bits to an ordinal that orders as the values do: as a `u32` for that type, as an `i32` for the others.
    #[inline(always)]
    const fn ordinal(self, bits: u32) -> u32 {
        let negative = (bits as i32 >> 31) as u32;
        (bits ^ (negative & self.flip)).wrapping_add(negative & self.merge)
    }

    /// The rank of the value with these bits. The subtraction wraps so that all NaN, of either sign, come last.
    #[inline(always)]
    pub(crate) fn rank(self, bits: u32) -> u32 {
        let ordinal = self.ordinal(bits);
        if self.descending == 0 {
            ordinal.wrapping_sub(self.origin)
        } else {
            self.origin.wrapping_sub(ordinal)
        }
    }

    /// The bits of the value with this rank, unless zeros rank equal.
    pub(crate) const fn bits(self, rank: u32) -> u32 {
        let ordinal = if self.descending == 0 {
            rank.wrapping_add(self.origin)
        } else {
            self.origin.wrapping_sub(rank)
        };
        ordinal ^ ((ordinal as i32 >> 31) as u32 & self.flip)
    }

    /// Whether no number has this rank, or a lower one.
    pub(crate) fn is_nan<T: Ordered>(self, rank: u32) -> bool {
        rank > self.rank(T::LEAST).max(self.rank(T::GREATEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ODD: &[u32] = &[
        0,
        0x8000_0000,
        1,
        0x8000_0001,
        0x7f7f_ffff,
        0xff7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7f80_0001,
        0xff80_0001,
        0x7fff_ffff,
        0xffff_ffff,
    ];

    fn bits() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), prop::sample::select(ODD)]
    }

    fn check<T: Ordered>(a: u32, b: u32) {
        let (x, y): (T, T) = (bytemuck::cast(a), bytemuck::cast(b));
        for (ranking, wanted) in [
            (Ranking::ascending::<T>(), x < y),
            (Ranking::descending::<T>(), x > y),
            (Ranking::ascending::<T>().equal_zeros::<T>(), x < y),
            (Ranking::descending::<T>().equal_zeros::<T>(), x > y),
        ] {
            let nan = |v: T| v.partial_cmp(&v).is_none();
            assert_eq!(
                ranking.is_nan::<T>(ranking.rank(a)),
                nan(x),
                "{a:x} {ranking:?}"
            );
            let before = ranking.rank(a) < ranking.rank(b);
            match (nan(x), nan(y)) {
                (false, false) if x == y => {
                    assert!(
                        a == b || ranking.merge == 0 || !before,
                        "{a:x} {b:x} {ranking:?}"
                    );
                }
                (false, false) => assert_eq!(before, wanted, "{a:x} {b:x} {ranking:?}"),
                (false, true) => assert!(before, "{a:x} {b:x} {ranking:?}"),
                (true, false) => assert!(!before, "{a:x} {b:x} {ranking:?}"),
                (true, true) => {}
            }
            if ranking.merge == 0 {
                assert_eq!(ranking.bits(ranking.rank(a)), a, "{ranking:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn ranks_order_as_values_with_nan_last(a in bits(), b in bits()) {
            check::<f32>(a, b);
            check::<u32>(a, b);
            check::<i32>(a, b);
        }
    }

    #[test]
    fn minus_zero_comes_before_plus_zero_unless_they_rank_equal() {
        let (minus, plus) = ((-0.0f32).to_bits(), 0.0f32.to_bits());
        let ranking = Ranking::ascending::<f32>();
        assert!(ranking.rank(minus) < ranking.rank(plus));
        for ranking in [ranking, Ranking::descending::<f32>()] {
            let ranking = ranking.equal_zeros::<f32>();
            assert_eq!(ranking.rank(minus), ranking.rank(plus));
        }
    }
}
