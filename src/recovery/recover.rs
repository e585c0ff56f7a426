//! Bringing back what a lost GPU held: the calls on which it depends are run again, on what is left, and on the arrays
//! as they were then.
//!
//! What is run again is chosen backwards from what is lost; it is run in the order in which it ran, each call alone, unsplit,
//! on stand-ins of its arrays (see `array::replay`). Only then what was lost, and nothing else, is taken over.

use super::journal::{Entry, Journal};
use crate::array::{Elements, Handle, ReplayTurn, Rescue, Version};
use crate::device::{DeviceId, DeviceKind, Devices};
use crate::error::{Error, Result};
use crate::execute::Executor;
use crate::kernel::{Execution, Outline};
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
    pub(crate) fn recover(&self, read: &[Elements], asked: Option<&Handle>) -> Result<()> {
        let Some(devices) = self.devices.upgrade() else {
            return Ok(());
        };
        let turn = ReplayTurn::take();
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
        let outcome = replay(&turn, &devices, &again, &goals, Preference::Gpu);
        outcome.or_else(|_| replay(&turn, &devices, &again, &goals, Preference::Cpu))
    }
}

/// What only lost GPUs hold, as far as it can be had, and what was read and has changed or is lost.
fn goals(
    entries: &BTreeMap<Version, Arc<Entry>>,
    read: &[Elements],
    asked: Option<&Handle>,
) -> Vec<Goal> {
    let mut goals = Vec::new();
    for Elements {
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
fn replay(
    turn: &ReplayTurn,
    devices: &Devices,
    entries: &BTreeMap<Version, Arc<Entry>>,
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
        if let Err(error) = take_over(goal) {
            tracing::warn!(array = %goal.array, %error, "cannot be brought back");
            outcome = outcome.and(Err(error));
        }
    }
    drop(under_way);
    let arrays = Journal::used_by(entries.values());
    let goals = goals.iter().map(|goal| &goal.array);
    arrays.iter().chain(goals).for_each(Handle::clear_stand_in);
    outcome
}

/// Runs an entry again, on what its arrays were.
fn run_again(devices: &Devices, entry: &Entry, preference: Preference) -> Result<()> {
    for Elements {
        array,
        range,
        version,
    } in entry.uses.reads()
    {
        let Some(array) = array.upgrade() else {
            continue;
        };
        let missing = array
            .residency()
            .load(&array.real_residency(), range, version)?;
        if !missing.is_empty() {
            return Err(gone(&array, missing.iter().collect()));
        }
    }
    let outline = entry.kernel.outline()?;
    let device = place(devices, entry, &outline, preference)?;
    let items = entry.items.clone().unwrap_or(0..outline.items);
    let plan = Plan::alone(device, items, devices.threads_of(device));
    catch_panic(entry.kernel.name(), || {
        let mut executor = Executor::again(devices, &plan);
        entry.kernel.replay(&mut Execution::through(&mut executor))
    })?;
    for Elements {
        array,
        range,
        version,
    } in entry.uses.writes()
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
    entry: &Entry,
    outline: &Outline,
    preference: Preference,
) -> Result<DeviceId> {
    let real = |(_, gpu): &(usize, Arc<_>)| {
        let gpu: &crate::device::gpu::Gpu = gpu;
        gpu.info().kind != DeviceKind::Software
    };
    if preference == Preference::Gpu
        && outline.has_gpu
        && let Some((index, _)) = devices.trusted().find(real)
    {
        return Ok(DeviceId::Gpu(index));
    }
    if outline.has_cpu {
        return Ok(DeviceId::Cpu);
    }
    if let Some((index, _)) = devices.trusted().next() {
        return Ok(DeviceId::Gpu(index));
    }
    devices.open_now(entry.gpu)?;
    Ok(DeviceId::Gpu(entry.gpu))
}

/// Lets an array have what was computed again, or what it keeps itself of a version.
fn take_over(goal: &Goal) -> Result<()> {
    let Goal { array, version, .. } = goal;
    let mut stand_in = array.residency();
    let mut real = array.real_residency();
    // Others may have written there meanwhile, and what they wrote stays.
    let wanted = if goal.back {
        real.changed(&goal.range, *version)
    } else {
        real.lost_in_version(&goal.range, *version)
    };
    for range in wanted.iter() {
        let missing = stand_in.load(&real, range.clone(), *version)?;
        if !missing.is_empty() {
            return Err(gone(array, missing.iter().collect()));
        }
        real.restore(&mut stand_in, range, *version)?;
    }
    real.drop_lost_extents();
    Ok(())
}

fn gone(array: &Handle, ranges: Vec<Range<usize>>) -> Error {
    Error::DataLost {
        array: array.to_string(),
        ranges,
        device: "a GPU".into(),
        reason: "what it was computed from is not known any more".into(),
    }
}
