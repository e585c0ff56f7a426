//! The rest of `C = alpha * A * B + beta * C` when the product vanishes: alpha is 0, or the sums are empty.
//!
//! As in BLAS, A and B are not read then, so a NaN in them does not spread. C is not read if beta is 0.

use crate::error::Result;
use crate::kernel::Shader;
use crate::kernel::{CpuPart, GpuPart};
use crate::simd::{Lanes, Simd, VectorLoop};
use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use std::sync::LazyLock;

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("scale", include_str!("../../shaders/scale.wgsl")).entry("main", &[])
});

/// The elements that one thread scales at a time.
const CHUNK: usize = 1 << 16;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    lead: u32,
    beta: f32,
}

/// Scales the elements of binding `index` that belong to `part`.
pub(super) fn cpu(part: &mut CpuPart<'_>, index: usize, beta: f32) {
    let (threads, simd) = (part.threads(), part.simd());
    let c = part.write::<f32>(index);
    if threads == 1 {
        slice(simd, c, beta);
    } else {
        c.par_chunks_mut(CHUNK)
            .for_each(|chunk| slice(simd, chunk, beta));
    }
}

/// `c = beta * c`, without reading it if beta is 0.
fn slice(simd: Simd, c: &mut [f32], beta: f32) {
    if beta == 0.0 {
        c.fill(0.0);
    } else if beta != 1.0 {
        simd.run(Scale { beta, c });
    }
}

/// `c *= beta`
struct Scale<'a> {
    beta: f32,
    c: &'a mut [f32],
}

impl VectorLoop for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for c in self.c {
            *c *= self.beta;
        }
    }
}

/// Scales the `count` elements of binding `index` that belong to `part`.
pub(super) fn gpu(part: &GpuPart<'_>, index: usize, count: usize, beta: f32) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let c = part.arg(index);
    // A binding has at most 2^31 - 1 bytes.
    let params = Params {
        count: count as u32,
        lead: c.lead(),
        beta,
    };
    part.dispatch(&SHADER, &[c], &params, params.count.div_ceil(64))
}
