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
mod slot;

pub(crate) use gpu::{Clock, Reading};
#[doc(hidden)]
pub use gpu::{FaultPoint, Faults};
pub use gpu::{GpuInfo, GpuLimits, GpuMemory};
pub use id::DeviceId;
pub use kind::DeviceKind;
pub use sim::SimulatedMachine;
pub use slot::LostGpu;
pub(crate) use slot::Slot;

use crate::error::{Error, Result};
use cpu::Cpu;
use gpu::{Gpu, Rescue};
use std::sync::{Arc, Weak};

/// The devices of a runtime.
pub(crate) struct Devices {
    /// The CPU, which is always there, though a runtime may be told to place nothing on it.
    pub(crate) cpu: Cpu,
    /// Whether calls may be placed on the CPU.
    pub(crate) place_on_cpu: bool,
    /// The places of the GPUs, in the order of their numbers.
    pub(crate) gpus: Vec<Slot>,
}

impl Devices {
    pub(crate) fn new(cpu: Cpu, place_on_cpu: bool, gpus: Vec<Arc<Gpu>>) -> Self {
        Self {
            cpu,
            place_on_cpu,
            gpus: gpus.into_iter().map(Slot::new).collect(),
        }
    }

    /// The GPU of that number.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`] if there is none, [`Error::DeviceLost`] if it is lost.
    pub(crate) fn gpu(&self, index: usize) -> Result<Arc<Gpu>> {
        let slot = self.slot(index)?;
        slot.gpu()
            .ok_or_else(|| Self::lost_gpu(index, slot).error())
    }

    /// The place of the GPU of that number.
    pub(crate) fn slot(&self, index: usize) -> Result<&Slot> {
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

    /// The GPUs that are lost.
    pub(crate) fn lost(&self) -> impl Iterator<Item = LostGpu> + '_ {
        let slots = self.gpus.iter().enumerate();
        let lost = slots.filter(|(_, slot)| slot.gpu().is_none());
        lost.map(|(index, slot)| Self::lost_gpu(index, slot))
    }

    /// Whether any GPU is known to be lost.
    pub(crate) fn any_lost(&self) -> bool {
        self.gpus.iter().any(|slot| slot.gpu().is_none())
    }

    /// Opens all lost GPUs again at once; whether any of them works then that did not before.
    pub(crate) fn open_all_now(&self) -> bool {
        let lost: Vec<&Slot> = self.gpus.iter().filter(|s| s.gpu().is_none()).collect();
        lost.iter().filter(|slot| slot.open_now().is_ok()).count() > 0
    }

    fn lost_gpu(index: usize, slot: &Slot) -> LostGpu {
        LostGpu {
            index,
            name: slot.info().name.clone(),
            reason: slot.loss().unwrap_or_default(),
        }
    }

    /// Has lost GPUs opened again whose time has come.
    pub(crate) fn look_after_gpus(&self) {
        self.gpus.iter().for_each(Slot::look_after);
    }

    /// Opens a lost GPU again at once.
    pub(crate) fn open_now(&self, index: usize) -> Result<Arc<Gpu>> {
        self.slot(index)?.open_now()
    }

    /// Names who recovers what lost GPUs held.
    pub(crate) fn set_rescue(&self, rescue: &Weak<dyn Rescue>) {
        let slots = self.gpus.iter();
        slots.for_each(|slot| slot.set_rescue(Weak::clone(rescue)));
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
