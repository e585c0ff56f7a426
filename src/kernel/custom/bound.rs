//! A user's kernel with its arguments, which are checked against the definition.
//!
//! Binding never fails at once, so that calls can be chained. The first mistake is kept and becomes the error of the
//! run.

use super::definition::{ArrayBinding, Definition, Use};
use super::fold::{Copies, FoldPass};
use super::pass::ItemsPass;
use super::uniform::UniformValue;
use crate::array::{Array, Element, ElementType, Handle};
use crate::error::{Error, Result};
use crate::kernel::{Binding, Call, Execution, Kernel, LaunchSpec, Role, Work};
use bytemuck::Pod;
use std::any::TypeId;
use std::sync::Arc;

/// A user's kernel bound to its arguments. [`WgslKernel::bind`](super::WgslKernel::bind) makes it,
/// [`Runtime::run`](crate::Runtime::run) runs it.
#[derive(Clone)]
pub struct BoundWgsl {
    kernel: Arc<Definition>,
    /// For each array of the kernel, the bound one.
    arrays: Vec<Option<Handle>>,
    /// For each uniform of the kernel, its value.
    uniforms: Vec<Option<UniformValue>>,
    items: Option<usize>,
    mistake: Option<Mistake>,
}

/// A mistake in a binding.
#[derive(Clone)]
struct Mistake {
    binding: String,
    problem: String,
}

impl BoundWgsl {
    pub(super) fn new(kernel: Arc<Definition>) -> Self {
        let (arrays, uniforms) = (
            vec![None; kernel.arrays.len()],
            vec![None; kernel.uniforms.len()],
        );
        Self {
            kernel,
            arrays,
            uniforms,
            items: None,
            mistake: None,
        }
    }

    fn note(&mut self, binding: &str, problem: impl Into<String>) {
        let mistake = Mistake {
            binding: binding.into(),
            problem: problem.into(),
        };
        self.mistake.get_or_insert(mistake);
    }

    fn error(&self, binding: &str, problem: impl Into<String>) -> Error {
        Error::Binding {
            kernel: self.kernel.name.clone(),
            binding: binding.into(),
            problem: problem.into(),
        }
    }

    fn set_array(&mut self, name: &str, array: &Handle, mutable: bool) {
        let Some(index) = self.kernel.array(name) else {
            let known = self.kernel.array_names();
            let problem = match self.kernel.uniform(name) {
                Some(_) => "it is a uniform; give its value with `.uniform_named`".into(),
                None => format!("the kernel has no such array; its arrays: {known}"),
            };
            return self.note(name, problem);
        };
        let ArrayBinding { ty, role, .. } = self.kernel.arrays[index];
        let given = array.element_type();
        if given != ty.scalar {
            let problem = format!(
                "an Array<{given}> was bound, but it is {ty} in the source; bind an Array<{}>",
                ty.scalar
            );
            self.note(name, problem);
        } else if role.writes() && !mutable {
            self.note(
                name,
                format!("its role is `{role}`, so it is written; bind it with `.bind_mut`"),
            );
        } else if mutable && !role.writes() {
            self.note(
                name,
                format!("its role is `{role}`, so it is only read; bind it with `.bind`"),
            );
        } else if self.arrays[index].replace(array.clone()).is_some() {
            self.note(name, "it was bound twice; bind it once");
        }
    }

    fn set_only_uniform<P: Pod>(&mut self, value: &P) {
        let name = match self.kernel.uniforms.as_slice() {
            [only] => only.name.clone(),
            [] => {
                return self.note(
                    "uniform",
                    "the kernel has no uniform to set; leave `.uniform` out",
                );
            }
            _ => {
                let problem = format!(
                    "the kernel has several ({}); say which with `.uniform_named(name, &value)`",
                    self.kernel.uniform_names()
                );
                return self.note("uniform", problem);
            }
        };
        self.set_uniform(&name, value);
    }

    fn set_uniform<P: Pod>(&mut self, name: &str, value: &P) {
        let Some(index) = self.kernel.uniform(name) else {
            let problem = match self.kernel.array(name) {
                Some(_) => "it is an array; bind it with `.bind` or `.bind_mut`".into(),
                None => format!(
                    "the kernel has no such uniform to set; those it has: {}",
                    self.kernel.uniform_names()
                ),
            };
            return self.note(name, problem);
        };
        let layout = &self.kernel.uniforms[index].layout;
        let given = std::any::type_name::<P>();
        if size_of::<P>() != layout.size {
            let problem = format!(
                "a {given} of {} bytes was given, but {} has {} bytes in WGSL; give a #[repr(C)] type that lies \
                 in memory as it does there{}",
                size_of::<P>(),
                layout.ty,
                layout.size,
                layout.describe()
            );
            self.note(name, problem);
        } else if scalar_of::<P>().is_some_and(|ty| is_scalar(&layout.ty) && ty.name() != layout.ty)
        {
            let problem = format!("a {given} was given, but it is {} in WGSL", layout.ty);
            self.note(name, problem);
        } else {
            let bytes = UniformValue(bytemuck::bytes_of(value).into());
            if self.uniforms[index].replace(bytes).is_some() {
                self.note(name, "it was given twice; give its value once");
            }
        }
    }

    /// Checks that everything is bound and that the lengths agree. Returns the number of items.
    fn check(&self) -> Result<usize> {
        if let Some(Mistake { binding, problem }) = &self.mistake {
            return Err(self.error(binding, problem));
        }
        for (binding, bound) in self.kernel.arrays.iter().zip(&self.arrays) {
            if bound.is_none() {
                let method = if binding.role.writes() {
                    "bind_mut"
                } else {
                    "bind"
                };
                let problem = format!("it is not bound; add `.{method}({:?}, ..)`", binding.name);
                return Err(self.error(&binding.name, problem));
            }
        }
        for (uniform, bound) in self.kernel.uniforms.iter().zip(&self.uniforms) {
            if bound.is_none() {
                let problem = format!(
                    "it has no value; add `.uniform_named({:?}, &value)` (or `.uniform(&value)`, if there is no \
                     other)",
                    uniform.name
                );
                return Err(self.error(&uniform.name, problem));
            }
        }
        let items = self.count_items()?;
        for (binding, array) in self.bound() {
            self.check_length(binding, array.len(), items)?;
        }
        Ok(items)
    }

    /// The arrays with their bindings, in the order of the kernel.
    fn bound(&self) -> impl Iterator<Item = (&ArrayBinding, &Handle)> {
        self.kernel.arrays.iter().zip(self.arrays.iter().flatten())
    }

    fn count_items(&self) -> Result<usize> {
        let items = match (
            self.items,
            self.bound().find(|(binding, _)| binding.role.is_split()),
        ) {
            (Some(items), _) => items,
            (None, Some((binding, array))) if array.len() % binding.scalars == 0 => {
                array.len() / binding.scalars
            }
            (None, Some((binding, array))) => {
                let problem = format!(
                    "it has {} elements, expected a multiple of {}, which is what one item has ({})",
                    array.len(),
                    binding.scalars,
                    shape(binding)
                );
                return Err(self.error(&binding.name, problem));
            }
            (None, None) => {
                return Err(Error::argument(
                    format!("kernel `{}`", self.kernel.name),
                    "no array is split by item, so that the number of items is not known; give it with `.items(n)`",
                ));
            }
        };
        match u32::try_from(items) {
            Ok(_) => Ok(items),
            Err(_) => Err(Error::TooLarge {
                what: format!("kernel `{}`: the number of items", self.kernel.name),
                given: items.to_string(),
                limit: u32::MAX.to_string(),
            }),
        }
    }

    fn check_length(&self, binding: &ArrayBinding, given: usize, items: usize) -> Result<()> {
        if binding.role == Use::Whole {
            // WGSL has no empty arrays.
            return match given {
                0 if items > 0 => Err(self.error(
                    &binding.name,
                    "an empty array was bound, expected at least 1 element",
                )),
                _ if !given.is_multiple_of(binding.ty.stride()) => Err(self.error(
                    &binding.name,
                    format!(
                        "an array of {given} was bound, expected a multiple of {}, the scalars of each {}",
                        binding.ty.stride(),
                        binding.ty
                    ),
                )),
                _ => Ok(()),
            };
        }
        let because = || match (binding.role, self.items) {
            (Use::Partial { len, .. }, _) => {
                format!("the partial result has {len} of {}", binding.ty)
            }
            (_, Some(items)) => format!("there are {items} items of {}", shape(binding)),
            (_, None) => {
                let first = self
                    .kernel
                    .arrays
                    .iter()
                    .find(|array| array.role.is_split());
                let first = first.map_or("", |array| array.name.as_str());
                format!(
                    "there are {items} items, as `{first}` has, of {}",
                    shape(binding)
                )
            }
        };
        let expected = match binding.role {
            Use::Partial { .. } => Some(binding.scalars),
            _ => items.checked_mul(binding.scalars),
        };
        let kernel = format!("kernel `{}`", self.kernel.name);
        Error::check_length(
            &kernel,
            &binding.name,
            given,
            expected.unwrap_or(usize::MAX),
            because,
        )
    }

    /// The items of the block that owns one copy of the partial results, a multiple of the grain. The grain if there
    /// are no partial results.
    fn block(&self, items: usize) -> usize {
        let partial = |array: &&ArrayBinding| matches!(array.role, Use::Partial { .. });
        match self
            .kernel
            .arrays
            .iter()
            .filter(partial)
            .map(|array| array.scalars)
            .max()
        {
            Some(scalars) => Copies::block(items, scalars).max(self.kernel.grain),
            None => self.kernel.grain,
        }
    }

    /// The launch spec of the pass over the items, with `copies` in place of the arrays with partial results.
    fn spec_with(&self, copies: &[Copies]) -> Result<LaunchSpec> {
        let items = self.check()?;
        let kernel = &self.kernel;
        // Before the copies exist, their result counts as what another pass writes.
        let mut folding = Work::default();
        let mut bindings = Vec::with_capacity(kernel.arrays.len());
        let mut copies = copies.iter();
        for (binding, array) in self.bound() {
            let split = Role::rows(binding.scalars);
            match binding.role {
                Use::Input => bindings.push(Binding::read(array, split)),
                Use::Halo(_) => {
                    let role = Role::Halo {
                        width: binding.scalars,
                        halo: kernel.halo,
                    };
                    bindings.push(Binding::read(array, role));
                }
                Use::Whole => bindings.push(Binding::read(array, Role::Whole)),
                Use::Output => bindings.push(Binding::write(array, split)),
                Use::Update => bindings.push(Binding::update(array, split)),
                Use::Partial { .. } => match copies.next() {
                    Some(copies) => bindings.push(copies.binding()),
                    None => folding.bytes_written += array.bytes() as f64,
                },
            }
        }
        let flops = kernel.flops_per_item * items as f64;
        let mut spec = LaunchSpec::new(items, bindings, flops)
            .with_other_passes(folding)
            .grain(self.block(items));
        spec.has_cpu = kernel.cpu.is_some();
        let uniforms = kernel.uniforms.iter().map(|uniform| uniform.layout.size);
        spec.uniform_bytes = uniforms.max().unwrap_or(0);
        Ok(spec)
    }
}

impl Kernel for BoundWgsl {
    type Output = ();

    fn name(&self) -> &str {
        &self.kernel.name
    }

    fn implementation(&self) -> u64 {
        self.kernel.implementation
    }

    fn spec(&self) -> Result<LaunchSpec> {
        self.spec_with(&[])
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<()> {
        let items = self.check()?;
        let block = self.block(items);
        let mut copies = Vec::new();
        let mut results = Vec::new();
        for (binding, array) in self.bound() {
            if let Use::Partial { fold, .. } = binding.role {
                copies.push(Copies::new(
                    binding.ty.scalar,
                    binding.scalars,
                    fold,
                    items,
                    block,
                )?);
                results.push(array.clone());
            }
        }
        let spec = self.spec_with(&copies)?;
        let uniforms = self.uniforms.iter().flatten().cloned().collect();
        let pass = ItemsPass::new(Arc::clone(&self.kernel), uniforms, copies, spec);
        cx.launch(&pass)?;
        for (copies, result) in pass.into_copies().into_iter().zip(results) {
            cx.launch_small(&FoldPass::new(copies, result))?;
        }
        Ok(())
    }
}

/// What the caller adds to a call of a user's kernel. Mistakes are kept, and become the error of the run.
impl<'a> Call<'a, BoundWgsl> {
    /// Binds the array `name`, which the kernel reads.
    pub fn bind<T: Element>(mut self, name: &str, array: &'a Array<T>) -> Self {
        self.kernel.set_array(name, array.handle(), false);
        self
    }

    /// Binds the array `name`, which the kernel writes.
    pub fn bind_mut<T: Element>(mut self, name: &str, array: &'a mut Array<T>) -> Self {
        self.kernel.set_array(name, array.handle(), true);
        self
    }

    /// Sets the value of the kernel's only uniform. Its memory layout must be that of the WGSL type. Divvy compares the
    /// sizes and, for scalars, the types; the caller is responsible for the order of a struct's members.
    pub fn uniform<P: Pod>(mut self, value: &P) -> Self {
        self.kernel.set_only_uniform(value);
        self
    }

    /// Sets the value of the uniform `name`. Its memory layout must be that of the WGSL type.
    pub fn uniform_named<P: Pod>(mut self, name: &str, value: &P) -> Self {
        self.kernel.set_uniform(name, value);
        self
    }

    /// Sets the number of items, for a kernel none of whose arrays is split by item.
    pub fn items(mut self, items: usize) -> Self {
        self.kernel.items = Some(items);
        self
    }
}

/// The scalar type of `P`, if it is one of WGSL's.
fn scalar_of<P: 'static>() -> Option<ElementType> {
    let types = [
        (TypeId::of::<f32>(), ElementType::F32),
        (TypeId::of::<u32>(), ElementType::U32),
        (TypeId::of::<i32>(), ElementType::I32),
    ];
    types
        .into_iter()
        .find(|(id, _)| *id == TypeId::of::<P>())
        .map(|(_, ty)| ty)
}

/// Whether WGSL's type `name` is a scalar.
fn is_scalar(name: &str) -> bool {
    matches!(name, "f32" | "u32" | "i32")
}

/// Describes the elements of one item of an array.
fn shape(binding: &ArrayBinding) -> String {
    let elements = binding.scalars / binding.ty.stride();
    let padding = if binding.ty.components == 3 {
        ", whose vec3 take 4 scalars each"
    } else {
        ""
    };
    format!("{elements} of {}{padding}", binding.ty)
}
