//! How copies of a partial result combine into one.

use crate::element::ElementType;

/// The operation that combines the copies of a partial result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fold {
    /// Their sum; integers wrap around. Each copy starts as 0.
    Add,
    /// Their minimum. Each copy starts as the greatest value of the type, infinity for f32.
    Min,
    /// Their maximum. Each copy starts as the least value of the type, minus infinity for f32.
    Max,
}

impl Fold {
    /// Combines two values. Of floats neither of which is less or greater, it returns the first.
    #[inline(always)]
    pub(crate) fn combine<T: PartialOrd>(self, a: T, b: T, add: impl Fn(T, T) -> T) -> T {
        match self {
            Self::Add => add(a, b),
            Self::Min if b < a => b,
            Self::Max if b > a => b,
            Self::Min | Self::Max => a,
        }
    }

    /// The bits of the identity of this operation.
    pub(crate) fn identity(self, ty: ElementType) -> u32 {
        match (self, ty) {
            (Self::Add, _) => 0,
            (Self::Min, ElementType::F32) => f32::INFINITY.to_bits(),
            (Self::Min, ElementType::U32) => u32::MAX,
            (Self::Min, ElementType::I32) => i32::MAX as u32,
            (Self::Max, ElementType::F32) => f32::NEG_INFINITY.to_bits(),
            (Self::Max, ElementType::U32) => u32::MIN,
            (Self::Max, ElementType::I32) => i32::MIN as u32,
        }
    }
}
