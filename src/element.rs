//! The types of array elements.

use bytemuck::Pod;

/// The type of an array's elements, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit IEEE floating point, WGSL `f32`.
    F32,
    /// 32-bit unsigned integer, WGSL `u32`.
    U32,
    /// 32-bit signed integer, WGSL `i32`.
    I32,
}

impl ElementType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 | Self::I32 => 4,
        }
    }

    /// The name of the type in Rust and in WGSL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::U32 => "u32",
            Self::I32 => "i32",
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
    impl Sealed for i32 {}
}

/// A type that an [`Array`](crate::Array) can hold: `f32`, `u32` or `i32`.
///
/// Sealed, so that f16, f64 and u64 can be added without breaking anyone.
#[diagnostic::on_unimplemented(
    message = "a Divvy array cannot hold `{Self}`",
    note = "arrays hold f32, u32 or i32"
)]
pub trait Element:
    sealed::Sealed + Pod + Send + Sync + PartialOrd + std::fmt::Debug + 'static
{
    /// This type as a value.
    const TYPE: ElementType;
}

impl Element for f32 {
    const TYPE: ElementType = ElementType::F32;
}
impl Element for u32 {
    const TYPE: ElementType = ElementType::U32;
}
impl Element for i32 {
    const TYPE: ElementType = ElementType::I32;
}
