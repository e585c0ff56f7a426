//! The pass that runs a user's code: the closure for a range of items on the CPU, the shader on a GPU.

use super::args::{ArrayArg, WgslArgs};
use super::definition::{ArrayBinding, Definition, Use};
use super::fold::Copies;
use super::part_items::PartItems;
use super::uniform::UniformValue;
use crate::array::ElementType;
use crate::error::{Error, Result};
use crate::kernel::{Binding, CpuPart, GpuArg, GpuPart, LaunchSpec, Pass, Tolerance};
use bytemuck::{Pod, Zeroable};
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

/// The pass over the items: the user's code.
pub(super) struct ItemsPass {
    kernel: Arc<Definition>,
    /// The values of the kernel's uniforms.
    uniforms: Vec<UniformValue>,
    /// The copies that replace the arrays with partial results, in the order of the kernel.
    copies: Vec<Copies>,
    /// One binding for each array of the kernel.
    spec: LaunchSpec,
}

impl ItemsPass {
    pub(super) fn new(
        kernel: Arc<Definition>,
        uniforms: Vec<UniformValue>,
        copies: Vec<Copies>,
        spec: LaunchSpec,
    ) -> Self {
        Self {
            kernel,
            uniforms,
            copies,
            spec,
        }
    }

    /// The copies of partial results, once the pass has run.
    pub(super) fn into_copies(self) -> Vec<Copies> {
        self.copies
    }

    /// Cuts `items` into pieces for one call of the closure, or one dispatch: at most `most` items, and where the order
    /// of folding matters, no more than one copy of the partial results takes.
    fn pieces(&self, items: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
        let step = match self.copies.first() {
            // A power of two divides a block, so that no piece reaches into the next.
            Some(copies) if self.kernel.folds_in_blocks() => 1 << most.min(copies.items()).ilog2(),
            _ => most,
        };
        let end = items.end;
        items
            .step_by(step)
            .map(move |lo| lo..end.min(lo.saturating_add(step)))
    }

    /// The elements of each array that the code for `piece` accesses.
    fn elements(&self, piece: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut copies = self.copies.iter();
        let of = move |(array, binding): (&ArrayBinding, &Binding)| match array.role {
            Use::Partial { .. } => copies.next().map_or(0..0, |copies| copies.elements(piece)),
            _ => binding.elements(piece, self.spec.items),
        };
        self.kernel.arrays.iter().zip(&self.spec.bindings).map(of)
    }
}

impl Pass for ItemsPass {
    fn name(&self) -> &str {
        &self.kernel.name
    }

    fn implementation(&self) -> u64 {
        self.kernel.implementation
    }

    fn spec(&self) -> Result<LaunchSpec> {
        Ok(self.spec.clone())
    }

    fn tolerance(&self, binding: usize) -> Tolerance {
        let arrays = &self.kernel.arrays;
        let tolerance = arrays[binding].tolerance.clone();
        if !matches!(arrays[binding].role, Use::Partial { .. }) {
            return tolerance;
        }
        let partial = |array: &&ArrayBinding| matches!(array.role, Use::Partial { .. });
        let copies = &self.copies[arrays[..binding].iter().filter(partial).count()];
        copies.tolerance(tolerance)
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let kernel = &*self.kernel;
        let Some(closure) = &kernel.cpu else {
            let problem = "it has no CPU implementation; give the builder one with `.cpu(..)`";
            return Err(Error::argument(
                format!("kernel `{}`", kernel.name),
                problem,
            ));
        };
        let total = part.total();
        let bindings = self.spec.bindings.iter().enumerate();
        let mut views: Vec<_> = bindings
            .map(|(index, binding)| View::new(part, index, binding))
            .collect();
        for piece in self.pieces(part.items(), usize::MAX) {
            let views = views.iter_mut().zip(self.elements(&piece));
            let slots = views.map(|(view, elements)| view.slice(elements)).collect();
            let args = WgslArgs::new(kernel, slots, &self.uniforms, part.simd());
            closure(kernel.part_items(&piece, total), &args)?;
        }
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let kernel = &*self.kernel;
        let total = part.total();
        let most = kernel.dispatch_items(part.limits().max_groups as usize);
        for piece in self.pieces(part.items(), most) {
            let mut args = Vec::with_capacity(kernel.arrays.len());
            for (index, elements) in self.elements(&piece).enumerate() {
                args.push((kernel.arrays[index].binding, part.exact(index, elements)));
            }
            let PartItems {
                first,
                len,
                total,
                lead,
            } = kernel.part_items(&piece, total);
            // All below 2^32: `count_items` and the halo's check ensure it.
            let part_uniform = PartUniform {
                first: first as u32,
                len: len as u32,
                total: total as u32,
                lead: lead as u32,
            };
            let mut uniforms: Vec<(u32, &[u8])> = kernel
                .part
                .iter()
                .map(|binding| (*binding, bytemuck::bytes_of(&part_uniform)))
                .collect();
            let values = kernel.uniforms.iter().zip(&self.uniforms);
            uniforms.extend(values.map(|(uniform, value)| (uniform.binding, value.bytes())));
            // A dispatch names its arguments in the order of their binding numbers.
            args.sort_by_key(|(binding, _)| *binding);
            uniforms.sort_by_key(|(binding, _)| *binding);
            let args: Vec<GpuArg> = args.into_iter().map(|(_, arg)| arg).collect();
            let uniforms: Vec<&[u8]> = uniforms.into_iter().map(|(_, bytes)| bytes).collect();
            let groups = len.div_ceil(kernel.group_items) as u32;
            let grid = [groups, 1, 1];
            part.dispatch_grid(
                &kernel.shader,
                &kernel.entry_point,
                &[],
                &args,
                &uniforms,
                grid,
            )?;
        }
        Ok(())
    }
}

/// A CPU part's elements of one array, handed out to one piece after another.
struct View<'a> {
    /// The array's element at the start of `bytes`.
    first: usize,
    size: usize,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Read(&'a [u8]),
    Write(&'a mut [u8]),
}

impl<'a> View<'a> {
    fn new(part: &mut CpuPart<'a>, index: usize, binding: &Binding) -> Self {
        let first = binding.elements(&part.items(), part.total()).start;
        let (ty, writes) = (binding.array.element_type(), binding.access.writes());
        let bytes = match (ty, writes) {
            (ElementType::F32, false) => Bytes::Read(bytemuck::cast_slice(part.read::<f32>(index))),
            (ElementType::U32, false) => Bytes::Read(bytemuck::cast_slice(part.read::<u32>(index))),
            (ElementType::I32, false) => Bytes::Read(bytemuck::cast_slice(part.read::<i32>(index))),
            (ElementType::F32, true) => {
                Bytes::Write(bytemuck::cast_slice_mut(part.write::<f32>(index)))
            }
            (ElementType::U32, true) => {
                Bytes::Write(bytemuck::cast_slice_mut(part.write::<u32>(index)))
            }
            (ElementType::I32, true) => {
                Bytes::Write(bytemuck::cast_slice_mut(part.write::<i32>(index)))
            }
        };
        Self {
            first,
            size: ty.size(),
            bytes,
        }
    }

    /// The bytes of `elements` of the array. Pieces come in ascending order; those that share a copy of partial results
    /// get it one after the other.
    fn slice(&mut self, elements: Range<usize>) -> ArrayArg<'_> {
        let range =
            (elements.start - self.first) * self.size..(elements.end - self.first) * self.size;
        match &mut self.bytes {
            Bytes::Read(bytes) => ArrayArg::Read(&bytes[range]),
            Bytes::Write(bytes) => ArrayArg::Write(Cell::new(Some(&mut bytes[range]))),
        }
    }
}

/// The memory layout of the shader's part uniform.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PartUniform {
    first: u32,
    len: u32,
    total: u32,
    lead: u32,
}
