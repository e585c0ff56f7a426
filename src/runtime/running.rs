//! A call from its plan to what became of it, on other devices if those of the plan fail.

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

/// How often a call is tried. Each time but the last, another device was lost or full.
const MOST_ATTEMPTS: usize = 8;

/// The GPUs of a plan.
type GpusOfPlan = SmallVec<[(DeviceId, Arc<Gpu>); 1]>;

/// The GPU of a plan that an error comes from, if the call may well succeed without it.
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
    // One that was opened again since the call was planned may be lost by now too.
    let any = || {
        gpus.first()
            .filter(|_| matches!(error, Error::DeviceLost { .. }))
    };
    found.or_else(any).map(|(device, _)| *device)
}

/// How a call is to run.
struct Planned {
    plan: Plan,
    /// Whether what it takes will say something.
    is_recorded: bool,
}

/// What became of a call.
struct Done<T> {
    value: T,
    moved: TransferBytes,
    /// Parts that were computed again elsewhere, and compared.
    verified: usize,
    timings: SmallVec<[PartTiming; 2]>,
}

/// Why nothing became of a call.
struct Failed {
    error: Error,
    /// Whether some of it had been computed or queued.
    has_begun: bool,
}

impl Runtime {
    /// Runs a kernel, where the call, else this runtime's default placement, says.
    ///
    /// Work on a GPU is queued, and this returns before it is done unless the kernel returns a value; reading an array
    /// waits for what it needs, [`Runtime::synchronize`] for everything. What the call took is learned, on a GPU when a later
    /// operation finds that it is done. It teaches nothing while the speed of its devices is a guess
    /// ([`Runtime::is_measured`]), or if a very short call used the plan of an earlier one again.
    ///
    /// While a GPU that would be chosen compiles a kernel's pipelines, the call runs on the best device that need not. If a
    /// GPU is lost or full, the call runs elsewhere, from the state before it, even if that GPU was asked for.
    ///
    /// # Errors
    /// If the arguments do not fit together, the placement cannot be used, no device can run the kernel, or one fails.
    /// Arrays that the call writes then hold unspecified values.
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
        // The kernel may be needed after the call: to compile it in the background, and to run it again.
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

    /// The plan of a call: a new one, or that of an earlier call in the same situation.
    fn decide<K: Kernel>(
        &self,
        call: &Call<'_, K>,
        spec: &LaunchSpec,
        plan_key: Option<PlanKey>,
    ) -> Result<Planned> {
        let inner = &*self.inner;
        let recalled = plan_key.and_then(|here| inner.plan_cache.find(here, spec.items));
        if let Some(plan) = recalled.filter(|plan| plan.is_on_cpu() || inner.devices.all_usable()) {
            return Ok(Planned {
                plan,
                is_recorded: false,
            });
        }
        // The first call may have to wait until the machine is measured, and times over guesses teach nothing.
        let guesses = inner.calibrator.guesses();
        let plan = self.plan_outlined(call, spec, &[])?;
        let guessed = |guesses: DeviceSet| plan.parts.iter().any(|p| guesses.contains(p.device));
        let is_recorded = guesses.is_some_and(|guesses| !guessed(guesses));
        if let Some(here) = plan_key {
            inner.plan_cache.keep(here, &plan);
        }
        Ok(Planned { plan, is_recorded })
    }

    /// Runs a kernel as planned; `recording` keeps a record of it.
    fn execute<K: Kernel>(
        &self,
        kernel: &K,
        identity: u64,
        plan: &Plan,
        recording: Option<&Recording>,
    ) -> Result<Done<K::Output>, Failed> {
        let on_cpu = |part: &&PlannedPart| part.device == DeviceId::Cpu;
        let parts = plan.parts.iter().filter(on_cpu);
        let _busy = self.inner.work.begin(parts.map(|p| p.predicted.compute));
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

    /// Runs a call as planned and, if a GPU is lost or full meanwhile, as it is then planned without that one, from the
    /// state before the call.
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
            // Without a record, what was changed halfway stays so.
            let can_go_on = recording.is_some() || !fault.has_begun;
            let culprit = culprit(&gpus, &fault.error);
            let is_loss = matches!(
                fault.error,
                Error::DeviceLost { .. } | Error::DataLost { .. }
            );
            let goes_on = can_go_on && attempts < MOST_ATTEMPTS && (culprit.is_some() || is_loss);
            let restored = match &recording {
                Some(recording) if goes_on => journal.recover(&recording.reads(), None),
                _ => Ok(()),
            };
            recording
                .into_iter()
                .for_each(|recording| journal.abandon(recording));
            if !goes_on {
                return Err(fault.error);
            }
            restored?;
            let mut read = spec.bindings.iter().filter(|b| b.access.reads());
            read.try_for_each(|binding| binding.array.recover())?;
            tracing::warn!(kernel = kernel.name(), error = %fault.error, "running the call again");
            failed.extend(culprit.map(|device| (device, fault.error.to_string().into())));
            planned = Planned {
                plan: self.plan_outlined(call, spec, &failed)?,
                is_recorded: false,
            };
        }
    }

    /// The GPUs that have a part in a plan, and work.
    fn gpus_of(&self, plan: &Plan) -> GpusOfPlan {
        let parts = plan.parts.iter();
        parts
            .filter_map(|part| {
                let slot = self.inner.devices.managed_gpu(part.device.gpu()?).ok()?;
                Some((part.device, slot.latest()))
            })
            .collect()
    }

    /// Teaches what a call took, and reports it.
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
        // The call took longer than it would without.
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

    /// Hands what a call took to the learner, now or when its GPUs are done.
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

    /// Has the pipelines of a kernel compiled in the background for those GPUs.
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
