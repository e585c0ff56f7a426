//! Opening a device on an adapter, for the first time and again after it was lost.

use super::faults::Faults;
use super::gpu::Gpu;
use super::info::{GpuInfo, GpuOptions};
use super::self_test;
use super::stamps::FEATURES;
use super::tuning::Tuning;
use crate::error::{Error, Result};
use std::sync::Arc;

/// An adapter on which devices are opened.
#[derive(Debug)]
pub(crate) struct Adapter {
    raw: wgpu::Adapter,
    info: GpuInfo,
    options: GpuOptions,
    faults: Arc<Faults>,
}

/// A GPU with the adapter that opened it, and can open it again.
#[derive(Debug)]
pub(crate) struct OpenGpu {
    pub(crate) adapter: Adapter,
    pub(crate) gpu: Arc<Gpu>,
}

impl Adapter {
    pub(super) fn new(raw: wgpu::Adapter, mut info: GpuInfo, options: &GpuOptions) -> Self {
        if let Some(bytes) = options.max_binding_bytes {
            info.limits.max_binding_bytes = info.limits.max_binding_bytes.min(bytes / 256 * 256);
        }
        if let Some(bytes) = options.max_buffer_bytes {
            info.limits.max_buffer_bytes = info.limits.max_buffer_bytes.min(bytes / 256 * 256);
        }
        if let Some(arrays) = options.max_arrays {
            info.limits.max_arrays = info.limits.max_arrays.min(arrays);
        }
        Self {
            raw,
            info,
            options: options.clone(),
            faults: Arc::default(),
        }
    }

    /// What it says of itself.
    pub(crate) fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// The numbers that tune what is opened on it.
    pub(crate) fn tuning(&self) -> &Tuning {
        &self.options.tuning
    }

    /// The faults that tests have happen on this adapter.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Opens a device for the first time.
    pub(super) fn open_first(self) -> Result<OpenGpu> {
        let gpu = self.open()?;
        Ok(OpenGpu { adapter: self, gpu })
    }

    /// Opens a device with all that the adapter offers and a kernel, built in or a user's own, may have a use for, if it
    /// passes the self-test.
    pub(crate) fn open(&self) -> Result<Arc<Gpu>> {
        let request = self.raw.request_device(&wgpu::DeviceDescriptor {
            label: Some("divvy"),
            required_features: self.raw.features() & useful_features(),
            required_limits: self.raw.limits(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request).map_err(|e| Error::Gpu {
            device: self.info.name.clone(),
            message: e.to_string(),
        })?;
        let info = self.info.clone();
        let gpu = Gpu::new(device, queue, info, &self.options, &self.faults)?;
        self_test::run(&gpu)?;
        Ok(Arc::new(gpu))
    }
}

/// What a kernel, built in or a user's own, may have a use for.
pub fn useful_features() -> wgpu::Features {
    FEATURES
        | wgpu::Features::SUBGROUP
        | wgpu::Features::SHADER_F16
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::SHADER_F64
}
