//! Snapshots: what only GPUs hold is brought to the host in the background, so that it need not be computed again from
//! further back.
//!
//! It is first copied on the GPUs, in the order of their queues, so that all of it is of one moment and the calls that follow
//! may change it; a thread then downloads the copies, and hands them to the arrays as images. Where a GPU has no room for
//! copies, the elements themselves are brought to the host at once.

use super::journal::Journal;
use crate::array::{DeviceCopy, Version, WeakHandle};
use crate::error::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The snapshot that is being taken.
#[derive(Default)]
pub(super) struct Snapshots {
    is_under_way: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Snapshots {
    /// Whether one is being taken.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way.load(Ordering::Acquire)
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the one that is being taken.
    pub(super) fn wait(&self) {
        let thread = self.thread().take();
        // The last who knows the journal may be the thread itself.
        let own = std::thread::current().id();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != own) {
            // A panic would leave things as they were.
            let _ = thread.join();
        }
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.wait();
    }
}

/// A copy of what an array was in a version.
struct Copy {
    array: WeakHandle,
    version: Version,
    elements: DeviceCopy,
}

/// Begins a snapshot, unless one is being taken.
pub(super) fn take(journal: &Arc<Journal>) {
    let snapshots = &journal.snapshots;
    if snapshots.is_under_way.swap(true, Ordering::AcqRel) {
        return;
    }
    let copies = copies(journal);
    let weak = Arc::downgrade(journal);
    let download = move || {
        let saved = copies.into_iter().try_for_each(save);
        if let Err(error) = saved {
            tracing::warn!(%error, "a snapshot could not be completed");
        }
        if let Some(journal) = weak.upgrade() {
            journal.prune();
            journal
                .snapshots
                .is_under_way
                .store(false, Ordering::Release);
        }
    };
    snapshots.wait();
    let named = std::thread::Builder::new().name("divvy snapshot".into());
    match named.spawn(download) {
        Ok(thread) => *snapshots.thread() = Some(thread),
        Err(error) => {
            tracing::warn!(%error, "no thread to take a snapshot");
            snapshots.is_under_way.store(false, Ordering::Release);
        }
    }
}

/// Copies of what only GPUs hold and no image saves. What there is no room for is brought to the host.
fn copies(journal: &Journal) -> Vec<Copy> {
    let mut copies = Vec::new();
    for array in Journal::written_by(journal.entries().values()) {
        if !array.is_owned() {
            continue;
        }
        let residency = array.real_residency();
        let unsaved = residency.only_on_gpus().into_iter();
        let unsaved: Vec<_> = unsaved
            .filter(|(range, version)| !residency.missing(range.clone(), *version).is_empty())
            .collect();
        let mut full = Vec::new();
        for (range, version) in unsaved {
            match residency.copies_on_devices(&range) {
                Ok(made) => copies.extend(made.into_iter().map(|elements| Copy {
                    array: array.downgrade(),
                    version,
                    elements,
                })),
                Err(_) => full.push(range),
            }
        }
        drop(residency);
        for range in full {
            if let Err(error) = array.fetch_range(range) {
                tracing::warn!(%error, "what only a GPU holds could not be saved");
            }
        }
    }
    copies
}

fn save(copy: Copy) -> Result<()> {
    let bytes = copy.elements.download()?;
    if let Some(array) = copy.array.upgrade() {
        let mut residency = array.real_residency();
        residency.add_image(copy.elements.range.clone(), copy.version, bytes);
    }
    Ok(())
}
