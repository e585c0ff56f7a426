//! Rehearsals: a thread goes through a kernel only to find out which pipelines it needs, while the caller goes on with
//! the same arrays. It must not get in the caller's way, so that it can touch only arrays that it made itself.

use crate::error::Error;
use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static UNDER_WAY: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this thread has no access to the elements of arrays that were made before.
#[derive(Debug)]
pub(crate) struct DryRun {
    /// It must end on the thread on which it began.
    _thread: PhantomData<*const ()>,
}

impl DryRun {
    pub(crate) fn begin() -> Self {
        UNDER_WAY.set(true);
        Self {
            _thread: PhantomData,
        }
    }
}

impl Drop for DryRun {
    fn drop(&mut self) {
        UNDER_WAY.set(false);
    }
}

/// Whether this thread is rehearsing.
pub(super) fn is_under_way() -> bool {
    UNDER_WAY.get()
}

/// What an access that it must not make gets.
pub(super) fn refusal() -> Error {
    Error::argument(
        "array access",
        "the caller's arrays are not to be read or written while a kernel is only compiled",
    )
}
