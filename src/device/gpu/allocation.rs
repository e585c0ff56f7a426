//! wgpu buffers whose bytes are counted in the memory's account.

use super::connection::Connection;
use super::faults::FaultPoint;
use super::memory::{Lease, Memory, Purpose};
use crate::error::Result;
use std::sync::Arc;

/// What a buffer is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BufferRequest {
    pub(super) purpose: Purpose,
    pub(super) bytes: u64,
    pub(super) usage: wgpu::BufferUsages,
    /// Whether the host can write it at once.
    pub(super) mapped: bool,
}

/// A wgpu buffer that is counted.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) raw: wgpu::Buffer,
    _lease: Lease,
}

/// Why there is no buffer.
#[derive(Debug)]
enum Refusal {
    NoRoom,
    /// What wgpu said.
    Other(String),
}

impl Allocation {
    /// A new buffer.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`](crate::Error::DeviceMemory) if there is no room for it.
    pub(super) fn new(
        connection: &Connection,
        memory: &Arc<Memory>,
        request: &BufferRequest,
    ) -> Result<Self> {
        let bytes = request.bytes;
        if connection.meets_fault(FaultPoint::Allocation) {
            return Err(connection.no_room(bytes));
        }
        Self::create(connection, memory, request).map_err(|refusal| match refusal {
            Refusal::NoRoom => {
                if request.purpose == Purpose::Staging || memory.has_room_for_arrays(bytes) {
                    // What the driver has must do for more than staging.
                    memory.limit_staging(memory.report().used_bytes / 8);
                }
                connection.no_room(bytes)
            }
            Refusal::Other(message) => connection.error(message),
        })
    }

    /// The arena of parameters, without which a GPU cannot be used.
    pub(super) fn arena(connection: &Connection, memory: &Arc<Memory>) -> Result<Self> {
        let request = BufferRequest {
            purpose: Purpose::Staging,
            bytes: memory.shares().parameters,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped: false,
        };
        Self::create(connection, memory, &request).map_err(|refusal| {
            let problem = match refusal {
                Refusal::NoRoom => "out of memory".into(),
                Refusal::Other(message) => message,
            };
            connection.error(format!("no room for parameters: {problem}"))
        })
    }

    fn create(
        connection: &Connection,
        memory: &Arc<Memory>,
        request: &BufferRequest,
    ) -> Result<Self, Refusal> {
        let lease = memory.lease(request.purpose, request.bytes);
        let lease = lease.ok_or(Refusal::NoRoom)?;
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: request.bytes,
            usage: request.usage,
            mapped_at_creation: request.mapped,
        };
        match connection.catch(|| connection.device().create_buffer(&descriptor)) {
            Ok(raw) => Ok(Self { raw, _lease: lease }),
            Err(wgpu::Error::OutOfMemory { .. }) => Err(Refusal::NoRoom),
            Err(other) => Err(Refusal::Other(other.to_string())),
        }
    }
}
