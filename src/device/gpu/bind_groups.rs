//! The bind groups of a GPU, each made once. They hold wgpu buffers, so they must be forgotten together with these.

use super::connection::Connection;
use crate::error::Result;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What identifies a bind group: its pipeline and its windows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BindGroupKey {
    pub(super) pipeline: u64,
    pub(super) windows: SmallVec<[WindowKey; 4]>,
}

/// What identifies a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct WindowKey {
    /// The id of its buffer.
    pub(super) buffer: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// The bind groups of a GPU.
#[derive(Debug)]
pub(super) struct BindGroups {
    made: Mutex<HashMap<BindGroupKey, wgpu::BindGroup>>,
    /// How many are kept.
    most: usize,
}

impl BindGroups {
    pub(super) fn new(most: usize) -> Self {
        Self {
            made: Mutex::default(),
            most,
        }
    }

    fn made(&self) -> MutexGuard<'_, HashMap<BindGroupKey, wgpu::BindGroup>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bind group of a key, which `make` makes at the first use.
    pub(super) fn get(
        &self,
        connection: &Connection,
        key: BindGroupKey,
        make: impl FnOnce() -> wgpu::BindGroup,
    ) -> Result<wgpu::BindGroup> {
        let mut made = self.made();
        if let Some(group) = made.get(&key) {
            return Ok(group.clone());
        }
        // Caught here, an error costs this call; caught when it is submitted, all that is recorded.
        let group = connection
            .catch(make)
            .map_err(|error| connection.error(error.to_string()))?;
        if made.len() >= self.most {
            made.clear();
        }
        made.insert(key, group.clone());
        Ok(group)
    }

    /// Forgets the bind groups that hold any of these buffers, which would keep their memory.
    pub(super) fn forget(&self, buffers: &[u64]) {
        if !buffers.is_empty() {
            let holds = |key: &BindGroupKey| {
                let mut windows = key.windows.iter();
                windows.any(|window| buffers.contains(&window.buffer))
            };
            self.made().retain(|key, _| !holds(key));
        }
    }
}
