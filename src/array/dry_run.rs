//! Dry runs: a thread runs a kernel only to compile its pipelines, while the caller uses the same arrays. The dry run must
//! not disturb the caller, so it may touch only the arrays that it creates itself.

use crate::error::Error;
use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static UNDER_WAY: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this thread has no access to the elements of arrays that were created before.
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

/// Whether this thread is in a dry run.
pub(super) fn is_under_way() -> bool {
    UNDER_WAY.get()
}

/// The error for an access to the caller's arrays.
pub(super) fn refusal() -> Error {
    Error::argument(
        "array access",
        "the caller's arrays cannot be read or written while a kernel is only compiled",
    )
}
