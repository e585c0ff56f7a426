//! Comparison of the results of two devices under a tolerance.

use crate::element::{Element, ElementType};
use crate::error::Difference;
use crate::kernel::{ErrorBound, Exact, Fold, Precision, Tolerance};

/// Elements of any type.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    ty: ElementType,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    pub(super) fn new(ty: ElementType, bytes: &'a [u8]) -> Self {
        Self { ty, bytes }
    }

    fn words(&self) -> impl Iterator<Item = [u8; 4]> + use<'a> {
        let (words, _) = self.bytes.as_chunks::<4>();
        words.iter().copied()
    }

    fn floats(&self) -> impl Iterator<Item = f32> + use<'a> {
        self.words().map(f32::from_ne_bytes)
    }

    /// The largest finite magnitude, if these are f32; else 0.
    pub(super) fn largest(&self) -> f64 {
        if self.ty != ElementType::F32 {
            return 0.0;
        }
        let finite = self.floats().map(f32::abs).filter(|x| x.is_finite());
        finite.fold(0.0, f32::max).into()
    }

    /// The bytes of the elements, with zeros for all but the first `used` of every `stride`.
    fn without_padding(&self, used: usize, stride: usize) -> Vec<u8> {
        let words = self.words().enumerate();
        let words = words.map(|(at, word)| if at % stride < used { word } else { [0; 4] });
        words.flatten().collect()
    }

    /// The bytes of one row of `stride` elements: the reduction of all rows.
    fn folded(&self, stride: usize, fold: Fold) -> Vec<u8> {
        match self.ty {
            ElementType::F32 => self.folded_as::<f32>(stride, fold, |a, b| a + b),
            ElementType::U32 => self.folded_as(stride, fold, u32::wrapping_add),
            ElementType::I32 => self.folded_as(stride, fold, i32::wrapping_add),
        }
    }

    fn folded_as<T: Element>(&self, stride: usize, fold: Fold, add: fn(T, T) -> T) -> Vec<u8> {
        let mut words = self.words().map(bytemuck::cast::<[u8; 4], T>);
        let mut row: Vec<T> = words.by_ref().take(stride).collect();
        for (at, word) in words.enumerate() {
            let folded = &mut row[at % stride];
            *folded = fold.combine(*folded, word, add);
        }
        bytemuck::cast_slice(&row).to_vec()
    }

    /// The bytes of the elements' magnitudes, if these are f32; else their own.
    pub(super) fn magnitudes(&self) -> Vec<u8> {
        match self.ty {
            ElementType::F32 => self.floats().flat_map(|x| x.abs().to_ne_bytes()).collect(),
            ElementType::U32 | ElementType::I32 => self.bytes.to_vec(),
        }
    }
}

/// Two results of the same items, and the magnitudes that a tolerance may refer to.
pub(super) struct Compared<'a> {
    pub(super) ours: Values<'a>,
    pub(super) theirs: Values<'a>,
    /// The results of the pass in [`Tolerance::Roundings`].
    pub(super) magnitudes: Option<Values<'a>>,
    /// The largest magnitude that the part read.
    pub(super) largest_read: f64,
}

impl Compared<'_> {
    /// The largest difference that is not allowed.
    pub(super) fn worst(&self, tolerance: &Tolerance) -> Option<Difference> {
        match (self.ours.ty, tolerance) {
            (_, Tolerance::Padded { used, stride, of }) => {
                self.worst_of(of, |all| all.without_padding(*used, *stride))
            }
            (_, Tolerance::Folded { stride, fold, of }) => {
                self.worst_of(of, |all| all.folded(*stride, *fold))
            }
            (ty, Tolerance::BitwiseUnless(bits)) => {
                self.worst_word(ty, |word| u32::from_ne_bytes(word) == *bits)
            }
            (ty @ (ElementType::U32 | ElementType::I32), _) => self.worst_word(ty, |_| false),
            (ElementType::F32, Tolerance::Vectors { width, relative }) => {
                self.worst_vector((*width).max(1), *relative)
            }
            (ElementType::F32, tolerance) => self.worst_float(tolerance.error_bound()),
        }
    }

    /// The largest difference after `part` is applied to both results.
    fn worst_of(
        &self,
        tolerance: &Tolerance,
        part: impl Fn(&Values<'_>) -> Vec<u8>,
    ) -> Option<Difference> {
        let [ours, theirs] = [&self.ours, &self.theirs].map(&part);
        let magnitudes = self.magnitudes.as_ref().map(&part);
        let values = |bytes| Values::new(self.ours.ty, bytes);
        let compared = Compared {
            ours: values(&ours),
            theirs: values(&theirs),
            magnitudes: magnitudes.as_deref().map(values),
            largest_read: self.largest_read,
        };
        compared.worst(tolerance)
    }

    fn worst_word(
        &self,
        ty: ElementType,
        is_absent: impl Fn([u8; 4]) -> bool,
    ) -> Option<Difference> {
        let value = |word: [u8; 4]| match ty {
            ElementType::F32 => f32::from_ne_bytes(word).into(),
            ElementType::U32 => u32::from_ne_bytes(word).into(),
            ElementType::I32 => i32::from_ne_bytes(word).into(),
        };
        let pairs = self.ours.words().zip(self.theirs.words()).enumerate();
        let differ = pairs.filter(|(_, (ours, theirs))| {
            ours != theirs && !is_absent(*ours) && !is_absent(*theirs)
        });
        largest(differ.map(|(at, (ours, theirs))| {
            let (ours, theirs) = (value(ours), value(theirs));
            Difference {
                at,
                ours,
                theirs,
                size: size_of_difference(ours, theirs),
                allowed: 0.0,
            }
        }))
    }

    /// The largest difference of two numbers that may each be off by `bound`.
    fn worst_float(&self, bound: ErrorBound) -> Option<Difference> {
        let largest_magnitude = match bound {
            ErrorBound::OfLargest(_) => {
                let written = [&self.ours, &self.theirs].map(Values::largest);
                written.into_iter().fold(self.largest_read, f64::max)
            }
            _ => 0.0,
        };
        let mut terms = self.magnitudes.iter().flat_map(Values::floats);
        let pairs = self.ours.floats().zip(self.theirs.floats()).enumerate();
        largest(pairs.filter_map(|(at, (ours, theirs))| {
            let terms = terms.next().unwrap_or(0.0);
            if ours == theirs || (ours.is_nan() && theirs.is_nan()) {
                return None;
            }
            let larger = ours.abs().max(theirs.abs());
            let exact = Exact {
                terms: terms.into(),
                // An infinite magnitude allows no difference.
                ..Exact::of(if larger.is_finite() {
                    larger.into()
                } else {
                    0.0
                })
            };
            // Both results may have the error.
            let allowed = 2.0 * bound.allowed(Precision::F32, exact, largest_magnitude);
            let (ours, theirs) = (ours.into(), theirs.into());
            let size = size_of_difference(ours, theirs);
            checked(Difference {
                at,
                ours,
                theirs,
                size,
                allowed,
            })
        }))
    }

    fn worst_vector(&self, width: usize, relative: f64) -> Option<Difference> {
        /// Every vector may also be off by this many roundings of the largest vector in the part.
        const ROUNDINGS: f64 = 4.0;
        let [ours, theirs] = [&self.ours, &self.theirs].map(|values| {
            let floats: Vec<f64> = values.floats().map(f64::from).collect();
            floats
        });
        let norm = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        let norms = ours.chunks(width).map(norm).filter(|norm| norm.is_finite());
        let floor = ROUNDINGS * Precision::F32.unit * norms.fold(0.0, f64::max);
        let pairs = ours.chunks(width).zip(theirs.chunks(width)).enumerate();
        largest(pairs.filter_map(|(at, (ours, theirs))| {
            let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
            if ours.iter().zip(theirs).all(same) {
                return None;
            }
            let apart: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
            let (ours, theirs) = (norm(ours), norm(theirs));
            let larger = ours.max(theirs);
            let share = if larger.is_finite() {
                relative * larger
            } else {
                0.0
            };
            checked(Difference {
                at: at * width,
                ours,
                theirs,
                size: norm(&apart),
                allowed: share + floor,
            })
        }))
    }
}

/// The difference, unless it is allowed. One below the least normal number always is.
fn checked(difference: Difference) -> Option<Difference> {
    let allowed = difference.allowed.max(Precision::F32.least_normal);
    (difference.size > allowed).then_some(Difference {
        allowed,
        ..difference
    })
}

/// How far apart two values are.
fn size_of_difference(ours: f64, theirs: f64) -> f64 {
    let size = (ours - theirs).abs();
    if size.is_nan() { f64::INFINITY } else { size }
}

/// The largest difference; the first of equal ones.
fn largest(differences: impl Iterator<Item = Difference>) -> Option<Difference> {
    differences.reduce(|most, next| if next.size > most.size { next } else { most })
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: f64 = Precision::F32.unit;

    fn floats(values: &[f32]) -> Vec<u8> {
        bytemuck::cast_slice(values).to_vec()
    }

    /// The largest difference of `ours` from `theirs` that a tolerance does not allow.
    fn worst(tolerance: &Tolerance, ours: &[f32], theirs: &[f32]) -> Option<Difference> {
        let (ours, theirs) = (floats(ours), floats(theirs));
        let compared = Compared {
            ours: Values::new(ElementType::F32, &ours),
            theirs: Values::new(ElementType::F32, &theirs),
            magnitudes: None,
            largest_read: 0.0,
        };
        compared.worst(tolerance)
    }

    /// Whether a tolerance allows a difference between 1 and `second`, in a part with these other values.
    fn allows(tolerance: &Tolerance, second: f32, others: &[f32]) -> bool {
        let with = |first: f32| [&[first], others].concat();
        worst(tolerance, &with(1.0), &with(second)).is_none()
    }

    const NEXT: f32 = 1.0 + f32::EPSILON;

    #[test]
    fn each_tolerance_allows_what_it_says_and_no_more() {
        let relative = Tolerance::Relative(1e-3);
        let of_largest = Tolerance::OfLargest(1e-3);
        let ulps = Tolerance::Ulps(2.0);
        let units = |count: f32| 1.0 + count * f32::EPSILON;
        for (tolerance, second, others, allowed) in [
            (&Tolerance::Bitwise, 1.0, &[][..], true),
            (&Tolerance::Bitwise, NEXT, &[1e9][..], false),
            (&relative, 1.0009, &[], true),
            (&relative, 1.0011, &[1e9], false),
            (&relative, f32::INFINITY, &[], false),
            (&relative, f32::NAN, &[], false),
            (&ulps, units(4.0), &[], true),
            (&ulps, units(5.0), &[1e9], false),
            (&ulps, f32::INFINITY, &[], false),
            (&ulps, f32::NAN, &[], false),
            (&of_largest, 1.0009, &[], true),
            (&of_largest, 1.09, &[-100.0], true),
            (&of_largest, 1.11, &[-100.0], false),
            (&of_largest, 1.11, &[f32::INFINITY, f32::NAN], false),
            (&of_largest, f32::INFINITY, &[], false),
            (&of_largest, f32::NAN, &[], false),
            (&Tolerance::default(), NEXT, &[], true),
            (&Tolerance::default(), 1.0001, &[], false),
        ] {
            assert_eq!(
                allows(tolerance, second, others),
                allowed,
                "{tolerance:?} {second} {others:?}"
            );
        }
    }

    #[test]
    fn the_same_special_values_agree_and_subnormals_may_be_flushed() {
        let tiny = f32::MIN_POSITIVE / 4.0;
        let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, tiny];
        let others = [-f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0];
        assert_eq!(worst(&Tolerance::Bitwise, &specials, &others), None);
        let found = worst(&Tolerance::Bitwise, &[f32::INFINITY], &[f32::NEG_INFINITY]);
        assert_eq!(found.expect("they differ").size, f64::INFINITY);
    }

    #[test]
    fn the_largest_of_several_differences_is_reported() {
        let found = worst(
            &Tolerance::Bitwise,
            &[1.0, 2.0, 3.0, 4.0],
            &[1.5, 2.0, 1.0, 6.0],
        );
        let found = found.expect("three differ");
        assert_eq!(
            (found.at, found.ours, found.theirs, found.size),
            (2, 3.0, 1.0, 2.0)
        );
    }

    #[test]
    fn integers_are_never_rounded() {
        let (ours, theirs) = (i32::MIN.to_ne_bytes(), i32::MAX.to_ne_bytes());
        let compared = |ty| Compared {
            ours: Values::new(ty, &ours),
            theirs: Values::new(ty, &theirs),
            magnitudes: None,
            largest_read: 1e9,
        };
        let size = |ty| {
            compared(ty)
                .worst(&Tolerance::OfLargest(1.0))
                .expect("they differ")
                .size
        };
        assert_eq!(size(ElementType::I32), 4_294_967_295.0);
        assert_eq!(size(ElementType::U32), 1.0);
    }

    #[test]
    fn a_value_that_need_not_be_computed_may_be_absent() {
        let tolerance = Tolerance::BitwiseUnless(u32::MAX);
        let worst = |ours: u32, theirs: u32| {
            let (ours, theirs) = (ours.to_ne_bytes(), theirs.to_ne_bytes());
            let compared = Compared {
                ours: Values::new(ElementType::U32, &ours),
                theirs: Values::new(ElementType::U32, &theirs),
                magnitudes: None,
                largest_read: 0.0,
            };
            compared.worst(&tolerance).is_some()
        };
        assert!(!worst(3, 3) && !worst(3, u32::MAX) && !worst(u32::MAX, 3) && worst(3, 4));
    }

    #[test]
    fn padding_is_not_compared() {
        let padded = Tolerance::Bitwise.padded(3, 4);
        let ours = [1.0, 2.0, 3.0, 7.0, 4.0, 5.0, 6.0, f32::NAN];
        let mut theirs = [1.0, 2.0, 3.0, 8.0, 4.0, 5.0, 6.0, 0.0];
        assert_eq!(worst(&padded, &ours, &theirs), None);
        theirs[6] = 6.5;
        assert_eq!(worst(&padded, &ours, &theirs).expect("no padding").at, 6);
    }

    #[test]
    fn partial_results_are_compared_after_their_reduction() {
        let folded = |fold| Tolerance::Folded {
            stride: 2,
            fold,
            of: Tolerance::Bitwise.into(),
        };
        let (ours, theirs) = ([1.0, 2.0, 3.0, 0.5], [4.0, 0.5, 0.0, 2.0]);
        assert_eq!(worst(&folded(Fold::Add), &ours, &theirs), None);
        let found = worst(&folded(Fold::Max), &ours, &theirs).expect("3 and 4");
        assert_eq!((found.at, found.ours, found.theirs), (0, 3.0, 4.0));
        let found = worst(&folded(Fold::Min), &ours, &theirs).expect("1 and 0");
        assert_eq!((found.at, found.ours, found.theirs), (0, 1.0, 0.0));
        let tolerance = Tolerance::Folded {
            stride: 2,
            fold: Fold::Min,
            of: Tolerance::Relative(2.0).into(),
        };
        assert_eq!(worst(&tolerance, &ours, &theirs), None);
    }

    #[test]
    fn vectors_are_compared_by_their_norms() {
        let tolerance = Tolerance::Vectors {
            width: 4,
            relative: 1e-3,
        };
        // A small axis may be off by a share of the whole vector.
        let ours = [3.0, 4.0, 1e-6, 0.0, 0.0, 0.0, 0.0, 0.0];
        let mut theirs = ours;
        theirs[2] = 4e-3;
        assert_eq!(worst(&tolerance, &ours, &theirs), None);
        theirs[2] = 6e-3;
        let found = worst(&tolerance, &ours, &theirs).expect("it is too far off");
        assert!(
            found.at == 0 && (found.ours - 5.0).abs() < 1e-9,
            "{found:?}"
        );
        // Vectors that cancel may be off by a few roundings of the largest one.
        theirs = ours;
        theirs[5] = 1e-6;
        assert_eq!(worst(&tolerance, &ours, &theirs), None);
        theirs[5] = 2e-6;
        assert_eq!(
            worst(&tolerance, &ours, &theirs).expect("too far off").at,
            4
        );
    }

    #[test]
    fn sums_may_differ_by_roundings_of_their_terms() {
        let none = || crate::array::Array::<f32>::uninit(0).expect("no memory");
        let (x, mut y) = (none(), none());
        let tolerance = Tolerance::roundings(2.0, crate::kernels::axpy(1.0, &x, &mut y).kernel);
        let worst = |apart: f32, sum: f32| {
            let (ours, theirs, sums) = (floats(&[0.0]), floats(&[apart]), floats(&[sum]));
            let compared = Compared {
                ours: Values::new(ElementType::F32, &ours),
                theirs: Values::new(ElementType::F32, &theirs),
                magnitudes: Some(Values::new(ElementType::F32, &sums)),
                largest_read: 0.0,
            };
            compared.worst(&tolerance)
        };
        // Two roundings on each side: 4u of the terms, however small their sum is.
        assert_eq!(worst(4.0 * U as f32 * 1000.0, 1000.0), None);
        let found = worst(5.0 * U as f32 * 1000.0, 1000.0).expect("a rounding too much");
        assert_eq!(found.allowed, 4.0 * U * 1000.0);
        assert!(worst(f32::NAN, 1.0).is_some());
        // Terms may overflow in one order of addition and not in another.
        assert!(worst(f32::INFINITY, f32::INFINITY).is_none());
    }
}
