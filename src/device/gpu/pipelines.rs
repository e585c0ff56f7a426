//! The compiled pipelines of a GPU, each made once, and what they bind.

use super::allocation::Allocation;
use super::bind_groups::{BindGroupKey, BindGroups, WindowKey};
use super::connection::Connection;
use super::dispatch::{Arity, EntryPoint, Window};
use super::shader::{BindingKind, Shader};
use crate::error::{Error, Result};
use crate::panics::discard;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

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

/// The pipelines of a GPU.
pub(super) struct Pipelines {
    made: RwLock<HashMap<PipelineKey, Arc<Pipeline>>>,
    /// For each that is being compiled a lock that its compiler holds, so that two threads do not compile the same.
    compiling: Mutex<HashMap<PipelineKey, Arc<Mutex<()>>>>,
    next_id: AtomicU64,
    /// Whether built-in shaders are compiled with run-time checks too.
    checked: bool,
    bind_groups: Arc<BindGroups>,
    /// Holds every uniform.
    arena: Arc<Allocation>,
    connection: Arc<Connection>,
}

impl Pipelines {
    pub(super) fn new(
        connection: &Arc<Connection>,
        arena: &Arc<Allocation>,
        bind_groups: &Arc<BindGroups>,
        checked: bool,
    ) -> Self {
        Self {
            made: RwLock::default(),
            compiling: Mutex::default(),
            next_id: AtomicU64::new(0),
            checked,
            bind_groups: Arc::clone(bind_groups),
            arena: Arc::clone(arena),
            connection: Arc::clone(connection),
        }
    }

    /// Whether built-in shaders are compiled with run-time checks too.
    pub(super) fn is_checked(&self) -> bool {
        self.checked
    }

    /// The largest uniform that a dispatch can have, in bytes.
    pub(super) fn largest_uniform(&self) -> u64 {
        let limit = self.connection.info().limits.max_uniform_bytes;
        limit.min(self.arena.raw.size())
    }

    /// The pipeline of a shader's entry point, compiled at the first use.
    pub(super) fn get(&self, entry_point: &EntryPoint<'_>) -> Result<Arc<Pipeline>> {
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
        debug_assert!(
            shader.allows(name, constants),
            "shader `{}` does not declare `{name}` with {constants:?}; do so by `Shader::entry` where it is made",
            shader.label()
        );
        // Nothing else is locked meanwhile, for it may take long.
        let compiled = without_panic(self.connection.name(), shader, || self.compile(entry_point));
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

    fn compile(&self, entry_point: &EntryPoint<'_>) -> Result<Pipeline> {
        let EntryPoint {
            shader,
            name: entry,
            constants,
        } = *entry_point;
        let started = std::time::Instant::now();
        let (connection, checked) = (&self.connection, self.checked);
        let device = connection.device();
        let label = Some(shader.label());
        let bindings = shader.bindings(entry)?;
        self.check_limits(shader, &bindings)?;
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
            return Err(connection.error(message));
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
        pipeline: &Pipeline,
        windows: &[Window],
    ) -> Result<wgpu::BindGroup> {
        let window_key = |window: &Window| WindowKey {
            buffer: window.buffer.id(),
            offset: window.offset,
            bytes: window.bytes,
        };
        let key = BindGroupKey {
            pipeline: pipeline.id,
            windows: windows.iter().map(window_key).collect(),
        };
        let make = || self.make_bind_group(pipeline, windows);
        self.bind_groups.get(&self.connection, key, make)
    }

    fn make_bind_group(&self, pipeline: &Pipeline, windows: &[Window]) -> wgpu::BindGroup {
        let mut arrays = windows.iter();
        let entries: Vec<_> = pipeline
            .bindings
            .iter()
            .filter_map(|kind| {
                let binding = match kind {
                    BindingKind::Uniform { bytes, .. } => wgpu::BufferBinding {
                        buffer: &self.arena.raw,
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
        self.connection.device().create_bind_group(&descriptor)
    }

    /// Refuses a shader that needs more than the adapter can bind.
    fn check_limits(&self, shader: &Shader, bindings: &[BindingKind]) -> Result<()> {
        let limits = &self.connection.info().limits;
        let refuse = |what: &str, given: String, limit: String| {
            Err(Error::TooLarge {
                what: format!("shader `{}`: {what}", shader.label()),
                given,
                limit: format!("{limit} on {}", self.connection.name()),
            })
        };
        let uniforms = bindings.iter().filter_map(|kind| match kind {
            BindingKind::Uniform { bytes, .. } => Some(u64::from(*bytes)),
            BindingKind::Read { .. } | BindingKind::ReadWrite { .. } => None,
        });
        let largest = self.largest_uniform();
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
