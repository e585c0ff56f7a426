//! A kernel at a size on a simulated machine: what the planner is told of it, and how long parts of it really take.

use super::calibrate::calibrate_simulated;
use super::machine::{SimulatedKernel, SimulatedMachine};
use super::options::{DataLocation, LaunchSpecs, Options};
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

/// Devices, by position, and how many items each gets.
pub(super) type Parts = SmallVec<[(usize, usize); 4]>;

/// How many sizes of its own table a kernel is replayed at.
const OWN_SIZES: usize = 6;

/// A simulated machine, and what a calibration knows of it.
pub(super) struct World<'a> {
    pub machine: &'a SimulatedMachine,
    /// The kernels that are known, with the machine that the planner sees for each: the devices that can run it.
    kernels: Vec<(&'a SimulatedKernel, Machine)>,
    /// For arithmetic and for memory: by how much a device is slowed down by another.
    corun: [Vec<Vec<f64>>; 2],
    /// The CPU, or else the first device: by its rates kernels are told apart.
    reference: usize,
    calibrated: Machine,
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
    /// Position in the world's kernels.
    planner: usize,
    /// With which power of the size the work grows.
    exponent: f64,
}

/// What a part takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartSeconds {
    /// From the start to the completion of what was asked for.
    pub run: f64,
    /// Until what it wrote is where it is wanted.
    pub read_back: f64,
}

impl PartSeconds {
    /// All of it.
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
                "passed over what is no kernel of the catalog: {unknown}"
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
            corun: [factors(Bound::Compute), factors(Bound::Memory)],
            reference: machine.position(DeviceId::Cpu).unwrap_or(0),
            calibrated,
        })
    }

    /// The machine as the planner sees it for a job.
    pub fn planner(&self, job: &Job<'_>) -> &Machine {
        &self.kernels[job.planner].1
    }

    /// Where a device of a plan stands.
    pub fn position(&self, id: DeviceId) -> usize {
        self.machine
            .position(id)
            .expect("plans use the devices of the machine")
    }

    /// By how much each device is slower than in its tables at a call.
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
                    "passed over {} of size {n}: {error}",
                    kernel.name
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Job<'_> {
    /// What the noise multiplies the time of a part on a device by, whatever was decided before.
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
    pub fn seconds(&self, world: &World<'_>, parts: &[(usize, usize)], slowness: &[f64]) -> f64 {
        self.parts(world, parts, slowness)
            .map(|part| part.seconds())
            .fold(0.0, f64::max)
    }

    /// What each part of a call takes.
    pub fn parts<'p>(
        &'p self,
        world: &'p World<'_>,
        parts: &'p [(usize, usize)],
        slowness: &'p [f64],
    ) -> impl Iterator<Item = PartSeconds> + 'p {
        parts.iter().map(|(device, items)| {
            let others = parts.iter().map(|(other, _)| *other);
            let corun = self.corun(world, *device, others);
            self.alone(world, *device, *items, corun, slowness[*device])
        })
    }

    /// By how much a device computes for longer because others do too.
    pub fn corun(
        &self,
        world: &World<'_>,
        device: usize,
        others: impl Iterator<Item = usize>,
    ) -> f64 {
        let factors = match self.bound {
            Bound::Compute => &world.corun[0],
            Bound::Memory => &world.corun[1],
        };
        others
            .filter(|other| *other != device)
            .map(|other| factors[device][other])
            .product()
    }

    /// What a part of so many items takes on a device that computes `corun` times as long because of others, and is
    /// `slowness` times slower than in its tables. Forever if the device cannot run it.
    pub fn alone(
        &self,
        world: &World<'_>,
        device: usize,
        items: usize,
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

    /// Bytes of an array that a part of so many items touches.
    fn bytes(&self, operand: &Operand, items: usize) -> u64 {
        let elements = operand
            .role
            .elements(&(0..items), self.request.items, operand.len);
        elements.len() as u64 * operand.element_bytes as u64
    }

    /// Into how many pieces the items can be cut.
    pub fn borders(&self) -> usize {
        self.request.items.div_ceil(self.request.border_grain)
    }

    /// The items of so many pieces.
    pub fn items(&self, borders: usize) -> usize {
        borders
            .saturating_mul(self.request.border_grain)
            .min(self.request.items)
    }

    /// Whether a device can run a part of so many items.
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

    /// Whether a device can bind as much of every array as the smallest dispatch needs.
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

/// The largest number up to `limit` for which `holds`, if that holds for all smaller ones too; 0 always does.
pub(super) fn most(limit: usize, mut holds: impl FnMut(usize) -> bool) -> usize {
    if holds(limit) {
        return limit;
    }
    let (mut yes, mut no) = (0, limit);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if holds(middle) {
            yes = middle;
        } else {
            no = middle;
        }
    }
    yes
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

/// With which power of its size a kernel's work grows: 1 for items, 3 for a matrix product.
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

/// Up to six sizes of the kernel's first table, from its first to its last.
fn own_sizes(kernel: &SimulatedKernel) -> Vec<usize> {
    let first = kernel.tables.iter().flatten().next();
    let points = first.map(Table::points).unwrap_or_default();
    let count = points.len().min(OWN_SIZES);
    let pick = |i: usize| points[i * (points.len() - 1) / (count - 1).max(1)][0] as usize;
    (0..count).map(pick).collect()
}
