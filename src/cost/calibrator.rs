//! What a runtime knows of its machine: read from the profile, measured where that knows nothing, and kept there again.
//!
//! A thread measures, so that the first call need not wait for devices that take long: until they are measured, guesses
//! stand in for them, which [`Calibrator::is_measured`] tells from figures. The same thread then keeps what is learned, every
//! so often and in the end; the thread that calls kernels never touches the file after the first call.

use super::calibrate::{self, Bench, CalibrationTask, Thoroughness};
use super::learned::{Learner, Record};
use super::machine::{CoRun, DeviceModel, Machine};
use super::profile::{DeviceKey, Keyed, Location, MeasurementConditions, Profile, agree};
use crate::device::gpu::Gpu;
use crate::device::{DeviceId, DeviceSet, Devices, ManagedGpu};
use crate::error::Result;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the first call waits for measurements.
const FIRST_WAIT: Duration = Duration::from_millis(220);
/// How often what is learned is kept.
const KEEPING: Duration = Duration::from_secs(60);
/// What is measured of a GPU that may bind or allocate less than this is not kept.
const LEAST_KEPT: u64 = 64 << 20;

/// A step of a calibration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// What is measured next.
    pub doing: String,
    /// How many steps are done.
    pub done: usize,
    /// How many there are.
    pub of: usize,
}

/// What [`Runtime::calibrate`](crate::Runtime::calibrate) found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Calibration {
    /// The machine, with guesses for devices that could not be measured.
    pub machine: Arc<Machine>,
    /// The devices that could not be measured, and why not.
    pub problems: Vec<(DeviceId, String)>,
    /// Other processes held the cores meanwhile, so the figures may be too low.
    pub busy: bool,
    /// How long it took.
    pub seconds: f64,
    /// The profile in which it is kept, if one is kept.
    pub kept: Result<Option<PathBuf>>,
}

/// What is known of a runtime's devices, and who finds it out.
pub(crate) struct Calibrator {
    shared: Arc<CalibratorState>,
    /// Held while it is found out what is known: once.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

struct CalibratorState {
    devices: Arc<Devices>,
    keyed: Vec<Keyed>,
    location: Location,
    learner: Arc<Learner>,
    /// What plans see, locked for moments only: the machine, and the devices of which it holds guesses.
    seen: RwLock<Option<(Arc<Machine>, DeviceSet)>>,
    findings: Mutex<Findings>,
    changed: Condvar,
    /// Held by whoever measures.
    measuring: Mutex<()>,
}

/// What was found out so far.
#[derive(Default)]
struct Findings {
    /// What is known of devices; what was learned on them only until the learner has it.
    profile: Profile,
    /// With guesses for what is not measured.
    machine: Machine,
    unmeasured: DeviceSet,
    /// The devices whose figures changed so much that what was learned before is worth nothing.
    changed: DeviceSet,
    /// All was measured that can be, and kept.
    complete: bool,
    stopping: bool,
    /// How many measurements were last kept.
    kept: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calibrator {
    /// Nothing is known yet.
    pub(crate) fn new(devices: Arc<Devices>, location: Location, learner: Arc<Learner>) -> Self {
        let shared = CalibratorState {
            keyed: keys(&devices),
            devices,
            location,
            learner,
            seen: RwLock::default(),
            findings: Mutex::default(),
            changed: Condvar::new(),
            measuring: Mutex::new(()),
        };
        Self {
            shared: Arc::new(shared),
            keeper: Mutex::new(None),
        }
    }

    /// Everything is known, and nothing is measured or kept.
    pub(crate) fn given(devices: Arc<Devices>, machine: Machine, learner: Arc<Learner>) -> Self {
        let calibrator = Self::new(devices, Location::Off, learner);
        {
            let mut findings = lock(&calibrator.shared.findings);
            findings.complete = true;
            findings.machine = machine;
            calibrator.shared.publish(&findings);
        }
        calibrator
    }

    /// Where it is kept.
    pub(crate) fn location(&self) -> &Location {
        &self.shared.location
    }

    /// What is known of the machine. The first time, that is read and measured, which takes up to 0.3 s; what takes
    /// longer goes on afterwards.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the user named a profile that cannot be read.
    pub(crate) fn machine(&self) -> Result<Arc<Machine>> {
        match self.shared.known() {
            Some(machine) => Ok(machine),
            None => self.begin(),
        }
    }

    /// What is known of the machine once everything is measured that can be.
    ///
    /// # Errors
    /// As [`Calibrator::machine`].
    pub(crate) fn complete_machine(&self) -> Result<Arc<Machine>> {
        self.machine()?;
        let findings = lock(&self.shared.findings);
        let waiting = |findings: &mut Findings| !findings.complete && !findings.stopping;
        drop(self.shared.changed.wait_while(findings, waiting));
        self.machine()
    }

    /// Whether a device's figures were measured. If not, they are a guess, and times over it teach nothing.
    pub(crate) fn is_measured(&self, device: DeviceId) -> bool {
        self.guesses()
            .is_some_and(|guesses| !guesses.contains(device))
    }

    /// The devices whose figures are a guess; `None` if nothing is known of any yet.
    pub(crate) fn guesses(&self) -> Option<DeviceSet> {
        let seen = self
            .shared
            .seen
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|(_, guesses)| *guesses)
    }

    #[cold]
    fn begin(&self) -> Result<Arc<Machine>> {
        let mut keeper = lock(&self.keeper);
        if let Some(machine) = self.shared.known() {
            return Ok(machine);
        }
        let shared = &self.shared;
        let started = Instant::now();
        let missing = shared.take_in(shared.location.load(&shared.keyed)?);
        *keeper = shared.start(missing);
        let patience = FIRST_WAIT.saturating_sub(started.elapsed());
        let waiting = |findings: &mut Findings| !findings.complete;
        let (findings, _) = shared
            .changed
            .wait_timeout_while(lock(&shared.findings), patience, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        Ok(shared.publish(&findings))
    }

    /// Measures everything anew, says through `watch` what comes next, and keeps it.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the user named a profile that cannot be read.
    pub(crate) fn calibrate(
        &self,
        thoroughness: Thoroughness,
        watch: &mut dyn FnMut(&Step),
    ) -> Result<Calibration> {
        let started = Instant::now();
        let shared = &self.shared;
        let mut keeper = lock(&self.keeper);
        if shared.known().is_none() {
            shared.take_in(shared.location.load(&shared.keyed)?);
        }
        let measuring = lock(&shared.measuring);
        let (models, corun, problems) = shared.measure_all(thoroughness, watch)?;
        let busy = !calibrate::is_undisturbed(&shared.devices.cpu)?;
        drop(measuring);
        let at = MeasurementConditions::now(thoroughness, busy);
        let machine = {
            let mut findings = lock(&shared.findings);
            for model in models {
                shared.note(&mut findings, model, at);
            }
            findings.profile.insert_corun(&shared.keyed, &corun);
            findings.machine.corun = corun;
            findings.complete = true;
            shared.changed.notify_all();
            shared.publish(&findings)
        };
        let kept = shared
            .keep(Keep::Calibrated)
            .map(|()| shared.location.path().map(Into::into));
        if keeper.is_none() {
            *keeper = shared.start(Vec::new());
        }
        Ok(Calibration {
            machine,
            problems,
            busy,
            seconds: started.elapsed().as_secs_f64(),
            kept,
        })
    }

    /// Keeps what is known and what was learned now.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) or [`Error::Profile`](crate::Error::Profile) if that cannot be done.
    pub(crate) fn keep(&self) -> Result<()> {
        self.shared.keep(Keep::Learned)
    }
}

impl Drop for Calibrator {
    fn drop(&mut self) {
        lock(&self.shared.findings).stopping = true;
        self.shared.changed.notify_all();
        let keeper = self
            .keeper
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper.take() {
            // It does not panic, and if it did there would be nothing left to do.
            let _ = keeper.join();
        }
    }
}

impl CalibratorState {
    fn known(&self) -> Option<Arc<Machine>> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|(machine, _)| Arc::clone(machine))
    }

    /// Lets plans see what is known.
    fn publish(&self, findings: &Findings) -> Arc<Machine> {
        let machine = Arc::new(findings.machine.clone());
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        *seen = Some((Arc::clone(&machine), findings.unmeasured));
        machine
    }

    /// Takes in what the profile knows, with guesses for the devices that it does not know, which are returned.
    fn take_in(&self, profile: Profile) -> Vec<Keyed> {
        let mut findings = lock(&self.findings);
        findings.profile = profile;
        let mut missing = Vec::new();
        let mut models = Vec::new();
        for device in &self.keyed {
            let entry = findings.profile.find(&device.key);
            match entry.filter(|entry| !entry.is_worth_another_try()) {
                Some(entry) => models.push(self.adapted(device.id, entry.model.clone())),
                None => {
                    models.push(self.guess(device.id));
                    missing.push(device.clone());
                }
            }
        }
        findings.machine = Machine {
            devices: models,
            corun: findings.profile.corun_of(&self.keyed),
        };
        findings.unmeasured = missing.iter().map(|device| device.id).collect();
        let measured: Vec<Keyed> = self.measured(&findings).cloned().collect();
        let records = findings.profile.take_records(&measured);
        self.learner.restore(&records);
        findings.kept = samples(&records);
        missing
    }

    fn measured<'a>(&'a self, findings: &'a Findings) -> impl Iterator<Item = &'a Keyed> {
        let devices = self.keyed.iter();
        devices.filter(|device| !findings.unmeasured.contains(device.id))
    }

    /// A model under the name that the device has in this runtime, with the limits that it has here, whoever measured
    /// the rest.
    fn adapted(&self, id: DeviceId, model: DeviceModel) -> DeviceModel {
        match self.slot(id) {
            Some(slot) => DeviceModel {
                id,
                limits: calibrate::limits(&slot.latest()),
                ..model
            },
            None => DeviceModel { id, ..model },
        }
    }

    fn guess(&self, id: DeviceId) -> DeviceModel {
        let cpu = &self.devices.cpu;
        let guess = match self.slot(id).map(ManagedGpu::info) {
            Some(info) => DeviceModel::unmeasured(id, info.kind, info.name.clone()),
            None => DeviceModel::unmeasured_cpu(cpu.name().to_owned(), cpu.threads()),
        };
        self.adapted(id, guess)
    }

    fn slot(&self, id: DeviceId) -> Option<&ManagedGpu> {
        match id {
            DeviceId::Cpu => None,
            DeviceId::Gpu(index) => self.devices.gpus.get(index),
        }
    }

    /// A GPU to measure; `None` for the CPU.
    fn gpu(&self, id: DeviceId) -> Result<Option<Arc<Gpu>>> {
        match id {
            DeviceId::Cpu => Ok(None),
            DeviceId::Gpu(index) => self.devices.gpu(index).map(Some),
        }
    }

    /// Notes what was measured of a device.
    fn note(&self, findings: &mut Findings, model: DeviceModel, at: MeasurementConditions) {
        let id = model.id;
        let guessed = findings.unmeasured.contains(id);
        if let Some(place) = findings
            .machine
            .devices
            .iter_mut()
            .find(|device| device.id == id)
        {
            if !guessed && !agree(place, &model) {
                findings.changed = findings.changed.with(id);
            }
            *place = model.clone();
        }
        findings.unmeasured = findings.unmeasured.without(id);
        let Some(device) = self.keyed.iter().find(|device| device.id == id) else {
            return;
        };
        if device.kept {
            findings.profile.insert(device.key.clone(), at, model);
        }
    }

    /// Measures what is missing and from then on keeps what is learned, on a thread of its own if there is anything to
    /// do for it.
    fn start(self: &Arc<Self>, missing: Vec<Keyed>) -> Option<JoinHandle<()>> {
        if missing.is_empty() {
            self.complete();
            if self.location == Location::Off {
                return None;
            }
        }
        let (shared, work) = (Arc::clone(self), missing.clone());
        let thread = std::thread::Builder::new().name("divvy-survey".into());
        let started = thread.spawn(move || {
            shared.measure(&work);
            shared.keep_until_stopped();
        });
        if let Err(error) = &started {
            tracing::debug!(%error, "no thread to measure on");
            self.measure(&missing);
        }
        started.ok()
    }

    fn complete(&self) {
        lock(&self.findings).complete = true;
        self.changed.notify_all();
    }

    /// Measures these devices, and keeps the figures.
    fn measure(&self, missing: &[Keyed]) {
        if missing.is_empty() {
            return;
        }
        let measuring = lock(&self.measuring);
        let mut measured: Vec<(&DeviceKey, DeviceModel)> = Vec::new();
        let mut busy = false;
        for device in missing {
            if lock(&self.findings).stopping {
                break;
            }
            let started = Instant::now();
            // An equal device need not be measured too.
            let equal = measured.iter().find(|(key, _)| **key == device.key);
            let model = match equal {
                Some((_, model)) => Ok(self.adapted(device.id, model.clone())),
                None => self.measure_one(device.id, Thoroughness::First, 1, &mut |_| ()),
            };
            match model {
                Ok(model) => {
                    tracing::debug!(
                        name = model.name,
                        seconds = started.elapsed().as_secs_f64(),
                        "measured"
                    );
                    measured.push((&device.key, model.clone()));
                    let mut findings = lock(&self.findings);
                    // Once the program goes on, it is what holds the cores.
                    let late = self.known().is_some();
                    busy |= late;
                    self.note(
                        &mut findings,
                        model,
                        MeasurementConditions::now(Thoroughness::First, late),
                    );
                    if late {
                        self.publish(&findings);
                    }
                }
                Err(error) => {
                    tracing::warn!(id = %device.id, %error, "cannot be measured; only used where asked for");
                }
            }
        }
        busy |= !calibrate::is_undisturbed(&self.devices.cpu).unwrap_or(false);
        drop(measuring);
        {
            let mut findings = lock(&self.findings);
            if busy {
                let at = MeasurementConditions::now(Thoroughness::First, busy);
                for (_, model) in measured {
                    self.note(&mut findings, model, at);
                }
            }
            // What was learned on top of figures like these.
            let known: Vec<Keyed> = self.measured(&findings).cloned().collect();
            self.learner.restore(&findings.profile.take_records(&known));
            findings.machine.corun = findings.profile.corun_of(&known);
            if self.known().is_some() {
                self.publish(&findings);
            }
        }
        self.keep_or_warn(Keep::Measured);
        self.complete();
    }

    /// Measures one device, of so many that share the time.
    fn measure_one(
        &self,
        id: DeviceId,
        thoroughness: Thoroughness,
        devices: usize,
        note: &mut dyn FnMut(&str),
    ) -> Result<DeviceModel> {
        let task = CalibrationTask {
            thoroughness,
            devices,
            note,
        };
        match self.gpu(id)? {
            Some(gpu) => calibrate::gpu(&gpu, id, task),
            None => {
                let cpu = &self.devices.cpu;
                calibrate::cpu(cpu, cpu.name().to_owned(), task)
            }
        }
    }

    /// Measures every device, and every pair of those that could be measured.
    #[allow(clippy::type_complexity)]
    fn measure_all(
        &self,
        thoroughness: Thoroughness,
        watch: &mut dyn FnMut(&Step),
    ) -> Result<(Vec<DeviceModel>, Vec<CoRun>, Vec<(DeviceId, String)>)> {
        let ids: Vec<DeviceId> = self.keyed.iter().map(|device| device.id).collect();
        let pairs = ids.len() * ids.len().saturating_sub(1) / 2;
        let steps = |id: &DeviceId| match id {
            DeviceId::Cpu => calibrate::CPU_STEPS,
            DeviceId::Gpu(_) => calibrate::GPU_STEPS,
        };
        let of = ids.iter().map(steps).sum::<usize>() + pairs * calibrate::PAIR_STEPS;
        let mut done = 0;
        let mut note = |who: String, what: &str| {
            let doing = format!("{who}: {what}");
            watch(&Step { doing, done, of });
            done += 1;
        };
        let (mut models, mut problems) = (Vec::new(), Vec::new());
        for id in &ids {
            let mut say = |what: &str| note(id.to_string(), what);
            match self.measure_one(*id, thoroughness, ids.len(), &mut say) {
                Ok(model) => models.push(model),
                Err(error) => problems.push((*id, error.to_string())),
            }
        }
        let gpus: Vec<Option<Arc<Gpu>>> = models
            .iter()
            .map(|model| self.gpu(model.id))
            .collect::<Result<_>>()?;
        let bench = |at: usize| match &gpus[at] {
            Some(gpu) => Bench::Gpu(models[at].id, gpu),
            None => Bench::Cpu(&self.devices.cpu),
        };
        let mut corun = Vec::new();
        for (at, one) in models.iter().enumerate() {
            for (with, other) in models.iter().enumerate().skip(at + 1) {
                let mut say = |what: &str| note(format!("{} and {}", one.id, other.id), what);
                let pair = [bench(at), bench(with)];
                match calibrate::corun(pair, thoroughness, pairs, &mut say) {
                    Ok(pair) => corun.push(pair),
                    Err(error) => problems.push((other.id, format!("beside {}: {error}", one.id))),
                }
            }
        }
        Ok((models, corun, problems))
    }

    /// Keeps what is learned every so often, and in the end.
    fn keep_until_stopped(&self) {
        loop {
            let findings = lock(&self.findings);
            let waiting = |findings: &mut Findings| !findings.stopping;
            let (findings, _) = self
                .changed
                .wait_timeout_while(findings, KEEPING, waiting)
                .unwrap_or_else(PoisonError::into_inner);
            let stopping = findings.stopping;
            drop(findings);
            self.keep_or_warn(Keep::Learned);
            if stopping {
                return;
            }
        }
    }

    fn keep_or_warn(&self, what: Keep) {
        if let Err(error) = self.keep(what) {
            tracing::warn!(%error, "the profile cannot be kept");
        }
    }

    /// Keeps what was learned, and the figures if they are to be.
    fn keep(&self, what: Keep) -> Result<()> {
        if self.location == Location::Off {
            return Ok(());
        }
        let mut records = self.learner.records();
        let (known, corun) = {
            let mut findings = lock(&self.findings);
            let changed = |id: &DeviceId| findings.changed.contains(*id);
            records.retain(|record| !changed(&record.device) && !record.beside.iter().any(changed));
            let samples = samples(&records);
            if what == Keep::Learned && findings.kept == samples {
                return Ok(());
            }
            // Whether or not it succeeds: what fails now fails in a minute, too.
            findings.kept = samples;
            let corun = findings.profile.corun_of(&self.keyed);
            (findings.profile.devices().to_vec(), corun)
        };
        self.location.update(|profile| {
            for entry in known {
                let there = profile.find(&entry.key);
                let newer = there.is_none_or(|there| {
                    what != Keep::Learned
                        && entry.measured >= there.measured
                        && entry.model != there.model
                });
                if newer && self.keyed.iter().any(|device| device.key == entry.key) {
                    let at = entry.circumstances();
                    profile.insert(entry.key, at, entry.model);
                }
            }
            if what == Keep::Calibrated {
                profile.insert_corun(&self.keyed, &corun);
            }
            profile.insert_records(&self.keyed, &records);
        })?;
        Ok(())
    }
}

/// How many measurements there are.
fn samples(records: &[Record]) -> u64 {
    let classes = records.iter().flat_map(|record| &record.classes);
    classes
        .map(|class| class.samples)
        .fold(0, u64::saturating_add)
}

/// What there is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// What was learned, if that is anything new.
    Learned,
    /// The figures of devices too.
    Measured,
    /// And how much they slow each other down.
    Calibrated,
}

/// What the devices of a runtime that calls may be placed on are known by.
fn keys(devices: &Devices) -> Vec<Keyed> {
    let mut keyed: Vec<Keyed> = Vec::new();
    if devices.place_on_cpu {
        keyed.push(Keyed {
            id: DeviceId::Cpu,
            key: DeviceKey::Cpu {
                model: devices.cpu.name().to_owned(),
                threads: devices.cpu.threads(),
                simd: devices.cpu.simd().set(),
            },
            copy: 0,
            kept: true,
        });
    }
    for (index, slot) in devices.gpus.iter().enumerate() {
        let gpu = slot.latest();
        let info = gpu.info();
        let key = DeviceKey::Gpu {
            adapter: info.name.clone(),
            driver: info.driver.clone(),
            backend: info.backend.clone(),
        };
        let limits = &info.limits;
        keyed.push(Keyed {
            id: DeviceId::Gpu(index),
            copy: keyed.iter().filter(|device| device.key == key).count(),
            key,
            // A runtime that was told to bind little, or to check everything, is one for tests.
            kept: limits.max_binding_bytes.min(limits.max_buffer_bytes) >= LEAST_KEPT
                && !gpu.is_checked(),
        });
    }
    keyed
}
