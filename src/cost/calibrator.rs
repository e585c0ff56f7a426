//! A runtime's figures of its machine: read from the profile, measured where the profile has none, and saved there.
//!
//! A background thread measures, so that the first call need not wait for slow devices. Until a device is measured, the
//! runtime uses guesses, which [`Calibrator::is_measured`] distinguishes from figures. The same thread then saves what is
//! learned, at intervals and at the end. The thread that calls kernels never touches the file after the first call.

use super::calibrate::{self, Bench, CalibrationTask, Thoroughness};
use super::learned::{Learner, Record};
use super::machine::{CoRun, DeviceModel, Machine};
use super::params::PARAMS;
use super::profile::{DeviceKey, Keyed, Location, MeasurementConditions, Profile, agree};
use crate::device::gpu::Gpu;
use crate::device::{DeviceId, DeviceSet, Devices, ManagedGpu};
use crate::error::Result;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

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

/// The result of [`Runtime::calibrate`](crate::Runtime::calibrate).
#[derive(Debug)]
#[non_exhaustive]
pub struct Calibration {
    /// The machine, with guesses for devices that could not be measured.
    pub machine: Arc<Machine>,
    /// The devices that could not be measured, each with the reason.
    pub problems: Vec<(DeviceId, String)>,
    /// Other processes used the cores meanwhile, so the figures may be too low.
    pub busy: bool,
    /// How long it took.
    pub seconds: f64,
    /// The profile in which the figures are saved, if the runtime has one.
    pub kept: Result<Option<PathBuf>>,
}

/// Measures a runtime's devices, and holds their figures.
pub(crate) struct Calibrator {
    shared: Arc<CalibratorState>,
    /// The background thread. The lock is held while the profile is read, which happens once.
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct CalibratorState {
    devices: Arc<Devices>,
    keyed: Vec<Keyed>,
    location: Location,
    learner: Arc<Learner>,
    /// What plans see. Locked for moments only.
    published: RwLock<Option<PublishedMachine>>,
    findings: Mutex<Findings>,
    changed: Condvar,
    /// Held during a measurement.
    measuring: Mutex<()>,
}

/// The machine as plans see it.
struct PublishedMachine {
    machine: Arc<Machine>,
    /// The devices whose figures are guesses.
    guesses: DeviceSet,
}

/// The figures so far.
#[derive(Default)]
struct Findings {
    /// The figures of devices. The records of kernels move from here to the learner.
    profile: Profile,
    /// With guesses for unmeasured devices.
    machine: Machine,
    unmeasured: DeviceSet,
    /// The devices whose figures changed so much that earlier records are worthless.
    changed: DeviceSet,
    /// Every device that can be measured is measured, and its figures are saved.
    complete: bool,
    stopping: bool,
    /// The number of samples that were last saved.
    saved_samples: u64,
}

/// The result of measuring all devices.
#[derive(Default)]
struct MeasuredMachine {
    models: Vec<DeviceModel>,
    corun: Vec<CoRun>,
    /// The devices that could not be measured, each with the reason.
    problems: Vec<(DeviceId, String)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calibrator {
    /// A calibrator that knows nothing yet.
    pub(crate) fn new(devices: Arc<Devices>, location: Location, learner: Arc<Learner>) -> Self {
        let shared = CalibratorState {
            keyed: keys(&devices),
            devices,
            location,
            learner,
            published: RwLock::default(),
            findings: Mutex::default(),
            changed: Condvar::new(),
            measuring: Mutex::new(()),
        };
        Self {
            shared: Arc::new(shared),
            worker: Mutex::new(None),
        }
    }

    /// A calibrator with a given machine, which measures and saves nothing.
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

    /// Where the profile is.
    pub(crate) fn location(&self) -> &Location {
        &self.shared.location
    }

    /// The figures of the machine. The first call reads and measures them for up to 0.3 s; slower measurements continue
    /// in the background.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the user named a profile that cannot be read.
    pub(crate) fn machine(&self) -> Result<Arc<Machine>> {
        match self.shared.known() {
            Some(machine) => Ok(machine),
            None => self.begin(),
        }
    }

    /// The figures of the machine, once every device that can be measured is measured.
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

    /// Whether a device's figures were measured. If not, they are a guess, and nothing can be learned relative to them.
    pub(crate) fn is_measured(&self, device: DeviceId) -> bool {
        self.guesses()
            .is_some_and(|guesses| !guesses.contains(device))
    }

    /// The devices whose figures are guesses; `None` before the profile is read.
    pub(crate) fn guesses(&self) -> Option<DeviceSet> {
        let published = self
            .shared
            .published
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        published.as_ref().map(|published| published.guesses)
    }

    #[cold]
    fn begin(&self) -> Result<Arc<Machine>> {
        let mut worker = lock(&self.worker);
        if let Some(machine) = self.shared.known() {
            return Ok(machine);
        }
        let shared = &self.shared;
        let started = Instant::now();
        let missing = shared.take_in(shared.location.load(&shared.keyed)?);
        *worker = shared.start(missing);
        let patience = PARAMS
            .calibration
            .first_wait
            .saturating_sub(started.elapsed());
        let waiting = |findings: &mut Findings| !findings.complete;
        let (findings, _) = shared
            .changed
            .wait_timeout_while(lock(&shared.findings), patience, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        Ok(shared.publish(&findings))
    }

    /// Measures everything anew, announces each step through `watch`, and saves the figures.
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
        let mut worker = lock(&self.worker);
        if shared.known().is_none() {
            shared.take_in(shared.location.load(&shared.keyed)?);
        }
        let measuring = lock(&shared.measuring);
        let MeasuredMachine {
            models,
            corun,
            problems,
        } = shared.measure_all(thoroughness, watch)?;
        let busy = !calibrate::is_undisturbed(&shared.devices.cpu)?;
        drop(measuring);
        let at = MeasurementConditions::now(thoroughness, busy);
        let machine = {
            let mut findings = lock(&shared.findings);
            for model in models {
                shared.insert(&mut findings, model, at);
            }
            findings.profile.insert_corun(&shared.keyed, &corun);
            findings.machine.corun = corun;
            findings.complete = true;
            shared.changed.notify_all();
            shared.publish(&findings)
        };
        let kept = shared
            .save(Saved::Calibration)
            .map(|()| shared.location.path().map(Into::into));
        if worker.is_none() {
            *worker = shared.start(Vec::new());
        }
        Ok(Calibration {
            machine,
            problems,
            busy,
            seconds: started.elapsed().as_secs_f64(),
            kept,
        })
    }

    /// Saves the figures and what was learned.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) or [`Error::Profile`](crate::Error::Profile) if they cannot be saved.
    pub(crate) fn keep(&self) -> Result<()> {
        self.shared.save(Saved::Records)
    }
}

impl Drop for Calibrator {
    fn drop(&mut self) {
        lock(&self.shared.findings).stopping = true;
        self.shared.changed.notify_all();
        let worker = self
            .worker
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = worker.take() {
            // The worker does not panic. If it did, nothing would be left to do.
            let _ = worker.join();
        }
    }
}

impl CalibratorState {
    fn known(&self) -> Option<Arc<Machine>> {
        let published = self.published.read();
        let published = published.unwrap_or_else(PoisonError::into_inner);
        let machine = published.as_ref().map(|published| &published.machine);
        machine.map(Arc::clone)
    }

    /// Makes the figures visible to plans.
    fn publish(&self, findings: &Findings) -> Arc<Machine> {
        let machine = Arc::new(findings.machine.clone());
        let mut published = self
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *published = Some(PublishedMachine {
            machine: Arc::clone(&machine),
            guesses: findings.unmeasured,
        });
        machine
    }

    /// Takes the figures from the profile, and guesses for the devices that it lacks, which are returned.
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
        findings.saved_samples = samples(&records);
        missing
    }

    fn measured<'a>(&'a self, findings: &'a Findings) -> impl Iterator<Item = &'a Keyed> {
        let devices = self.keyed.iter();
        devices.filter(|device| !findings.unmeasured.contains(device.id))
    }

    /// A model with the id and the limits that the device has in this runtime. Another process may have measured the
    /// rest.
    fn adapted(&self, id: DeviceId, model: DeviceModel) -> DeviceModel {
        match self.managed(id) {
            Some(gpu) => DeviceModel {
                id,
                limits: calibrate::limits(&gpu.latest()),
                ..model
            },
            None => DeviceModel { id, ..model },
        }
    }

    fn guess(&self, id: DeviceId) -> DeviceModel {
        let cpu = &self.devices.cpu;
        let guess = match self.managed(id).map(ManagedGpu::info) {
            Some(info) => DeviceModel::unmeasured(id, info.kind, info.name.clone()),
            None => DeviceModel::unmeasured_cpu(cpu.name().to_owned(), cpu.threads()),
        };
        self.adapted(id, guess)
    }

    fn managed(&self, id: DeviceId) -> Option<&ManagedGpu> {
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

    /// Inserts the figures of a device.
    fn insert(&self, findings: &mut Findings, model: DeviceModel, at: MeasurementConditions) {
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

    /// Starts the background thread, unless it would have nothing to do. It measures the missing devices, and then saves
    /// what is learned.
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
            shared.save_until_stopped();
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

    /// Measures these devices, and saves the figures.
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
            // Of equal devices, one is measured.
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
                    // Once the program continues, it uses the cores itself.
                    let late = self.known().is_some();
                    busy |= late;
                    self.insert(
                        &mut findings,
                        model,
                        MeasurementConditions::now(Thoroughness::First, late),
                    );
                    if late {
                        self.publish(&findings);
                    }
                }
                Err(error) => {
                    tracing::warn!(id = %device.id, %error, "cannot be measured; used only where a placement names it");
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
                    self.insert(&mut findings, model, at);
                }
            }
            // The records that were learned relative to figures like these.
            let known: Vec<Keyed> = self.measured(&findings).cloned().collect();
            self.learner.restore(&findings.profile.take_records(&known));
            findings.machine.corun = findings.profile.corun_of(&known);
            if self.known().is_some() {
                self.publish(&findings);
            }
        }
        self.save_or_warn(Saved::Figures);
        self.complete();
    }

    /// Measures one of `devices` devices that share the time.
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

    /// Measures every device, and every pair of measured devices.
    fn measure_all(
        &self,
        thoroughness: Thoroughness,
        watch: &mut dyn FnMut(&Step),
    ) -> Result<MeasuredMachine> {
        let ids: Vec<DeviceId> = self.keyed.iter().map(|device| device.id).collect();
        let pairs = ids.len() * ids.len().saturating_sub(1) / 2;
        let steps = |id: &DeviceId| match id {
            DeviceId::Cpu => calibrate::CPU_STEPS,
            DeviceId::Gpu(_) => calibrate::GPU_STEPS,
        };
        let of = ids.iter().map(steps).sum::<usize>() + pairs * calibrate::PAIR_STEPS;
        let mut done = 0;
        let mut note = |devices: String, what: &str| {
            let doing = format!("{devices}: {what}");
            watch(&Step { doing, done, of });
            done += 1;
        };
        let (mut models, mut problems) = (Vec::new(), Vec::new());
        for id in &ids {
            let mut announce = |what: &str| note(id.to_string(), what);
            match self.measure_one(*id, thoroughness, ids.len(), &mut announce) {
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
                let mut announce = |what: &str| note(format!("{} and {}", one.id, other.id), what);
                let pair = [bench(at), bench(with)];
                match calibrate::corun(pair, thoroughness, pairs, &mut announce) {
                    Ok(pair) => corun.push(pair),
                    Err(error) => problems.push((other.id, format!("beside {}: {error}", one.id))),
                }
            }
        }
        Ok(MeasuredMachine {
            models,
            corun,
            problems,
        })
    }

    /// Saves what is learned, at intervals and at the end.
    fn save_until_stopped(&self) {
        loop {
            let findings = lock(&self.findings);
            let waiting = |findings: &mut Findings| !findings.stopping;
            let (findings, _) = self
                .changed
                .wait_timeout_while(findings, PARAMS.calibration.saving_interval, waiting)
                .unwrap_or_else(PoisonError::into_inner);
            let stopping = findings.stopping;
            drop(findings);
            self.save_or_warn(Saved::Records);
            if stopping {
                return;
            }
        }
    }

    fn save_or_warn(&self, what: Saved) {
        if let Err(error) = self.save(what) {
            tracing::warn!(%error, "the profile cannot be saved");
        }
    }

    /// Merges `what` into the profile on disk.
    fn save(&self, what: Saved) -> Result<()> {
        if self.location == Location::Off {
            return Ok(());
        }
        let mut records = self.learner.records();
        let (known, corun) = {
            let mut findings = lock(&self.findings);
            let changed = |id: &DeviceId| findings.changed.contains(*id);
            records.retain(|record| !changed(&record.device) && !record.beside.iter().any(changed));
            let samples = samples(&records);
            if what == Saved::Records && findings.saved_samples == samples {
                return Ok(());
            }
            // Set even if saving fails: it would fail in a minute, too.
            findings.saved_samples = samples;
            let corun = findings.profile.corun_of(&self.keyed);
            (findings.profile.devices().to_vec(), corun)
        };
        self.location.update(|profile| {
            for entry in known {
                let there = profile.find(&entry.key);
                let newer = there.is_none_or(|there| {
                    what != Saved::Records
                        && entry.measured >= there.measured
                        && entry.model != there.model
                });
                if newer && self.keyed.iter().any(|device| device.key == entry.key) {
                    let at = entry.conditions();
                    profile.insert(entry.key, at, entry.model);
                }
            }
            if what == Saved::Calibration {
                profile.insert_corun(&self.keyed, &corun);
            }
            profile.insert_records(&self.keyed, &records);
        })?;
        Ok(())
    }
}

/// The number of samples in all records.
fn samples(records: &[Record]) -> u64 {
    let classes = records.iter().flat_map(|record| &record.classes);
    classes
        .map(|class| class.samples)
        .fold(0, u64::saturating_add)
}

/// What is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saved {
    /// The records of kernels, if any are new.
    Records,
    /// The figures of devices too.
    Figures,
    /// And how much the devices slow each other down.
    Calibration,
}

/// The devices on which calls may be placed, each with its key.
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
    for (index, managed) in devices.gpus.iter().enumerate() {
        let gpu = managed.latest();
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
            // A runtime that may bind little, or that checks everything, is one for tests.
            kept: limits.max_binding_bytes.min(limits.max_buffer_bytes)
                >= PARAMS.calibration.least_kept_bytes
                && !gpu.is_checked(),
        });
    }
    keyed
}
