//! What a user's CPU closure sees: which items it computes, and its arrays and uniforms by name.
//!
//! Nothing here panics on a wrong name or type: the closure gets an error that it hands on with `?`.

use super::bound::UniformValue;
use super::definition::Definition;
use crate::array::{Element, ElementType};
use crate::error::{Error, Result};
use bytemuck::Pod;
use std::cell::Cell;

/// A user's CPU implementation.
pub(super) type Closure = dyn Fn(PartItems, &WgslArgs<'_>) -> Result<()> + Send + Sync;

/// How the copies of a partial result become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fold {
    /// They are added; integers wrap around. Each copy starts as 0.
    Add,
    /// The least. Each copy starts as the greatest value of the type, infinity for f32.
    Min,
    /// The greatest. Each copy starts as the least value of the type, minus infinity for f32.
    Max,
}

impl Fold {
    /// The fold of two values, of which that of floats is the earlier one where neither is less or greater.
    pub(crate) fn combine<T: PartialOrd>(self, a: T, b: T, add: impl Fn(T, T) -> T) -> T {
        match self {
            Self::Add => add(a, b),
            Self::Min if b < a => b,
            Self::Max if b > a => b,
            Self::Min | Self::Max => a,
        }
    }

    /// The bits of the value that changes nothing.
    pub(super) fn identity(self, ty: ElementType) -> u32 {
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

/// Which items one call of a CPU closure computes: what the part uniform tells a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartItems {
    /// The index, among all items of the call, of the first one to compute.
    pub first: usize,
    /// How many to compute.
    pub len: usize,
    /// How many items the call has in all.
    pub total: usize,
    /// How many items precede the first one in every `input_halo` slice: the first own item is at this index.
    /// At least the smaller of `first` and the halo asked for; it may be more.
    pub lead: usize,
}

/// The arrays and uniforms of one call of a CPU closure, by their names in the WGSL source.
///
/// The slices outlive this borrow, so that several can be held at once.
pub struct WgslArgs<'a> {
    kernel: &'a Definition,
    arrays: Vec<Slot<'a>>,
    uniforms: &'a [UniformValue],
}

/// The bytes of an array that a closure may see.
pub(super) enum Slot<'a> {
    Read(&'a [u8]),
    /// Empty once handed out.
    Write(Cell<Option<&'a mut [u8]>>),
}

impl<'a> WgslArgs<'a> {
    pub(super) fn new(
        kernel: &'a Definition,
        arrays: Vec<Slot<'a>>,
        uniforms: &'a [UniformValue],
    ) -> Self {
        Self {
            kernel,
            arrays,
            uniforms,
        }
    }

    /// The elements of an array that is only read: for `input` those of the part's items, for `input_halo` those
    /// with their neighbours (the first own item is item [`PartItems::lead`]), for `input_whole` all.
    ///
    /// Elements are scalars: an `array<vec4<f32>>` gives four `f32` for each vector.
    ///
    /// # Errors
    /// [`Error::Binding`] if there is no such array, it is written, or it does not hold `T`.
    pub fn input<T: Element>(&self, name: &str) -> Result<&'a [T]> {
        let index = self.find::<T>(name)?;
        match &self.arrays[index] {
            Slot::Read(bytes) => {
                bytemuck::try_cast_slice(bytes).map_err(|e| self.error(name, e.to_string()))
            }
            Slot::Write(_) => {
                let role = self.kernel.arrays[index].role;
                Err(self.error(
                    name,
                    format!("its role is `{role}`; take it with `args.output`"),
                ))
            }
        }
    }

    /// The elements of an array that is written: for `output` and `update` those of the part's items, for `partial`
    /// this part's copy. Once per name and call.
    ///
    /// # Errors
    /// As [`WgslArgs::input`], and if it was taken before.
    pub fn output<T: Element>(&self, name: &str) -> Result<&'a mut [T]> {
        let index = self.find::<T>(name)?;
        match &self.arrays[index] {
            Slot::Write(bytes) => {
                let bytes = bytes
                    .take()
                    .ok_or_else(|| self.error(name, "the CPU closure took it twice"))?;
                bytemuck::try_cast_slice_mut(bytes).map_err(|e| self.error(name, e.to_string()))
            }
            Slot::Read(_) => {
                let role = self.kernel.arrays[index].role;
                Err(self.error(
                    name,
                    format!("its role is `{role}`; take it with `args.input`"),
                ))
            }
        }
    }

    /// The value of a uniform.
    ///
    /// # Errors
    /// [`Error::Binding`] if there is no such uniform, or `P` is of another size.
    pub fn uniform<P: Pod>(&self, name: &str) -> Result<P> {
        let index = self.kernel.uniform(name).ok_or_else(|| {
            let known = self.kernel.uniform_names();
            self.error(
                name,
                format!("the CPU closure asks for this uniform; there are: {known}"),
            )
        })?;
        let bytes = self.uniforms[index].bytes();
        bytemuck::try_pod_read_unaligned(bytes).map_err(|_| {
            let problem = format!(
                "the CPU closure asks for a {} of {} bytes, but the uniform has {}",
                std::any::type_name::<P>(),
                size_of::<P>(),
                bytes.len()
            );
            self.error(name, problem)
        })
    }

    fn find<T: Element>(&self, name: &str) -> Result<usize> {
        let index = self.kernel.array(name).ok_or_else(|| {
            let known = self.kernel.array_names();
            self.error(
                name,
                format!("the CPU closure asks for this array; there are: {known}"),
            )
        })?;
        let ty = self.kernel.arrays[index].ty;
        if ty.scalar == T::TYPE {
            return Ok(index);
        }
        let problem = format!(
            "the CPU closure asks for {}, but it is {ty} in the source",
            T::TYPE
        );
        Err(self.error(name, problem))
    }

    fn error(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Binding {
            kernel: self.kernel.name.clone(),
            binding: name.into(),
            problem: problem.into(),
        }
    }
}

impl std::fmt::Debug for WgslArgs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WgslArgs")
            .field("kernel", &self.kernel.name)
            .field("arrays", &self.kernel.array_names())
            .finish_non_exhaustive()
    }
}
