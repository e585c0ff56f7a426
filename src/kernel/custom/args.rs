//! The view that a user's CPU closure has of its call: the items it computes, and its arrays and uniforms by name.
//!
//! Nothing here panics on a wrong name or type: the closure gets an error that it passes on with `?`.

use super::definition::Definition;
use super::part_items::PartItems;
use super::uniform::UniformValue;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::simd::Simd;
use bytemuck::Pod;
use std::cell::Cell;

/// A user's CPU implementation.
pub(super) type Closure = dyn Fn(PartItems, &WgslArgs<'_>) -> Result<()> + Send + Sync;

/// The arrays and uniforms of one call of a CPU closure, by their names in the WGSL source.
///
/// The slices outlive this borrow, so that a closure can hold several at once.
pub struct WgslArgs<'a> {
    kernel: &'a Definition,
    arrays: Vec<ArrayArg<'a>>,
    uniforms: &'a [UniformValue],
    simd: Simd,
}

/// The bytes of an array that a closure may access.
pub(super) enum ArrayArg<'a> {
    Read(&'a [u8]),
    /// Empty once handed out.
    Write(Cell<Option<&'a mut [u8]>>),
}

impl<'a> WgslArgs<'a> {
    pub(super) fn new(
        kernel: &'a Definition,
        arrays: Vec<ArrayArg<'a>>,
        uniforms: &'a [UniformValue],
        simd: Simd,
    ) -> Self {
        Self {
            kernel,
            arrays,
            uniforms,
            simd,
        }
    }

    /// The elements of an array that is only read: for `input` those of the part's items; for `input_halo` those and
    /// their neighbours (the first own item is item [`PartItems::lead`]); for `input_whole` all.
    ///
    /// Elements are scalars: an `array<vec4<f32>>` gives four `f32` for each vector.
    ///
    /// # Errors
    /// [`Error::Binding`] if there is no such array, if it is written, or if it does not hold `T`.
    pub fn input<T: Element>(&self, name: &str) -> Result<&'a [T]> {
        let index = self.find::<T>(name)?;
        match &self.arrays[index] {
            ArrayArg::Read(bytes) => {
                bytemuck::try_cast_slice(bytes).map_err(|e| self.error(name, e.to_string()))
            }
            ArrayArg::Write(_) => {
                let role = self.kernel.arrays[index].role;
                Err(self.error(
                    name,
                    format!("its role is `{role}`; take it with `args.output`"),
                ))
            }
        }
    }

    /// The elements of an array that is written: for `output` and `update` those of the part's items, for `partial`
    /// this part's copy. Callable once per name and call.
    ///
    /// # Errors
    /// As [`WgslArgs::input`], and if the closure took it before.
    pub fn output<T: Element>(&self, name: &str) -> Result<&'a mut [T]> {
        let index = self.find::<T>(name)?;
        match &self.arrays[index] {
            ArrayArg::Write(bytes) => {
                let bytes = bytes
                    .take()
                    .ok_or_else(|| self.error(name, "the CPU closure took it twice"))?;
                bytemuck::try_cast_slice_mut(bytes).map_err(|e| self.error(name, e.to_string()))
            }
            ArrayArg::Read(_) => {
                let role = self.kernel.arrays[index].role;
                Err(self.error(
                    name,
                    format!("its role is `{role}`; take it with `args.input`"),
                ))
            }
        }
    }

    /// The instruction set for loops over the elements: pass a [`VectorLoop`](crate::simd::VectorLoop) to it.
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// The value of a uniform.
    ///
    /// # Errors
    /// [`Error::Binding`] if there is no such uniform, or if `P` has another size.
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
