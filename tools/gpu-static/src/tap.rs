//! A GPU that is not there, opened through wgpu, with a tap on what wgpu asks of its driver.
//!
//! wgpu-hal turns a module of naga into SPIR-V and a pipeline exactly as in a run; nothing of that is repeated here. The tap
//! stands between wgpu-hal and the Vulkan loader and does one thing: it has the driver keep statistics and assembly of each
//! compute pipeline ([`VK_KHR_pipeline_executable_properties`]), and remembers the pipeline, so that they can be read. The
//! layers of wgpu above wgpu-hal need memory, which hardware that is not there lacks; what they do with a shader, which is to
//! parse and validate it, is in `compile`.
//!
//! It must never change what is compiled, and nothing may be dispatched: there is no hardware.
//!
//! [`VK_KHR_pipeline_executable_properties`]: https://registry.khronos.org/vulkan/specs/latest/man/html/VK_KHR_pipeline_executable_properties.html

use crate::subject::Subject;
use ash::{khr, vk};
use divvy::catalog::shaders;
use divvy::kernel::BindingKind;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::mem::{ManuallyDrop, transmute};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use wgpu::hal::vulkan::{Api, CreateDeviceCallback};
use wgpu::hal::{self, Device as _, Instance as _};

/// An opened device.
pub struct Driver {
    info: wgpu::AdapterInfo,
    /// Never destroyed: the process ends soon, and a driver may wait at the end for hardware that is not there.
    device: ManuallyDrop<hal::OpenDevice<Api>>,
    statistics: khr::pipeline_executable_properties::Device,
}

/// What the driver tells of a compiled pipeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compiled {
    /// Figures by their names.
    pub statistics: Vec<(String, u64)>,
    /// Texts by their names: intermediate forms and assembly.
    pub texts: Vec<(String, String)>,
}

impl Driver {
    /// Opens the one device that the Vulkan loader finds.
    pub fn open() -> Result<Self, String> {
        let (instance, raw_instance) = instance()?;
        // SAFETY: the instance is alive, and is never destroyed from here on.
        let adapters = unsafe { instance.enumerate_adapters(None) };
        let [exposed] = <[hal::ExposedAdapter<Api>; 1]>::try_from(adapters)
            .map_err(|all| format!("expected one Vulkan device, found {}", all.len()))?;
        std::mem::forget(instance);
        let adapter = &exposed.adapter;
        let extension = khr::pipeline_executable_properties::NAME;
        let known = adapter.physical_device_capabilities();
        if !known.supports_extension(extension) {
            return Err(format!("its driver lacks {}", extension.to_string_lossy()));
        }
        let features = exposed.features & shaders::useful_features();
        let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
            .pipeline_executable_info(true);
        let executables = &mut executables;
        let callback: Box<CreateDeviceCallback<'_>> = Box::new(move |args| {
            args.extensions.push(extension);
            *args.create_info = args.create_info.push_next(executables);
        });
        let (limits, hints) = (&exposed.capabilities.limits, wgpu::MemoryHints::Performance);
        // SAFETY: the features are some that the adapter has, with its own limits; the callback adds an extension that the
        // driver has, with its only feature, and takes nothing away.
        let device =
            unsafe { adapter.open_with_callback(features, limits, &hints, Some(callback)) }
                .map_err(|e| format!("the device cannot be opened: {e}"))?;
        let raw_device = device.device.raw_device();
        Ok(Self {
            info: exposed.info,
            statistics: khr::pipeline_executable_properties::Device::new(&raw_instance, raw_device),
            device: ManuallyDrop::new(device),
        })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// The driver's version.
    pub fn driver_version(&self) -> &str {
        &self.info.driver_info
    }

    /// Compiles a pipeline as wgpu does it for a trusted shader: without bounds checks, bounded loops, checks of divisors
    /// and zeroed workgroup memory.
    pub fn compile(&self, subject: &Subject) -> Result<Compiled, String> {
        let module = naga::front::wgsl::parse_str(&subject.source)
            .map_err(|e| e.emit_to_string(&subject.source))?;
        let flags = naga::valid::ValidationFlags::all();
        let capabilities = naga::valid::Capabilities::all();
        let info = naga::valid::Validator::new(flags, capabilities)
            .validate(&module)
            .map_err(|e| e.emit_to_string(&subject.source))?;
        let entries = layout(&subject.bindings().map_err(|e| e.to_string())?);
        let constants: naga::back::PipelineConstants = subject.constants.iter().cloned().collect();
        let shader = hal::NagaShader {
            module: Cow::Owned(module),
            info,
            debug_source: None,
        };
        tapped().clear();
        let device = &self.device.device;
        let refuse = |e: &dyn std::fmt::Display| format!("wgpu does not compile it: {e}");
        // SAFETY: all objects belong to this device and are never destroyed. The module is validated, and its bindings are
        // those of the layout. Nothing runs, so no check can be missing.
        unsafe {
            let module = device
                .create_shader_module(
                    &hal::ShaderModuleDescriptor {
                        label: None,
                        runtime_checks: wgpu::ShaderRuntimeChecks::unchecked(),
                    },
                    hal::ShaderInput::Naga(shader),
                )
                .map_err(|e| refuse(&e))?;
            let group = device
                .create_bind_group_layout(&hal::BindGroupLayoutDescriptor {
                    label: None,
                    flags: hal::BindGroupLayoutFlags::empty(),
                    entries: &entries,
                })
                .map_err(|e| refuse(&e))?;
            let layout = device
                .create_pipeline_layout(&hal::PipelineLayoutDescriptor {
                    label: None,
                    flags: hal::PipelineLayoutFlags::empty(),
                    bind_group_layouts: &[Some(&group)],
                    immediate_size: 0,
                })
                .map_err(|e| refuse(&e))?;
            device
                .create_compute_pipeline(&hal::ComputePipelineDescriptor {
                    label: None,
                    layout: &layout,
                    stage: hal::ProgrammableStage {
                        module: &module,
                        entry_point: &subject.entry,
                        constants: &constants,
                        zero_initialize_workgroup_memory: false,
                    },
                    cache: None,
                })
                .map_err(|e| refuse(&e))?;
        }
        let [pipeline] = <[vk::Pipeline; 1]>::try_from(tapped().split_off(0))
            .map_err(|all| format!("expected one pipeline, wgpu made {}", all.len()))?;
        self.read(pipeline)
    }

    /// What the driver tells of a pipeline that wgpu holds.
    fn read(&self, pipeline: vk::Pipeline) -> Result<Compiled, String> {
        let refuse = |e: vk::Result| format!("the driver tells nothing of the pipeline: {e}");
        let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline is alive and was created with both capture flags, as these calls require.
        let figures = unsafe {
            self.statistics
                .get_pipeline_executable_statistics(&executable)
        };
        let name = |s: &vk::PipelineExecutableStatisticKHR<'_>| {
            let name = s.name_as_c_str().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let whole = |s: &vk::PipelineExecutableStatisticKHR<'_>| match s.format {
            // SAFETY: the format says which field of the union is set.
            vk::PipelineExecutableStatisticFormatKHR::UINT64 => Some(unsafe { s.value.u64 }),
            _ => None,
        };
        let statistics = figures
            .map_err(refuse)?
            .iter()
            .filter_map(|s| Some((name(s), whole(s)?)))
            .collect();
        Ok(Compiled {
            statistics,
            texts: self.texts(&executable).map_err(refuse)?,
        })
    }

    /// Intermediate forms and assembly. Vulkan fills in sizes first and texts at a second call.
    fn texts(
        &self,
        executable: &vk::PipelineExecutableInfoKHR<'_>,
    ) -> Result<Vec<(String, String)>, vk::Result> {
        type Representation = vk::PipelineExecutableInternalRepresentationKHR<'static>;
        let get = self
            .statistics
            .fp()
            .get_pipeline_executable_internal_representations_khr;
        let device = self.statistics.device();
        let mut count = 0;
        // SAFETY: as in `read`; with no place for them, only their number is written.
        unsafe { get(device, executable, &mut count, std::ptr::null_mut()) }.result()?;
        let mut forms = vec![Representation::default(); count as usize];
        // SAFETY: there is room for `count`; with no place for texts, only their sizes are written.
        unsafe { get(device, executable, &mut count, forms.as_mut_ptr()) }.result()?;
        let mut texts: Vec<Vec<u8>> = forms.iter().map(|form| vec![0; form.data_size]).collect();
        for (form, text) in forms.iter_mut().zip(&mut texts) {
            form.p_data = text.as_mut_ptr().cast();
        }
        // SAFETY: every text has as many bytes as its form says, and outlives the call.
        unsafe { get(device, executable, &mut count, forms.as_mut_ptr()) }.result()?;
        let named = forms.iter().zip(&texts).map(|(form, text)| {
            let name = form.name_as_c_str().unwrap_or_default().to_string_lossy();
            let text = String::from_utf8_lossy(text);
            (name.into_owned(), text.trim_end_matches('\0').to_owned())
        });
        Ok(named.collect())
    }
}

/// What a layout says of bindings, as in the library.
fn layout(bindings: &[BindingKind]) -> Vec<wgpu::BindGroupLayoutEntry> {
    let ty = |kind: &BindingKind| match kind {
        BindingKind::Uniform { .. } => wgpu::BufferBindingType::Uniform,
        BindingKind::Read { .. } => wgpu::BufferBindingType::Storage { read_only: true },
        BindingKind::ReadWrite { .. } => wgpu::BufferBindingType::Storage { read_only: false },
    };
    let entry = |kind: &BindingKind| wgpu::BindGroupLayoutEntry {
        binding: kind.number(),
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: ty(kind),
            has_dynamic_offset: matches!(kind, BindingKind::Uniform { .. }),
            min_binding_size: None,
        },
        count: None,
    };
    bindings.iter().map(entry).collect()
}

/// An instance of wgpu-hal whose calls go through the tap.
fn instance() -> Result<(hal::vulkan::Instance, ash::Instance), String> {
    // SAFETY: the loader's initialisers are sound to run, as wgpu does.
    let loader = unsafe { ash::Entry::load() }.map_err(|e| {
        format!(
            "the Vulkan loader cannot be used ({e}); on Debian or Ubuntu: apt install libvulkan1"
        )
    })?;
    let real = loader.static_fn().get_instance_proc_addr;
    let _ = REAL_INSTANCE_LOOKUP.set(real);
    // The tap's functions call into the loader, which therefore stays until the process ends.
    std::mem::forget(loader);
    // SAFETY: the tap answers as the loader does, to which it passes everything on.
    let entry = unsafe {
        ash::Entry::from_static_fn(ash::StaticFn {
            get_instance_proc_addr: tap_instance_lookup,
        })
    };
    let version = vk::API_VERSION_1_3;
    let flags = wgpu::InstanceFlags::empty();
    let extensions = hal::vulkan::Instance::desired_extensions(&entry, version, flags)
        .map_err(|e| e.to_string())?;
    let names: Vec<*const c_char> = extensions.iter().map(|name| name.as_ptr()).collect();
    let application = vk::ApplicationInfo::default().api_version(version);
    let create = vk::InstanceCreateInfo::default()
        .application_info(&application)
        .enabled_extension_names(&names);
    // SAFETY: all that it points to lives until the call returns.
    let raw = unsafe { entry.create_instance(&create, None) }
        .map_err(|e| format!("the Vulkan loader gives no instance: {e}"))?;
    let thresholds = wgpu::MemoryBudgetThresholds::default();
    // SAFETY: the instance was created from this entry with this version and these extensions, which are those that wgpu
    // asks for; it is never destroyed.
    let hal = unsafe {
        hal::vulkan::Instance::from_raw(
            entry,
            raw.clone(),
            version,
            0,
            None,
            extensions,
            flags,
            thresholds,
            false,
            None,
        )
    }
    .map_err(|e| e.to_string())?;
    Ok((hal, raw))
}

static REAL_INSTANCE_LOOKUP: OnceLock<vk::PFN_vkGetInstanceProcAddr> = OnceLock::new();
static REAL_DEVICE_LOOKUP: OnceLock<vk::PFN_vkGetDeviceProcAddr> = OnceLock::new();
static REAL_CREATE: OnceLock<vk::PFN_vkCreateComputePipelines> = OnceLock::new();

/// The pipelines that were created and not yet read.
static TAPPED: Mutex<Vec<vk::Pipeline>> = Mutex::new(Vec::new());

fn tapped() -> MutexGuard<'static, Vec<vk::Pipeline>> {
    TAPPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `vkGetInstanceProcAddr`, which gives the tap where a device's functions are looked up.
unsafe extern "system" fn tap_instance_lookup(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    let real = REAL_INSTANCE_LOOKUP.get()?;
    // SAFETY: the arguments are the caller's.
    let found = unsafe { real(instance, name) }?;
    // SAFETY: Vulkan's names are strings that end with 0.
    if unsafe { CStr::from_ptr(name) } != c"vkGetDeviceProcAddr" {
        return Some(found);
    }
    // SAFETY: this is the type of the function of this name.
    let _ = REAL_DEVICE_LOOKUP.set(unsafe {
        transmute::<unsafe extern "system" fn(), vk::PFN_vkGetDeviceProcAddr>(found)
    });
    let tap: vk::PFN_vkGetDeviceProcAddr = tap_device_lookup;
    // SAFETY: the caller turns it back into the type of the function of this name.
    Some(unsafe { transmute::<vk::PFN_vkGetDeviceProcAddr, unsafe extern "system" fn()>(tap) })
}

/// `vkGetDeviceProcAddr`, which gives the tap where compute pipelines are created.
unsafe extern "system" fn tap_device_lookup(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    let real = REAL_DEVICE_LOOKUP.get()?;
    // SAFETY: the arguments are the caller's.
    let found = unsafe { real(device, name) }?;
    // SAFETY: Vulkan's names are strings that end with 0.
    let name = unsafe { CStr::from_ptr(name) };
    if name == c"vkCreateComputePipelines" {
        // SAFETY: this is the type of the function of this name.
        let _ = REAL_CREATE.set(unsafe {
            transmute::<unsafe extern "system" fn(), vk::PFN_vkCreateComputePipelines>(found)
        });
        let tap: vk::PFN_vkCreateComputePipelines = tap_create_compute_pipelines;
        // SAFETY: the caller turns it back into the type of the function of this name.
        Some(unsafe {
            transmute::<vk::PFN_vkCreateComputePipelines, unsafe extern "system" fn()>(tap)
        })
    } else {
        Some(found)
    }
}

/// `vkCreateComputePipelines`, which has the driver keep what it knows of each pipeline, and remembers it.
unsafe extern "system" fn tap_create_compute_pipelines(
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::ComputePipelineCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline,
) -> vk::Result {
    let Some(real) = REAL_CREATE.get() else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: the caller gives `count` infos.
    let mut infos = unsafe { std::slice::from_raw_parts(infos, count as usize) }.to_vec();
    for info in &mut infos {
        info.flags |= vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
            | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
    }
    // SAFETY: the arguments are the caller's, but for flags whose feature `Driver::open` enables.
    let result = unsafe { real(device, cache, count, infos.as_ptr(), allocator, pipelines) };
    if result == vk::Result::SUCCESS {
        // SAFETY: the driver has written `count` pipelines.
        tapped()
            .extend_from_slice(unsafe { std::slice::from_raw_parts(pipelines, count as usize) });
    }
    result
}
