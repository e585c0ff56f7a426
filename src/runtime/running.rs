//! A call, from its plan to its report; on other devices if those of the plan fail.

use super::{Runtime, Unusable};
use crate::array::TransferBytes;
use crate::cost::learned::KernelKey;
use crate::device::DeviceId;
use crate::device::DeviceSet;
use crate::device::gpu::Gpu;
use crate::error::{Error, Result};
use crate::execute::{
    Executor, Observation, PartReport, PartTiming, Report, Run, Verify, record, warm_up,
};
use crate::kernel::{Call, Execution, Kernel, LaunchSpec, SharedKernel, identity};
use crate::plan::{Plan, PlanKey, PlannedPart};
use crate::recovery::Recording;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Instant;

/// The most attempts at a call. Each one but the last fails since another device is lost or full.
const MOST_ATTEMPTS: usize = 8;

/// The GPUs of a plan.
type GpusOfPlan = SmallVec<[(DeviceId, Arc<Gpu>); 1]>;

/// The GPU of a plan that caused an error, if the call may succeed without it.
fn culprit(gpus: &GpusOfPlan, error: &Error) -> Option<DeviceId> {
    let full = match error {
        Error::DeviceMemory { device, .. } => Some(device),
        Error::DeviceLost { .. } | Error::Gpu { .. } | Error::DataLost { .. } => None,
        _ => return None,
    };
    let is_at_fault = |gpu: &Gpu| match full {
        Some(full) => *full == gpu.name(),
        None => {
            gpu.probe();
            gpu.is_lost()
        }
    };
    let found = gpus.iter().find(|(_, gpu)| is_at_fault(gpu));
    // A GPU that was opened again since the call was planned may be lost by now too.
    let any = || {
        gpus.first()
            .filter(|_| matches!(error, Error::DeviceLost { .. }))
    };
    found.or_else(any).map(|(device, _)| *device)
}

/// A planned call.
struct Planned {
    plan: Plan,
    /// Whether the learner gets its times.
    is_recorded: bool,
}

/// The outcome of a successful execution.
struct Done<T> {
    value: T,
    moved: TransferBytes,
    /// The number of parts that were verified.
    verified: usize,
    timings: SmallVec<[PartTiming; 2]>,
}

/// The outcome of a failed execution.
struct Failed {
    error: Error,
    /// Whether anything was computed or queued.
    has_begun: bool,
}

impl Runtime {
    /// Runs a kernel, at the call's placement or else at this runtime's default placement.
    ///
    /// Work on a GPU is queued, and this returns before it is done, unless the kernel returns a value. Reading an array
    /// waits for what it needs; [`Runtime::synchronize`] waits for everything. The runtime learns from the call's time; for
    /// a GPU, when a later operation finds that it is done. It learns nothing while the speed of a device is a guess
    /// ([`Runtime::is_measured`]), or if a very short call reuses the plan of an earlier one.
    ///
    /// While the best GPU compiles a kernel's pipelines, the call runs on the best device that needs no compiling. If a
    /// GPU is lost or full, the call runs elsewhere, from the state before it, even if its placement named that GPU.
    ///
    /// # Errors
    /// If the arguments do not fit together, the placement cannot be used, no device can run the kernel, or a device fails.
    /// Arrays that the call writes then have unspecified values.
    pub fn run<K: Kernel>(&self, call: Call<'_, K>) -> Result<Run<K::Output>> {
        let started = Instant::now();
        self.inner.devices.reopen_due_gpus();
        let spec = self.spec(&call)?;
        let identity = identity(&call.kernel);
        let plan_key = self.plan_key(&call, &spec, identity);
        let planned = self.decide(&call, &spec, plan_key)?;
        if planned.plan.awaits.is_empty() && planned.plan.is_on_cpu() {
            let done = self.execute(&call.kernel, identity, &planned.plan, None);
            let done = done.map_err(|failed| failed.error)?;
            return Ok(self.conclude(&call.kernel, &spec, planned, done, started));
        }
        // The kernel may be needed after the call: for background compilation, and for recovery.
        let call = Call {
            kernel: SharedKernel(Arc::new(call.kernel)),
            placement: call.placement,
            read_back: call.read_back,
            borrows: call.borrows,
        };
        self.compile_ahead(&call.kernel.0, spec.items, planned.plan.awaits);
        let (planned, done) = self.execute_with_recovery(&call, &spec, planned)?;
        Ok(self.conclude(&call.kernel, &spec, planned, done, started))
    }

    /// The plan of a call: a new one, or a cached one with the same key.
    fn decide<K: Kernel>(
        &self,
        call: &Call<'_, K>,
        spec: &LaunchSpec,
        plan_key: Option<PlanKey>,
    ) -> Result<Planned> {
        let inner = &*self.inner;
        let cached = plan_key.and_then(|key| inner.plan_cache.find(key, spec.items));
        if let Some(plan) = cached.filter(|plan| plan.is_on_cpu() || inner.devices.all_usable()) {
            return Ok(Planned {
                plan,
                is_recorded: false,
            });
        }
        // Read before planning: the first call may wait there until the machine is measured, and its time teaches nothing.
        let guesses = inner.calibrator.guesses();
        let plan = self.plan_spec(call, spec, &[])?;
        let guessed = |guesses: DeviceSet| plan.parts.iter().any(|p| guesses.contains(p.device));
        let is_recorded = guesses.is_some_and(|guesses| !guessed(guesses));
        if let Some(key) = plan_key {
            inner.plan_cache.keep(key, &plan);
        }
        Ok(Planned { plan, is_recorded })
    }

    /// Runs a kernel as planned, with `recording` as its record.
    fn execute<K: Kernel>(
        &self,
        kernel: &K,
        identity: u64,
        plan: &Plan,
        recording: Option<&Recording>,
    ) -> Result<Done<K::Output>, Failed> {
        let on_cpu = |part: &&PlannedPart| part.device == DeviceId::Cpu;
        let parts = plan.parts.iter().filter(on_cpu);
        let compute_seconds = parts.map(|part| part.predicted.compute);
        let _backlog = self.inner.cpu_backlog.begin(compute_seconds);
        let sampler = self.inner.sampler.as_ref();
        let mut executor = Executor::new(&self.inner.devices, plan)
            .recorded(recording.map(Recording::accesses))
            .verified(sampler.map(|sampler| sampler as &dyn Verify));
        let outcome = kernel.execute(&mut Execution::through(&mut executor));
        let outcome = outcome.and_then(|value| executor.fetch_created_arrays().map(|()| value));
        match outcome {
            Ok(value) => Ok(Done {
                value,
                moved: executor.moved(),
                verified: executor.parts_verified(),
                timings: executor.finish(identity),
            }),
            Err(error) => Err(Failed {
                error,
                has_begun: executor.has_begun(),
            }),
        }
    }

    /// Runs a call as planned. If a GPU is lost or full, restores the state before the call, and plans and runs it again
    /// without that GPU.
    fn execute_with_recovery<K: Kernel>(
        &self,
        call: &Call<'_, SharedKernel<K>>,
        spec: &LaunchSpec,
        mut planned: Planned,
    ) -> Result<(Planned, Done<K::Output>)> {
        let (kernel, journal) = (&call.kernel.0, &self.inner.journal);
        let identity = identity(&**kernel);
        let (mut failed, mut attempts) = (Unusable::new(), 0);
        loop {
            let gpus = self.gpus_of(&planned.plan);
            let is_measured = |device| self.is_measured(device);
            let recording = journal.open(kernel, &planned.plan, is_measured);
            let outcome = self.execute(&**kernel, identity, &planned.plan, recording.as_ref());
            let fault = match outcome {
                Ok(done) => {
                    recording
                        .into_iter()
                        .for_each(|recording| journal.close(recording));
                    return Ok((planned, done));
                }
                Err(fault) => fault,
            };
            attempts += 1;
            // Without a record, half-done changes cannot be undone.
            let can_retry = recording.is_some() || !fault.has_begun;
            let culprit = culprit(&gpus, &fault.error);
            let is_loss = matches!(
                fault.error,
                Error::DeviceLost { .. } | Error::DataLost { .. }
            );
            let retries = can_retry && attempts < MOST_ATTEMPTS && (culprit.is_some() || is_loss);
            let restored = match &recording {
                Some(recording) if retries => journal.recover(&recording.reads(), None),
                _ => Ok(()),
            };
            recording
                .into_iter()
                .for_each(|recording| journal.abandon(recording));
            if !retries {
                return Err(fault.error);
            }
            restored?;
            let mut read = spec.bindings.iter().filter(|b| b.access.reads());
            read.try_for_each(|binding| binding.array.recover())?;
            tracing::warn!(kernel = kernel.name(), error = %fault.error, "running the call again");
            failed.extend(culprit.map(|device| (device, fault.error.to_string().into())));
            planned = Planned {
                plan: self.plan_spec(call, spec, &failed)?,
                is_recorded: false,
            };
        }
    }

    /// The GPUs of a plan's parts, as they are open now.
    fn gpus_of(&self, plan: &Plan) -> GpusOfPlan {
        let parts = plan.parts.iter();
        parts
            .filter_map(|part| {
                let gpu = self.inner.devices.managed_gpu(part.device.gpu()?).ok()?;
                Some((part.device, gpu.latest()))
            })
            .collect()
    }

    /// Records the times of a call, and reports it.
    fn conclude<K: Kernel>(
        &self,
        kernel: &K,
        spec: &LaunchSpec,
        Planned { plan, is_recorded }: Planned,
        done: Done<K::Output>,
        started: Instant,
    ) -> Run<K::Output> {
        let seconds = started.elapsed().as_secs_f64();
        let name = kernel.name().to_owned();
        // Verification prolonged the call.
        if is_recorded && done.verified == 0 {
            let key = KernelKey {
                name: &name,
                element_type: spec.element_type(),
                implementation: kernel.implementation(),
            };
            self.record(&key, &plan, &done.timings, seconds);
        }
        let parts = plan.parts.iter().zip(done.timings);
        let parts = parts.map(|(part, timing)| PartReport {
            device: part.device,
            range: part.range.clone(),
            threads: part.threads,
            predicted_seconds: part.predicted.seconds(),
            timing,
        });
        let report = Report {
            kernel: name,
            parts: parts.collect(),
            predicted_seconds: plan.predicted_seconds,
            seconds,
            exploring: plan.exploring,
            moved: done.moved,
            verified: done.verified,
        };
        Run {
            value: done.value,
            report,
        }
    }

    /// Gives the times of a call to the learner, now or when its GPUs are done.
    fn record(
        &self,
        key: &KernelKey<'_>,
        plan: &Plan,
        timings: &SmallVec<[PartTiming; 2]>,
        seconds: f64,
    ) {
        let inner = &*self.inner;
        if plan.parts.iter().all(|part| part.device == DeviceId::Cpu) {
            record(&inner.learner, key, plan, timings, seconds);
        } else {
            let observation = Observation::new(key, plan.clone(), timings.clone(), seconds);
            inner.pending.add(observation, &inner.learner);
        }
    }

    /// Compiles the pipelines of a kernel in the background for these GPUs.
    fn compile_ahead<K: Kernel>(&self, kernel: &Arc<K>, items: usize, gpus: DeviceSet) {
        for device in gpus.iter() {
            if let DeviceId::Gpu(index) = device
                && let Ok(gpu) = self.inner.devices.gpu(index)
            {
                warm_up(Arc::clone(kernel), 0..items, &gpu);
            }
        }
    }
}
