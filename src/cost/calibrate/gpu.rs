//! A GPU under measurement: launches, memory, arithmetic, and transfers along the real staging path.

use super::effort::Effort;
use super::model::{Rates, link};
use super::sampling::{LEAST_SHARE, TRAFFIC, WorkUnit, time};
use crate::array::{Array, DeviceView};
use crate::cost::machine::Link;
use crate::device::gpu::Gpu;
use crate::error::Result;
use crate::kernel::{Binding, GpuPart, LaunchSpec, Role, Shader};
use bytemuck::{Pod, Zeroable};
use std::sync::{Arc, LazyLock};

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("calibrate", include_str!("../../../shaders/calibrate.wgsl")).entry("main", &[])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// Vectors of four elements.
    vectors: u32,
    rounds: u32,
    alpha: f32,
}

/// A GPU under measurement, with two arrays that it alone holds.
pub(super) struct GpuBench<'a> {
    gpu: &'a Arc<Gpu>,
    effort: Effort,
    spec: LaunchSpec,
    views: [DeviceView; 2],
    /// The footprints that fit the adapter.
    footprints: Vec<usize>,
}

impl<'a> GpuBench<'a> {
    pub(super) fn new(gpu: &'a Arc<Gpu>, effort: Effort) -> Result<Self> {
        let limits = gpu.limits();
        let largest = limits.max_binding_bytes.min(limits.max_buffer_bytes);
        // Of a budget no more than a part, for calls go on meanwhile.
        let largest = largest.min(gpu.largest_buffer() / 8);
        let fits = |footprint: &&usize| **footprint as u64 / 2 <= largest;
        let mut footprints: Vec<usize> = effort.footprints.iter().filter(fits).copied().collect();
        if footprints.is_empty() {
            footprints.push(2 * largest.max(256) as usize);
        }
        let items = footprints.last().copied().unwrap_or_default() / 8;
        let (x, y) = (Array::<f32>::uninit(items)?, Array::<f32>::uninit(items)?);
        let view = |array: &Array<f32>| array.handle().place_on(gpu, 0..items, false);
        let views = [view(&x)?, view(&y)?];
        let bindings = [
            Binding::read(x.handle(), Role::ITEM),
            Binding::update(y.handle(), Role::ITEM),
        ];
        let spec = LaunchSpec::new(items, bindings, 0.0);
        let bench = Self {
            gpu,
            effort,
            spec,
            views,
            footprints,
        };
        // Compiles the shader, clears the buffers, and wakes the driver.
        bench.run(1, items, 0)?;
        Ok(bench)
    }

    /// Seconds to dispatch the shader so many times over that many items, and wait.
    fn run(&self, times: usize, items: usize, rounds: u32) -> Result<f64> {
        time(|| {
            self.record(times, items, rounds)?;
            self.gpu.wait_for_all()
        })
    }

    /// Records so many dispatches of the shader over that many items.
    fn record(&self, times: usize, items: usize, rounds: u32) -> Result<()> {
        let part = GpuPart::new(self.gpu, &self.spec, 0..items.max(1), &self.views);
        let vectors = (items / 4) as u32;
        let params = Params {
            vectors,
            rounds,
            alpha: 0.5,
        };
        for _ in 0..times {
            let args = [part.arg(0), part.arg(1)];
            part.dispatch(&SHADER, &args, &params, vectors.div_ceil(64).max(1))?;
        }
        Ok(())
    }

    /// Seconds of an empty dispatch that is waited for, and of each further one that is queued with it.
    pub(super) fn launch(&self) -> Result<(f64, f64)> {
        const QUEUED: usize = 50;
        let launch = self.effort.measure(3, || self.run(1, 0, 0))?;
        let many = self.effort.measure(1, || self.run(1 + QUEUED, 0, 0))?;
        Ok((launch, (many - launch).max(0.0) / QUEUED as f64))
    }

    /// Bytes per second at each footprint.
    pub(super) fn bandwidths(&self, launch: f64, queued: f64) -> Result<Rates> {
        let measure = |footprint: &usize| {
            let items = footprint / 8;
            let trial = self.run(1, items, 0)?;
            let times = (self.effort.sample_seconds / trial).clamp(1.0, 50.0) as usize;
            let sample = self.effort.measure(1, || self.run(times, items, 0))?;
            let overhead = launch + (times - 1) as f64 * queued;
            let pass = (sample - overhead).max(LEAST_SHARE * sample) / times as f64;
            Ok([*footprint as f64, TRAFFIC * *footprint as f64 / pass])
        };
        self.footprints.iter().map(measure).collect()
    }

    /// Operations per second, with as much work as lasts for a sample.
    pub(super) fn flops(&self, launch: f64) -> Result<f64> {
        /// Four chains of four lanes, two operations each.
        const FLOPS: f64 = 32.0;
        let (items, rounds) = self.rounds_for(launch, self.effort.sample_seconds)?;
        let sample = self.effort.measure(1, || self.run(1, items, rounds))?;
        let flops = (items / 4) as f64 * f64::from(rounds) * FLOPS;
        Ok(flops / (sample - launch).max(LEAST_SHARE * sample))
    }

    /// How many items and rounds of arithmetic take that long, or as many as there may be.
    fn rounds_for(&self, launch: f64, seconds: f64) -> Result<(usize, u32)> {
        const MOST_ROUNDS: u32 = 1 << 14;
        let most_items = self.spec.items;
        let (mut items, mut rounds) = (most_items.min(1 << 14), 64);
        while self.run(1, items, rounds)? - launch < seconds {
            if items < most_items {
                items = (4 * items).min(most_items);
            } else if rounds < MOST_ROUNDS {
                rounds *= 4;
            } else {
                break;
            }
        }
        Ok((items, rounds))
    }

    /// Arithmetic that takes about so long.
    pub(super) fn arithmetic(self, seconds: f64) -> Result<WorkUnit<'a>> {
        const MOST: f64 = 100.0;
        let launch = self.run(1, 0, 0)?;
        // Of at least half that time, if the adapter computes that much at all: the last step may be four times too long.
        let (items, rounds) = self.rounds_for(launch, seconds / 4.0)?;
        let times = (seconds / self.run(1, items, rounds)?).clamp(1.0, MOST) as usize;
        Ok(Box::new(move || self.run(times, items, rounds).map(drop)))
    }

    /// Passes over the largest footprint, that take about so long.
    pub(super) fn memory(self, seconds: f64) -> Result<WorkUnit<'a>> {
        const MOST: f64 = 1000.0;
        let items = self.spec.items;
        let times = (seconds / self.run(1, items, 0)?).clamp(1.0, MOST) as usize;
        Ok(Box::new(move || self.run(times, items, 0).map(drop)))
    }

    /// To the device and back.
    pub(super) fn links(&self) -> Result<(Link, Link)> {
        let buffer = &self.views[1].buffer;
        let most = self.spec.items * 4;
        let mut sizes = self.effort.transfers.to_vec();
        sizes.retain(|bytes| *bytes <= most);
        if sizes.is_empty() {
            sizes.push(most);
        }
        let mut host = vec![0u8; sizes.last().copied().unwrap_or_default()];
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for bytes in sizes {
            let upload = |host: &[u8]| {
                time(|| {
                    self.gpu.upload(buffer, 0, &host[..bytes])?;
                    self.record(1, 0, 0)?;
                    self.gpu.wait_for_all()
                })
            };
            // The first of each size makes the staging buffer.
            upload(&host)?;
            // It goes to the device with the call that needs it, and shares its submission and its wait.
            let (alone, with) = self
                .effort
                .compare(1, || Ok((self.run(1, 0, 0)?, upload(&host)?)))?;
            up.push([bytes as f64, (with - alone).max(0.0)]);
            let mut download = || time(|| self.gpu.download(buffer, 0, &mut host[..bytes]));
            download()?;
            down.push([bytes as f64, self.effort.measure(1, download)?]);
        }
        Ok((link(up), link(down)))
    }
}
