//! The runtime owns the devices, the knowledge of their speed, and the policy, and runs calls.

mod builder;
mod cpu_backlog;
mod running;

pub use builder::RuntimeBuilder;

use crate::array::{Array, Element, Handle};
use crate::cost::learned::Learner;
use crate::cost::{Calibration, Calibrator, Machine, Step, Thoroughness};
use crate::device::gpu::{GpuInfo, GpuMemory, Readiness};
use crate::device::{DeviceId, Devices, Faults, ManagedGpu, Placement, UnusableGpu};
use crate::error::{Error, Result};
use crate::execute::PendingSamples;
use crate::kernel::{Call, Kernel, LaunchSpec, identity};
use crate::plan::{
    Explanation, Plan, PlanCache, PlanKey, PlannerInput, Policy, Request, ValidRanges, explain,
    plan,
};
use crate::recovery::{Durability, Journal};
use crate::simd::InstructionSet;
use crate::verify::Sampler;
use cpu_backlog::CpuBacklog;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// The devices of this machine, and the one verb that runs kernels on them.
///
/// Cheap to clone: clones share everything. May be used from any number of threads.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[1.0f32, 2.0, 3.0])?;
/// assert_eq!(rt.run(sum(&x))?.value, 6.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    /// The speeds of the devices. Declared first, so that its thread ends before they are dropped.
    calibrator: Calibrator,
    devices: Arc<Devices>,
    /// The calls on GPUs that recovery may run again.
    journal: Arc<Journal>,
    problems: Vec<String>,
    placement: Placement,
    policy: Policy,
    /// Draws the parts to verify; none if the policy asks for none.
    sampler: Option<Sampler>,
    learner: Arc<Learner>,
    /// Calls whose times are not all known yet.
    pending: PendingSamples,
    /// Plans of short calls.
    plan_cache: PlanCache,
    /// The running calls on the CPU.
    cpu_backlog: CpuBacklog,
}

/// What applies to calls that do not choose for themselves.
struct Defaults {
    placement: Placement,
    policy: Policy,
}

/// Devices that cannot be used, with the reasons.
type Unusable = SmallVec<[(DeviceId, Arc<str>); 1]>;

impl Inner {
    /// Gives the learner the times that the GPUs' clocks show by now.
    fn record_finished_calls(&self) {
        self.devices.working().for_each(|(_, gpu)| gpu.look());
        self.pending.record(&self.learner);
    }
}

impl Runtime {
    /// A runtime with the CPU and every usable GPU, as far as the environment allows: see [`RuntimeBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A builder, for a runtime with other than the default settings.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// A runtime with the same devices, at the speeds that `machine` gives. It has learned nothing and keeps nothing. Its
    /// calls use the same threads and GPUs as those of this one, so the two can be compared.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`] if `machine` has a device that this runtime lacks, [`Error::Setting`] if it has one without
    /// engines.
    pub fn with_machine(&self, machine: Machine) -> Result<Self> {
        let inner = &*self.inner;
        check_machine(&machine, &inner.devices)?;
        let (devices, learner) = (Arc::clone(&inner.devices), Arc::new(Learner::new()));
        let calibrator = Calibrator::given(Arc::clone(&devices), machine, Arc::clone(&learner));
        let defaults = Defaults {
            placement: inner.placement.clone(),
            policy: inner.policy,
        };
        Ok(Self::of(
            devices,
            Arc::clone(&inner.journal),
            inner.problems.clone(),
            calibrator,
            learner,
            defaults,
        ))
    }

    fn of(
        devices: Arc<Devices>,
        journal: Arc<Journal>,
        problems: Vec<String>,
        calibrator: Calibrator,
        learner: Arc<Learner>,
        defaults: Defaults,
    ) -> Self {
        let Defaults { placement, policy } = defaults;
        let inner = Inner {
            calibrator,
            devices,
            journal,
            problems,
            placement,
            policy,
            sampler: Sampler::new(policy.verified_share),
            learner,
            pending: PendingSamples::default(),
            plan_cache: PlanCache::default(),
            cpu_backlog: CpuBacklog::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The key of a call's plan: everything the plan depends on, except what was learned. `None` for a call whose plan is
    /// not cached.
    fn plan_key<K: Kernel>(
        &self,
        call: &Call<'_, K>,
        spec: &LaunchSpec,
        identity: u64,
    ) -> Option<PlanKey> {
        let placement = match self.placement_of(call) {
            Placement::Auto => 0,
            Placement::Cpu => 1,
            // A call on a GPU takes longer than its planning.
            Placement::Gpu(_) | Placement::Split(_) => return None,
        };
        let work = spec.work();
        let mut plan_key = PlanKey::of(identity)
            .and(placement)
            .and(call.read_back.map_or(2, u64::from))
            .and(spec.items as u64)
            .and(work.flops.to_bits())
            .and(work.bytes().to_bits());
        for binding in &spec.bindings {
            let mut residency = binding.array.residency();
            let wanted = match call.read_back {
                Some(wanted) => f64::from(u8::from(wanted)),
                None => residency.read_back().expected(),
            };
            plan_key = plan_key
                .and(residency.location_key()?)
                .and(binding.array.len() as u64)
                .and(wanted.to_bits());
        }
        Some(plan_key)
    }

    /// Explains what running a call would do: the predicted time of every candidate and its components, and why other
    /// candidates are ruled out.
    ///
    /// # Errors
    /// As [`Runtime::run`], before anything runs.
    pub fn explain<K: Kernel>(&self, call: &Call<'_, K>) -> Result<Explanation> {
        self.inner.record_finished_calls();
        let spec = self.spec(call)?;
        let request = self.request(call, &spec);
        let input = self.input(call, &request, &[]);
        explain(
            &request,
            &*self.machine()?,
            &input,
            &self.placement_of(call).without(&input.unusable),
            &self.inner.policy,
        )
    }

    /// The plan that [`Runtime::run`] would follow, without running it: which items go to which device, and the predicted
    /// time.
    ///
    /// # Errors
    /// As [`Runtime::run`], before anything runs.
    ///
    /// ```
    /// # fn main() -> divvy::Result<()> {
    /// use divvy::prelude::*;
    ///
    /// let rt = Runtime::builder().cpu_only().no_profile().build()?;
    /// let x = rt.filled(1000, 1.0f32)?;
    /// let plan = rt.plan(&sum(&x))?;
    /// assert_eq!(plan.parts[0].range, 0..1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn plan<K: Kernel>(&self, call: &Call<'_, K>) -> Result<Plan> {
        self.plan_spec(call, &self.spec(call)?, &[])
    }

    /// Plans a call without the devices that already failed to run it. Opens lost GPUs again if no other device can run it.
    fn plan_spec<K: Kernel>(
        &self,
        call: &Call<'_, K>,
        spec: &LaunchSpec,
        failed: &[(DeviceId, Arc<str>)],
    ) -> Result<Plan> {
        let machine = self.machine()?;
        let request = self.request(call, spec);
        let decide = || {
            let input = self.input(call, &request, failed);
            let placement = self.placement_of(call).without(&input.unusable);
            if let Cow::Owned(left) = &placement {
                let asked = self.placement_of(call);
                tracing::warn!(%asked, %left, "a GPU of the placement cannot be used");
            }
            plan(&request, &machine, &input, &placement, &self.inner.policy)
        };
        let planned = decide();
        if let Err(Error::Infeasible { .. }) = &planned
            && self.inner.devices.open_all_now()
        {
            return decide();
        }
        planned
    }

    fn spec<K: Kernel>(&self, call: &Call<'_, K>) -> Result<LaunchSpec> {
        let spec = call.kernel.spec()?;
        spec.check(call.kernel.name())?;
        Ok(spec)
    }

    fn request<'a, K: Kernel>(&self, call: &'a Call<'_, K>, spec: &LaunchSpec) -> Request<'a> {
        let kernel = &call.kernel;
        let residency = |array: &Handle| self.residency(array);
        let read_back = |array: &Handle| match call.read_back {
            Some(wanted) => f64::from(u8::from(wanted)),
            None => array.residency().read_back().expected(),
        };
        Request::new(
            kernel.name(),
            kernel.implementation(),
            spec,
            residency,
            read_back,
        )
    }

    /// The planner's input beyond the rates of the machine: the performance model of the kernel, and the state of the
    /// devices.
    fn input<K: Kernel>(
        &self,
        call: &Call<'_, K>,
        request: &Request<'_>,
        failed: &[(DeviceId, Arc<str>)],
    ) -> PlannerInput {
        let inner = &*self.inner;
        let lost = inner.devices.lost();
        let lost = lost.map(|gpu| (gpu.index, format!("it is lost for now: {}", gpu.reason)));
        let set_aside = inner.devices.set_aside();
        let set_aside =
            set_aside.map(|gpu| (gpu.index, format!("it is set aside: {}", gpu.reason)));
        let unusable = lost.chain(set_aside);
        let unusable = unusable.map(|(index, why)| (DeviceId::Gpu(index), why.into()));
        let mut input = PlannerInput {
            perf_model: inner.learner.perf_model(&request.kernel),
            exploration_budget: inner.learner.exploration_budget(),
            unusable: unusable.chain(failed.iter().cloned()).collect(),
            ..PlannerInput::default()
        };
        if !request.has_gpu {
            return input;
        }
        let identity = identity(&call.kernel);
        for (index, gpu) in inner.devices.working() {
            let device = DeviceId::Gpu(index);
            if gpu.readiness(identity) != Readiness::Ready {
                input.compiling = input.compiling.with(device);
            }
            let seconds = gpu.backlog_seconds();
            if seconds > 0.0 {
                input.backlog.push((device, seconds));
            }
        }
        let seconds = inner.cpu_backlog.seconds();
        if seconds > 0.0 {
            input.backlog.push((DeviceId::Cpu, seconds));
        }
        input
    }

    fn placement_of<'a, K: Kernel>(&'a self, call: &'a Call<'_, K>) -> &'a Placement {
        call.placement.as_ref().unwrap_or(&self.inner.placement)
    }

    /// Makes all of an array valid on a device before the calls that need it there. [`DeviceId::Cpu`] means the host. A copy
    /// to a GPU is queued like other work.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], or [`Error::DeviceMemory`] if the device has no room for the whole array.
    pub fn prefetch<T: Element>(&self, array: &Array<T>, device: DeviceId) -> Result<()> {
        self.prefetch_handle(array.handle(), device)
    }

    /// [`Runtime::prefetch`] for a handle.
    pub fn prefetch_handle(&self, array: &Handle, device: DeviceId) -> Result<()> {
        match device {
            DeviceId::Cpu => array.fetch(),
            DeviceId::Gpu(index) => {
                let gpu = self.inner.devices.gpu(index)?;
                array.prefetch(&gpu)
            }
        }
    }

    /// Submits all recorded GPU work, without waiting for it. Reading an array also does this. Call it to let a GPU begin
    /// while the host does something else.
    pub fn flush(&self) -> Result<()> {
        let mut working = self.inner.devices.working();
        working.try_for_each(|(_, gpu)| gpu.flush())
    }

    /// Waits until all work on every device is done.
    pub fn synchronize(&self) -> Result<()> {
        let mut working = self.inner.devices.working();
        working.try_for_each(|(_, gpu)| gpu.wait_for_all())?;
        self.inner.record_finished_calls();
        Ok(())
    }

    /// An array with a copy of `elements`.
    pub fn array_from<T: Element>(&self, elements: &[T]) -> Result<Array<T>> {
        Array::from_slice(elements)
    }

    /// An array of `len` times `value`.
    pub fn filled<T: Element>(&self, len: usize, value: T) -> Result<Array<T>> {
        Array::filled(len, value)
    }

    /// An array of unspecified values, for results: see [`Array::uninit`].
    pub fn uninit<T: Element>(&self, len: usize) -> Result<Array<T>> {
        Array::uninit(len)
    }

    /// The processor's name, as the system reports it.
    pub fn cpu_name(&self) -> &str {
        self.inner.devices.cpu.name()
    }

    /// Whether calls may be placed on the CPU: false if only GPUs are allowed.
    pub fn uses_cpu(&self) -> bool {
        self.inner.devices.place_on_cpu
    }

    /// The number of threads of the CPU's pool.
    pub fn threads(&self) -> usize {
        self.inner.devices.cpu.threads()
    }

    /// The vector instruction set that the CPU's loops use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.inner.devices.cpu.simd().set()
    }

    /// The GPUs, in the order of their numbers.
    pub fn gpus(&self) -> impl ExactSizeIterator<Item = &GpuInfo> {
        self.inner.devices.gpus.iter().map(ManagedGpu::info)
    }

    /// The GPUs that are lost for now. They are opened again after a pause; until then everything runs elsewhere.
    pub fn lost_gpus(&self) -> Vec<UnusableGpu> {
        self.inner.devices.lost().collect()
    }

    /// The GPUs on which nothing is placed any more, since three verifications in a row failed on them: see
    /// [`Policy::verify`].
    pub fn gpus_set_aside(&self) -> Vec<UnusableGpu> {
        self.inner.devices.set_aside().collect()
    }

    /// What happens to results that exist only on a GPU when that GPU is lost.
    pub fn durability(&self) -> Durability {
        self.inner.journal.durability()
    }

    /// The number of calls in the journal, for tests.
    #[doc(hidden)]
    pub fn journal_len(&self) -> usize {
        self.inner.journal.len()
    }

    /// The bytes that are kept for the journal, for tests.
    #[doc(hidden)]
    pub fn journal_bytes(&self) -> usize {
        self.inner.journal.kept_bytes()
    }

    /// Opens lost GPUs again at once, without their pause, for tests. Returns whether one of them works then.
    #[doc(hidden)]
    pub fn reopen_gpus(&self) -> bool {
        self.inner.devices.open_all_now()
    }

    /// Gives access to the faults to inject on a GPU, for tests.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    #[doc(hidden)]
    pub fn faults<T>(&self, gpu: usize, see: impl FnOnce(&Faults) -> T) -> Result<T> {
        Ok(self.inner.devices.managed_gpu(gpu)?.with_faults(see))
    }

    /// The memory use of each GPU, in the order of their numbers.
    pub fn gpu_memory(&self) -> impl ExactSizeIterator<Item = GpuMemory> {
        let gpus = self.inner.devices.gpus.iter();
        gpus.map(|gpu| gpu.latest().memory())
    }

    /// Why other GPUs are missing from [`Runtime::gpus`]: one line for each that cannot be used.
    pub fn gpu_problems(&self) -> &[String] {
        &self.inner.problems
    }

    /// The speeds of this machine, read from the profile, or else measured at the first need and kept there. Measuring
    /// takes up to 0.3 s. Devices that need longer are measured while the program goes on; until then
    /// [`Runtime::is_measured`] says that their figures are guesses.
    ///
    /// # Errors
    /// [`Error::Io`] if a profile was named that cannot be read.
    pub fn machine(&self) -> Result<Arc<Machine>> {
        self.inner.calibrator.machine()
    }

    /// The speeds of this machine, like [`Runtime::machine`], after every device is measured that can be.
    ///
    /// # Errors
    /// As [`Runtime::machine`].
    pub fn measured_machine(&self) -> Result<Arc<Machine>> {
        self.inner.calibrator.complete_machine()
    }

    /// Whether the figures of a device are measured. While they are a guess, only calls whose placement names it use it.
    pub fn is_measured(&self, device: DeviceId) -> bool {
        self.inner.calibrator.is_measured(device)
    }

    /// Measures every device anew, and how much they slow each other down, and keeps the results in the profile. `watch`
    /// gets each step before it begins. Nothing else should run meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`] if a profile was named that cannot be read. The [`Calibration`] lists what could not be measured or
    /// kept.
    ///
    /// ```no_run
    /// # fn main() -> divvy::Result<()> {
    /// use divvy::cost::Thoroughness;
    ///
    /// let rt = divvy::Runtime::new()?;
    /// let found = rt.calibrate(Thoroughness::Quick, |step| println!("{}/{} {}", step.done, step.of, step.doing))?;
    /// println!("{} devices in {:.1} s", found.machine.devices.len(), found.seconds);
    /// # Ok(())
    /// # }
    /// ```
    pub fn calibrate(
        &self,
        thoroughness: Thoroughness,
        mut watch: impl FnMut(&Step),
    ) -> Result<Calibration> {
        self.inner.calibrator.calibrate(thoroughness, &mut watch)
    }

    /// The file with the profile, if one is kept.
    pub fn profile_path(&self) -> Option<&Path> {
        self.inner.calibrator.location().path()
    }

    /// Writes what was learned to the profile now. The runtime also does so every minute and when it is dropped.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Profile`] if the profile cannot be written.
    pub fn save_profile(&self) -> Result<()> {
        self.inner.record_finished_calls();
        self.inner.calibrator.keep()
    }

    /// The elements of an array that are valid on each device of this runtime.
    fn residency(&self, array: &Handle) -> ValidRanges {
        let places = array.residency();
        let mut residency = ValidRanges::new();
        residency.push((DeviceId::Cpu, places.valid_on_host().clone()));
        for (index, gpu) in self.inner.devices.working() {
            let valid = places.valid_on(gpu.id());
            if !valid.is_empty() {
                residency.push((DeviceId::Gpu(index), valid));
            }
        }
        residency
    }
}

impl Drop for Inner {
    /// Records the GPU times that are known now; no others will be. The calibrator keeps what was learned afterwards.
    fn drop(&mut self) {
        self.record_finished_calls();
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Runtime({})", self.inner.devices.names())
    }
}

/// Refuses a machine with devices that do not exist here, or that have no engines.
fn check_machine(machine: &Machine, devices: &Devices) -> Result<()> {
    for model in &machine.devices {
        if let DeviceId::Gpu(index) = model.id {
            devices.managed_gpu(index)?;
        }
        if model.engines.is_empty() {
            return Err(Error::Setting {
                setting: "machine".into(),
                given: format!("{} without engines", model.id),
                expected: "at least one engine for each device".into(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{axpy, leapfrog_step};

    fn on_cpu() -> Runtime {
        let builder = Runtime::builder().cpu_only().no_profile();
        builder.build().expect("a CPU")
    }

    #[test]
    fn read_back_is_part_of_the_plan_key() {
        let rt = on_cpu();
        let [x, mut y] = [1.0f32; 2].map(|value| rt.filled(10, value).expect("a small array"));
        let mut plan_key = |read_back: Option<bool>| {
            let mut call = axpy(2.0, &x, &mut y);
            call.read_back = read_back;
            let spec = rt.spec(&call).expect("it fits together");
            rt.plan_key(&call, &spec, identity(&call.kernel))
        };
        let [unsaid, unwanted, wanted] = [None, Some(false), Some(true)].map(&mut plan_key);
        assert!(unsaid.is_some() && unsaid != unwanted && unwanted != wanted && unsaid != wanted);
    }

    #[test]
    fn a_first_call_that_waits_for_calibration_teaches_nothing() {
        let rt = on_cpu();
        let [x, mut y] = [1.0f32; 2].map(|value| rt.filled(10, value).expect("a small array"));
        rt.run(axpy(2.0, &x, &mut y)).expect("it runs");
        assert_eq!(rt.inner.learner.records(), []);
        assert_eq!(rt.inner.learner.exploration_budget().seconds, 0.0);
        rt.measured_machine().expect("it can be measured");
        rt.run(axpy(2.0, &x, &mut y)).expect("it runs");
        assert_eq!(rt.inner.learner.records().len(), 1);
    }

    #[test]
    fn results_that_a_kernel_s_own_passes_read_do_not_count_as_unread() {
        let rt = on_cpu();
        let [mut bodies, mut velocities, mut accelerations] =
            [(); 3].map(|()| rt.filled(256, 1.0f32).expect("a small array"));
        for _ in 0..3 {
            let step = leapfrog_step(1e-3, 0.1, &mut bodies, &mut velocities, &mut accelerations);
            rt.run(step).expect("it runs");
            for array in [&bodies, &velocities] {
                array.to_vec().expect("it is on the host");
                assert_eq!(array.handle().residency().read_back().expected(), 1.0);
            }
        }
    }
}
