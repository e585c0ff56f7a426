//! The devices of a runtime: the CPU and the GPUs, including lost ones.

use super::DeviceId;
use super::cpu::Cpu;
use super::gpu::{Gpu, OpenGpu};
use super::managed_gpu::{ManagedGpu, UnusableGpu};
use crate::error::{Error, Result};
use std::sync::Arc;

/// The devices of a runtime.
pub(crate) struct Devices {
    /// The CPU, which always exists, though a runtime may be configured to place nothing on it.
    pub(crate) cpu: Cpu,
    /// Whether calls may be placed on the CPU.
    pub(crate) place_on_cpu: bool,
    /// The GPUs, in the order of their numbers.
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

    /// The GPU with this number.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`] if it does not exist, [`Error::DeviceLost`] if it is lost.
    pub(crate) fn gpu(&self, index: usize) -> Result<Arc<Gpu>> {
        let gpu = self.managed_gpu(index)?;
        gpu.gpu().ok_or_else(|| Error::DeviceLost {
            device: gpu.info().name.clone(),
            message: gpu.loss().unwrap_or_default(),
        })
    }

    /// The GPU with this number, whether or not it works.
    pub(crate) fn managed_gpu(&self, index: usize) -> Result<&ManagedGpu> {
        self.gpus.get(index).ok_or_else(|| Error::NoSuchDevice {
            wanted: DeviceId::Gpu(index).to_string(),
            available: self.names(),
        })
    }

    /// The GPUs that work, with their numbers.
    pub(crate) fn working(&self) -> impl Iterator<Item = (usize, Arc<Gpu>)> + '_ {
        let gpus = self.gpus.iter().enumerate();
        gpus.filter_map(|(index, gpu)| Some((index, gpu.gpu()?)))
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

    /// The GPUs that are set aside because they compute wrong results.
    pub(crate) fn set_aside(&self) -> impl Iterator<Item = UnusableGpu> + '_ {
        self.unusable(|gpu| gpu.why_set_aside().map(str::to_owned))
    }

    fn unusable(
        &self,
        reason: impl Fn(&ManagedGpu) -> Option<String>,
    ) -> impl Iterator<Item = UnusableGpu> {
        let gpus = self.gpus.iter().enumerate();
        gpus.filter_map(move |(index, gpu)| {
            Some(UnusableGpu {
                index,
                name: gpu.info().name.clone(),
                reason: reason(gpu)?,
            })
        })
    }

    /// Whether every GPU may be used.
    pub(crate) fn all_usable(&self) -> bool {
        let is_usable = |gpu: &ManagedGpu| gpu.why_set_aside().is_none() && gpu.gpu().is_some();
        self.gpus.iter().all(is_usable)
    }

    /// Reopens all lost GPUs at once. Returns whether any of them works again.
    pub(crate) fn open_all_now(&self) -> bool {
        let lost: Vec<&ManagedGpu> = self.gpus.iter().filter(|s| s.gpu().is_none()).collect();
        lost.iter().filter(|gpu| gpu.open_now().is_ok()).count() > 0
    }

    /// Reopens lost GPUs that are due.
    pub(crate) fn reopen_due_gpus(&self) {
        self.gpus.iter().for_each(ManagedGpu::reopen_if_due);
    }

    /// Reopens a lost GPU at once.
    pub(crate) fn open_now(&self, index: usize) -> Result<Arc<Gpu>> {
        self.managed_gpu(index)?.open_now()
    }

    /// The threads that compute a run on one device: all of the pool's on the CPU, 1 on a GPU.
    pub(crate) fn threads_of(&self, device: DeviceId) -> usize {
        match device {
            DeviceId::Cpu => self.cpu.threads(),
            DeviceId::Gpu(_) => 1,
        }
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
        for gpu in &self.gpus {
            gpu.stop();
            gpu.latest().stop_compiling();
        }
    }
}
