//! The predicted time of a part on a device: the prior from the rates of the machine, times the factor learned from runs of
//! the kernel, after the backlog of the device.

use super::Planner;
use crate::cost::learned::{RunConditions, Variant};
use crate::cost::prior::{self, Prediction};
use crate::cost::{DeviceModel, Engine};
use crate::device::DeviceSet;
use crate::device::{DeviceId, DeviceKind};
use crate::error::Result;
use crate::plan::load::Load;
use crate::plan::params::PARAMS;
use crate::plan::planned::Evidence;
use crate::plan::ruled_out::RuledOut;
use crate::plan::split::Line;
use std::ops::Range;

/// A backlog is cut to a year: a longer one is a mistake, and must not become infinite.
const LONGEST_WAIT: f64 = 3e7;

/// The predicted time of a part on one engine of a device.
#[derive(Clone, Copy)]
pub(super) struct CostEstimate<'a> {
    pub device: &'a DeviceModel,
    pub engine: &'a Engine,
    pub predicted: Prediction,
    pub evidence: Evidence,
    pub seconds: f64,
    /// Of these, seconds that do not depend on the number of items.
    pub overhead: f64,
    pub missing_bytes: f64,
    /// Seconds to move its contribution to a returned value to the host, if it is a part of a split.
    pub combine: f64,
    /// The variance of the logarithm of its seconds.
    pub variance: f64,
    /// Of this, the variance that is noise of measurements.
    pub noise: f64,
    /// Whether it has a full history of measurements at this size.
    pub settled: bool,
}

impl Planner<'_> {
    /// The estimate for the engine of the device that is fastest for the part.
    pub(super) fn fastest<'m>(
        &self,
        device: &'m DeviceModel,
        range: &Range<usize>,
        beside: DeviceSet,
    ) -> Result<CostEstimate<'m>, RuledOut> {
        let load = self.load(device, range)?;
        let fastest = self.estimates(device, &load, beside).reduce(|best, next| {
            if next.seconds < best.seconds {
                next
            } else {
                best
            }
        });
        Ok(fastest.expect("a device model has at least one engine"))
    }

    /// The estimates for each engine of a device, beside other devices.
    pub(super) fn estimates<'m>(
        &self,
        device: &'m DeviceModel,
        load: &Load,
        beside: DeviceSet,
    ) -> impl Iterator<Item = CostEstimate<'m>> {
        let wait = self.wait(device, load);
        device
            .engines
            .iter()
            .map(move |engine| self.estimate(device, engine, load, beside, wait))
    }

    pub(super) fn estimate<'m>(
        &self,
        device: &'m DeviceModel,
        engine: &'m Engine,
        load: &Load,
        beside: DeviceSet,
        wait: f64,
    ) -> CostEstimate<'m> {
        let launch = engine.launch_seconds + (load.dispatches - 1) as f64 * device.queued_seconds;
        let returned_bytes = self.request.returned_bytes as f64;
        let download = device.download.as_ref().filter(|_| returned_bytes > 0.0);
        // A value comes back with the submission that computes it. The launch already contains the wait for that.
        let returned = download.map_or(0.0, |link| {
            let line = link.line(returned_bytes);
            (line.fixed - engine.launch_seconds).max(0.0) + returned_bytes * line.per_byte
        });
        // In a split, the contributions to a value are combined once all parts are complete.
        let (with_part, combine) = if beside.is_empty() {
            (returned, 0.0)
        } else {
            (0.0, returned)
        };
        let compute = prior::compute_seconds(engine, &load.demand);
        let transfers = load.upload + load.download + with_part;
        let prior_seconds = launch + compute + transfers;
        let variant = Variant {
            device: device.id,
            threads: engine.threads,
            beside,
            moved: load.upload + load.download > PARAMS.moved_share * prior_seconds,
        };
        let conditions = RunConditions {
            execution_share: if transfers > 0.0 {
                1.0 - transfers / prior_seconds
            } else {
                1.0
            },
            log_slowdown: self.log_slowdown(device, engine, load, beside),
        };
        let learned = self
            .input
            .perf_model
            .estimate(&variant, load.size, &conditions);
        let factor = if learned.log_factor == 0.0 {
            1.0
        } else {
            learned.log_factor.exp()
        };
        let predicted = Prediction {
            wait,
            launch: factor * launch,
            upload: factor * load.upload,
            compute: factor * compute,
            download: factor * (load.download + with_part) + load.read_back,
        };
        let seconds = predicted.seconds();
        let share = if seconds > 0.0 {
            factor * prior_seconds / seconds
        } else {
            1.0
        };
        CostEstimate {
            device,
            engine,
            predicted,
            evidence: Evidence {
                variant,
                size: load.size,
                prior_seconds,
                samples: learned.samples,
                uncertainty: share * learned.variance.sqrt(),
                extrapolated: learned.extrapolated,
            },
            seconds,
            overhead: wait
                + factor * (engine.launch_seconds + load.fixed + with_part)
                + load.read_back_fixed,
            missing_bytes: load.missing_bytes,
            combine,
            variance: share * share * learned.variance,
            noise: share * share * learned.noise,
            settled: learned.settled,
        }
    }

    /// Seconds until a device can begin: after its own backlog and that of the devices that hold its inputs.
    pub(super) fn wait(&self, device: &DeviceModel, load: &Load) -> f64 {
        let backlog = &self.input.backlog;
        let on_cores = |id: DeviceId| {
            id == DeviceId::Cpu
                || self
                    .machine
                    .device(id)
                    .is_some_and(|device| device.kind == DeviceKind::Software)
        };
        let delays = |id: DeviceId| {
            id == device.id || load.holders.contains(id) || (on_cores(id) && on_cores(device.id))
        };
        backlog
            .iter()
            .filter(|(id, _)| delays(*id))
            .map(|(_, seconds)| seconds.clamp(0.0, LONGEST_WAIT))
            .fold(0.0, f64::max)
    }

    /// The logarithm of the factor by which the devices beside it slow a device down, until it is learned for the kernel.
    pub(super) fn log_slowdown(
        &self,
        device: &DeviceModel,
        engine: &Engine,
        load: &Load,
        beside: DeviceSet,
    ) -> f64 {
        if beside.is_empty() {
            return 0.0;
        }
        let bound = prior::bound(engine, &load.demand);
        let (mut measured, mut unmeasured) = (1.0, 1.0);
        for other in self
            .machine
            .devices
            .iter()
            .filter(|d| beside.contains(d.id))
        {
            match self.machine.corun_slowdown(device.id, other.id, bound) {
                Some(factor) => measured *= factor,
                None => unmeasured = self.policy.corun_slowdown,
            }
        }
        // An invented machine may contain any factor.
        let log = f64::ln(measured * unmeasured);
        if log.is_finite() { log } else { 0.0 }
    }
}

impl CostEstimate<'_> {
    /// The time as a function of the number of items: the line through this estimate for `items`.
    pub(super) fn line(&self, items: usize) -> Line {
        // The line must rise even for a kernel that claims no work.
        let per_item = ((self.seconds - self.overhead) / items as f64).max(1e-18);
        Line {
            overhead: self.overhead,
            per_item,
        }
    }
}
