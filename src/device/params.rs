//! The numbers that tune the CPU device, in one place, each with the reason for its value. Those of GPUs are in
//! `gpu/tuning.rs`.

use std::time::Duration;

/// Values that change speed and no result.
pub(super) struct Params {
    /// Ranges handed out per thread: enough that a delayed thread leaves work for the others.
    pub(super) ranges_per_thread: usize,
    /// Checks of whether the helpers are done, before the caller goes to sleep.
    pub(super) spins: u32,
    /// How long a helper stands by: a few times as long as waking it takes (15 to 22 µs).
    pub(super) standby: Duration,
    /// Checks for a region by a helper on standby, for each reading of the clock.
    pub(super) polls_per_clock_read: u32,
}

pub(super) const PARAMS: Params = Params {
    ranges_per_thread: 8,
    spins: 2_000,
    standby: Duration::from_micros(60),
    polls_per_clock_read: 64,
};
