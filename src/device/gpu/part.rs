//! What a pass sees of its arrays on a GPU, and how it dispatches.

use super::pipelines::Window;
use super::recorder::Groups;
use super::{Gpu, GpuLimits};
use crate::array::DeviceView;
use crate::device::DeviceKind;
use crate::error::{Error, Result};
use crate::kernel::shader::Shader;
use crate::kernel::{Outline, Role};
use bytemuck::Pod;
use smallvec::SmallVec;
use std::ops::Range;

/// Offsets of bindings are multiples of this many bytes: the most that any adapter asks for.
const OFFSET_ALIGN: u64 = 256;
/// Windows of built-in shaders reach to a multiple of this, so that the last vec4 is addressable.
const VECTOR_BYTES: u64 = 16;

/// The items that one call of [`Pass::gpu`](crate::kernel::Pass::gpu) encodes, and its view of the arrays.
pub struct GpuPart<'a> {
    gpu: &'a Gpu,
    outline: &'a Outline,
    items: Range<usize>,
    /// Where the arrays are; nowhere if nothing is to be dispatched, only compiled.
    views: Option<&'a [DeviceView]>,
}

/// A window of an array's buffer, as an argument of a dispatch.
#[derive(Clone, Debug)]
pub struct GpuArg {
    /// None where nothing is to be dispatched.
    window: Option<Window>,
    lead: u32,
}

impl GpuArg {
    /// How many elements of the binding precede the first one asked for, since bindings start at 256-byte borders.
    /// 0 whenever that element's index in the array is a multiple of 64.
    pub fn lead(&self) -> u32 {
        self.lead
    }
}

impl<'a> GpuPart<'a> {
    pub(crate) fn new(
        gpu: &'a Gpu,
        outline: &'a Outline,
        items: Range<usize>,
        views: &'a [DeviceView],
    ) -> Self {
        Self {
            gpu,
            outline,
            items,
            views: Some(views),
        }
    }

    /// A part whose dispatches compile their pipelines and do nothing else.
    pub(crate) fn to_compile(gpu: &'a Gpu, outline: &'a Outline, items: Range<usize>) -> Self {
        Self {
            gpu,
            outline,
            items,
            views: None,
        }
    }

    /// The items to encode.
    pub fn items(&self) -> Range<usize> {
        self.items.clone()
    }

    /// How many items there are to encode.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to encode.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items the whole pass has.
    pub fn total(&self) -> usize {
        self.outline.items
    }

    /// What sort of device it is: shaders suit a software adapter differently from real GPUs.
    pub fn kind(&self) -> DeviceKind {
        self.gpu.info().kind
    }

    /// What the adapter can bind and dispatch.
    pub fn limits(&self) -> &GpuLimits {
        self.gpu.limits()
    }

    /// The elements of binding `index` that belong to the items.
    ///
    /// For [`Role::WholeWindowed`] the whole array: use [`GpuPart::window`] where it may exceed a binding.
    pub fn arg(&self, index: usize) -> GpuArg {
        let elements = self.outline.bindings[index].elements(&self.items, self.outline.items);
        self.locate(index, elements, true)
    }

    /// A window on `elements` of binding `index`, which must belong to the items and start at a multiple of 64. It ends
    /// exactly at the last one, so that WGSL's `arrayLength` counts no more than there are: for shaders that rely on it.
    pub fn exact(&self, index: usize, elements: Range<usize>) -> GpuArg {
        let all = self.outline.bindings[index].elements(&self.items, self.outline.items);
        debug_assert!(all.start <= elements.start && elements.end <= all.end);
        let arg = self.locate(index, elements, false);
        debug_assert_eq!(arg.lead(), 0);
        arg
    }

    /// A window on `elements` of binding `index`, which must belong to the items.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the window exceeds what the adapter can bind.
    pub fn window(&self, index: usize, elements: Range<usize>) -> Result<GpuArg> {
        let binding = &self.outline.bindings[index];
        let all = binding.elements(&self.items, self.outline.items);
        debug_assert!(all.start <= elements.start && elements.end <= all.end);
        debug_assert!(matches!(binding.role, Role::WholeWindowed) || !binding.access.writes());
        let arg = self.locate(index, elements, true);
        let bytes = arg.window.as_ref().map_or(0, |window| window.bytes);
        if bytes > self.limits().max_binding_bytes {
            return Err(Error::TooLarge {
                what: format!("a window of binding {index}"),
                given: format!("{bytes} bytes"),
                limit: format!(
                    "{} bytes on {}",
                    self.limits().max_binding_bytes,
                    self.gpu.name()
                ),
            });
        }
        Ok(arg)
    }

    fn locate(&self, index: usize, elements: Range<usize>, padded: bool) -> GpuArg {
        let size = self.outline.bindings[index].array.element_type().size() as u64;
        let Some(views) = self.views else {
            let start = elements.start as u64 * size;
            let lead = (start % OFFSET_ALIGN / size) as u32;
            return GpuArg { window: None, lead };
        };
        let view = &views[index];
        let start = (elements.start - view.first) as u64 * size;
        let end = (elements.end - view.first) as u64 * size;
        let offset = start / OFFSET_ALIGN * OFFSET_ALIGN;
        let end = if padded {
            end.next_multiple_of(VECTOR_BYTES)
        } else {
            end
        };
        // A binding may not be empty; every buffer has room for one vector.
        let bytes = (end.min(view.buffer.bytes()) - offset).max(size);
        let window = Window {
            buffer: view.buffer.clone(),
            offset,
            bytes,
        };
        GpuArg {
            window: Some(window),
            lead: ((start - offset) / size) as u32,
        }
    }

    /// Dispatches `groups` workgroups of a built-in shader's `main`.
    ///
    /// More than the adapter takes along one dimension fold into the second, so the shader must compute its index as
    /// `group.y * groups.x + group.x` and ignore indices past its end.
    pub fn dispatch(
        &self,
        shader: &Shader,
        args: &[GpuArg],
        params: &impl Pod,
        groups: u32,
    ) -> Result<()> {
        self.dispatch_with(shader, "main", &[], args, params, groups)
    }

    /// Like [`GpuPart::dispatch`], with an entry point and values for WGSL `override` constants.
    pub fn dispatch_with(
        &self,
        shader: &Shader,
        entry: &str,
        constants: &[(&'static str, f64)],
        args: &[GpuArg],
        params: &impl Pod,
        groups: u32,
    ) -> Result<()> {
        let most = self.limits().max_groups;
        let rows = groups.div_ceil(most).max(1);
        let grid = [groups.div_ceil(rows), rows, 1];
        self.dispatch_grid(
            shader,
            entry,
            constants,
            args,
            &[bytemuck::bytes_of(params)],
            grid,
        )
    }

    /// Dispatches a grid of workgroups, with any number of uniform blocks, in the order of their binding numbers.
    /// Nothing happens if the grid is empty.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the grid exceeds what the adapter can dispatch, [`Error::Wgsl`] or [`Error::Gpu`] if the
    /// shader cannot be compiled or does not take these arguments.
    pub fn dispatch_grid(
        &self,
        shader: &Shader,
        entry: &str,
        constants: &[(&'static str, f64)],
        args: &[GpuArg],
        uniforms: &[&[u8]],
        grid: [u32; 3],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let gpu = self.gpu;
        let most = self.limits().max_groups;
        if grid.iter().any(|groups| *groups > most) {
            return Err(Error::TooLarge {
                what: format!("the grid of `{}`", shader.label()),
                given: format!("{grid:?} workgroups"),
                limit: format!("{most} along each dimension on {}", gpu.name()),
            });
        }
        let pipeline = gpu.pipelines.get(
            &gpu.device,
            gpu.name(),
            shader,
            entry,
            constants,
            gpu.checked,
        )?;
        if pipeline.arity() != (args.len(), uniforms.len()) {
            let (arrays, blocks) = pipeline.arity();
            return Err(gpu.error(format!(
                "shader `{}` uses {arrays} arrays and {blocks} uniforms, but {} and {} were given",
                shader.label(),
                args.len(),
                uniforms.len()
            )));
        }
        if self.views.is_none() {
            return Ok(());
        }
        let windows: SmallVec<[Window; 4]> =
            args.iter().flat_map(|arg| arg.window.clone()).collect();
        gpu.recorder()
            .dispatch(gpu, &pipeline, uniforms, &windows, Groups(grid))
    }
}
