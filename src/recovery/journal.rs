//! The journal: the calls that recovery runs again if a GPU is lost.
//!
//! An entry is a call on a GPU, or one part of a call of a single pass. It holds the kernel and the elements that the call
//! read and wrote, with their versions (its [`AccessSet`]). The journal keeps an entry as long as elements that only GPUs
//! hold depend on it. The arrays keep the rest of what recovery needs: stale host memory, and images of it.
//!
//! `recover` runs entries again. `snapshot` bounds how long that takes.

use super::params::PARAMS;
use super::snapshot::{self, Snapshots};
use crate::array::{AccessSet, Handle, Version, VersionedRange, WeakHandle};
use crate::device::{DeviceId, Devices};
use crate::error::Result;
use crate::execute::PartAccess;
use crate::kernel::{Execution, Kernel, LaunchSpec};
use crate::plan::{Plan, PlannedPart};
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// What happens to results that exist only on a GPU when that GPU is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// They are computed again from what the host holds, which takes time. Each call on a GPU is kept until its results
    /// are safe.
    #[default]
    Recoverable,
    /// They are lost. Reading them is [`Error::DataLost`](crate::Error::DataLost), which names the array and the elements.
    /// Saves the small cost of keeping calls.
    Volatile,
}

/// The calls that recovery may run again.
pub(crate) struct Journal {
    this: Weak<Self>,
    pub(super) devices: Weak<Devices>,
    durability: Durability,
    /// The most time that running all entries again is predicted to take.
    rerun_limit: Duration,
    state: Mutex<State>,
    pub(super) snapshots: Snapshots,
}

struct State {
    entries: BTreeMap<Version, Arc<JournalEntry>>,
    /// The predicted time of all entries.
    seconds: f64,
    /// The number of entries at which the journal is pruned next.
    prune_at: usize,
    /// Bytes that calls wrote since the last pruning.
    written_bytes: usize,
}

/// A call, or a part of one, that recovery may run again.
pub(crate) struct JournalEntry {
    pub(super) accesses: Arc<AccessSet>,
    pub(super) kernel: Arc<dyn ErasedKernel>,
    /// The items of the part; none for a whole call.
    pub(super) items: Option<Range<usize>>,
    /// The GPU that ran it.
    pub(super) gpu: usize,
    /// Its predicted time.
    seconds: f64,
    /// Whether its first run has not ended.
    is_open: AtomicBool,
}

/// Elements of an array in the version in which they are needed.
#[derive(Clone)]
pub(super) struct Needed {
    pub(super) array: Handle,
    pub(super) range: Range<usize>,
    pub(super) version: Version,
}

impl JournalEntry {
    /// The version of everything it wrote.
    pub(super) fn version(&self) -> Version {
        self.accesses.version
    }

    /// Whether its first run has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }
}

/// A kernel without its type. Its value is discarded.
pub(crate) trait ErasedKernel: Send + Sync {
    /// The kernel's name.
    fn name(&self) -> &str;
    /// As [`Kernel::spec`].
    fn spec(&self) -> Result<LaunchSpec>;
    /// As [`Kernel::execute`].
    fn rerun(&self, cx: &mut Execution<'_>) -> Result<()>;
}

impl<K: Kernel> ErasedKernel for K {
    fn name(&self) -> &str {
        Kernel::name(self)
    }

    fn spec(&self) -> Result<LaunchSpec> {
        Kernel::spec(self)
    }

    fn rerun(&self, cx: &mut Execution<'_>) -> Result<()> {
        self.execute(cx).map(drop)
    }
}

/// The record of a running call.
pub(crate) struct Recording {
    /// One for the whole call, or one for each of its parts on a GPU.
    entries: SmallVec<[Arc<JournalEntry>; 1]>,
    accesses: PartAccess,
}

impl Recording {
    /// The access sets in which the executor records what the call reads and writes.
    pub(crate) fn accesses(&self) -> &PartAccess {
        &self.accesses
    }

    /// The elements that the call has read so far, with their versions.
    pub(crate) fn reads(&self) -> Vec<VersionedRange> {
        let entries = self.entries.iter();
        entries.flat_map(|entry| entry.accesses.reads()).collect()
    }
}

impl Journal {
    pub(crate) fn new(
        devices: &Arc<Devices>,
        durability: Durability,
        rerun_limit: Option<Duration>,
    ) -> Arc<Self> {
        let state = State {
            entries: BTreeMap::new(),
            seconds: 0.0,
            prune_at: PARAMS.first_prune,
            written_bytes: 0,
        };
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            this: Weak::clone(this),
            devices: Arc::downgrade(devices),
            durability,
            rerun_limit: rerun_limit.unwrap_or(PARAMS.rerun_limit),
            state: Mutex::new(state),
            snapshots: Snapshots::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to results that exist only on a lost GPU.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Opens the entries of a call; none if the plan has no GPU or results are volatile. A prediction for a device that is
    /// not measured is a guess, so it does not count towards the time limit.
    pub(crate) fn open<K: Kernel>(
        &self,
        kernel: &Arc<K>,
        plan: &Plan,
        is_measured: impl Fn(DeviceId) -> bool,
    ) -> Option<Recording> {
        if self.durability == Durability::Volatile {
            return None;
        }
        let entry = |items: Option<Range<usize>>, gpu: usize, seconds: f64| {
            Arc::new(JournalEntry {
                accesses: Arc::new(AccessSet::new(self.this.clone())),
                kernel: Arc::clone(kernel) as Arc<dyn ErasedKernel>,
                items,
                gpu,
                seconds,
                is_open: AtomicBool::new(true),
            })
        };
        let gpu = |part: &PlannedPart| part.device.gpu();
        let seconds = |part: &PlannedPart| match is_measured(part.device) {
            true => part.predicted.compute,
            false => 0.0,
        };
        let first = plan.parts.iter().find_map(gpu)?;
        let (mut entries, mut accesses) = (SmallVec::new(), PartAccess::default());
        if kernel.is_one_pass() && plan.parts.len() > 1 {
            for (number, part) in plan.parts.iter().enumerate() {
                if let Some(gpu) = gpu(part) {
                    let items = Some(part.range.clone());
                    let entry = entry(items, gpu, seconds(part));
                    accesses.add_part(number, Arc::clone(&entry.accesses));
                    entries.push(entry);
                }
            }
        } else {
            let seconds = plan.parts.iter().map(seconds).sum();
            let entry = entry(None, first, seconds);
            accesses = PartAccess::of_call(Arc::clone(&entry.accesses));
            entries.push(entry);
        }
        let mut state = self.state();
        for entry in &entries {
            state.add(Arc::clone(entry));
        }
        Some(Recording { entries, accesses })
    }

    /// Closes the entries of a call that succeeded.
    pub(crate) fn close(&self, recording: Recording) {
        let mut state = self.state();
        for entry in &recording.entries {
            entry.is_open.store(false, Ordering::Release);
            match entry.accesses.written_bytes() {
                // The recording still holds the entry, so no kernel is dropped under the lock.
                0 => drop(state.remove(entry.version())),
                bytes => state.written_bytes += bytes,
            }
        }
        let is_long = state.entries.len() >= state.prune_at
            || state.seconds > self.rerun_limit.as_secs_f64()
            || state.written_bytes > PARAMS.kept_bytes / PARAMS.prunes_per_kept_bytes;
        drop(state);
        if is_long {
            self.prune_if_long();
        }
    }

    /// Removes the entries of a call that failed: running them again does not give what it wrote.
    pub(crate) fn abandon(&self, recording: Recording) {
        let mut state = self.state();
        for entry in recording.entries {
            state.remove(entry.accesses.version);
        }
    }

    /// Prunes the journal, and begins a snapshot if the rest is near the limits.
    fn prune_if_long(&self) {
        if self.snapshots.is_under_way() {
            if self.len() < PARAMS.stall_factor * PARAMS.entries {
                return;
            }
            // The caller makes calls faster than snapshots save their results.
            self.snapshots.wait();
        }
        self.prune();
        let (count, seconds) = {
            let state = self.state();
            (state.entries.len(), state.seconds)
        };
        let share = PARAMS.snapshot_share;
        let exceeds = count as f64 > PARAMS.entries as f64 * share
            || seconds > self.rerun_limit.as_secs_f64() * share
            || self.kept_bytes() > PARAMS.kept_bytes;
        if let Some(journal) = self.this.upgrade().filter(|_| exceeds) {
            snapshot::take(&journal);
        }
    }

    /// Removes the entries on which no element depends that only GPUs hold.
    pub(crate) fn prune(&self) {
        // Other calls run meanwhile. An open entry counts as needed, and so does one that is added before all arrays have
        // been inspected. A call records its reads before it changes the version of what it overwrites. So what it depends
        // on is visible in the arrays or in its reads.
        let before = self.entries();
        let is_open = |entry: &&Arc<JournalEntry>| entry.is_open();
        let open: Vec<Version> = before
            .values()
            .filter(is_open)
            .map(|e| e.version())
            .collect();
        let mut needed = Vec::new();
        for array in Self::written_by(before.values()) {
            let ranges = if array.is_owned() {
                array.real_residency().only_on_gpus()
            } else {
                Vec::new()
            };
            needed.extend(ranges.into_iter().map(|segment| Needed {
                array: array.clone(),
                range: segment.range,
                version: segment.version,
            }));
        }
        let entries = self.entries();
        let new = entries
            .keys()
            .filter(|version| !before.contains_key(*version));
        let also = open.into_iter().chain(new.copied()).collect();
        let live = Self::depended_on(&entries, needed, also);
        let dead = before.keys().filter(|version| !live.contains_key(*version));
        let dropped: Vec<Arc<JournalEntry>> = {
            let mut state = self.state();
            let dropped = dead.filter_map(|version| state.remove(*version)).collect();
            state.prune_at = PARAMS.first_prune.max(2 * state.entries.len());
            state.written_bytes = 0;
            dropped
        };
        let arrays: Vec<Handle> = Self::used_by(dropped.iter().chain(live.values()));
        drop((before, entries, live, dropped));
        arrays
            .iter()
            .for_each(|array| array.real_residency().tidy());
    }

    /// The current entries, by version.
    pub(super) fn entries(&self) -> BTreeMap<Version, Arc<JournalEntry>> {
        self.state().entries.clone()
    }

    /// The arrays that entries wrote, each once.
    pub(super) fn written_by<'e>(
        entries: impl Iterator<Item = &'e Arc<JournalEntry>>,
    ) -> Vec<Handle> {
        let mut arrays = HashMap::new();
        for elements in entries.flat_map(|entry| entry.accesses.writes()) {
            arrays.entry(elements.array.id()).or_insert(elements.array);
        }
        arrays
            .into_values()
            .filter_map(|array: WeakHandle| array.upgrade())
            .collect()
    }

    /// The arrays that entries read or wrote, each once.
    pub(super) fn used_by<'e>(entries: impl Iterator<Item = &'e Arc<JournalEntry>>) -> Vec<Handle> {
        let mut arrays = HashMap::new();
        for entry in entries {
            let (reads, writes) = (entry.accesses.reads(), entry.accesses.writes());
            for elements in reads.into_iter().chain(writes) {
                arrays.entry(elements.array.id()).or_insert(elements.array);
            }
        }
        arrays
            .into_values()
            .filter_map(|array: WeakHandle| array.upgrade())
            .collect()
    }

    /// The entries on which the needed elements depend, directly or through other entries. Elements that host memory or an
    /// image holds depend on none. The entries `also` count as depended on.
    pub(super) fn depended_on(
        entries: &BTreeMap<Version, Arc<JournalEntry>>,
        needed: Vec<Needed>,
        also: Vec<Version>,
    ) -> BTreeMap<Version, Arc<JournalEntry>> {
        let mut found = BTreeMap::new();
        let mut to_do = needed;
        let mut selected = also;
        loop {
            for version in selected.drain(..) {
                let Some(entry) = entries.get(&version) else {
                    continue;
                };
                if found.insert(version, Arc::clone(entry)).is_none() {
                    let reads = entry.accesses.reads().into_iter();
                    to_do.extend(reads.filter_map(|read| {
                        Some(Needed {
                            array: read.array.upgrade()?,
                            range: read.range,
                            version: read.version,
                        })
                    }));
                }
            }
            let Some(next) = to_do.pop() else {
                return found;
            };
            let residency = next.array.real_residency();
            if !residency.missing(next.range, next.version).is_empty() {
                selected.push(next.version);
            }
        }
    }

    /// Bytes of images, and of arrays that the caller has dropped.
    pub(crate) fn kept_bytes(&self) -> usize {
        let kept = |array: Handle| {
            let dropped = if array.is_owned() { 0 } else { array.bytes() };
            dropped + array.real_residency().image_bytes()
        };
        let arrays = Self::used_by(self.entries().values());
        arrays.into_iter().map(kept).sum()
    }

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.state().entries.len()
    }
}

impl State {
    fn add(&mut self, entry: Arc<JournalEntry>) {
        self.seconds += entry.seconds;
        self.entries.insert(entry.accesses.version, entry);
    }

    fn remove(&mut self, version: Version) -> Option<Arc<JournalEntry>> {
        let entry = self.entries.remove(&version)?;
        self.seconds = if self.entries.is_empty() {
            0.0
        } else {
            self.seconds - entry.seconds
        };
        Some(entry)
    }
}
