//! Shadows: recovery and verification run kernels on copies of elements, while other threads use the same arrays.
//!
//! On the thread of a [`ShadowScope`], every array that is older than the scope shows its *shadow*: a second residency that
//! starts with no elements. No other thread sees what kernels do there. Recovery moves results to the array itself with
//! [`Residency::restore`](super::Residency::restore). The process has at most one shadow scope at a time.

use super::residency::{Version, tick};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

thread_local! {
    static BEGAN: Cell<Option<Version>> = const { Cell::new(None) };
}

static TURN: Mutex<()> = Mutex::new(());

/// While it lives, this thread sees the shadows of all arrays that were created before.
#[derive(Debug)]
pub(crate) struct ShadowScope {
    /// It must end on the thread on which it began.
    _thread: PhantomData<*const ()>,
}

/// The right to open shadow scopes: one thread has it at a time.
#[derive(Debug)]
pub(crate) struct ShadowTurn(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl ShadowTurn {
    /// Waits until no other thread has the turn.
    pub(crate) fn take() -> Self {
        Self(TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens a scope on this thread.
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

/// Whether this thread is in a shadow scope.
pub(crate) fn is_under_way() -> bool {
    BEGAN.get().is_some()
}

/// Whether this thread sees the shadow of an array that was created at that moment.
pub(super) fn replaces(created: Version) -> bool {
    BEGAN.get().is_some_and(|began| created < began)
}
