//! The value of a uniform.

use std::sync::Arc;

/// The bytes of a uniform.
#[derive(Clone)]
pub(super) struct UniformValue(pub(super) Arc<[u8]>);

impl UniformValue {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
