//! Kernels that users write: a WGSL source, the role of each of its bindings, and optionally Rust code for the CPU.
//!
//! A role says which elements of an array belong to which items. This is all that Divvy needs to split a call over
//! devices. Every mistake of a user is an error when the kernel is built or run, and names the binding. Nothing here
//! trusts a user's shader: it is compiled with bounds checks.

mod args;
mod bound;
mod definition;
mod fold;
mod part_items;
mod pass;
mod uniform;

pub use args::WgslArgs;
pub use bound::BoundWgsl;
pub(crate) use fold::SHADERS as FOLD_SHADERS;
pub use part_items::PartItems;

use super::Call;
use crate::array::{Array, Element};
use crate::error::Result;
use crate::kernel::{Fold, Tolerance};
use definition::{Definition, Description, GroupItems, Use};
use std::sync::Arc;

/// A kernel that the user of this crate writes in WGSL.
///
/// The shader computes *items*: one invocation each, numbered by `global_invocation_id.x` from 0 in each part that
/// Divvy cuts a call into. Every array that the shader uses has a role, which says which elements belong to an item:
///
/// | role | a part sees | the shader declares |
/// |---|---|---|
/// | [`input`](WgslKernelBuilder::input) | the elements of its items | `var<storage, read>` |
/// | [`input_halo`](WgslKernelBuilder::input_halo) | those, and those of neighbouring items | `var<storage, read>` |
/// | [`input_whole`](WgslKernelBuilder::input_whole) | all elements | `var<storage, read>` |
/// | [`output`](WgslKernelBuilder::output) | the elements of its items, all of which it must write | `var<storage, read_write>` |
/// | [`update`](WgslKernelBuilder::update) | the elements of its items, to read and write | `var<storage, read_write>` |
/// | [`partial`](WgslKernelBuilder::partial) | its own copy; Divvy folds the copies | `var<storage, read_write>` |
///
/// Arrays are runtime-sized: `array<T>`, `array<vec2<T>>`, `array<vec3<T>>`, `array<vec4<T>>` or `array<atomic<T>>`
/// with f32, u32 or i32, in bind group 0. One element belongs to an item, unless [`width`](WgslKernelBuilder::width)
/// sets another number. An [`Array`] holds the scalars of vectors one after the other. An `array<vec3<T>>` takes four
/// scalars for each vector, as WGSL lays it out; the fourth is padding. The last workgroup has invocations without an
/// item: the shader must return where `id.x >= arrayLength(&..)`, or `id.x >= part.len`.
///
/// A shader that must know the position of its part declares a uniform for it and names it with
/// [`part`](WgslKernelBuilder::part). A shader with halos needs it.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let square = WgslKernel::builder(
///     "square",
///     "@group(0) @binding(0) var<storage, read> x: array<f32>;
///      @group(0) @binding(1) var<storage, read_write> y: array<f32>;
///
///      @compute @workgroup_size(64)
///      fn main(@builtin(global_invocation_id) id: vec3<u32>) {
///          if id.x < arrayLength(&y) {
///              y[id.x] = x[id.x] * x[id.x];
///          }
///      }",
/// )
/// .input("x")
/// .output("y")
/// .cpu(|_, args| {
///     let (x, y) = (args.input::<f32>("x")?, args.output::<f32>("y")?);
///     y.iter_mut().zip(x).for_each(|(y, x)| *y = x * x);
///     Ok(())
/// })
/// .build()?;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[1.0f32, 2.0, 3.0])?;
/// let mut y = rt.uninit::<f32>(3)?;
/// rt.run(square.bind("x", &x).bind_mut("y", &mut y))?;
/// assert_eq!(y.to_vec()?, [1.0, 4.0, 9.0]);
/// # Ok(())
/// # }
/// ```
///
/// A kernel is cheap to clone and can be bound any number of times. The borrows of the arrays last until the call has
/// run, so the compiler refuses to bind a written array a second time:
///
/// ```compile_fail
/// # use divvy::prelude::*;
/// # fn refused(kernel: &WgslKernel, rt: &Runtime, mut a: Array<f32>) {
/// rt.run(kernel.bind("x", &a).bind_mut("y", &mut a)); // error[E0502]: `a` is also borrowed as immutable
/// # }
/// ```
#[derive(Clone)]
pub struct WgslKernel {
    definition: Arc<Definition>,
}

impl WgslKernel {
    /// Starts a kernel from its name and its source. Reports show the name, and Divvy learns the kernel's speed under it.
    pub fn builder(name: impl Into<String>, source: impl Into<String>) -> WgslKernelBuilder {
        let (name, source) = (name.into(), source.into());
        WgslKernelBuilder {
            description: Description {
                name,
                source,
                ..Description::default()
            },
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// A call without any bound array.
    pub fn call(&self) -> Call<'static, BoundWgsl> {
        Call::new(BoundWgsl::new(Arc::clone(&self.definition)))
    }

    /// A call with its first array, which the kernel reads. The others follow in any order.
    pub fn bind<'a, T: Element>(&self, name: &str, array: &'a Array<T>) -> Call<'a, BoundWgsl> {
        self.call().bind(name, array)
    }

    /// A call with its first array, which the kernel writes. The others follow in any order.
    pub fn bind_mut<'a, T: Element>(
        &self,
        name: &str,
        array: &'a mut Array<T>,
    ) -> Call<'a, BoundWgsl> {
        self.call().bind_mut(name, array)
    }
}

impl std::fmt::Debug for WgslKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WgslKernel")
            .field("name", &self.definition.name)
            .field("arrays", &self.definition.arrays)
            .field("uniforms", &self.definition.uniforms)
            .finish_non_exhaustive()
    }
}

/// Describes a [`WgslKernel`]. Names are those of variables in the source.
#[must_use = "a builder does nothing until `build`"]
pub struct WgslKernelBuilder {
    description: Description,
}

impl WgslKernelBuilder {
    fn role(mut self, name: &str, role: Use) -> Self {
        self.description.uses.push((name.into(), role));
        self
    }

    /// An array that is read, split by item.
    pub fn input(self, name: &str) -> Self {
        self.role(name, Use::Input)
    }

    /// An array that is read, split by item. A part also sees at least `items` items past both its ends, within the
    /// array. The shader finds its item `i` at index `part.lead + i` (times the width).
    pub fn input_halo(self, name: &str, items: usize) -> Self {
        self.role(name, Use::Halo(items))
    }

    /// An array that every part may read as a whole. On a GPU it must fit one storage binding.
    pub fn input_whole(self, name: &str) -> Self {
        self.role(name, Use::Whole)
    }

    /// An array that is written entirely, split by item, and not read: the old values need not move.
    pub fn output(self, name: &str) -> Self {
        self.role(name, Use::Output)
    }

    /// An array that is read and written, split by item.
    pub fn update(self, name: &str) -> Self {
        self.role(name, Use::Update)
    }

    /// A result of `len` elements to which every item may contribute, such as a histogram. The shader accumulates
    /// into copies that start at the fold's identity, in an `array<atomic<T>>` if invocations share elements. Divvy
    /// folds the copies in the order of the items and overwrites the bound array.
    ///
    /// f32 sums accumulate in blocks of items whose size depends only on the length of the call. The result therefore
    /// does not depend on the split, if the shader and the closure add in a fixed order.
    pub fn partial(self, name: &str, len: usize, fold: Fold) -> Self {
        self.role(name, Use::Partial { len, fold })
    }

    /// Sets how many elements of an array belong to one item; the default is 1. Elements are those of the WGSL array: 2
    /// of an `array<vec4<f32>>` are eight f32.
    pub fn width(mut self, name: &str, elements: usize) -> Self {
        self.description.widths.push((name.into(), elements));
        self
    }

    /// Names the uniform from which the shader reads its part, declared as
    ///
    /// ```wgsl
    /// struct Part {
    ///     first: u32, // index among all items of the part's first one
    ///     len: u32,   // items of this part
    ///     total: u32, // items in all
    ///     lead: u32,  // items that precede the first own one in every input_halo array
    /// }
    /// @group(0) @binding(0) var<uniform> part: Part;
    /// ```
    pub fn part(mut self, name: &str) -> Self {
        self.description.part = Some(name.into());
        self
    }

    /// Selects the compute entry point; required only if the source has several.
    pub fn entry_point(mut self, name: &str) -> Self {
        self.description.entry_point = Some(name.into());
        self
    }

    /// Sets the value of one of the source's `override` constants.
    pub fn constant(mut self, name: &str, value: f64) -> Self {
        self.description.constants.push((name.into(), value));
        self
    }

    /// Sets the number of consecutive items that each invocation computes; the default is 1.
    pub fn items_per_invocation(mut self, items: usize) -> Self {
        self.description.group_items = Some(GroupItems::PerInvocation(items));
        self
    }

    /// Sets the number of consecutive items that each workgroup computes, for any number of its invocations: 1 for a
    /// workgroup per row.
    pub fn items_per_workgroup(mut self, items: usize) -> Self {
        self.description.group_items = Some(GroupItems::PerWorkgroup(items));
        self
    }

    /// Sets the operations that an item costs, for the first predictions of where a call is fastest. The default is one
    /// for each scalar of the item.
    pub fn flops_per_item(mut self, flops: f64) -> Self {
        self.description.flops_per_item = Some(flops);
        self
    }

    /// Sets the implementation for the CPU: serial code that computes the given items. Divvy calls it from every thread
    /// of its pool, each time with other items. Errors and panics become the error of the run.
    ///
    /// Without one, the kernel runs on GPUs only.
    pub fn cpu(
        mut self,
        code: impl Fn(PartItems, &WgslArgs<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.description.cpu = Some(Box::new(code));
        self
    }

    /// Sets how far the shader and the closure may be apart in an array that they write, where
    /// [`Policy::verify`](crate::Policy::verify) compares them. The default is [`Tolerance::default`].
    pub fn tolerance(mut self, name: &str, tolerance: Tolerance) -> Self {
        self.description.tolerances.push((name.into(), tolerance));
        self
    }

    /// Parses, validates and reflects the source, and checks the roles against it.
    ///
    /// # Errors
    /// [`Error::Wgsl`](crate::Error::Wgsl) if the source is not valid, with the line;
    /// [`Error::Binding`](crate::Error::Binding) if a binding is unknown, has no role or two, or has one that contradicts
    /// what the shader does with it; [`Error::Argument`](crate::Error::Argument) for mistakes that concern no single
    /// binding.
    pub fn build(self) -> Result<WgslKernel> {
        Ok(WgslKernel {
            definition: Arc::new(Definition::new(self.description)?),
        })
    }
}

impl std::fmt::Debug for WgslKernelBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WgslKernelBuilder")
            .field("name", &self.description.name)
            .finish_non_exhaustive()
    }
}
