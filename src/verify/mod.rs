//! Verification: a sample of parts is computed a second time on another device, and the results are compared.
//!
//! The [`Sampler`] picks parts, `recomputation` computes them again, and `compare` judges the difference. This room never
//! changes an array: the second results are only compared.

mod compare;
mod recomputation;
mod sampler;

pub(crate) use sampler::Sampler;
