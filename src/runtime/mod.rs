//! The runtime: owns the devices, what is known of their speed, and the policy; runs calls.

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
    /// What is known of the devices' speed. Declared first: its thread ends before they go.
    calibrator: Calibrator,
    devices: Arc<Devices>,
    /// What was run on GPUs and may have to be run again.
    journal: Arc<Journal>,
    problems: Vec<String>,
    placement: Placement,
    policy: Policy,
    /// Draws the parts that are verified, if any are.
    sampler: Option<Sampler>,
    learner: Arc<Learner>,
    /// Calls whose times are not all known yet.
    pending: PendingSamples,
    /// Plans of short calls.
    plan_cache: PlanCache,
    /// What the CPU is at.
    work: CpuBacklog,
}

/// Devices that cannot be used, and why not.
type Unusable = SmallVec<[(DeviceId, Arc<str>); 1]>;

impl Inner {
    /// Lets the learner have the times that GPUs' clocks show by now.
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

    /// A runtime with choices.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// A runtime with the same devices that takes them to be as fast as `machine` says, has learned nothing, and keeps
    /// nothing. Its calls use the same threads and GPUs as those of this one, so that what either does can be compared.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`] and [`Error::Setting`] if `machine` has a device that this runtime has not, or of which
    /// nothing is known.
    pub fn with_machine(&self, machine: Machine) -> Result<Self> {
        let inner = &*self.inner;
        check_machine(&machine, &inner.devices)?;
        let (devices, learner) = (Arc::clone(&inner.devices), Arc::new(Learner::new()));
        let calibrator = Calibrator::given(Arc::clone(&devices), machine, Arc::clone(&learner));
        let choices = (inner.placement.clone(), inner.policy);
        Ok(Self::of(
            devices,
            Arc::clone(&inner.journal),
            inner.problems.clone(),
            calibrator,
            learner,
            choices,
        ))
    }

    fn of(
        devices: Arc<Devices>,
        journal: Arc<Journal>,
        problems: Vec<String>,
        calibrator: Calibrator,
        learner: Arc<Learner>,
        (placement, policy): (Placement, Policy),
    ) -> Self {
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
            work: CpuBacklog::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// All that the plan of a call depends on besides what was learned; `None` if that is more than can be told quickly.
    fn plan_key<K: Kernel>(
        &self,
        call: &Call<'_, K>,
        spec: &LaunchSpec,
        identity: u64,
    ) -> Option<PlanKey> {
        let placement = match self.placement_of(call) {
            Placement::Auto => 0,
            Placement::Cpu => 1,
            // What runs on GPUs takes longer than a plan.
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

    /// What running a call would do and why: every candidate's predicted time, what it is made of, and why others
    /// are ruled out.
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

    /// What [`Runtime::run`] would do with a call, without doing it: which items on which device, and the predicted time.
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
        self.plan_outlined(call, &self.spec(call)?, &[])
    }

    /// Plans a call without the devices that already failed to run it. If nothing else can, lost GPUs are opened again.
    fn plan_outlined<K: Kernel>(
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
                tracing::warn!(%asked, %left, "a GPU that was asked for cannot be used");
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

    /// What is known beyond the rates of the machine: what was learned of the kernel, and what the devices are doing.
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
        let seconds = inner.work.seconds();
        if seconds > 0.0 {
            input.backlog.push((DeviceId::Cpu, seconds));
        }
        input
    }

    fn placement_of<'a, K: Kernel>(&'a self, call: &'a Call<'_, K>) -> &'a Placement {
        call.placement.as_ref().unwrap_or(&self.inner.placement)
    }

    /// Makes all of an array present on a device ahead of the calls that will need it there: the host for
    /// [`DeviceId::Cpu`]. To a GPU the copy is queued like its other work.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], or [`Error::DeviceMemory`] if the device has no room for the whole array.
    pub fn prefetch<T: Element>(&self, array: &Array<T>, device: DeviceId) -> Result<()> {
        self.prefetch_handle(array.handle(), device)
    }

    /// [`Runtime::prefetch`] for an array of whichever type.
    pub fn prefetch_handle(&self, array: &Handle, device: DeviceId) -> Result<()> {
        match device {
            DeviceId::Cpu => array.fetch(),
            DeviceId::Gpu(index) => {
                let gpu = self.inner.devices.gpu(index)?;
                array.prefetch(&gpu)
            }
        }
    }

    /// Submits all recorded GPU work, without waiting for it. Reading an array does this by itself; call it to let a
    /// GPU begin while the host does something else.
    pub fn flush(&self) -> Result<()> {
        let mut working = self.inner.devices.working();
        working.try_for_each(|(_, gpu)| gpu.flush())
    }

    /// Waits until all work is done on every device.
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

    /// An array for results, of unspecified values: see [`Array::uninit`].
    pub fn uninit<T: Element>(&self, len: usize) -> Result<Array<T>> {
        Array::uninit(len)
    }

    /// The processor's name, as far as the system tells it.
    pub fn cpu_name(&self) -> &str {
        self.inner.devices.cpu.name()
    }

    /// Whether calls may be placed on the CPU; not if only GPUs are allowed.
    pub fn uses_cpu(&self) -> bool {
        self.inner.devices.place_on_cpu
    }

    /// How many threads the CPU's pool has.
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

    /// The GPUs that are lost for now. They are opened again after a while; everything runs elsewhere meanwhile.
    pub fn lost_gpus(&self) -> Vec<UnusableGpu> {
        self.inner.devices.lost().collect()
    }

    /// The GPUs on which nothing is placed any more, because three verifications in a row spoke against each of them: see
    /// [`Policy::verify`].
    pub fn gpus_set_aside(&self) -> Vec<UnusableGpu> {
        self.inner.devices.set_aside().collect()
    }

    /// What becomes of results that exist only on a GPU when it is lost.
    pub fn durability(&self) -> Durability {
        self.inner.journal.durability()
    }

    /// The calls that are kept to be run again should a GPU be lost, and the bytes that are kept for them.
    #[doc(hidden)]
    pub fn journal(&self) -> (usize, usize) {
        (self.inner.journal.len(), self.inner.journal.kept_bytes())
    }

    /// Opens lost GPUs again at once, whether or not their time has come; whether one of them works then, for tests.
    #[doc(hidden)]
    pub fn reopen_gpus(&self) -> bool {
        self.inner.devices.open_all_now()
    }

    /// Has faults happen on a GPU, for tests.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    #[doc(hidden)]
    pub fn faults<T>(&self, gpu: usize, see: impl FnOnce(&Faults) -> T) -> Result<T> {
        Ok(self.inner.devices.managed_gpu(gpu)?.with_faults(see))
    }

    /// How much memory of each GPU is taken, in the order of their numbers.
    pub fn gpu_memory(&self) -> impl ExactSizeIterator<Item = GpuMemory> {
        let slots = self.inner.devices.gpus.iter();
        slots.map(|slot| slot.latest().memory())
    }

    /// Why there are no more GPUs than [`Runtime::gpus`] lists: one line for each that cannot be used.
    pub fn gpu_problems(&self) -> &[String] {
        &self.inner.problems
    }

    /// What is known of this machine's speed: read from the profile, else measured at the first need and kept there.
    /// That takes up to 0.3 s; devices for which this is too short are measured while the program goes on, and
    /// [`Runtime::is_measured`] tells whose figures are guesses until then.
    ///
    /// # Errors
    /// [`Error::Io`] if a profile was named that cannot be read.
    pub fn machine(&self) -> Result<Arc<Machine>> {
        self.inner.calibrator.machine()
    }

    /// What is known of this machine's speed, like [`Runtime::machine`], once every device is measured that can be.
    ///
    /// # Errors
    /// As [`Runtime::machine`].
    pub fn measured_machine(&self) -> Result<Arc<Machine>> {
        self.inner.calibrator.complete_machine()
    }

    /// Whether the figures of a device were measured. While they are a guess, it is only used where it is asked for.
    pub fn is_measured(&self, device: DeviceId) -> bool {
        self.inner.calibrator.is_measured(device)
    }

    /// Measures every device anew, and how much they slow each other down, and keeps that in the profile. `watch` hears
    /// of each step before it begins. Nothing else should run meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`] if a profile was named that cannot be read. What could not be measured or kept is in the
    /// [`Calibration`].
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

    /// The file in which what is measured and learned is kept, if it is.
    pub fn profile_path(&self) -> Option<&Path> {
        self.inner.calibrator.location().path()
    }

    /// Keeps what was learned in the profile now, as happens every minute and when the runtime goes.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Profile`] if that cannot be done.
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
    /// What GPUs took is known now if it ever will be; what was learned is kept after this, by the survey.
    fn drop(&mut self) {
        self.record_finished_calls();
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Runtime({})", self.inner.devices.names())
    }
}

/// Refuses a machine with devices that are not there, or of which nothing is known.
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
    fn whether_results_are_read_back_is_part_of_the_situation() {
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
    fn a_first_call_that_waits_for_the_survey_teaches_nothing() {
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
    fn what_a_kernel_s_own_passes_read_is_not_taken_for_unread() {
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
