//! The numbers that tune this room, in one place, each with the reason for its value. How much a calibration measures is
//! a table of its own, in `calibrate/effort.rs`.

use std::time::Duration;

/// The numbers in use.
pub(super) const PARAMS: Params = Params {
    class: ClassParams {
        ring: 32,
        judged: 5,
        few: 8,
        few_spread: 0.3,
        new_truth: 5,
        outlier: 5.0,
        least_deviation: 0.02,
        first_deviation: 0.4,
        likely: 0.5,
        largest_shift: 1.4,
    },
    process: ProcessParams {
        range: 8.0,
        same: 0.26,
        sure_variance: 0.01,
        suspicious: 1.6,
        suspect_variance: 1.0,
    },
    model: ModelParams {
        unknown_variance: 0.5,
        sibling_variance: 0.03,
        moved_variance: 0.25,
        beside_octaves: 0.5,
        beside_samples: 5,
        variance_per_call: 2e-3,
        largest_age_variance: 0.25,
        split_weight: 0.2,
        largest_split_step: 0.3,
        clearly_faster: 0.05,
    },
    learner: LearnerParams {
        exploring_share: 0.03,
        stale_calls: 40,
        kept_of_stale: 2,
        doubt_range: 8.0,
        most_kernels: 4096,
    },
    calibration: CalibrationParams {
        first_wait: Duration::from_millis(220),
        saving_interval: Duration::from_secs(60),
        least_kept_bytes: 64 << 20,
        least_share: 0.25,
        fastest_link: 1e13,
        pieces_per_thread: 8,
        undisturbed_seconds: 6e-3,
        undisturbed_share: 0.8,
        asleep_seconds: 5e-4,
        settling_seconds: 1e-3,
        most_settling_rounds: 30,
        settled_share: 0.8,
        most_bandwidth_bytes: 1e8,
        queued_dispatches: 50,
        most_gpu_rounds: 1 << 14,
        corun_units: 8.0,
        most_corun_units: 1000,
    },
    profile: ProfileParams {
        busy_holds: Duration::from_secs(60),
        agreeing_factor: 1.5,
        most_devices: 256,
        most_entries: 1 << 14,
        most_sizes: 512,
        most_recent: 64,
        kept_recent: 8,
        longest_name: 1 << 10,
        implementations: 4,
        most_bytes: 16 << 20,
        most_problems: 20,
        lock_patience: Duration::from_secs(2),
        lock_interval: Duration::from_millis(2),
    },
};

/// What may be changed without changing any result of a kernel.
pub(super) struct Params {
    pub(super) class: ClassParams,
    pub(super) process: ProcessParams,
    pub(super) model: ModelParams,
    pub(super) learner: LearnerParams,
    pub(super) calibration: CalibrationParams,
    pub(super) profile: ProfileParams,
}

/// How the measurements of one class of sizes are summed up.
pub(super) struct ClassParams {
    /// Recent measurements that count.
    pub(super) ring: usize,
    /// Measurements that must exist before a further one can be an outlier.
    pub(super) judged: usize,
    /// With fewer measurements than this, most of them may have been disturbed.
    pub(super) few: usize,
    /// The share of the measurements' spread that the deviation of fewer than `judged` is at least.
    pub(super) few_spread: f32,
    /// Outliers in a row that are a new truth.
    pub(super) new_truth: usize,
    /// Median absolute deviations from the median beyond which a measurement is an outlier.
    pub(super) outlier: f32,
    /// The least deviation that is believed: a lucky streak of equal times says little.
    pub(super) least_deviation: f32,
    /// The deviation of the first measurement of a class, which may well be a cold one. More measurements soon tell more.
    pub(super) first_deviation: f32,
    /// How likely it is that a device that changed at one size did so at another.
    pub(super) likely: f32,
    /// The largest log factor by which a device is expected to have changed at sizes where that was not measured.
    pub(super) largest_shift: f32,
}

/// How sizes inform each other.
pub(super) struct ProcessParams {
    /// Octaves over which sizes forget each other.
    pub(super) range: f64,
    /// A size at most this many octaves from a measured one counts as that one: classes are half an octave wide.
    pub(super) same: f64,
    /// Below this variance a measured size needs no help from another one.
    pub(super) sure_variance: f64,
    /// A lone measurement this far above the expected log factor is likelier a spike than the truth.
    pub(super) suspicious: f64,
    /// The variance of such a measurement.
    pub(super) suspect_variance: f64,
}

/// How a plan estimates the time of a kernel.
pub(super) struct ModelParams {
    /// The variance of an unmeasured log factor: most kernels are within a factor of two of the roofline.
    pub(super) unknown_variance: f64,
    /// The variance that is added when one variant is judged by another of the same device.
    pub(super) sibling_variance: f64,
    /// The variance that is added when a resident run and one that only moves data are judged by each other.
    pub(super) moved_variance: f64,
    /// Octaves within which a run beside other devices informs about one alone.
    pub(super) beside_octaves: f64,
    /// Recent measurements that such a run needs.
    pub(super) beside_samples: u8,
    /// The variance that each call of the size adds that ran another way since the last measurement: devices change.
    pub(super) variance_per_call: f64,
    /// The most that those calls add.
    pub(super) largest_age_variance: f64,
    /// The weight of the latest call in the smoothed time of a split: a single call may have been disturbed.
    pub(super) split_weight: f64,
    /// The largest change of the time's logarithm that counts for one call.
    pub(super) largest_split_step: f64,
    /// The logarithm by which a split that was tried must be faster to replace the chosen one.
    pub(super) clearly_faster: f64,
}

/// How measurements are recorded, and how much exploring may cost.
pub(super) struct LearnerParams {
    /// The share of time that exploring may take.
    pub(super) exploring_share: f64,
    /// Calls of a size that ran another way, after which the measurements of a variant may no longer hold.
    pub(super) stale_calls: u32,
    /// Stale measurements that still count beside the next one.
    pub(super) kept_of_stale: usize,
    /// Octaves over which a change at one size says less and less about another size.
    pub(super) doubt_range: f32,
    /// The most kernels that are remembered: a program may generate new ones without end.
    pub(super) most_kernels: usize,
}

/// How a machine is measured.
pub(super) struct CalibrationParams {
    /// How long the first call waits for measurements.
    pub(super) first_wait: Duration,
    /// How often the profile is saved.
    pub(super) saving_interval: Duration,
    /// The figures of a GPU that may bind or allocate less than this are not saved: such a runtime is one for tests.
    pub(super) least_kept_bytes: u64,
    /// The share of a sample that at least remains when its launch is subtracted, however noisy both are.
    pub(super) least_share: f64,
    /// Bytes per second that no transfer reaches.
    pub(super) fastest_link: f64,
    /// Pieces for each CPU thread: if one thread is held up, work is left for the others, as in a real call.
    pub(super) pieces_per_thread: usize,
    /// Seconds of the test for other processes: long enough to meet their turns, which take milliseconds.
    pub(super) undisturbed_seconds: f64,
    /// The share of the cores that the pool gets on an undisturbed machine.
    pub(super) undisturbed_share: f64,
    /// Seconds after which the pool's idle threads sleep.
    pub(super) asleep_seconds: f64,
    /// Seconds of work with which the threads spread over the cores, in each round.
    pub(super) settling_seconds: f64,
    /// The most such rounds.
    pub(super) most_settling_rounds: usize,
    /// The share of the possible speed-up at which the threads have spread.
    pub(super) settled_share: f64,
    /// The most bytes that one sample of the CPU's bandwidth passes over, even if the clock says that it took no time.
    pub(super) most_bandwidth_bytes: f64,
    /// Dispatches that are queued to time a further one.
    pub(super) queued_dispatches: usize,
    /// The most rounds of arithmetic in one dispatch.
    pub(super) most_gpu_rounds: u32,
    /// Units of work in a co-run window: enough that the last one, which may run alone, hardly counts.
    pub(super) corun_units: f64,
    /// The most units in a co-run window, even if the clock does not move.
    pub(super) most_corun_units: usize,
}

/// The limits of the profile, and of the wait for its lock.
pub(super) struct ProfileParams {
    /// How long the figures of a busy machine hold before they are worth another try.
    pub(super) busy_holds: Duration,
    /// Figures that differ by less than this factor are of the same machine: what was learned on top still holds.
    pub(super) agreeing_factor: f64,
    /// More devices than one file will be about.
    pub(super) most_devices: usize,
    /// The most entries about kernels: beyond it, the oldest of those with the fewest samples go.
    pub(super) most_entries: usize,
    /// More sizes than any kernel is run at.
    pub(super) most_sizes: usize,
    /// Measurements of a size that are read.
    pub(super) most_recent: usize,
    /// Measurements of a size that are written: the latest. More would make the file long and slow to load, and what
    /// follows from them little surer.
    pub(super) kept_recent: usize,
    /// More bytes than a kernel's name should have.
    pub(super) longest_name: usize,
    /// Implementations of one kernel that are remembered: two programs may have kernels of the same name.
    pub(super) implementations: usize,
    /// A larger file is no profile.
    pub(super) most_bytes: u64,
    /// The most entries of a list whose problems are listed one by one.
    pub(super) most_problems: usize,
    /// How long a process waits for the lock. Nothing holds it this long, unless it was stopped.
    pub(super) lock_patience: Duration,
    /// The pause between two attempts to take the lock.
    pub(super) lock_interval: Duration,
}
