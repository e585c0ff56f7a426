//! wgpu used directly, as the best hand-written program would: built-in shaders without run-time checks, buffers and
//! bind groups made once, one encoder for a whole chain.

pub struct RawGpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

pub struct Array {
    buffer: wgpu::Buffer,
}

impl RawGpu {
    /// The first adapter that is not a software one, else the first.
    pub fn open() -> Self {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
        adapters.sort_by_key(|a| a.get_info().device_type == wgpu::DeviceType::Cpu);
        let adapter = adapters.first().expect("an adapter");
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_limits: adapter.limits(),
            ..Default::default()
        }))
        .expect("a device");
        Self { device, queue }
    }

    pub fn pipeline(&self, source: &str) -> wgpu::ComputePipeline {
        self.pipeline_of(source, "main")
    }

    pub fn pipeline_of(&self, source: &str, entry: &str) -> wgpu::ComputePipeline {
        let desc = wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        // SAFETY: these are Divvy's own shaders, which keep their indices within their bindings.
        let module = unsafe {
            self.device
                .create_shader_module_trusted(desc, wgpu::ShaderRuntimeChecks::unchecked())
        };
        self.device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            })
    }

    pub fn array(&self, elements: &[f32]) -> Array {
        self.buffer(bytemuck::cast_slice(elements), wgpu::BufferUsages::STORAGE)
    }

    pub fn uniform(&self, bytes: &[u8]) -> Array {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(16), 0);
        self.buffer(&padded, wgpu::BufferUsages::UNIFORM)
    }

    fn buffer(&self, bytes: &[u8], usage: wgpu::BufferUsages) -> Array {
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes.len() as u64,
            usage,
            mapped_at_creation: true,
        });
        buffer
            .slice(..)
            .get_mapped_range_mut()
            .expect("mapped")
            .copy_from_slice(bytes);
        buffer.unmap();
        Array { buffer }
    }

    /// `chain` dispatches in one encoder, submitted and waited for.
    pub fn run(
        &self,
        pipeline: &wgpu::ComputePipeline,
        uniform: &Array,
        args: &[&Array],
        groups: [u32; 3],
        chain: usize,
    ) {
        let entries: Vec<_> = std::iter::once(uniform)
            .chain(args.iter().copied())
            .enumerate()
            .map(|(i, array)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: array.buffer.as_entire_binding(),
            })
            .collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group, &[]);
        for _ in 0..chain {
            pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        }
        drop(pass);
        let index = self.queue.submit([encoder.finish()]);
        let wait = wgpu::PollType::Wait {
            submission_index: Some(index),
            timeout: None,
        };
        self.device.poll(wait).expect("done");
    }
}
