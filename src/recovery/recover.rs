//! Bringing back what a lost GPU held: the calls on which it depends are run again, on what is left, and on the arrays
//! as they were then.
//!
//! What is run again is chosen backwards from what is lost; it is run in the order in which it ran, each call alone, unsplit,
//! on stand-ins of its arrays (see `array::rerun`). Only then what was lost, and nothing else, is taken over.

use super::journal::{Journal, JournalEntry};
use crate::array::{Handle, Rescue, ShadowTurn, Version, VersionedRange};
use crate::device::{DeviceId, DeviceKind, Devices};
use crate::error::{Error, Result};
use crate::execute::Executor;
use crate::kernel::{Execution, LaunchSpec};
use crate::panics::catch_panic;
use crate::plan::Plan;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Elements to bring back.
struct Goal {
    array: Handle,
    range: Range<usize>,
    /// The version in which they are wanted.
    version: Version,
    /// Whether they are wanted in that version although they are in another one.
    back: bool,
}

impl Rescue for Journal {
    fn rescue(&self, asked: &Handle) -> Result<()> {
        self.recover(&[], Some(asked))
    }
}

impl Journal {
    /// Brings back what only lost GPUs hold, of `asked` and of all arrays that entries wrote, and what a call that failed had
    /// `read`, in the versions in which it read it.
    ///
    /// # Errors
    /// Why not all of it could be brought back. What could has been.
    pub(crate) fn recover(&self, read: &[VersionedRange], asked: Option<&Handle>) -> Result<()> {
        let Some(devices) = self.devices.upgrade() else {
            return Ok(());
        };
        let turn = ShadowTurn::take();
        let mut entries = self.entries();
        // A call under way sees to itself: what it has done so far cannot be had from it.
        entries.retain(|_, entry| !entry.is_open());
        let goals = goals(&entries, read, asked);
        if goals.is_empty() {
            return Ok(());
        }
        let needed = goals.iter();
        let needed = needed.map(|goal| (goal.array.clone(), goal.range.clone(), goal.version));
        let again = Self::depended_on(&entries, needed.collect(), Vec::new());
        tracing::warn!(
            calls = again.len(),
            "running calls again that a lost GPU had run"
        );
        let outcome = rerun(&turn, &devices, &again, &goals, Preference::Gpu);
        outcome.or_else(|_| rerun(&turn, &devices, &again, &goals, Preference::Cpu))
    }
}

/// What only lost GPUs hold, as far as it can be had, and what was read and has changed or is lost.
fn goals(
    entries: &BTreeMap<Version, Arc<JournalEntry>>,
    read: &[VersionedRange],
    asked: Option<&Handle>,
) -> Vec<Goal> {
    let mut goals = Vec::new();
    for VersionedRange {
        array,
        range,
        version,
    } in read
    {
        if let Some(array) = array.upgrade() {
            let changed = array.real_residency().changed(range, *version);
            goals.extend(changed.iter().map(|range| Goal {
                array: array.clone(),
                range,
                version: *version,
                back: true,
            }));
        }
    }
    // What a snapshot saved may be of no entry any more.
    let mut arrays = Journal::written_by(entries.values());
    let asked = asked.filter(|asked| !arrays.iter().any(|array| array.same_array(asked)));
    arrays.extend(asked.cloned());
    for array in arrays {
        let residency = array.real_residency();
        for (range, version) in residency.lost() {
            let saved = residency.missing(range.clone(), version).is_empty();
            if saved || entries.contains_key(&version) {
                goals.push(Goal {
                    array: array.clone(),
                    range,
                    version,
                    back: false,
                });
            }
        }
    }
    goals
}

/// Where calls are run again first, if they can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preference {
    /// On a GPU that is no software adapter: nearest to what ran them before.
    Gpu,
    Cpu,
}

/// Runs entries again and takes over what is wanted.
fn rerun(
    turn: &ShadowTurn,
    devices: &Devices,
    entries: &BTreeMap<Version, Arc<JournalEntry>>,
    goals: &[Goal],
    preference: Preference,
) -> Result<()> {
    let mut outcome = Ok(());
    let under_way = turn.begin();
    for entry in entries.values() {
        if let Err(error) = run_again(devices, entry, preference) {
            tracing::warn!(kernel = entry.kernel.name(), %error, "cannot be run again");
            outcome = outcome.and(Err(error));
        }
    }
    for goal in goals {
        if let Err(error) = adopt(goal) {
            tracing::warn!(array = %goal.array, %error, "cannot be brought back");
            outcome = outcome.and(Err(error));
        }
    }
    drop(under_way);
    let arrays = Journal::used_by(entries.values());
    let goals = goals.iter().map(|goal| &goal.array);
    arrays.iter().chain(goals).for_each(Handle::clear_shadow);
    outcome
}

/// Runs an entry again, on what its arrays were.
fn run_again(devices: &Devices, entry: &JournalEntry, preference: Preference) -> Result<()> {
    for VersionedRange {
        array,
        range,
        version,
    } in entry.accesses.reads()
    {
        let Some(array) = array.upgrade() else {
            continue;
        };
        let missing = array
            .residency()
            .load(&array.real_residency(), range, version)?;
        if !missing.is_empty() {
            return Err(not_recoverable(&array, missing.iter().collect()));
        }
    }
    let spec = entry.kernel.spec()?;
    let device = place(devices, entry, &spec, preference)?;
    let items = entry.items.clone().unwrap_or(0..spec.items);
    let plan = Plan::alone(device, items, devices.threads_of(device));
    catch_panic(entry.kernel.name(), || {
        let mut executor = Executor::again(devices, &plan);
        entry.kernel.rerun(&mut Execution::through(&mut executor))
    })?;
    for VersionedRange {
        array,
        range,
        version,
    } in entry.accesses.writes()
    {
        if let Some(array) = array.upgrade() {
            array.residency().set_version(range, version);
        }
    }
    Ok(())
}

/// Where an entry is run again.
fn place(
    devices: &Devices,
    entry: &JournalEntry,
    spec: &LaunchSpec,
    preference: Preference,
) -> Result<DeviceId> {
    let real = |(_, gpu): &(usize, Arc<_>)| {
        let gpu: &crate::device::gpu::Gpu = gpu;
        gpu.info().kind != DeviceKind::Software
    };
    if preference == Preference::Gpu
        && spec.has_gpu
        && let Some((index, _)) = devices.trusted().find(real)
    {
        return Ok(DeviceId::Gpu(index));
    }
    if spec.has_cpu {
        return Ok(DeviceId::Cpu);
    }
    if let Some((index, _)) = devices.trusted().next() {
        return Ok(DeviceId::Gpu(index));
    }
    devices.open_now(entry.gpu)?;
    Ok(DeviceId::Gpu(entry.gpu))
}

/// Lets an array have what was computed again, or what it keeps itself of a version.
fn adopt(goal: &Goal) -> Result<()> {
    let Goal { array, version, .. } = goal;
    let mut shadow = array.residency();
    let mut real = array.real_residency();
    // Others may have written there meanwhile, and what they wrote stays.
    let wanted = if goal.back {
        real.changed(&goal.range, *version)
    } else {
        real.lost_in_version(&goal.range, *version)
    };
    for range in wanted.iter() {
        let missing = shadow.load(&real, range.clone(), *version)?;
        if !missing.is_empty() {
            return Err(not_recoverable(array, missing.iter().collect()));
        }
        real.restore(&mut shadow, range, *version)?;
    }
    real.drop_lost_extents();
    Ok(())
}

fn not_recoverable(array: &Handle, ranges: Vec<Range<usize>>) -> Error {
    Error::DataLost {
        array: array.to_string(),
        ranges,
        device: "a GPU".into(),
        reason: "what it was computed from is not known any more".into(),
    }
}
