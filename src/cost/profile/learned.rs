//! The entries about kernels: the measurements of every variant, the slower ones too.

use super::contents::{Keyed, Profile, label_of};
use crate::cost::learned::{ClassRecord, Record};
use crate::cost::params::{PARAMS, ProfileParams};
use crate::device::DeviceId;
use crate::element::ElementType;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PROFILE: ProfileParams = PARAMS.profile;

/// The measurements of one variant of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LearnedEntry {
    /// The kernel's name.
    pub kernel: String,
    /// The type of its elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element_type: Option<ElementType>,
    /// A hash of its implementation: entries of another implementation do not hold.
    #[serde(serialize_with = "write_hash", deserialize_with = "read_hash")]
    pub implementation: u64,
    /// Where it ran: the label of a device.
    pub device: String,
    /// CPU threads that computed it; 1 on a GPU.
    pub threads: usize,
    /// The labels of the devices that computed other parts of the same calls.
    pub beside: Vec<String>,
    /// Whether some of its input had to be moved first.
    pub moved: bool,
    /// The measurements, by ascending size.
    pub sizes: Vec<ClassRecord>,
}

fn write_hash<S: Serializer>(hash: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{hash:016x}"))
}

fn read_hash<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Hex;
    impl serde::de::Visitor<'_> for Hex {
        type Value = u64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("up to 16 hexadecimal digits")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
            let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let hash = u64::from_str_radix(text, 16).ok().filter(|_| digits);
            hash.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
    from.deserialize_str(Hex)
}

/// Four digits after the point: no factor is known to a tenth of a per mille.
fn rounded(log_factor: f64) -> f64 {
    (log_factor * 1e4).round() / 1e4
}

impl LearnedEntry {
    /// Whether both are about the same implementation and variant.
    fn is_same_subject(&self, other: &Self) -> bool {
        self.implementation == other.implementation && self.variant() == other.variant()
    }

    /// The kernel and its variant, without the implementation.
    fn variant(&self) -> impl Ord + '_ {
        (
            &self.kernel,
            self.element_type.map(ElementType::name),
            &self.device,
            self.threads,
            &self.beside,
            self.moved,
        )
    }

    /// Whether it was measured on or beside the device with this label.
    pub(super) fn mentions(&self, label: &str) -> bool {
        let mut devices = self.beside.iter().chain([&self.device]);
        devices.any(|device| label_of(device) == label)
    }

    /// The number of all measurements there ever were.
    pub fn samples(&self) -> u64 {
        let samples = self.sizes.iter().map(|size| size.samples);
        samples.fold(0, u64::saturating_add)
    }

    /// Whether all its figures are possible, and within the limits on their number.
    pub(super) fn is_sound(&mut self) -> bool {
        // Moved into a record and back, since there may be many.
        let record = Record {
            kernel: String::new(),
            element_type: None,
            implementation: 0,
            device: DeviceId::Cpu,
            threads: 1,
            beside: Vec::new(),
            moved: false,
            classes: std::mem::take(&mut self.sizes),
        };
        let sound = record.is_sound();
        self.sizes = record.classes;
        let sizes = &self.sizes;
        sound
            && (1..=PROFILE.longest_name).contains(&self.kernel.len())
            && self.threads > 0
            && !sizes.is_empty()
            && sizes.len() <= PROFILE.most_sizes
            && self.beside.len() <= PROFILE.most_devices
            && sizes
                .iter()
                .all(|size| size.recent.len() <= PROFILE.most_recent)
            && sizes.is_sorted_by(|a, b| a.size < b.size)
    }

    /// The record for a runtime, with its names of the devices.
    fn into_record(self, device: DeviceId, beside: Vec<DeviceId>) -> Record {
        Record {
            kernel: self.kernel,
            element_type: self.element_type,
            implementation: self.implementation,
            device,
            threads: self.threads,
            beside,
            moved: self.moved,
            classes: self.sizes,
        }
    }

    /// Takes the sizes for which the other has at least as many samples. Returns whether anything changed.
    fn take(&mut self, other: Self) -> bool {
        /// Half an octave, as the learner has them.
        fn class(size: &ClassRecord) -> f64 {
            (2.0 * size.size).round()
        }
        let mut taken = false;
        for size in other.sizes {
            let known = self
                .sizes
                .iter_mut()
                .find(|known| class(known) == class(&size));
            match known {
                Some(known) if known.samples > size.samples => {}
                Some(known) => {
                    taken |= *known != size;
                    *known = size;
                }
                None => {
                    taken = true;
                    self.sizes.push(size);
                }
            }
        }
        self.sizes.sort_by(|a, b| a.size.total_cmp(&b.size));
        taken
    }
}

impl Profile {
    /// Removes and returns the entries that mention only devices of a runtime.
    pub(crate) fn take_records(&mut self, devices: &[Keyed]) -> Vec<Record> {
        let named: Vec<(String, DeviceId)> = devices
            .iter()
            .filter_map(|device| Some((self.refer(device)?, device.id)))
            .collect();
        let id = |name: &String| named.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let mut records = Vec::with_capacity(self.learned.len());
        for entry in std::mem::take(&mut self.learned) {
            let beside: Option<Vec<DeviceId>> = entry.beside.iter().map(id).collect();
            match (id(&entry.device), beside) {
                (Some(device), Some(beside)) => records.push(entry.into_record(device, beside)),
                _ => self.learned.push(entry),
            }
        }
        records
    }

    /// Merges the records of a runtime: takes the sizes with more samples.
    pub(crate) fn insert_records(&mut self, devices: &[Keyed], records: &[Record]) {
        let named: Vec<(DeviceId, String)> = devices
            .iter()
            .filter_map(|device| Some((device.id, self.refer(device)?)))
            .collect();
        let name = |id: &DeviceId| {
            let (_, name) = named.iter().find(|(device, _)| device == id)?;
            Some(name.clone())
        };
        let entries = records.iter().filter_map(|record| {
            let sizes = record
                .classes
                .iter()
                .filter(|class| !class.recent.is_empty());
            let latest = |recent: &[f64]| -> Vec<f64> {
                let skipped = recent.len().saturating_sub(PROFILE.kept_recent);
                recent[skipped..].iter().copied().map(rounded).collect()
            };
            let mut entry = LearnedEntry {
                kernel: record.kernel.clone(),
                element_type: record.element_type,
                implementation: record.implementation,
                device: name(&record.device)?,
                threads: record.threads,
                beside: record.beside.iter().map(name).collect::<Option<_>>()?,
                moved: record.moved,
                sizes: sizes
                    .map(|class| ClassRecord {
                        size: rounded(class.size),
                        samples: class.samples,
                        recent: latest(&class.recent),
                    })
                    .collect(),
            };
            entry.is_sound().then_some(entry)
        });
        let entries: Vec<LearnedEntry> = entries.collect();
        self.merge_learned(entries);
    }

    /// Merges entries about devices of this profile. Returns the number of entries that changed.
    pub(super) fn merge_learned(&mut self, entries: Vec<LearnedEntry>) -> usize {
        let mut taken = 0;
        // Sorted, so that each of many entries is found quickly.
        self.learned.sort_by(|a, b| a.variant().cmp(&b.variant()));
        for entry in entries {
            let start = self
                .learned
                .partition_point(|known| known.variant() < entry.variant());
            let len =
                self.learned[start..].partition_point(|known| known.variant() <= entry.variant());
            let group = &mut self.learned[start..start + len];
            match group.iter().position(|known| known.is_same_subject(&entry)) {
                Some(at) => {
                    taken += usize::from(group[at].take(entry));
                    // The latest one comes last, and stays longest.
                    group[at..].rotate_left(1);
                }
                None => {
                    self.learned.insert(start + len, entry);
                    taken += 1;
                    if len >= PROFILE.implementations {
                        self.learned.remove(start);
                    }
                }
            }
        }
        self.keep_learned(PROFILE.most_entries);
        taken
    }

    /// Keeps at most `most` entries: those with the most samples.
    pub(super) fn keep_learned(&mut self, most: usize) {
        if self.learned.len() <= most {
            return;
        }
        let mut samples: Vec<u64> = self.learned.iter().map(LearnedEntry::samples).collect();
        samples.sort_unstable_by(|a, b| b.cmp(a));
        let least = samples.get(most).copied().unwrap_or_default();
        self.learned.retain(|entry| entry.samples() > least);
    }
}
