//! The view that a pass has of its arrays on a GPU, and how it dispatches.

use super::{LaunchSpec, Role};
use crate::array::{Coverage, DeviceView};
use crate::device::DeviceKind;
use crate::device::buffer_size::{OFFSET_ALIGN, window_buffer};
use crate::device::gpu::{Arity, Dispatch, EntryPoint, Gate, Gpu, GpuLimits, Shader, Window};
use crate::error::{Error, Result};
use bytemuck::Pod;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// Windows of built-in shaders end at a multiple of this, so that the last vec4 is addressable.
const VECTOR_BYTES: u64 = 16;

/// The items that one call of [`Pass::gpu`](crate::kernel::Pass::gpu) encodes, and its view of the arrays.
pub struct GpuPart<'a> {
    gpu: &'a Arc<Gpu>,
    spec: &'a LaunchSpec,
    items: Range<usize>,
    place: Place<'a>,
    /// The largest window on an array of [`Role::WholeWindowed`], in bytes.
    window_bytes: u64,
}

/// The location of the arrays.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// Nowhere: dispatches are only compiled.
    Nowhere,
    /// All on the GPU.
    Here(&'a [DeviceView]),
    /// On the GPU while they fit.
    Views(&'a Views<'a>),
}

/// The location of a piece's arrays on a GPU. They stay there while this lives.
pub(crate) struct Views<'a> {
    /// One entry for each binding; `None` for an array that moves there a window at a time, on request.
    pub(crate) arrays: SmallVec<[Option<DeviceView>; 4]>,
    /// Whether other threads may hold views at the same time. They may not if an array moves a window at a time.
    pub(crate) gate: Gate<'a>,
}

/// A window of an array's buffer, as an argument of a dispatch.
#[derive(Clone, Debug)]
pub struct GpuArg {
    /// `None` in a dry run, or if the array is not on the GPU as a whole.
    window: Option<Window>,
    lead: u32,
}

impl GpuArg {
    /// The number of elements of the binding before the first requested one, since bindings start at 256-byte borders.
    /// 0 whenever that element's index in the array is a multiple of 64.
    pub fn lead(&self) -> u32 {
        self.lead
    }
}

impl<'a> GpuPart<'a> {
    /// A part whose arrays are all on the GPU.
    pub(crate) fn new(
        gpu: &'a Arc<Gpu>,
        spec: &'a LaunchSpec,
        items: Range<usize>,
        views: &'a [DeviceView],
    ) -> Self {
        Self {
            place: Place::Here(views),
            ..Self::to_compile(gpu, spec, items, u64::MAX)
        }
    }

    /// A part whose arrays are on the GPU while they fit. `window_bytes` limits the windows on arrays that need not be
    /// there as a whole.
    pub(crate) fn of_piece(
        gpu: &'a Arc<Gpu>,
        spec: &'a LaunchSpec,
        items: Range<usize>,
        views: &'a Views<'a>,
        window_bytes: u64,
    ) -> Self {
        Self {
            place: Place::Views(views),
            ..Self::to_compile(gpu, spec, items, window_bytes)
        }
    }

    /// A part whose dispatches only compile their pipelines.
    pub(crate) fn to_compile(
        gpu: &'a Arc<Gpu>,
        spec: &'a LaunchSpec,
        items: Range<usize>,
        window_bytes: u64,
    ) -> Self {
        Self {
            gpu,
            spec,
            items,
            place: Place::Nowhere,
            window_bytes,
        }
    }

    /// The items to encode.
    pub fn items(&self) -> Range<usize> {
        self.items.clone()
    }

    /// The number of items to encode.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items to encode.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The number of items of the whole pass.
    pub fn total(&self) -> usize {
        self.spec.items
    }

    /// The kind of device: a software adapter prefers other shaders than a real GPU.
    pub fn kind(&self) -> DeviceKind {
        self.gpu.info().kind
    }

    /// The adapter's limits on bindings and dispatches.
    pub fn limits(&self) -> &GpuLimits {
        self.gpu.limits()
    }

    /// The largest window on binding `index` that [`GpuPart::window`] gives, in bytes: the adapter's limit or, for an
    /// array that is not on the GPU as a whole, the available memory.
    pub fn max_window_bytes(&self, index: usize) -> u64 {
        let binding = &self.spec.bindings[index];
        let is_there = match self.place {
            Place::Nowhere => {
                let bytes = binding.array.bytes() as u64;
                binding.role != Role::WholeWindowed || bytes <= self.window_bytes
            }
            Place::Here(_) => true,
            Place::Views(views) => views.arrays[index].is_some(),
        };
        let limit = self.limits().max_binding_bytes;
        if is_there {
            limit
        } else {
            limit.min(self.window_bytes)
        }
    }

    /// The elements of binding `index` that belong to the items. Not for [`Role::WholeWindowed`], of which
    /// [`GpuPart::window`] gives parts.
    pub fn arg(&self, index: usize) -> GpuArg {
        let elements = self.spec.bindings[index].elements(&self.items, self.spec.items);
        self.locate(index, elements, true)
    }

    /// A window on `elements` of binding `index`, which must belong to the items and start at a multiple of 64. It ends
    /// exactly at the last element, so that WGSL's `arrayLength` is exact, for shaders that rely on it.
    pub fn exact(&self, index: usize, elements: Range<usize>) -> GpuArg {
        let all = self.spec.bindings[index].elements(&self.items, self.spec.items);
        debug_assert!(all.start <= elements.start && elements.end <= all.end);
        let arg = self.locate(index, elements, false);
        debug_assert_eq!(arg.lead(), 0);
        arg
    }

    /// A window on `elements` of binding `index`, which must belong to the items. Elements that are not on the GPU,
    /// because the whole array does not fit, move there. They may leave again once the window is dropped.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the window exceeds [`GpuPart::max_window_bytes`].
    pub fn window(&self, index: usize, elements: Range<usize>) -> Result<GpuArg> {
        let binding = &self.spec.bindings[index];
        let all = binding.elements(&self.items, self.spec.items);
        debug_assert!(all.start <= elements.start && elements.end <= all.end);
        debug_assert!(matches!(binding.role, Role::WholeWindowed) || !binding.access.writes());
        let arg = match self.place {
            Place::Views(views) if views.arrays[index].is_none() => {
                let fit = Coverage::Window {
                    at_least: window_buffer(self.window_bytes),
                };
                let (range, gate) = (elements.clone(), &views.gate);
                let view = binding.array.admit(self.gpu, range, true, fit, gate)?;
                self.locate_in(&view, index, elements, true)
            }
            _ => self.locate(index, elements, true),
        };
        let bytes = arg.window.as_ref().map_or(0, |window| window.bytes);
        let most = self.max_window_bytes(index);
        if bytes > most {
            return Err(Error::TooLarge {
                what: format!("a window of binding {index}"),
                given: format!("{bytes} bytes"),
                limit: format!("{most} bytes on {}", self.gpu.name()),
            });
        }
        Ok(arg)
    }

    fn locate(&self, index: usize, elements: Range<usize>, padded: bool) -> GpuArg {
        let view = match self.place {
            Place::Nowhere => None,
            Place::Here(views) => Some(&views[index]),
            Place::Views(views) => views.arrays[index].as_ref(),
        };
        let Some(view) = view else {
            let size = self.spec.bindings[index].array.element_type().size() as u64;
            let start = elements.start as u64 * size;
            let lead = (start % OFFSET_ALIGN / size) as u32;
            return GpuArg { window: None, lead };
        };
        self.locate_in(view, index, elements, padded)
    }

    fn locate_in(
        &self,
        view: &DeviceView,
        index: usize,
        elements: Range<usize>,
        padded: bool,
    ) -> GpuArg {
        let size = self.spec.bindings[index].array.element_type().size() as u64;
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
    /// More workgroups than the adapter accepts along one dimension fold into the second. The shader must therefore
    /// compute its index as `group.y * groups.x + group.x` and ignore indices past its end.
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

    /// Dispatches a grid of workgroups, with any number of uniform blocks, in the order of their binding numbers. An
    /// empty grid does nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the grid exceeds what the adapter can dispatch. [`Error::Wgsl`] or [`Error::Gpu`] if the
    /// shader does not compile or does not accept these arguments.
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
        let entry_point = EntryPoint {
            shader,
            name: entry,
            constants,
        };
        if matches!(self.place, Place::Nowhere) {
            let given = Arity {
                arrays: args.len(),
                uniforms: uniforms.len(),
            };
            return gpu.compile(&entry_point, given);
        }
        let windows: Option<SmallVec<[Window; 4]>> =
            args.iter().map(|arg| arg.window.clone()).collect();
        let Some(windows) = windows else {
            return Err(Error::argument(
                format!("shader `{}`", shader.label()),
                "an array that every part reads as a whole does not fit on the GPU; use `window` instead of `arg`",
            ));
        };
        gpu.dispatch(&Dispatch {
            entry_point,
            uniforms,
            windows: &windows,
            grid,
        })
    }
}
