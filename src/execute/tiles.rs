//! The tiles of a part: pieces for which a GPU has room, in ascending order.

use super::params::PARAMS;
use crate::device::gpu::{Gpu, GpuLimits};
use crate::error::{Error, Result};
use crate::kernel::{Binding, LaunchSpec, Role};
use crate::plan::tiling::{Capacity, Requirement, TiledPart, Tiling};
use std::ops::Range;

/// The tiles of a part. A GPU has room for each of them, and every window fits a binding.
pub(super) struct TileQueue<'a> {
    spec: &'a LaunchSpec,
    gpu: &'a Gpu,
    /// The number of items of the part.
    part: usize,
    /// The remaining items.
    rest: Range<usize>,
    pub(super) cut: Tiling,
    /// The tiling for which there should be room.
    planned: Tiling,
    /// Whether the pass's arrays were evicted from the GPU to make room.
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

    /// Cuts a tile for which there was no room, and all after it, into smaller ones. The cause may be that the pass's own
    /// arrays hold more on the GPU than a tile needs. They are evicted if tiles would otherwise become very small.
    ///
    /// # Errors
    /// The given error, if no smaller tile is possible.
    pub(super) fn did_not_fit(&mut self, piece: Range<usize>, error: Error) -> Result<()> {
        let border = self.spec.border_grain();
        let windowed = self.spec.bindings.iter();
        let windowed = windowed.filter(|binding| binding.role == Role::WholeWindowed);
        let windowed = windowed.map(|binding| binding.array.bytes() as u64).max();
        let smaller = self.cut.smaller(piece.len(), border, windowed.unwrap_or(0));
        let least = self.planned.items.min(self.part) / PARAMS.smallest_tile_divisor;
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

/// The requirements of a pass. An array counts once, unless the pass may need several windows of it at a time.
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

/// The requirement of a binding.
pub(super) fn need(binding: &Binding) -> Requirement {
    Requirement {
        role: binding.role,
        len: binding.array.len(),
        element_bytes: binding.array.element_type().size(),
    }
}

/// The most items of one tile, so that every window fits a binding.
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
