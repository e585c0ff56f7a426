//! Replays: a thread runs calls again that were run before, on arrays as they were then, while others go on with the
//! same arrays as they are now.
//!
//! On that thread, every array that is older than the replay is replaced by its *stand-in*, another residency with no
//! elements at first. Nothing that the calls do there is seen by anybody else, until what they computed is taken over
//! with [`Residency::restore`](super::Residency::restore). One replay at a time in the process.

use super::residency::{Version, tick};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

thread_local! {
    static BEGAN: Cell<Option<Version>> = const { Cell::new(None) };
}

static TURN: Mutex<()> = Mutex::new(());

/// While it lives, this thread sees stand-ins of all arrays that were made before.
#[derive(Debug)]
pub(crate) struct ShadowScope {
    /// It must end on the thread on which it began.
    _thread: PhantomData<*const ()>,
}

/// The right to replay: one at a time.
#[derive(Debug)]
pub(crate) struct ShadowTurn(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl ShadowTurn {
    /// Waits until nobody else replays.
    pub(crate) fn take() -> Self {
        Self(TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a replay on this thread.
    pub(crate) fn begin(&self) -> ShadowScope {
        BEGAN.set(Some(tick()));
        ShadowScope {
            _thread: PhantomData,
        }
    }
}

impl Drop for ShadowScope {
    fn drop(&mut self) {
        BEGAN.set(None);
    }
}

/// Whether this thread is replaying.
pub(crate) fn is_under_way() -> bool {
    BEGAN.get().is_some()
}

/// Whether this thread sees the stand-in of an array that was made at that moment.
pub(super) fn replaces(created: Version) -> bool {
    BEGAN.get().is_some_and(|began| created < began)
}
