//! Support for tests of scarce memory.

use std::sync::mpsc;
use std::time::Duration;

/// Runs a test, and ends the process if the test takes so long that it must hang.
pub fn watched(what: &'static str, test: impl FnOnce()) {
    const FAR_TOO_LONG: Duration = Duration::from_secs(900);
    let (done, wait) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if wait.recv_timeout(FAR_TOO_LONG) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{what}: no end after {FAR_TOO_LONG:?}");
            std::process::abort();
        }
    });
    test();
    drop(done);
}
