//! Finding GPUs: which adapters there are, and which can compute.

use super::adapter::{Adapter, OpenGpu};
use super::info::{GpuInfo, GpuLimits, GpuOptions, HardwareId};
use crate::device::DeviceKind;

/// Every adapter of this machine, opened, with the reason for each that cannot be used.
pub(crate) struct Discovery {
    /// The usable ones: real GPUs before software adapters, otherwise in the drivers' order.
    pub(crate) gpus: Vec<OpenGpu>,
    /// Why there are no more.
    pub(crate) problems: Vec<String>,
}

/// Looks for adapters and opens each that can compute and that `wanted` accepts.
pub(crate) fn discover(options: &GpuOptions, wanted: impl Fn(&GpuInfo) -> bool) -> Discovery {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let mut problems = Vec::new();
    if adapters.is_empty() {
        problems.push(why_none());
    }
    let mut found: Vec<(GpuInfo, wgpu::Adapter)> = Vec::new();
    for adapter in adapters {
        let info = describe(&adapter);
        let compute = wgpu::DownlevelFlags::COMPUTE_SHADERS;
        if !adapter.get_downlevel_capabilities().flags.contains(compute) {
            problems.push(format!(
                "{} ({}) has no compute shaders",
                info.name, info.backend
            ));
        } else if found.iter().any(|(other, _)| other.same_hardware(&info)) {
            problems.push(format!(
                "{} is offered by {} too; using it once",
                info.name, info.backend
            ));
        } else if wanted(&info) {
            found.push((info, adapter));
        } else {
            problems.push(format!("{} is none of the adapters asked for", info.name));
        }
    }
    found.sort_by_key(|(info, _)| info.kind == DeviceKind::Software);
    let mut gpus = Vec::new();
    for (info, adapter) in found {
        let name = info.name.clone();
        match Adapter::new(adapter, info, options).open_first() {
            Ok(gpu) => gpus.push(gpu),
            Err(error) => problems.push(format!("{name} cannot be used: {error}")),
        }
    }
    Discovery { gpus, problems }
}

fn describe(adapter: &wgpu::Adapter) -> GpuInfo {
    let info = adapter.get_info();
    let limits = adapter.limits();
    GpuInfo {
        name: info.name,
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .to_owned(),
        backend: info.backend.to_str().to_owned(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
            wgpu::DeviceType::Cpu => DeviceKind::Software,
            wgpu::DeviceType::Other | wgpu::DeviceType::VirtualGpu => DeviceKind::Other,
        },
        hardware: HardwareId {
            vendor: info.vendor,
            device: info.device,
            pci_bus: info.device_pci_bus_id,
        },
        limits: GpuLimits {
            // Shaders count elements in 32 bits, which some backends' own limit exceeds.
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(1 << 31) / 256 * 256,
            max_buffer_bytes: limits.max_buffer_size / 256 * 256,
            max_groups: limits.max_compute_workgroups_per_dimension,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_arrays: limits.max_storage_buffers_per_shader_stage,
            max_uniform_bytes: limits.max_uniform_buffer_binding_size,
            // A software adapter has the host's, whatever it says.
            memory_bytes: memory_bytes(adapter)
                .filter(|_| info.device_type != wgpu::DeviceType::Cpu),
        },
    }
}

/// All of the memory that the adapter calls its own, where that can be asked.
#[cfg(any(target_os = "linux", target_os = "android", windows))]
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: nothing is destroyed or changed through it.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the physical device was enumerated from this instance, which the adapter keeps alive.
    let memory =
        unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    let heaps = memory
        .memory_heaps
        .iter()
        .take(memory.memory_heap_count as usize);
    let local = heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0);
    local.map(|heap| heap.size).max().filter(|bytes| *bytes > 0)
}

#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
fn memory_bytes(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// Why no adapter was found, as far as it can be told.
fn why_none() -> String {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: loading the Vulkan loader runs only its initialisers, as wgpu did a moment ago.
        let loader = unsafe { libc::dlopen(c"libvulkan.so.1".as_ptr(), libc::RTLD_NOW) };
        if loader.is_null() {
            return "the Vulkan loader (libvulkan.so.1) is not installed; on Debian or Ubuntu: \
                    apt install libvulkan1, and a driver such as mesa-vulkan-drivers"
                .into();
        }
        // SAFETY: the handle is the one just opened.
        unsafe { libc::dlclose(loader) };
    }
    "no graphics driver offers an adapter; install one for your GPU (on Debian or Ubuntu, \
     mesa-vulkan-drivers has a software one)"
        .into()
}
