//! The places that run kernels: the CPU and GPUs.
//!
//! `cpu` owns the rayon pool, `gpu` owns everything of wgpu, [`sim`] makes machines up from tables. None of them knows a
//! kernel by name, or decides anything: that is the planner's, in `dispatch`.

pub(crate) mod cpu;
pub(crate) mod gpu;
mod id;
mod kind;
mod region;
pub mod sim;

pub(crate) use gpu::{Clock, Reading};
pub use gpu::{GpuInfo, GpuLimits, GpuMemory};
pub use id::DeviceId;
pub use kind::DeviceKind;
pub use sim::SimulatedMachine;

use crate::error::{Error, Result};
use cpu::Cpu;
use gpu::Gpu;
use std::sync::Arc;

/// The devices of a runtime.
pub(crate) struct Devices {
    /// The CPU, which is always there, though a runtime may be told to place nothing on it.
    pub(crate) cpu: Cpu,
    /// Whether calls may be placed on the CPU.
    pub(crate) place_on_cpu: bool,
    /// The GPUs, in the order of their numbers.
    pub(crate) gpus: Vec<Arc<Gpu>>,
}

impl Devices {
    /// The GPU of that number.
    pub(crate) fn gpu(&self, index: usize) -> Result<&Arc<Gpu>> {
        self.gpus.get(index).ok_or_else(|| Error::NoSuchDevice {
            wanted: DeviceId::Gpu(index).to_string(),
            available: self.names(),
        })
    }

    /// The devices that calls may be placed on, for messages.
    pub(crate) fn names(&self) -> String {
        let cpu = self.place_on_cpu.then(|| DeviceId::Cpu.to_string());
        let gpus = (0..self.gpus.len()).map(|i| DeviceId::Gpu(i).to_string());
        let names: Vec<String> = cpu.into_iter().chain(gpus).collect();
        if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.gpus.iter().for_each(|gpu| gpu.stop_compiling());
    }
}
