//! What a dispatch is: plain data that names buffers and shaders, and no array.

use super::pool::DeviceBuffer;
use super::shader::Shader;
use std::sync::Arc;

/// A window of a buffer, as a binding.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// The buffer.
    pub(crate) buffer: Arc<DeviceBuffer>,
    /// Where the window begins: a multiple of 256 bytes.
    pub(crate) offset: u64,
    /// How long it is.
    pub(crate) bytes: u64,
}

/// A compute entry point of a shader, with values for its `override` constants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPoint<'a> {
    pub(crate) shader: &'a Shader,
    pub(crate) name: &'a str,
    pub(crate) constants: &'a [(&'static str, f64)],
}

/// How many arguments of each sort a dispatch gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arity {
    pub(crate) arrays: usize,
    pub(crate) uniforms: usize,
}

/// A grid of workgroups, and what they work on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dispatch<'a> {
    pub(crate) entry_point: EntryPoint<'a>,
    /// The uniform blocks, in the order of their binding numbers.
    pub(crate) uniforms: &'a [&'a [u8]],
    /// The arrays, in the order of their binding numbers.
    pub(crate) windows: &'a [Window],
    /// Workgroups along each dimension, none of them 0 nor more than the adapter takes.
    pub(crate) grid: [u32; 3],
}
