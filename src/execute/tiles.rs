//! The pieces of a part, one after the other, as far as a GPU has room for them.

use crate::device::gpu::{Gpu, GpuLimits};
use crate::error::{Error, Result};
use crate::kernel::{Binding, LaunchSpec, Role};
use crate::plan::tiling::{Capacity, Requirement, TiledPart, Tiling};
use std::ops::Range;

/// The pieces of a part, for each of which a GPU has room and every window fits a binding.
pub(super) struct TileQueue<'a> {
    spec: &'a LaunchSpec,
    gpu: &'a Gpu,
    /// How many items the part has.
    part: usize,
    /// The items that are left.
    rest: Range<usize>,
    pub(super) cut: Tiling,
    /// The cut that there should be room for.
    planned: Tiling,
    /// Whether the arrays gave up what they held on the GPU, so that there is room for it.
    has_cleared: bool,
}

impl<'a> TileQueue<'a> {
    pub(super) fn new(
        name: &str,
        spec: &'a LaunchSpec,
        items: &Range<usize>,
        gpu: &'a Gpu,
    ) -> Result<Self> {
        let most = piece_items(name, spec, gpu.limits())?;
        let room = Capacity {
            arrays: gpu.array_budget().unwrap_or(u64::MAX),
            buffer: gpu.largest_buffer(),
            binding: gpu.limits().max_binding_bytes,
        };
        let part = TiledPart {
            items: items.len(),
            border_grain: spec.border_grain(),
            bindable_items: most,
        };
        let cut = Tiling::new(needs(spec), part, &room).map_err(|bytes| gpu.no_room(bytes))?;
        Ok(Self {
            spec,
            gpu,
            part: items.len(),
            rest: items.clone(),
            cut,
            planned: cut,
            has_cleared: false,
        })
    }

    /// There was no room for a piece: it and what follows is cut smaller. That may be because the pass's own arrays hold
    /// more than a piece needs, and stay. They leave if pieces would otherwise become very small.
    ///
    /// # Errors
    /// The error given, if nothing smaller can be cut.
    pub(super) fn did_not_fit(&mut self, piece: Range<usize>, error: Error) -> Result<()> {
        const VERY_SMALL: usize = 8;
        let border = self.spec.border_grain();
        let windowed = self.spec.bindings.iter();
        let windowed = windowed.filter(|binding| binding.role == Role::WholeWindowed);
        let windowed = windowed.map(|binding| binding.array.bytes() as u64).max();
        let smaller = self.cut.smaller(piece.len(), border, windowed.unwrap_or(0));
        let least = self.planned.items.min(self.part) / VERY_SMALL;
        let enough = smaller.is_some_and(|cut| self.has_cleared || cut.items >= least);
        self.rest.start = piece.start;
        match smaller {
            Some(smaller) if enough => self.cut = smaller,
            _ if !self.has_cleared => {
                for binding in &self.spec.bindings {
                    binding.array.leave(self.gpu)?;
                }
                self.has_cleared = true;
                self.cut = self.planned;
            }
            _ => return Err(error),
        }
        Ok(())
    }
}

impl Iterator for TileQueue<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let Range { start, end } = self.rest;
        let piece = start..end.min(start.saturating_add(self.cut.items));
        self.rest.start = piece.end;
        (!piece.is_empty()).then_some(piece)
    }
}

/// What a pass needs of its arrays, each once unless several windows on it may be needed at a time.
pub(super) fn needs(spec: &LaunchSpec) -> impl Iterator<Item = Requirement> + Clone {
    let bindings = &spec.bindings;
    bindings.iter().enumerate().filter_map(|(at, binding)| {
        let mut before = bindings[..at].iter();
        let same =
            |other: &Binding| other.role == binding.role && other.array.same_array(&binding.array);
        let counts = binding.role == Role::WholeWindowed || !before.any(same);
        counts.then(|| need(binding))
    })
}

pub(super) fn need(binding: &Binding) -> Requirement {
    Requirement {
        role: binding.role,
        len: binding.array.len(),
        element_bytes: binding.array.element_type().size(),
    }
}

/// The most items that one piece of a part may have, so that every window fits a binding.
fn piece_items(name: &str, spec: &LaunchSpec, limits: &GpuLimits) -> Result<usize> {
    let mut most = usize::MAX;
    let limit = limits.max_binding_bytes.min(limits.max_buffer_bytes);
    for binding in &spec.bindings {
        let size = binding.array.element_type().size();
        let len = binding.array.len();
        most = most.min(binding.role.bindable_items(len, size, limit));
    }
    if most >= spec.items {
        return Ok(most);
    }
    let grain = spec.border_grain();
    match most / grain * grain {
        0 => Err(Error::Infeasible {
            kernel: name.into(),
            reasons: format!(
                "the least piece of it needs a larger storage binding than {limit} bytes",
            ),
        }),
        pieces => Ok(pieces),
    }
}
