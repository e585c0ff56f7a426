//! The places that run kernels: the CPU and GPUs.
//!
//! `cpu` owns the rayon pool, `gpu` owns everything of wgpu, [`sim`] makes machines up from tables. None of them knows a
//! kernel by name, or decides anything: that is the planner's, in `dispatch`.

pub(crate) mod buffer_size;
pub(crate) mod cpu;
pub(crate) mod gpu;
mod id;
mod kind;
mod managed_gpu;
mod region;
pub mod sim;

pub(crate) use gpu::{Clock, Reading};
#[doc(hidden)]
pub use gpu::{FaultPoint, Faults};
pub use gpu::{GpuInfo, GpuLimits, GpuMemory};
pub use id::DeviceId;
pub use kind::DeviceKind;
pub(crate) use managed_gpu::ManagedGpu;
pub use managed_gpu::UnusableGpu;
pub use sim::SimulatedMachine;

use crate::error::{Error, Result};
use cpu::Cpu;
use gpu::{Gpu, OpenGpu};
use std::sync::Arc;

/// The devices of a runtime.
pub(crate) struct Devices {
    /// The CPU, which is always there, though a runtime may be told to place nothing on it.
    pub(crate) cpu: Cpu,
    /// Whether calls may be placed on the CPU.
    pub(crate) place_on_cpu: bool,
    /// The places of the GPUs, in the order of their numbers.
    pub(crate) gpus: Vec<ManagedGpu>,
}

impl Devices {
    pub(crate) fn new(cpu: Cpu, place_on_cpu: bool, gpus: Vec<OpenGpu>) -> Self {
        Self {
            cpu,
            place_on_cpu,
            gpus: gpus.into_iter().map(ManagedGpu::new).collect(),
        }
    }

    /// The GPU of that number.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`] if there is none, [`Error::DeviceLost`] if it is lost.
    pub(crate) fn gpu(&self, index: usize) -> Result<Arc<Gpu>> {
        let slot = self.slot(index)?;
        slot.gpu().ok_or_else(|| Error::DeviceLost {
            device: slot.info().name.clone(),
            message: slot.loss().unwrap_or_default(),
        })
    }

    /// The place of the GPU of that number.
    pub(crate) fn slot(&self, index: usize) -> Result<&ManagedGpu> {
        self.gpus.get(index).ok_or_else(|| Error::NoSuchDevice {
            wanted: DeviceId::Gpu(index).to_string(),
            available: self.names(),
        })
    }

    /// The GPUs that work, with their numbers.
    pub(crate) fn working(&self) -> impl Iterator<Item = (usize, Arc<Gpu>)> + '_ {
        let slots = self.gpus.iter().enumerate();
        slots.filter_map(|(index, slot)| Some((index, slot.gpu()?)))
    }

    /// The GPUs that work and are not set aside, with their numbers.
    pub(crate) fn trusted(&self) -> impl Iterator<Item = (usize, Arc<Gpu>)> + '_ {
        let is_trusted = |index: usize| self.gpus[index].why_set_aside().is_none();
        self.working().filter(move |(index, _)| is_trusted(*index))
    }

    /// The GPUs that are lost.
    pub(crate) fn lost(&self) -> impl Iterator<Item = UnusableGpu> + '_ {
        self.unusable(ManagedGpu::loss)
    }

    /// The GPUs that are set aside because they compute wrongly.
    pub(crate) fn set_aside(&self) -> impl Iterator<Item = UnusableGpu> + '_ {
        self.unusable(|slot| slot.why_set_aside().map(str::to_owned))
    }

    fn unusable(
        &self,
        reason: impl Fn(&ManagedGpu) -> Option<String>,
    ) -> impl Iterator<Item = UnusableGpu> {
        let slots = self.gpus.iter().enumerate();
        slots.filter_map(move |(index, slot)| {
            Some(UnusableGpu {
                index,
                name: slot.info().name.clone(),
                reason: reason(slot)?,
            })
        })
    }

    /// Whether every GPU may be used.
    pub(crate) fn all_usable(&self) -> bool {
        let is_usable = |slot: &ManagedGpu| slot.why_set_aside().is_none() && slot.gpu().is_some();
        self.gpus.iter().all(is_usable)
    }

    /// Opens all lost GPUs again at once; whether any of them works then that did not before.
    pub(crate) fn open_all_now(&self) -> bool {
        let lost: Vec<&ManagedGpu> = self.gpus.iter().filter(|s| s.gpu().is_none()).collect();
        lost.iter().filter(|slot| slot.open_now().is_ok()).count() > 0
    }

    /// Has lost GPUs opened again whose time has come.
    pub(crate) fn look_after_gpus(&self) {
        self.gpus.iter().for_each(ManagedGpu::look_after);
    }

    /// Opens a lost GPU again at once.
    pub(crate) fn open_now(&self, index: usize) -> Result<Arc<Gpu>> {
        self.slot(index)?.open_now()
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
        for slot in &self.gpus {
            slot.stop();
            slot.latest().stop_compiling();
        }
    }
}
