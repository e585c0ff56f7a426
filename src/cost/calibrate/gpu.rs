//! A GPU under measurement: launches, memory, arithmetic, and transfers along the real staging path.

use super::effort::Effort;
use super::model::{Rates, link};
use super::sampling::{Pair, TRAFFIC, WorkUnit, time};
use crate::array::{Array, DeviceView};
use crate::cost::machine::Link;
use crate::cost::params::PARAMS;
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

/// What a dispatch costs.
pub(super) struct GpuLaunch {
    /// Seconds of an empty dispatch that is waited for.
    pub(super) seconds: f64,
    /// Seconds of each further dispatch that is queued with it.
    pub(super) queued: f64,
}

/// Arithmetic of a certain duration.
#[derive(Clone, Copy)]
struct Arithmetic {
    items: usize,
    rounds: u32,
}

/// The times of transfers.
pub(super) struct Links {
    pub(super) upload: Link,
    pub(super) download: Link,
}

/// A GPU under measurement, with two arrays that only it holds.
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
        // Only part of a budget: calls go on meanwhile.
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
        bench.run(1, bench.pass())?;
        Ok(bench)
    }

    /// One pass over the largest footprint, without arithmetic.
    fn pass(&self) -> Arithmetic {
        Arithmetic {
            items: self.spec.items,
            rounds: 0,
        }
    }

    /// Seconds of `times` dispatches of the shader, and of the wait for them.
    fn run(&self, times: usize, work: Arithmetic) -> Result<f64> {
        time(|| {
            self.record(times, work)?;
            self.gpu.wait_for_all()
        })
    }

    /// Records `times` dispatches of the shader.
    fn record(&self, times: usize, Arithmetic { items, rounds }: Arithmetic) -> Result<()> {
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

    /// What a dispatch costs.
    pub(super) fn launch(&self) -> Result<GpuLaunch> {
        let further = PARAMS.calibration.queued_dispatches;
        let seconds = self.effort.measure(3, || self.run(1, EMPTY))?;
        let many = self.effort.measure(1, || self.run(1 + further, EMPTY))?;
        Ok(GpuLaunch {
            seconds,
            queued: (many - seconds).max(0.0) / further as f64,
        })
    }

    /// Bytes per second at each footprint.
    pub(super) fn bandwidths(&self, launch: &GpuLaunch) -> Result<Rates> {
        let measure = |footprint: &usize| {
            let pass = Arithmetic {
                items: footprint / 8,
                rounds: 0,
            };
            let trial = self.run(1, pass)?;
            let times = (self.effort.sample_seconds / trial).clamp(1.0, 50.0) as usize;
            let sample = self.effort.measure(1, || self.run(times, pass))?;
            let overhead = launch.seconds + (times - 1) as f64 * launch.queued;
            let pass = net(sample, overhead) / times as f64;
            Ok([*footprint as f64, TRAFFIC * *footprint as f64 / pass])
        };
        self.footprints.iter().map(measure).collect()
    }

    /// Operations per second, with enough work for a sample.
    pub(super) fn flops(&self, launch: f64) -> Result<f64> {
        /// Four chains of four lanes, two operations each.
        const FLOPS: f64 = 32.0;
        let work = self.arithmetic_for(launch, self.effort.sample_seconds)?;
        let sample = self.effort.measure(1, || self.run(1, work))?;
        let flops = (work.items / 4) as f64 * f64::from(work.rounds) * FLOPS;
        Ok(flops / net(sample, launch))
    }

    /// Arithmetic that takes `seconds`, or the most that fits.
    fn arithmetic_for(&self, launch: f64, seconds: f64) -> Result<Arithmetic> {
        let most_items = self.spec.items;
        let mut work = Arithmetic {
            items: most_items.min(1 << 14),
            rounds: 64,
        };
        while self.run(1, work)? - launch < seconds {
            if work.items < most_items {
                work.items = (4 * work.items).min(most_items);
            } else if work.rounds < PARAMS.calibration.most_gpu_rounds {
                work.rounds *= 4;
            } else {
                break;
            }
        }
        Ok(work)
    }

    /// Arithmetic that takes about `seconds`.
    pub(super) fn arithmetic(self, seconds: f64) -> Result<WorkUnit<'a>> {
        const MOST: f64 = 100.0;
        let launch = self.run(1, EMPTY)?;
        // A quarter of the time, since the last step of the search may be four times too long.
        let work = self.arithmetic_for(launch, seconds / 4.0)?;
        let times = (seconds / self.run(1, work)?).clamp(1.0, MOST) as usize;
        Ok(Box::new(move || self.run(times, work).map(drop)))
    }

    /// Passes over the largest footprint that take about `seconds`.
    pub(super) fn memory(self, seconds: f64) -> Result<WorkUnit<'a>> {
        const MOST: f64 = 1000.0;
        let pass = self.pass();
        let times = (seconds / self.run(1, pass)?).clamp(1.0, MOST) as usize;
        Ok(Box::new(move || self.run(times, pass).map(drop)))
    }

    /// The times of transfers to the device and back.
    pub(super) fn links(&self) -> Result<Links> {
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
                    self.record(1, EMPTY)?;
                    self.gpu.wait_for_all()
                })
            };
            // The first transfer of each size creates the staging buffer.
            upload(&host)?;
            // An upload shares the submission and the wait of the call that needs it, so only the difference counts.
            let seconds = self.effort.compare(1, || {
                Ok(Pair {
                    first: self.run(1, EMPTY)?,
                    second: upload(&host)?,
                })
            })?;
            up.push([bytes as f64, (seconds.second - seconds.first).max(0.0)]);
            let mut download = || time(|| self.gpu.download(buffer, 0, &mut host[..bytes]));
            download()?;
            down.push([bytes as f64, self.effort.measure(1, download)?]);
        }
        Ok(Links {
            upload: link(up),
            download: link(down),
        })
    }
}

/// A dispatch that does nothing.
const EMPTY: Arithmetic = Arithmetic {
    items: 0,
    rounds: 0,
};

/// A sample without its overhead.
fn net(sample: f64, overhead: f64) -> f64 {
    (sample - overhead).max(PARAMS.calibration.least_share * sample)
}
