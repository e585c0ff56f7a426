//! What was run on GPUs and would have to be run again to bring back what they hold, should they be lost.
//!
//! An entry is a call on a GPU, or the part of a call of one pass: the kernel, and in which versions it read and wrote
//! which elements (its [`AccessSet`]). It is kept for as long as anything that only GPUs hold depends on it. Everything else that
//! bringing back needs, host memory that has become stale and images of it, the arrays keep themselves.
//!
//! `recover` runs entries again; `snapshot` sees to it that there are never more than can be run again in the time that
//! the user allows.

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

/// What becomes of results that exist only on a GPU when it is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// They are computed again from what the host has, which takes time: calls on GPUs are kept until what they
    /// computed is safe.
    #[default]
    Recoverable,
    /// They are lost, and reading them is [`Error::DataLost`](crate::Error::DataLost), which says which elements of which
    /// array they were. Saves the small cost of keeping calls.
    Volatile,
}

/// What bounds a journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalLimits {
    /// How long it may take to run everything again, as it is predicted.
    pub(crate) rerun: Duration,
    /// Entries that it may have: however short calls are, each takes memory.
    pub(crate) entries: usize,
    /// Bytes that may be kept for it besides: images, and arrays that the caller has dropped.
    pub(crate) kept_bytes: usize,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self {
            rerun: Duration::from_secs(1),
            entries: 4096,
            kept_bytes: 1 << 30,
        }
    }
}

/// Entries are looked through for those that nobody needs once there are so many, and then each time as many have come as
/// were left.
const FEW: usize = 64;

/// The calls that may have to be run again.
pub(crate) struct Journal {
    this: Weak<Self>,
    pub(super) devices: Weak<Devices>,
    durability: Durability,
    bounds: JournalLimits,
    state: Mutex<State>,
    pub(super) snapshots: Snapshots,
}

struct State {
    entries: BTreeMap<Version, Arc<JournalEntry>>,
    /// What all entries are predicted to take.
    seconds: f64,
    prune_at: usize,
    /// Bytes of what entries wrote since entries were last looked through.
    written_bytes: usize,
}

/// A call, or a part of one, that may have to be run again.
pub(crate) struct JournalEntry {
    pub(super) accesses: Arc<AccessSet>,
    pub(super) kernel: Arc<dyn ErasedKernel>,
    /// The items that it computed, if any of them can be computed without the others.
    pub(super) items: Option<Range<usize>>,
    /// The GPU that ran it.
    pub(super) gpu: usize,
    seconds: f64,
    /// Whether it is still being run for the first time.
    is_open: AtomicBool,
}

impl JournalEntry {
    /// The version of all that it wrote.
    pub(super) fn version(&self) -> Version {
        self.accesses.version
    }

    /// Whether it is still being run for the first time.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }
}

/// A kernel without its type, whose value nobody wants.
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

/// The record of a call under way.
pub(crate) struct Recording {
    /// One for the whole call, or one for each of its parts on a GPU.
    entries: SmallVec<[Arc<JournalEntry>; 1]>,
    accesses: PartAccess,
}

impl Recording {
    /// Where what the call reads and writes is recorded.
    pub(crate) fn accesses(&self) -> &PartAccess {
        &self.accesses
    }

    /// What the call read so far, in the versions in which it read it.
    pub(crate) fn reads(&self) -> Vec<VersionedRange> {
        let entries = self.entries.iter();
        entries.flat_map(|entry| entry.accesses.reads()).collect()
    }
}

impl Journal {
    pub(crate) fn new(
        devices: &Arc<Devices>,
        durability: Durability,
        bounds: JournalLimits,
    ) -> Arc<Self> {
        let state = State {
            entries: BTreeMap::new(),
            seconds: 0.0,
            prune_at: FEW,
            written_bytes: 0,
        };
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            this: Weak::clone(this),
            devices: Arc::downgrade(devices),
            durability,
            bounds,
            state: Mutex::new(state),
            snapshots: Snapshots::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of results that exist only on a GPU when it is lost.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Begins the record of a call that is planned on GPUs; none if nothing is to be recovered. The predictions for devices
    /// that are not measured say nothing of what it takes.
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

    /// The call is done.
    pub(crate) fn close(&self, recording: Recording) {
        let mut state = self.state();
        for entry in &recording.entries {
            entry.is_open.store(false, Ordering::Release);
            match entry.accesses.written_bytes() {
                // The recording still holds it, so that no kernel is dropped under the lock.
                0 => drop(state.remove(entry.version())),
                bytes => state.written_bytes += bytes,
            }
        }
        let is_long = state.entries.len() >= state.prune_at
            || state.seconds > self.bounds.rerun.as_secs_f64()
            || state.written_bytes > self.bounds.kept_bytes / 4;
        drop(state);
        if is_long {
            self.prune_if_long();
        }
    }

    /// The call failed, and what it wrote is not to be had from it.
    pub(crate) fn abandon(&self, recording: Recording) {
        let mut state = self.state();
        for entry in recording.entries {
            state.remove(entry.accesses.version);
        }
    }

    /// Forgets what nobody needs, and has a snapshot taken if what is left is more than the bounds allow.
    fn prune_if_long(&self) {
        if self.snapshots.is_under_way() {
            if self.len() < 2 * self.bounds.entries {
                return;
            }
            // Calls are made faster than what they compute is saved.
            self.snapshots.wait();
        }
        self.prune();
        let (count, seconds) = {
            let state = self.state();
            (state.entries.len(), state.seconds)
        };
        let exceeds = count > self.bounds.entries / 2
            || seconds > self.bounds.rerun.as_secs_f64() / 2.0
            || self.kept_bytes() > self.bounds.kept_bytes;
        if let Some(journal) = self.this.upgrade().filter(|_| exceeds) {
            snapshot::take(&journal);
        }
    }

    /// Forgets the entries that nothing depends on which only GPUs hold.
    pub(crate) fn prune(&self) {
        // Calls go on meanwhile. One that has not ended by now counts as needed, and so does one that begins until the
        // arrays have been looked at. It notes what it reads before what it overwrites changes its version, so that what it
        // depends on is seen in the arrays or in its reads.
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
            needed.extend(ranges.into_iter().map(|(r, v)| (array.clone(), r, v)));
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
            state.prune_at = FEW.max(2 * state.entries.len());
            state.written_bytes = 0;
            dropped
        };
        let arrays: Vec<Handle> = Self::used_by(dropped.iter().chain(live.values()));
        drop((before, entries, live, dropped));
        arrays
            .iter()
            .for_each(|array| array.real_residency().tidy());
    }

    /// The entries at this moment, by version.
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

    /// The entries on which elements in these versions depend that neither host memory nor an image
    /// holds, besides the entries `also` and what these depend on.
    pub(super) fn depended_on(
        entries: &BTreeMap<Version, Arc<JournalEntry>>,
        needed: Vec<(Handle, Range<usize>, Version)>,
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
                    to_do.extend(
                        reads.filter_map(|e| Some((e.array.upgrade()?, e.range, e.version))),
                    );
                }
            }
            let Some((array, range, version)) = to_do.pop() else {
                return found;
            };
            if array.real_residency().missing(range, version).is_empty() {
                continue;
            }
            selected.push(version);
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

    /// How many entries there are.
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
