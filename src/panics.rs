//! Contains panics of user code.

use crate::error::{Error, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Turns a panic of `task` into an error that names the kernel.
pub(crate) fn catch_panic(kernel: &str, task: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(task)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".into());
        discard(panic);
        Err(Error::Panicked {
            kernel: kernel.into(),
            message,
        })
    })
}

/// Drops a panic's payload, which may itself panic when it is dropped.
pub(crate) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // Its payload may panic again, and so on: leaks it.
        std::mem::forget(again);
    }
}
