//! Making room in a GPU's memory: arrays give way to others.

use super::extents::{Evict, Evicted, Gate, Registration, Victims};
use super::gpu::Gpu;
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::sync::Weak;

impl Gpu {
    /// Registers an extent of `owner`, used now.
    pub(crate) fn register(&self, owner: &Weak<dyn Evict>) -> Registration {
        self.extents.register(owner)
    }

    /// Lets the caller hold views of arrays on this GPU beside others. A new piece begins.
    pub(crate) fn share(&self) -> Gate<'_> {
        self.extents.share()
    }

    /// Lets the caller hold views of arrays on this GPU once no other thread does. It must hold none, nor the lock of an
    /// array.
    pub(crate) fn be_alone(&self) -> Gate<'_> {
        self.extents.be_alone()
    }

    /// Evicts extents until `bytes` bytes are free, or nothing is left that could go. The caller must not hold the lock of
    /// an array.
    ///
    /// # Errors
    /// If the GPU fails meanwhile.
    pub(crate) fn make_room(&self, bytes: u64, gate: &Gate<'_>) -> Result<Evicted> {
        let mut all = Evicted::default();
        for victims in [Victims::Stale, Victims::Copies, Victims::Any] {
            for (extent, owner) in self.extents.by_last_use() {
                if all.freed >= bytes {
                    return Ok(all);
                }
                match owner.evict(extent, victims, gate.is_alone()) {
                    Ok(Some(evicted)) => {
                        all.freed += evicted.freed;
                        all.to_host += evicted.to_host;
                    }
                    // Another may be moved where this one could not.
                    Ok(None) | Err(Error::HostMemory { .. } | Error::DeviceMemory { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(all)
    }

    /// Makes room for buffers of these sizes, all at once, which are idle then. The caller should be alone, for others
    /// would use them.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no such room.
    pub(crate) fn reserve(&self, buffers: &[u64], gate: &Gate<'_>) -> Result<Evicted> {
        let mut held = SmallVec::<[_; 2]>::new();
        let mut evicted = Evicted::default();
        while held.len() < buffers.len() {
            match self.allocate(buffers[held.len()]) {
                Err(Error::DeviceMemory { device, bytes }) => {
                    let room = self.make_room(bytes, gate)?;
                    evicted.freed += room.freed;
                    evicted.to_host += room.to_host;
                    if room.freed == 0 {
                        return Err(Error::DeviceMemory { device, bytes });
                    }
                }
                buffer => held.push(buffer?),
            }
        }
        Ok(evicted)
    }
}
