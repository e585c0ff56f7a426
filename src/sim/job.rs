//! A kernel at a size on a simulated machine: the planner's request, and the true times of its parts.

use super::calibrate::calibrate_simulated;
use super::machine::{SimulatedKernel, SimulatedMachine};
use super::options::{DataLocation, LaunchSpecs, Options};
use super::params::PARAMS;
use super::table::Table;
use crate::array::{Handle, RangeSet};
use crate::cost::prior::Demand;
use crate::cost::{Bound, Machine};
use crate::device::{DeviceId, Placement};
use crate::error::{Error, Result};
use crate::hash::fnv1a;
use crate::kernel::LaunchSpec;
use crate::plan::{Operand, PlannerInput, Policy, Request, plan};
use smallvec::SmallVec;

/// The number of items of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartItems {
    /// The device's position in the machine.
    pub device: usize,
    pub items: usize,
}

/// The parts of a call.
pub(super) type Parts = SmallVec<[PartItems; 4]>;

/// A simulated machine and its calibration.
pub(super) struct World<'a> {
    pub machine: &'a SimulatedMachine,
    /// The known kernels, each with the machine that the planner sees: the devices that can run it.
    kernels: Vec<(&'a SimulatedKernel, Machine)>,
    corun: SlowDowns,
    /// The CPU, or else the first device: its rates decide what limits a kernel.
    reference: usize,
    calibrated: Machine,
}

/// The factors by which devices slow each other down, indexed by the device and the other.
struct SlowDowns {
    compute: Vec<Vec<f64>>,
    memory: Vec<Vec<f64>>,
}

/// A kernel at a size.
pub(super) struct Job<'a> {
    pub kernel: &'a SimulatedKernel,
    pub n: usize,
    pub residency: DataLocation,
    pub request: Request<'a>,
    pub bound: Bound,
    /// Bytes of all arrays.
    pub footprint_bytes: f64,
    /// Its position in the world's kernels.
    planner: usize,
    /// The power of the size with which the work grows.
    exponent: f64,
}

/// The true time of a part.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartSeconds {
    /// From the start to the completion of its results.
    pub run: f64,
    /// The download of what it wrote, where the host wants it.
    pub read_back: f64,
}

impl PartSeconds {
    /// The sum.
    pub fn seconds(&self) -> f64 {
        self.run + self.read_back
    }
}

impl<'a> World<'a> {
    pub fn new(machine: &'a SimulatedMachine, specs: LaunchSpecs<'_>) -> Result<Self> {
        let calibrated = calibrate_simulated(machine, |kernel, size| {
            let spec = specs(kernel, size as usize)?.ok()?;
            Some(demand(&spec))
        });
        let (known, unknown): (Vec<_>, Vec<_>) = machine
            .kernels
            .iter()
            .partition(|kernel| specs(&kernel.name, 1).is_some());
        let unknown: Vec<&str> = unknown.iter().map(|kernel| kernel.name.as_str()).collect();
        let unknown = unknown.join(", ");
        if known.is_empty() {
            return Err(Error::MachineFile {
                file: machine.name.clone(),
                problem: format!(
                    "kernels: expected kernels of the catalog, there is only {unknown}"
                ),
            });
        }
        if !unknown.is_empty() {
            tracing::warn!(
                machine = machine.name,
                "skipped kernels that are not in the catalog: {unknown}"
            );
        }
        let able = |kernel: &SimulatedKernel| Machine {
            devices: calibrated
                .devices
                .iter()
                .zip(&kernel.tables)
                .filter(|(_, table)| table.is_some())
                .map(|(device, _)| device.clone())
                .collect(),
            corun: calibrated.corun.clone(),
        };
        let ids: Vec<DeviceId> = machine.devices.iter().map(|device| device.id).collect();
        let factors = |bound| -> Vec<Vec<f64>> {
            let slowed = |device: &DeviceId| {
                let by = |other: &DeviceId| calibrated.corun_slowdown(*device, *other, bound);
                ids.iter().map(|other| by(other).unwrap_or(1.0)).collect()
            };
            ids.iter().map(slowed).collect()
        };
        Ok(Self {
            machine,
            kernels: known.into_iter().map(|k| (k, able(k))).collect(),
            corun: SlowDowns {
                compute: factors(Bound::Compute),
                memory: factors(Bound::Memory),
            },
            reference: machine.position(DeviceId::Cpu).unwrap_or(0),
            calibrated,
        })
    }

    /// The machine as the planner sees it for a job.
    pub fn planner(&self, job: &Job<'_>) -> &Machine {
        &self.kernels[job.planner].1
    }

    /// The position of a device of a plan.
    pub fn position(&self, id: DeviceId) -> usize {
        self.machine
            .position(id)
            .expect("plans use the devices of the machine")
    }

    /// How many times slower than in its tables each device is at a call.
    pub fn slowness(&self, call: usize) -> Vec<f64> {
        (0..self.machine.devices.len())
            .map(|device| self.machine.slowness(device, call))
            .collect()
    }

    /// Every kernel at every size and residency, except those that no device can run.
    pub fn jobs(&self, specs: LaunchSpecs<'_>, options: &Options) -> Result<Vec<Job<'a>>> {
        let mut jobs = Vec::new();
        for (planner, (kernel, _)) in self.kernels.iter().enumerate() {
            let sizes = match options.sizes.as_slice() {
                [] => own_sizes(kernel),
                sizes => sizes.to_vec(),
            };
            for n in sizes {
                for residency in &options.residencies {
                    let job = self.job(planner, n, *residency, specs)?;
                    jobs.extend(job);
                }
            }
        }
        Ok(jobs)
    }

    fn job(
        &self,
        planner: usize,
        n: usize,
        residency: DataLocation,
        specs: LaunchSpecs<'_>,
    ) -> Result<Option<Job<'a>>> {
        let kernel = self.kernels[planner].0;
        let spec = |n| specs(&kernel.name, n).expect("only known kernels are kept");
        let whole = spec(n)?;
        let demand = demand(&whole);
        let engine = &self.calibrated.devices[self.reference].engines[0];
        let ridge = engine.flops_per_second / engine.bandwidth.at(demand.footprint_bytes);
        let everywhere = |array: &Handle| {
            let devices = self.machine.devices.iter().map(|device| device.id);
            let gpus =
                devices.filter(|id| residency == DataLocation::Device && *id != DeviceId::Cpu);
            std::iter::once(DeviceId::Cpu)
                .chain(gpus)
                .map(|place| (place, RangeSet::from(0..array.len())))
                .collect()
        };
        let wanted = match residency {
            DataLocation::Host => 1.0,
            DataLocation::Device => 0.0,
        };
        let mut request = Request::new(&kernel.name, 0, &whole, everywhere, |_| wanted);
        let able = |on_cpu: bool| {
            let devices = self.machine.devices.iter().zip(&kernel.tables);
            let mut able = devices.filter(|(_, table)| table.is_some());
            able.any(|(device, _)| (device.id == DeviceId::Cpu) == on_cpu)
        };
        request.has_cpu &= able(true);
        request.has_gpu &= able(false);
        let job = Job {
            kernel,
            n,
            residency,
            request,
            bound: if demand.flops > ridge * demand.traffic_bytes {
                Bound::Compute
            } else {
                Bound::Memory
            },
            footprint_bytes: demand.footprint_bytes,
            planner,
            exponent: exponent(&spec)?,
        };
        let nothing = PlannerInput::default();
        let planned = plan(
            &job.request,
            self.planner(&job),
            &nothing,
            &Placement::Auto,
            &Policy::default(),
        );
        match planned {
            Ok(_) => Ok(Some(job)),
            Err(error @ Error::Infeasible { .. }) => {
                tracing::warn!(
                    machine = self.machine.name,
                    "skipped {} of size {n}: {error}",
                    kernel.name
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Job<'_> {
    /// The noise factor of a part on a device. It does not depend on earlier choices.
    pub(super) fn noise(&self, world: &World<'_>, device: usize, call: usize, seed: u64) -> f64 {
        let numbers = [
            self.n as u64,
            self.residency as u64,
            call as u64,
            device as u64,
            seed,
        ];
        let bytes = self.kernel.name.bytes();
        let hash = fnv1a(bytes.chain(numbers.iter().flat_map(|number| number.to_le_bytes())));
        world
            .machine
            .noise
            .factor(&mut fastrand::Rng::with_seed(hash))
    }

    /// Seconds of a call with these parts.
    pub fn seconds(&self, world: &World<'_>, parts: &[PartItems], slowness: &[f64]) -> f64 {
        self.parts(world, parts, slowness)
            .map(|part| part.seconds())
            .fold(0.0, f64::max)
    }

    /// The time of each part of a call.
    pub fn parts<'p>(
        &'p self,
        world: &'p World<'_>,
        parts: &'p [PartItems],
        slowness: &'p [f64],
    ) -> impl Iterator<Item = PartSeconds> + 'p {
        parts.iter().map(|part| {
            let others = parts.iter().map(|other| other.device);
            let corun = self.corun(world, part.device, others);
            self.part(world, *part, corun, slowness[part.device])
        })
    }

    /// The factor by which the others slow a device down.
    pub fn corun(
        &self,
        world: &World<'_>,
        device: usize,
        others: impl Iterator<Item = usize>,
    ) -> f64 {
        let factors = match self.bound {
            Bound::Compute => &world.corun.compute,
            Bound::Memory => &world.corun.memory,
        };
        others
            .filter(|other| *other != device)
            .map(|other| factors[device][other])
            .product()
    }

    /// The time of a part on a device that others slow down by the factor `corun`, and that is `slowness` times slower than
    /// in its tables. Infinite if the device cannot run it.
    pub fn part(
        &self,
        world: &World<'_>,
        PartItems { device, items }: PartItems,
        corun: f64,
        slowness: f64,
    ) -> PartSeconds {
        let model = &world.machine.devices[device];
        let Some(table) = &self.kernel.tables[device] else {
            return PartSeconds {
                run: f64::INFINITY,
                read_back: 0.0,
            };
        };
        let share = items as f64 / self.request.items as f64;
        let size = self.n as f64 * share.powf(1.0 / self.exponent);
        let computing = corun * table.compute(size);
        let mut part = PartSeconds {
            run: slowness * (model.launch_seconds + computing),
            read_back: 0.0,
        };
        if model.id == DeviceId::Cpu {
            return part;
        }
        part.run += model.download_seconds(self.request.returned_bytes as f64 * share);
        if self.residency == DataLocation::Host {
            let (mut up, mut down) = (0.0, 0.0);
            for operand in &self.request.operands {
                let bytes = self.bytes(operand, items) as f64;
                up += if operand.access.reads() { bytes } else { 0.0 };
                down += if operand.access.writes() { bytes } else { 0.0 };
            }
            part.run += model.upload_seconds(up);
            part.read_back = model.download_seconds(down);
        }
        part
    }

    /// Bytes of an array that a part of this many items touches.
    fn bytes(&self, operand: &Operand, items: usize) -> u64 {
        let elements = operand
            .role
            .elements(&(0..items), self.request.items, operand.len);
        elements.len() as u64 * operand.element_bytes as u64
    }

    /// The number of pieces between borders.
    pub fn borders(&self) -> usize {
        self.request.items.div_ceil(self.request.border_grain)
    }

    /// The items of this many pieces.
    pub fn items(&self, borders: usize) -> usize {
        borders
            .saturating_mul(self.request.border_grain)
            .min(self.request.items)
    }

    /// Whether a device can run a part of this many items.
    pub fn fits(&self, world: &World<'_>, device: usize, items: usize) -> bool {
        let model = &world.machine.devices[device];
        let able = self.kernel.tables[device].is_some();
        let bytes = |operand| self.bytes(operand, items);
        let all: u64 = self
            .request
            .operands
            .iter()
            .map(bytes)
            .fold(0, u64::saturating_add);
        able && all <= model.memory_bytes.unwrap_or(u64::MAX) && self.binds(world, device)
    }

    /// Whether a device can bind the windows of the smallest dispatch.
    fn binds(&self, world: &World<'_>, device: usize) -> bool {
        let Some(limit) = world.machine.devices[device].max_binding_bytes else {
            return true;
        };
        let least = self.request.border_grain.min(self.request.items);
        self.request.operands.iter().all(|operand| {
            let most = operand
                .role
                .bindable_items(operand.len, operand.element_bytes, limit);
            most >= least
        })
    }

    /// The most pieces that a device can hold.
    pub fn most_borders(&self, world: &World<'_>, device: usize) -> usize {
        most(self.borders(), |borders| {
            self.fits(world, device, self.items(borders))
        })
    }
}

/// The largest number up to `limit` for which `holds` is true. It must be true for all smaller ones too; for 0 it is taken
/// to be.
pub(super) fn most(limit: usize, mut holds: impl FnMut(usize) -> bool) -> usize {
    if holds(limit) {
        return limit;
    }
    let (mut below, mut above) = (0, limit);
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if holds(middle) {
            below = middle;
        } else {
            above = middle;
        }
    }
    below
}

fn demand(spec: &LaunchSpec) -> Demand {
    let footprint: usize = spec.bindings.iter().map(|b| b.array.bytes()).sum();
    let work = spec.work();
    Demand {
        flops: work.flops,
        traffic_bytes: work.bytes(),
        footprint_bytes: footprint as f64,
    }
}

/// The power of its size with which a kernel's work grows: 1 for items, 3 for a matrix product.
fn exponent(spec: &dyn Fn(usize) -> Result<LaunchSpec>) -> Result<f64> {
    const SIZE: usize = 4096;
    let work = |n| -> Result<f64> {
        let work = spec(n)?.work();
        Ok(if work.flops > 0.0 {
            work.flops
        } else {
            work.bytes()
        })
    };
    let grows = work(2 * SIZE)? / work(SIZE)?;
    // A kernel without any work counts as one over items.
    let power = grows.log2().round();
    Ok(if power.is_finite() {
        power.clamp(1.0, 4.0)
    } else {
        1.0
    })
}

/// Sizes of the kernel's first table, evenly picked from the first to the last.
fn own_sizes(kernel: &SimulatedKernel) -> Vec<usize> {
    let first = kernel.tables.iter().flatten().next();
    let points = first.map(Table::points).unwrap_or_default();
    let count = points.len().min(PARAMS.own_sizes);
    let pick = |i: usize| points[i * (points.len() - 1) / (count - 1).max(1)][0] as usize;
    (0..count).map(pick).collect()
}
