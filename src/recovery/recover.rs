//! Recovery: runs the calls again on which the lost elements depend, on the remaining devices.
//!
//! It selects calls backwards from the lost elements and runs them in their first order. Each runs unsplit, on one device,
//! on the shadow residencies of its arrays (see `array::shadow`), which hold what the arrays held at the time of the call.
//! At the end the arrays adopt the lost elements from their shadows, and nothing else.

use super::journal::{Journal, JournalEntry, Needed};
use crate::array::{Handle, Rescue, Segment, ShadowTurn, Version, VersionedRange};
use crate::device::{DeviceId, DeviceKind, Devices};
use crate::error::{Error, Result};
use crate::execute::Executor;
use crate::kernel::{Execution, LaunchSpec};
use crate::panics::catch_panic;
use crate::plan::Plan;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Elements to restore.
struct Goal {
    needed: Needed,
    /// Whether they are restored to that version even if they now have another one.
    rolls_back: bool,
}

impl Rescue for Journal {
    fn rescue(&self, asked: &Handle) -> Result<()> {
        self.recover(&[], Some(asked))
    }
}

impl Journal {
    /// Restores what only lost GPUs hold of `asked` and of all arrays that entries wrote. Also restores what a failed call
    /// had `read`, in the versions in which it read it.
    ///
    /// # Errors
    /// The first reason why something cannot be restored. Everything else is restored all the same.
    pub(crate) fn recover(&self, read: &[VersionedRange], asked: Option<&Handle>) -> Result<()> {
        let Some(devices) = self.devices.upgrade() else {
            return Ok(());
        };
        let turn = ShadowTurn::take();
        let mut entries = self.entries();
        // A running call recovers by itself, and running it again does not give what it has written so far.
        entries.retain(|_, entry| !entry.is_open());
        let goals = goals(&entries, read, asked);
        if goals.is_empty() {
            return Ok(());
        }
        let needed = goals.iter().map(|goal| goal.needed.clone());
        let again = Self::depended_on(&entries, needed.collect(), Vec::new());
        tracing::warn!(
            calls = again.len(),
            "running calls again that a lost GPU had run"
        );
        let outcome = rerun(&turn, &devices, &again, &goals, Preference::Gpu);
        outcome.or_else(|_| rerun(&turn, &devices, &again, &goals, Preference::Cpu))
    }
}

/// The elements that only lost GPUs hold and that can be restored, and those of `read` that have changed or are lost.
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
                needed: Needed {
                    array: array.clone(),
                    range,
                    version: *version,
                },
                rolls_back: true,
            }));
        }
    }
    // A snapshot may have saved elements whose entry is pruned by now.
    let mut arrays = Journal::written_by(entries.values());
    let asked = asked.filter(|asked| !arrays.iter().any(|array| array.same_array(asked)));
    arrays.extend(asked.cloned());
    for array in arrays {
        let residency = array.real_residency();
        for Segment { range, version } in residency.lost() {
            let saved = residency.missing(range.clone(), version).is_empty();
            if saved || entries.contains_key(&version) {
                goals.push(Goal {
                    needed: Needed {
                        array: array.clone(),
                        range,
                        version,
                    },
                    rolls_back: false,
                });
            }
        }
    }
    goals
}

/// The kind of device on which recovery prefers to run calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preference {
    /// A GPU that is no software adapter: it is most like the device that ran them first.
    Gpu,
    Cpu,
}

/// Runs entries again and restores the goals.
fn rerun(
    turn: &ShadowTurn,
    devices: &Devices,
    entries: &BTreeMap<Version, Arc<JournalEntry>>,
    goals: &[Goal],
    preference: Preference,
) -> Result<()> {
    let mut outcome = Ok(());
    let scope = turn.begin();
    for entry in entries.values() {
        if let Err(error) = run_again(devices, entry, preference) {
            tracing::warn!(kernel = entry.kernel.name(), %error, "cannot be run again");
            outcome = outcome.and(Err(error));
        }
    }
    for goal in goals {
        if let Err(error) = adopt(goal) {
            tracing::warn!(array = %goal.needed.array, %error, "cannot be restored");
            outcome = outcome.and(Err(error));
        }
    }
    drop(scope);
    let arrays = Journal::used_by(entries.values());
    let goals = goals.iter().map(|goal| &goal.needed.array);
    arrays.iter().chain(goals).for_each(Handle::clear_shadow);
    outcome
}

/// Runs an entry again, on the elements and versions that it read.
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

/// The device on which an entry is run again.
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

/// Moves the elements of a goal from an array's shadow to the array.
fn adopt(goal: &Goal) -> Result<()> {
    let Needed {
        array,
        range,
        version,
    } = &goal.needed;
    let mut shadow = array.residency();
    let mut real = array.real_residency();
    // Another thread may have written there meanwhile; what it wrote stays.
    let wanted = if goal.rolls_back {
        real.changed(range, *version)
    } else {
        real.lost_in_version(range, *version)
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
        reason: "what it was computed from is no longer known".into(),
    }
}
