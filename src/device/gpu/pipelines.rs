//! Compiled pipelines and bind groups of a GPU, each made once.

use super::Gpu;
use super::dispatch::{Arity, EntryPoint, Window};
use super::shader::{BindingKind, Shader};
use crate::device::cpu::discard;
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Bind groups kept; beyond it all are dropped and made anew as they are used.
const BIND_GROUPS: usize = 512;

/// A compiled entry point with its layout.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) raw: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    id: u64,
    /// The bindings of group 0, in the order in which a dispatch names its arguments.
    bindings: Vec<BindingKind>,
    used: AtomicBool,
}

/// What identifies a pipeline: the shader, its entry point and its override constants.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PipelineKey {
    shader: u64,
    entry: SmallVec<[u8; 16]>,
    constants: SmallVec<[(&'static str, u64); 4]>,
}

/// What identifies a bind group: its pipeline and its windows of buffers (id, offset, bytes).
type BindGroupKey = (u64, SmallVec<[(u64, u64, u64); 4]>);

/// The pipelines and bind groups of a GPU.
#[derive(Default)]
pub(super) struct Pipelines {
    made: RwLock<HashMap<PipelineKey, Arc<Pipeline>>>,
    /// For each that is being compiled a lock that its compiler holds, so that two threads do not compile the same.
    compiling: Mutex<HashMap<PipelineKey, Arc<Mutex<()>>>>,
    bind_groups: Mutex<HashMap<BindGroupKey, wgpu::BindGroup>>,
    next_id: AtomicU64,
}

impl Pipelines {
    /// The pipeline of a shader's entry point, compiled at the first use.
    pub(super) fn get(&self, gpu: &Gpu, entry_point: &EntryPoint<'_>) -> Result<Arc<Pipeline>> {
        let EntryPoint {
            shader,
            name,
            constants,
        } = *entry_point;
        let key = PipelineKey {
            shader: shader.hash(),
            entry: name.as_bytes().into(),
            constants: constants.iter().map(|(n, v)| (*n, v.to_bits())).collect(),
        };
        let find = || {
            let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
            made.get(&key).cloned()
        };
        if let Some(pipeline) = find() {
            return Ok(pipeline);
        }
        let turn = Arc::clone(self.compiling().entry(key.clone()).or_default());
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = find() {
            return Ok(pipeline);
        }
        // Nothing else is locked meanwhile, for it may take long.
        let compiled = without_panic(gpu.name(), shader, || self.compile(gpu, entry_point));
        let made = compiled.map(|pipeline| {
            let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(made.entry(key.clone()).or_insert(Arc::new(pipeline)))
        });
        self.compiling().remove(&key);
        made
    }

    fn compiling(&self) -> MutexGuard<'_, HashMap<PipelineKey, Arc<Mutex<()>>>> {
        self.compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many pipelines have been compiled.
    #[cfg(test)]
    pub(super) fn compiled(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    fn compile(&self, gpu: &Gpu, entry_point: &EntryPoint<'_>) -> Result<Pipeline> {
        let EntryPoint {
            shader,
            name: entry,
            constants,
        } = *entry_point;
        let started = std::time::Instant::now();
        let (device, checked) = (&gpu.device, gpu.checked);
        let label = Some(shader.label());
        let bindings = shader.bindings(entry)?;
        check_limits(gpu, shader, &bindings)?;
        let fixed = shader
            .constants()
            .iter()
            .map(|(name, value)| (name.as_str(), *value));
        let constants: Vec<(&str, f64)> = fixed.chain(constants.iter().copied()).collect();
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let source = wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(shader.source().into()),
        };
        let module = if shader.trusted() && !checked {
            // SAFETY: built-in shaders keep their indices within their bindings and end their loops; the test suite
            // also runs them with all checks on, where a violation shows as a wrong result.
            unsafe {
                device.create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked())
            }
        } else {
            device.create_shader_module(source)
        };
        let entries: Vec<_> = bindings
            .iter()
            .map(|kind| wgpu::BindGroupLayoutEntry {
                binding: kind.number(),
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match kind {
                        BindingKind::Uniform { .. } => wgpu::BufferBindingType::Uniform,
                        BindingKind::Read { .. } => {
                            wgpu::BufferBindingType::Storage { read_only: true }
                        }
                        BindingKind::ReadWrite { .. } => {
                            wgpu::BufferBindingType::Storage { read_only: false }
                        }
                    },
                    has_dynamic_offset: matches!(kind, BindingKind::Uniform { .. }),
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: !shader.trusted() || checked,
            },
            cache: None,
        });
        let failed = [
            pollster::block_on(internal.pop()),
            pollster::block_on(validation.pop()),
        ];
        if let Some(error) = failed.into_iter().flatten().next() {
            let message = format!("shader `{}`: {error}", shader.label());
            return Err(Error::Gpu {
                device: gpu.name().into(),
                message,
            });
        }
        tracing::debug!(
            shader = shader.label(),
            entry,
            seconds = started.elapsed().as_secs_f64(),
            "compiled"
        );
        Ok(Pipeline {
            raw,
            layout,
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            bindings,
            used: AtomicBool::new(false),
        })
    }

    /// The bind group of `windows` (the arrays in order) and the arena for every uniform, made at the first use.
    pub(super) fn bind_group(
        &self,
        gpu: &Gpu,
        pipeline: &Pipeline,
        windows: &[Window],
    ) -> Result<wgpu::BindGroup> {
        let key: BindGroupKey = (
            pipeline.id,
            windows
                .iter()
                .map(|w| (w.buffer.id(), w.offset, w.bytes))
                .collect(),
        );
        let mut groups = self.bind_groups();
        if let Some(group) = groups.get(&key) {
            return Ok(group.clone());
        }
        let mut arrays = windows.iter();
        let entries: Vec<_> = pipeline
            .bindings
            .iter()
            .filter_map(|kind| {
                let binding = match kind {
                    BindingKind::Uniform { bytes, .. } => wgpu::BufferBinding {
                        buffer: &gpu.arena.raw,
                        offset: 0,
                        size: wgpu::BufferSize::new(u64::from(*bytes).next_multiple_of(16)),
                    },
                    BindingKind::Read { .. } | BindingKind::ReadWrite { .. } => {
                        let window = arrays.next()?;
                        wgpu::BufferBinding {
                            buffer: window.buffer.raw(),
                            offset: window.offset,
                            size: wgpu::BufferSize::new(window.bytes),
                        }
                    }
                };
                let resource = wgpu::BindingResource::Buffer(binding);
                Some(wgpu::BindGroupEntry {
                    binding: kind.number(),
                    resource,
                })
            })
            .collect();
        let descriptor = wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        };
        // Caught here, it costs this call; caught when it is submitted, all that is recorded.
        let group = gpu
            .catch(|| gpu.device.create_bind_group(&descriptor))
            .map_err(|error| gpu.error(error.to_string()))?;
        if groups.len() >= BIND_GROUPS {
            groups.clear();
        }
        groups.insert(key, group.clone());
        Ok(group)
    }

    /// Forgets the bind groups that hold any of these buffers, which would keep their memory.
    pub(super) fn forget(&self, buffers: &[u64]) {
        if !buffers.is_empty() {
            self.bind_groups()
                .retain(|(_, windows), _| !windows.iter().any(|(id, ..)| buffers.contains(id)));
        }
    }

    fn bind_groups(&self) -> MutexGuard<'_, HashMap<BindGroupKey, wgpu::BindGroup>> {
        self.bind_groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a shader that needs more than the adapter can bind.
fn check_limits(gpu: &Gpu, shader: &Shader, bindings: &[BindingKind]) -> Result<()> {
    let limits = gpu.limits();
    let refuse = |what: &str, given: String, limit: String| {
        Err(Error::TooLarge {
            what: format!("shader `{}`: {what}", shader.label()),
            given,
            limit: format!("{limit} on {}", gpu.name()),
        })
    };
    let uniforms = bindings.iter().filter_map(|kind| match kind {
        BindingKind::Uniform { bytes, .. } => Some(u64::from(*bytes)),
        BindingKind::Read { .. } | BindingKind::ReadWrite { .. } => None,
    });
    let largest = gpu.largest_uniform();
    if let Some(bytes) = uniforms.clone().find(|bytes| *bytes > largest) {
        let given = format!("{bytes} bytes");
        return refuse("a uniform", given, format!("{largest} bytes"));
    }
    let arrays = bindings.len() - uniforms.count();
    if arrays > limits.max_arrays as usize {
        let most = limits.max_arrays.to_string();
        return refuse("the arrays that it binds", arrays.to_string(), most);
    }
    Ok(())
}

/// Keeps a defect of the compiler from being the caller's, whose shader met it.
fn without_panic<R>(name: &str, shader: &Shader, compile: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|panic| {
        discard(panic);
        Err(Error::Gpu {
            device: name.into(),
            message: format!(
                "shader `{}`: the compiler panicked on it; write it in another way",
                shader.label()
            ),
        })
    })
}

impl Pipeline {
    /// Whether no dispatch has used it before this was asked.
    pub(super) fn is_new(&self) -> bool {
        !self.used.load(Ordering::Relaxed) && !self.used.swap(true, Ordering::Relaxed)
    }

    /// How many arrays and how many uniforms a dispatch must give.
    pub(super) fn arity(&self) -> Arity {
        let uniforms = self
            .bindings
            .iter()
            .filter(|k| matches!(k, BindingKind::Uniform { .. }))
            .count();
        Arity {
            arrays: self.bindings.len() - uniforms,
            uniforms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_panics_is_an_error_that_names_the_shader() {
        let shader = Shader::checked("odd".into(), String::new(), Vec::new());
        let outcome: Result<()> = without_panic("gpu0", &shader, || panic!("as a test wants"));
        let text = outcome.expect_err("it panicked").to_string();
        assert!(text.contains("gpu0: shader `odd`"), "{text}");
        assert!(without_panic("gpu0", &shader, || Ok(7)).is_ok_and(|x| x == 7));
    }
}
