//! The contents of a profile, and how those of several processes are merged.

use super::learned::LearnedEntry;
use crate::cost::calibrate::Thoroughness;
use crate::cost::machine::{CoRun, DeviceModel, Engine, Link};
use crate::cost::params::PARAMS;
use crate::device::{DeviceId, DeviceKind};
use crate::simd::InstructionSet;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The layout of the file and the meaning of its figures. Goes up whenever either changes.
pub const SCHEMA: u32 = 4;
/// The figures of devices, of this machine and of others that share the file, and the entries about kernels on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub(super) schema: u32,
    /// The version of the crate that measured it, since a kernel of calibration may change with any.
    pub(super) divvy: String,
    pub(super) devices: Vec<DeviceEntry>,
    #[serde(default)]
    pub(super) corun: Vec<CoRunEntry>,
    #[serde(default)]
    pub(super) learned: Vec<LearnedEntry>,
}

/// The figures of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceEntry {
    /// Its label in the rest of the file.
    pub label: String,
    /// Which device it is.
    pub key: DeviceKey,
    /// When it was measured: seconds since 1970.
    pub measured: u64,
    /// How thoroughly it was measured.
    pub thoroughness: Thoroughness,
    /// Other processes used the cores while it was measured, so it should be measured again later.
    pub busy: bool,
    /// The measured figures.
    pub model: DeviceModel,
}

/// How much two devices slow each other down: see [`CoRun`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CoRunEntry {
    /// The two devices, as [`reference`]s.
    pub devices: [String; 2],
    /// When arithmetic limits both.
    pub compute: [f64; 2],
    /// When memory limits both.
    pub memory: [f64; 2],
}

/// The identity of a device. A measurement holds only for the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceKey {
    /// The CPU.
    Cpu {
        /// The processor's name.
        model: String,
        /// Threads of the pool.
        threads: usize,
        /// The vector instructions that loops use.
        simd: InstructionSet,
    },
    /// A GPU.
    Gpu {
        /// The adapter's name.
        adapter: String,
        /// The driver and its version.
        driver: String,
        /// The API it is reached through.
        backend: String,
    },
}

impl DeviceKey {
    /// Whether a measurement under `newer` replaces one under this key: the keys are equal, or the driver changed.
    fn is_replaced_by(&self, newer: &Self) -> bool {
        match (self, newer) {
            (
                Self::Gpu {
                    adapter, backend, ..
                },
                Self::Gpu {
                    adapter: newer_adapter,
                    backend: newer_backend,
                    ..
                },
            ) => adapter == newer_adapter && backend == newer_backend,
            _ => self == newer,
        }
    }

    /// Whether both are the same hardware, perhaps with another driver.
    fn is_same_hardware(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu { model, .. }, Self::Cpu { model: other, .. }) => model == other,
            (Self::Gpu { adapter, .. }, Self::Gpu { adapter: other, .. }) => adapter == other,
            _ => false,
        }
    }

    /// A short name for people: letters, digits and hyphens.
    fn short_name(&self) -> String {
        const LONGEST: usize = 24;
        match self {
            Self::Cpu { threads: 1, .. } => "cpu-1-thread".into(),
            Self::Cpu { threads, .. } => format!("cpu-{threads}-threads"),
            Self::Gpu { adapter, .. } => {
                let name = adapter.split(['(', ',', '/']).next().unwrap_or_default();
                let words = name.split(|c: char| !c.is_ascii_alphanumeric());
                let mut short = String::new();
                for word in words.filter(|word| !word.is_empty()) {
                    if short.len() + word.len() > LONGEST {
                        break;
                    }
                    if !short.is_empty() {
                        short.push('-');
                    }
                    short.push_str(&word.to_ascii_lowercase());
                }
                if short.is_empty() {
                    "gpu".into()
                } else {
                    short
                }
            }
        }
    }
}

/// The name of a device in the file: its label, and its number among equal devices, which counts from 0.
fn reference(label: &str, copy: usize) -> String {
    match copy {
        0 => label.to_owned(),
        _ => format!("{label}#{copy}"),
    }
}

/// The label in a reference.
pub(super) fn label_of(reference: &str) -> &str {
    reference.split('#').next().unwrap_or_default()
}

/// A device of a runtime, as a profile knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keyed {
    /// Its name within the runtime.
    pub(crate) id: DeviceId,
    /// Its key in the profile.
    pub(crate) key: DeviceKey,
    /// The number of devices with this key before it.
    pub(crate) copy: usize,
    /// Whether its figures are saved: they hold for other devices with this key.
    pub(crate) kept: bool,
}

/// When and how a device was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MeasurementConditions {
    /// Seconds since 1970.
    pub(crate) measured: u64,
    /// How thoroughly.
    pub(crate) thoroughness: Thoroughness,
    /// Whether other processes used the cores meanwhile.
    pub(crate) busy: bool,
}

impl MeasurementConditions {
    /// The conditions of a measurement now.
    pub(crate) fn now(thoroughness: Thoroughness, busy: bool) -> Self {
        Self {
            measured: seconds_since_1970(),
            thoroughness,
            busy,
        }
    }
}

pub(super) fn seconds_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl DeviceEntry {
    /// How long ago it was measured; zero if the clock was set back since.
    pub fn age(&self) -> Duration {
        Duration::from_secs(seconds_since_1970().saturating_sub(self.measured))
    }

    /// When and how it was measured.
    pub(crate) fn conditions(&self) -> MeasurementConditions {
        MeasurementConditions {
            measured: self.measured,
            thoroughness: self.thoroughness,
            busy: self.busy,
        }
    }

    /// Whether it was measured on a busy machine, a while ago.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        // If the clock was set back, the figures must not hold for ever.
        let future = self.measured > seconds_since_1970();
        self.busy && (future || self.age() > PARAMS.profile.busy_holds)
    }

    /// An error names the first impossible figure.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        use crate::cost::bounds::{BYTES, RATE, SECONDS};
        let is = |ok: bool, what| if ok { Ok(()) } else { Err(what) };
        let model = &self.model;
        let on_cpu = matches!(self.key, DeviceKey::Cpu { .. });
        let plain = !self.label.is_empty() && label_of(&self.label) == self.label;
        is(plain, "the label")?;
        is(on_cpu == (model.kind == DeviceKind::Cpu), "the kind")?;
        is(
            SECONDS.contains(&model.queued_seconds),
            "the queued dispatch",
        )?;
        for link in [&model.upload, &model.download] {
            is(link.is_some() != on_cpu, "the link")?;
            let sound = |link: &Link| {
                let points = link.points();
                points
                    .iter()
                    .all(|[bytes, seconds]| bytes <= BYTES.end() && SECONDS.contains(seconds))
            };
            is(link.as_ref().is_none_or(sound), "the link")?;
        }
        let sound = |engine: &Engine| {
            engine.threads > 0
                && SECONDS.contains(&engine.launch_seconds)
                && RATE.contains(&engine.flops_per_second)
                && engine
                    .bandwidth
                    .points()
                    .iter()
                    .all(|[bytes, rate]| BYTES.contains(bytes) && RATE.contains(rate))
        };
        is(model.engines.iter().all(sound), "a speed")?;
        let threads: Vec<usize> = model.engines.iter().map(|engine| engine.threads).collect();
        is(
            match self.key {
                DeviceKey::Cpu { threads: 1, .. } => threads == [1],
                DeviceKey::Cpu { threads: all, .. } => threads == [1, all],
                DeviceKey::Gpu { .. } => threads == [1],
            },
            "the number of threads",
        )
    }
}

/// Whether factors that were learned relative to one model hold relative to the other.
pub(crate) fn agree(one: &DeviceModel, other: &DeviceModel) -> bool {
    const SAME: f64 = PARAMS.profile.agreeing_factor;
    let close = |a: f64, b: f64| a <= SAME * b && b <= SAME * a;
    let engines = |(a, b): (&Engine, &Engine)| {
        let mut points = a.bandwidth.points().iter().chain(b.bandwidth.points());
        a.threads == b.threads
            && close(a.flops_per_second, b.flops_per_second)
            && points.all(|[bytes, _]| close(a.bandwidth.at(*bytes), b.bandwidth.at(*bytes)))
    };
    let links = |a: &Option<Link>, b: &Option<Link>| match (a, b) {
        (Some(a), Some(b)) => close(a.bytes_per_second(), b.bytes_per_second()),
        _ => a.is_none() == b.is_none(),
    };
    one.engines.len() == other.engines.len()
        && one.engines.iter().zip(&other.engines).all(engines)
        && links(&one.upload, &other.upload)
        && links(&one.download, &other.download)
}

impl CoRunEntry {
    /// Whether its figures are possible.
    pub(super) fn is_sound(&self) -> bool {
        let mut factors = self.compute.iter().chain(&self.memory);
        factors.all(|factor| (1.0..=1e4).contains(factor))
    }

    fn mentions(&self, label: &str) -> bool {
        self.devices.iter().any(|device| label_of(device) == label)
    }
}

/// The result of merging another profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Merged {
    /// The labels of the devices whose figures were taken.
    pub devices: Vec<String>,
    /// The number of entries about kernels that changed.
    pub learned: usize,
    /// What was not taken, with the reason.
    pub ignored: Vec<String>,
}

/// The labels of one device in two profiles.
struct MergedLabel {
    /// In the profile that is merged.
    there: String,
    /// In the profile that takes it; `None` if entries about the device cannot be used.
    here: Option<String>,
    /// Whether the figures were taken.
    taken: bool,
}

impl Default for Profile {
    /// An empty profile.
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            divvy: env!("CARGO_PKG_VERSION").into(),
            devices: Vec::new(),
            corun: Vec::new(),
            learned: Vec::new(),
        }
    }
}

impl Profile {
    /// The figures of devices.
    pub fn devices(&self) -> &[DeviceEntry] {
        &self.devices
    }

    /// How much the devices slow each other down.
    pub fn corun(&self) -> &[CoRunEntry] {
        &self.corun
    }

    /// The entries about kernels.
    pub fn learned(&self) -> &[LearnedEntry] {
        &self.learned
    }

    /// The entry of a device.
    pub fn find(&self, key: &DeviceKey) -> Option<&DeviceEntry> {
        self.devices.iter().find(|entry| entry.key == *key)
    }

    /// Inserts the figures of a device, in place of earlier ones.
    pub(crate) fn insert(&mut self, key: DeviceKey, at: MeasurementConditions, model: DeviceModel) {
        let known = self.find(&key);
        let keeps = known.is_some_and(|known| agree(&known.model, &model));
        let label = known.map(|known| known.label.clone());
        // Entries that correct figures which no longer hold are dropped. The label of the same device stays.
        for gone in self.devices.clone() {
            if gone.key.is_replaced_by(&key) && !(keeps && gone.key == key) {
                self.forget(&gone.label);
            }
        }
        self.devices.retain(|entry| !entry.key.is_replaced_by(&key));
        let label = label.unwrap_or_else(|| self.free_label(&key));
        self.devices.push(DeviceEntry {
            label,
            key,
            measured: at.measured,
            thoroughness: at.thoroughness,
            busy: at.busy,
            model,
        });
    }

    /// Drops all entries that mention the device with this label, except its own figures.
    fn forget(&mut self, label: &str) {
        self.learned.retain(|entry| !entry.mentions(label));
        self.corun.retain(|entry| !entry.mentions(label));
    }

    fn free_label(&self, key: &DeviceKey) -> String {
        let name = key.short_name();
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let is_free = |label: &String| self.devices.iter().all(|entry| entry.label != *label);
        std::iter::once(name.clone())
            .chain(numbered)
            .find(is_free)
            .unwrap_or(name)
    }

    /// The name of a runtime's device in the file, if the file has it.
    pub(super) fn refer(&self, device: &Keyed) -> Option<String> {
        let known = self.find(&device.key).filter(|_| device.kept)?;
        Some(reference(&known.label, device.copy))
    }

    /// How much the devices of a runtime slow each other down.
    pub(crate) fn corun_of(&self, devices: &[Keyed]) -> Vec<CoRun> {
        let named: Vec<(String, DeviceId)> = devices
            .iter()
            .filter_map(|device| Some((self.refer(device)?, device.id)))
            .collect();
        let id = |name: &String| named.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let pairs = self.corun.iter().filter_map(|entry| {
            Some(CoRun {
                devices: [id(&entry.devices[0])?, id(&entry.devices[1])?],
                compute: entry.compute,
                memory: entry.memory,
            })
        });
        pairs.collect()
    }

    /// Inserts how much the devices of a runtime slow each other down, in place of earlier figures of these pairs.
    pub(crate) fn insert_corun(&mut self, devices: &[Keyed], pairs: &[CoRun]) {
        let name = |id: DeviceId| {
            let device = devices.iter().find(|device| device.id == id)?;
            self.refer(device)
        };
        let entries: Vec<CoRunEntry> = pairs
            .iter()
            .filter_map(|pair| {
                Some(CoRunEntry {
                    devices: [name(pair.devices[0])?, name(pair.devices[1])?],
                    compute: pair.compute,
                    memory: pair.memory,
                })
            })
            .collect();
        for entry in entries {
            self.replace_corun(entry);
        }
    }

    fn replace_corun(&mut self, entry: CoRunEntry) {
        let [one, other] = &entry.devices;
        let same =
            |known: &CoRunEntry| known.devices.contains(one) && known.devices.contains(other);
        self.corun.retain(|known| !same(known));
        self.corun.push(entry);
    }

    /// Merges another profile: takes newer figures of devices, and sizes of kernels with more samples.
    pub fn merge(&mut self, other: Self) -> Merged {
        let mut merged = Merged::default();
        let mut labels = Vec::new();
        for entry in other.devices {
            let rank = |entry: &DeviceEntry| (!entry.busy, entry.measured);
            let rival = self
                .devices
                .iter()
                .find(|known| known.key.is_replaced_by(&entry.key));
            let at = entry.conditions();
            match rival {
                Some(known) if rank(known) >= rank(&entry) => {
                    // Entries that were measured with another driver cannot be used.
                    let usable = known.key == entry.key && agree(&known.model, &entry.model);
                    if known.model != entry.model || known.key != entry.key {
                        merged.ignored.push(format!(
                            "the figures of {} are older than those that are known",
                            entry.model.name
                        ));
                    }
                    labels.push(MergedLabel {
                        there: entry.label,
                        here: usable.then(|| known.label.clone()),
                        taken: false,
                    });
                }
                _ => {
                    self.insert(entry.key.clone(), at, entry.model);
                    let here = self.find(&entry.key).map(|entry| entry.label.clone());
                    merged.devices.extend(here.clone());
                    labels.push(MergedLabel {
                        there: entry.label,
                        here,
                        taken: true,
                    });
                }
            }
        }
        let find = |name: &str| labels.iter().find(|label| label.there == label_of(name));
        let here = |name: &String| {
            let copy = &name[label_of(name).len()..];
            Some(format!("{}{copy}", find(name)?.here.as_ref()?))
        };
        let is_taken = |name: &String| find(name).is_some_and(|label| label.taken);
        for mut entry in other.corun {
            let (Some(one), Some(two)) = (here(&entry.devices[0]), here(&entry.devices[1])) else {
                continue;
            };
            let is_known = self
                .corun
                .iter()
                .any(|known| known.devices.contains(&one) && known.devices.contains(&two));
            if entry.devices.iter().any(is_taken) || !is_known {
                entry.devices = [one, two];
                self.replace_corun(entry);
            }
        }
        let mut orphans = 0;
        let mut translated = Vec::new();
        for mut entry in other.learned {
            let device = here(&entry.device);
            let beside: Option<Vec<String>> = entry.beside.iter().map(here).collect();
            match (device, beside) {
                (Some(device), Some(beside)) => {
                    (entry.device, entry.beside) = (device, beside);
                    translated.push(entry);
                }
                _ => orphans += 1,
            }
        }
        if orphans > 0 {
            merged.ignored.push(format!(
                "{orphans} entries about kernels correct figures of devices that were not taken"
            ));
        }
        merged.learned = self.merge_learned(translated);
        merged
    }

    /// Whether it is only about other machines, which a user may not expect.
    pub(crate) fn is_foreign(&self, devices: &[Keyed]) -> bool {
        let known = |entry: &DeviceEntry| {
            devices
                .iter()
                .any(|device| device.key.is_same_hardware(&entry.key))
        };
        !self.devices.is_empty() && !self.devices.iter().any(known)
    }

    /// The labels of a runtime's devices that were measured with another driver: their figures no longer hold.
    pub(crate) fn outdated<'a>(&'a self, devices: &[Keyed]) -> Vec<&'a str> {
        let outdated = |entry: &&DeviceEntry| {
            devices
                .iter()
                .any(|device| entry.key != device.key && entry.key.is_replaced_by(&device.key))
        };
        let entries = self.devices.iter().filter(outdated);
        entries.map(|entry| &*entry.label).collect()
    }
}
