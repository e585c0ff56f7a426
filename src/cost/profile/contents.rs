//! What a profile holds, and how what several processes know is merged.

use super::learned::LearnedEntry;
use crate::cost::calibrate::Thoroughness;
use crate::cost::machine::{CoRun, DeviceModel, Engine, Link};
use crate::device::{DeviceId, DeviceKind};
use crate::simd::InstructionSet;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The layout of the file and the meaning of its figures. Goes up whenever either changes.
pub const SCHEMA: u32 = 4;
/// What was measured on a busy machine holds for so long, then it is worth another try.
const BUSY_HOLDS: Duration = Duration::from_secs(60);
/// More devices than one file will be about.
pub(super) const MOST_DEVICES: usize = 256;
/// Figures that differ by less than this factor are of the same machine: what was learned on top of them still holds.
const SAME: f64 = 1.5;

/// What is known of devices, of this machine and of others that share the file, and of kernels on them.
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

/// What is known of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceEntry {
    /// What the rest of the file calls it.
    pub label: String,
    /// Which device it is.
    pub key: DeviceKey,
    /// When it was measured: seconds since 1970.
    pub measured: u64,
    /// How thoroughly it was measured.
    pub thoroughness: Thoroughness,
    /// Other processes held the cores while it was measured, so it should be measured again when they may have gone.
    pub busy: bool,
    /// What was measured.
    pub model: DeviceModel,
}

/// How much two devices slow each other down: see [`CoRun`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CoRunEntry {
    /// Which two, as [`reference`]s.
    pub devices: [String; 2],
    /// When arithmetic limits both.
    pub compute: [f64; 2],
    /// When memory limits both.
    pub memory: [f64; 2],
}

/// What must be the same for a measurement to hold again.
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
    /// Whether a measurement under `newer` takes the place of one under this key: a driver was updated.
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

    /// Whether both are the same piece of hardware, however it is driven.
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

/// What the file calls the device with that label, or, of several equal ones, the one of that number from 0 on.
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
    /// What it is known by.
    pub(crate) key: DeviceKey,
    /// How many devices with this key come before it.
    pub(crate) copy: usize,
    /// Whether what is measured of it holds for others with this key.
    pub(crate) kept: bool,
}

/// When and how a device was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MeasurementConditions {
    /// Seconds since 1970.
    pub(crate) measured: u64,
    /// How thoroughly.
    pub(crate) thoroughness: Thoroughness,
    /// Whether other processes held the cores meanwhile.
    pub(crate) busy: bool,
}

impl MeasurementConditions {
    /// Measured just now.
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
    /// How long ago it was measured; nothing if the clock was set back since.
    pub fn age(&self) -> Duration {
        Duration::from_secs(seconds_since_1970().saturating_sub(self.measured))
    }

    /// When and how it was measured.
    pub(crate) fn circumstances(&self) -> MeasurementConditions {
        MeasurementConditions {
            measured: self.measured,
            thoroughness: self.thoroughness,
            busy: self.busy,
        }
    }

    /// Whether it was measured on a busy machine, a while ago.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        // A clock that was set back must not keep it for ever.
        let future = self.measured > seconds_since_1970();
        self.busy && (future || self.age() > BUSY_HOLDS)
    }

    /// Which figure cannot be true, if any.
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

/// Whether what was learned on top of one still holds on top of the other.
pub(crate) fn agree(one: &DeviceModel, other: &DeviceModel) -> bool {
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
    /// Whether its figures can be true.
    pub(super) fn is_sound(&self) -> bool {
        let mut factors = self.compute.iter().chain(&self.memory);
        factors.all(|factor| (1.0..=1e4).contains(factor))
    }

    fn mentions(&self, label: &str) -> bool {
        self.devices.iter().any(|device| label_of(device) == label)
    }
}

/// What a profile took from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Merged {
    /// The labels of the devices whose figures were taken.
    pub devices: Vec<String>,
    /// Entries about kernels of which something was taken.
    pub learned: usize,
    /// What was not taken, and why.
    pub ignored: Vec<String>,
}

impl Default for Profile {
    /// Nothing is known.
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
    /// What is known of devices.
    pub fn devices(&self) -> &[DeviceEntry] {
        &self.devices
    }

    /// How much they slow each other down.
    pub fn corun(&self) -> &[CoRunEntry] {
        &self.corun
    }

    /// What was learned of kernels.
    pub fn learned(&self) -> &[LearnedEntry] {
        &self.learned
    }

    /// The entry of a device.
    pub fn find(&self, key: &DeviceKey) -> Option<&DeviceEntry> {
        self.devices.iter().find(|entry| entry.key == *key)
    }

    /// Notes what is known of a device, in place of what was known before.
    pub(crate) fn insert(&mut self, key: DeviceKey, at: MeasurementConditions, model: DeviceModel) {
        let known = self.find(&key);
        let keeps = known.is_some_and(|known| agree(&known.model, &model));
        let label = known.map(|known| known.label.clone());
        // What was learned corrects figures that no longer hold. The label of the same device stays.
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

    /// Drops what was measured with or of the device of that label, but for its own figures.
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

    /// What the file calls a device of a runtime, if it knows it.
    pub(super) fn refer(&self, device: &Keyed) -> Option<String> {
        let known = self.find(&device.key).filter(|_| device.kept)?;
        Some(reference(&known.label, device.copy))
    }

    /// How much devices of a runtime slow each other down.
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

    /// Notes how much devices of a runtime slow each other down, in place of what was known of these pairs.
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

    /// Takes in another profile: of each device the newer figures, of each kernel what rests on more samples.
    pub fn merge(&mut self, other: Self) -> Merged {
        let mut merged = Merged::default();
        let mut labels = Vec::new();
        for entry in other.devices {
            let rank = |entry: &DeviceEntry| (!entry.busy, entry.measured);
            let rival = self
                .devices
                .iter()
                .find(|known| known.key.is_replaced_by(&entry.key));
            let at = entry.circumstances();
            match rival {
                Some(known) if rank(known) >= rank(&entry) => {
                    // Of another driver, nothing of it can be used.
                    let usable = known.key == entry.key && agree(&known.model, &entry.model);
                    if known.model != entry.model || known.key != entry.key {
                        merged.ignored.push(format!(
                            "the figures of {} are older than those that are known",
                            entry.model.name
                        ));
                    }
                    labels.push((entry.label, usable.then(|| known.label.clone()), false));
                }
                _ => {
                    self.insert(entry.key.clone(), at, entry.model);
                    let label = self.find(&entry.key).map(|entry| entry.label.clone());
                    merged.devices.extend(label.clone());
                    labels.push((entry.label, label, true));
                }
            }
        }
        let here = |name: &String| {
            let (_, label, taken) = labels.iter().find(|(label, ..)| label == label_of(name))?;
            let copy = &name[label_of(name).len()..];
            Some((format!("{}{copy}", label.as_ref()?), *taken))
        };
        for mut entry in other.corun {
            let (Some(one), Some(two)) = (here(&entry.devices[0]), here(&entry.devices[1])) else {
                continue;
            };
            let is_known = self
                .corun
                .iter()
                .any(|known| known.devices.contains(&one.0) && known.devices.contains(&two.0));
            if one.1 || two.1 || !is_known {
                entry.devices = [one.0, two.0];
                self.replace_corun(entry);
            }
        }
        let mut orphans = 0;
        let mut translated = Vec::new();
        for mut entry in other.learned {
            let device = here(&entry.device);
            let beside: Option<Vec<String>> = entry
                .beside
                .iter()
                .map(|name| Some(here(name)?.0))
                .collect();
            match (device, beside) {
                (Some((device, _)), Some(beside)) => {
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

    /// Whether it is about other machines only, which a user may not expect.
    pub(crate) fn is_foreign(&self, devices: &[Keyed]) -> bool {
        let known = |entry: &DeviceEntry| {
            devices
                .iter()
                .any(|device| device.key.is_same_hardware(&entry.key))
        };
        !self.devices.is_empty() && !self.devices.iter().any(known)
    }

    /// The devices of a runtime that were measured with another driver, of which nothing holds any more.
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
