//! Verification: a sample of parts is computed a second time, on another device, and the results are compared.

mod compare;
mod recomputation;
mod sampler;

pub(crate) use sampler::Sampler;
