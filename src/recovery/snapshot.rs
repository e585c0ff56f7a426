//! Snapshots: elements that only GPUs hold are saved on the host in the background, so that recovery starts from there.
//!
//! The GPUs first copy the elements within their own memory, in the order of their queues. So the copies are of one moment,
//! and later calls may change the elements. A thread then downloads the copies and adds them to the arrays as images. If a
//! GPU has no room for a copy, the caller's thread downloads the elements themselves.

use super::journal::Journal;
use crate::array::{DeviceCopy, Segment, Version, WeakHandle};
use crate::error::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The running snapshot, if there is one.
#[derive(Default)]
pub(super) struct Snapshots {
    is_under_way: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Snapshots {
    /// Whether a snapshot is running.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way.load(Ordering::Acquire)
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the running snapshot.
    pub(super) fn wait(&self) {
        let thread = self.thread().take();
        // The snapshot's own thread may hold the last reference to the journal.
        let own = std::thread::current().id();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != own) {
            // A panic in it saves less, and changes nothing else.
            let _ = thread.join();
        }
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.wait();
    }
}

/// A copy of elements of an array in one version.
struct Copy {
    array: WeakHandle,
    version: Version,
    elements: DeviceCopy,
}

/// Begins a snapshot, unless one is running.
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

/// Copies of the elements that only GPUs hold and no image saves. Elements without room for a copy go to the host.
fn copies(journal: &Journal) -> Vec<Copy> {
    let mut copies = Vec::new();
    for array in Journal::written_by(journal.entries().values()) {
        if !array.is_owned() {
            continue;
        }
        let residency = array.real_residency();
        let unsaved = residency.only_on_gpus().into_iter();
        let is_unsaved = |segment: &Segment| {
            let missing = residency.missing(segment.range.clone(), segment.version);
            !missing.is_empty()
        };
        let unsaved: Vec<_> = unsaved.filter(is_unsaved).collect();
        let mut full = Vec::new();
        for Segment { range, version } in unsaved {
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
                tracing::warn!(%error, "elements that only a GPU holds could not be saved");
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
