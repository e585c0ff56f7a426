//! The numbers that tune this room, in one place, each with the reason for its value. Tests shrink them to force every
//! path.

use std::time::Duration;

/// What may be changed without changing any result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tuning {
    /// Dispatches after which what is recorded is submitted: enough to share a submission's cost, few enough that the GPU
    /// begins early.
    pub(super) dispatches_per_submission: u32,
    /// Predicted work after which what is recorded is submitted. Far longer than a submission costs, and short enough that
    /// the GPU does not idle while more is recorded.
    pub(super) work_per_submission: Duration,
    /// Submissions under way before recording waits for the oldest: the driver always has a next one, and what is in
    /// flight stays bounded.
    pub(super) submissions_in_flight: usize,
    /// A transfer that belongs to no call and is at least this large is not recorded together with calls while it is not
    /// known how long transfers take. A smaller one adds less to the calls' time than can be measured.
    pub(super) noticeable_copy_bytes: u64,

    /// The largest piece in which a transfer is staged: large enough to run at full speed, small enough that filling one
    /// piece overlaps with copying another.
    pub(super) largest_piece: u64,
    /// The smallest staging buffer: a page of the host.
    pub(super) smallest_piece: u64,
    /// The largest staging buffer that is kept for downloads when there is no room for others.
    pub(super) reserved_download_bytes: u64,
    /// Bytes of upload staging in use before recording submits and waits for some to come back: eight of the largest
    /// pieces.
    pub(super) upload_bytes: u64,
    /// Pieces of one download that are under way at once: one is copied by the host, one arrives, one waits its turn.
    pub(super) pieces_per_download: usize,

    /// Bytes that staging takes where there is plenty.
    pub(super) staging_bytes: u64,
    /// Bytes of the parameter arena where there is plenty: 256 uniform blocks, more than a submission has dispatches.
    pub(super) parameter_bytes: u64,
    /// Idle buffers are kept up to this many bytes in all: to create a buffer costs more than a small kernel, and wgpu
    /// clears it before its first use.
    pub(super) idle_bytes: u64,
    /// Bind groups that are kept. Beyond it all are dropped and made anew as they are used, which costs less than to
    /// track which was used last.
    pub(super) bind_groups: usize,
    /// Sets of timestamps that may be in use at once; a submission that finds none free goes without. Twice the
    /// submissions in flight, since a set comes back only after its submission is seen to be done.
    pub(super) stamp_sets: usize,
    /// Bytes of a GPU's memory that are left to the driver, the screen and other programs, if the driver tells how much
    /// memory there is: at least this, but never more than half of all.
    pub(super) reserved_memory: u64,

    /// Submissions that are waited for are timed by the GPU too until this many have shown the latency.
    pub(super) latency_samples: u32,
    /// A begin that is uncertain by no more than this share of the submission's time is known well enough.
    pub(super) uncertainty: f64,
    /// An estimate follows what is measured at this rate where it grows. Where it falls, it follows at once: a
    /// disturbance can only prolong things.
    pub(super) follow_rate: f64,
    /// Transfers that are no smaller tell the rate of transfers. Below it, the launch outweighs the copy.
    pub(super) telling_copy_bytes: u64,
    /// Lists of calls that are kept for reuse; more submissions are seldom under way.
    pub(super) spare_lists: usize,

    /// A wait first looks for what is done, unless a thread looked this short a time ago. To look costs about as long.
    pub(super) recent_look: Duration,
    /// A submission hangs that takes longer than this, if the user does not say otherwise, ...
    pub(super) hang_limit: Duration,
    /// ... and longer than this many times what it is predicted to take: predictions may be off by a factor of several.
    pub(super) hang_factor: u32,
    /// The longest wait to find out whether an error comes from a loss.
    pub(super) probe_limit: Duration,
    /// Pauses between looks for a loss: another thread may be told of it and be about to note it.
    pub(super) probe_pauses: [Duration; 3],

    /// How long a lost GPU is left alone at first; twice as long after each loss or failure that follows soon.
    pub(in crate::device) first_pause: Duration,
    /// The longest that a lost GPU is left alone: a driver that is reinstalled or a card that is reset takes about this.
    pub(in crate::device) longest_pause: Duration,
    /// A GPU is set aside once this many verifications in a row spoke against it: one or two may be the CPU's error.
    pub(in crate::device) most_mismatches: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            dispatches_per_submission: 200,
            work_per_submission: Duration::from_millis(20),
            submissions_in_flight: 4,
            noticeable_copy_bytes: 64 << 10,
            largest_piece: 8 << 20,
            smallest_piece: 4 << 10,
            reserved_download_bytes: 64 << 10,
            upload_bytes: 64 << 20,
            pieces_per_download: 3,
            staging_bytes: 256 << 20,
            parameter_bytes: 64 << 10,
            idle_bytes: 512 << 20,
            bind_groups: 512,
            stamp_sets: 8,
            reserved_memory: 256 << 20,
            latency_samples: 8,
            uncertainty: 0.1,
            follow_rate: 1.0 / 16.0,
            telling_copy_bytes: 64 << 10,
            spare_lists: 8,
            recent_look: Duration::from_micros(5),
            hang_limit: Duration::from_secs(120),
            hang_factor: 100,
            probe_limit: Duration::from_secs(10),
            probe_pauses: [
                Duration::from_micros(5),
                Duration::from_micros(100),
                Duration::from_millis(2),
            ],
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            most_mismatches: 3,
        }
    }
}
