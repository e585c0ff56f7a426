//! What runs of kernels taught: for each kernel and each way to run it, by how much the prior is wrong, at which size,
//! and how sure that is.
//!
//! What is learned is a factor, measured seconds over the prior's, as its natural logarithm. Each [`Arm`] of a kernel
//! has a robust summary of recent ones for each class of sizes (half an octave, in `class`), and a Gaussian process
//! interpolates between classes (`process`).
//! [`Learner`] takes measurements in and keeps them; [`Experience`] is what a plan sees of it, an unchanging picture of
//! one kernel. No clock is read here, and nothing is decided.
//!
//! ```
//! use divvy::DeviceId;
//! use divvy::cost::learned::{Arm, Circumstances, DeviceSet, KernelKey, Learner, Sample};
//!
//! let learner = Learner::new();
//! let blur = KernelKey::named("blur");
//! let arm = Arm { device: DeviceId::Gpu(0), threads: 1, beside: DeviceSet::EMPTY, moved: false };
//! for _ in 0..10 {
//!     // A part of 2^24 operations and bytes took 3 ms, of which the roofline had promised 1.
//!     let sample = Sample { arm, size: 24.0, prior_seconds: 1e-3, seconds: 3e-3 };
//!     learner.observe(&blur, 24.0, [sample]);
//! }
//! let experience = learner.experience(&blur);
//! let alone = Circumstances { execution_share: 1.0, log_slowdown: 0.0 };
//! let there = experience.estimate(&arm, 24.0, &alone);
//! let far_off = experience.estimate(&arm, 12.0, &alone);
//! assert!((there.log_factor.exp() - 3.0).abs() < 0.1);
//! assert!(far_off.extrapolated && far_off.variance > there.variance);
//! ```

mod class;
mod experience;
mod process;
mod record;
mod store;

pub use experience::{Circumstances, Experience, Shares};
pub use process::Estimate;
pub use record::{ClassRecord, Record};
pub use store::{Allowance, Learner};

use crate::array::ElementType;
use crate::device::DeviceId;

/// The identity under which the speed of a kernel is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KernelKey<'a> {
    /// The kernel's name.
    pub name: &'a str,
    /// The type of its elements: that of its first array.
    pub element_type: Option<ElementType>,
    /// A hash of its implementation, so that what was learned of another is not believed.
    pub implementation: u64,
}

impl<'a> KernelKey<'a> {
    /// The key of a kernel of which only the name is known.
    pub fn named(name: &'a str) -> Self {
        Self {
            name,
            element_type: None,
            implementation: 0,
        }
    }
}

/// A set of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceSet(u64);

impl DeviceSet {
    /// No device.
    pub const EMPTY: Self = Self(0);

    fn bit(device: DeviceId) -> u64 {
        match device {
            DeviceId::Cpu => 1,
            // More GPUs than bits share the last one.
            DeviceId::Gpu(index) => 1 << index.saturating_add(1).min(63),
        }
    }

    /// The set with `device` in it.
    #[must_use]
    pub fn with(self, device: DeviceId) -> Self {
        Self(self.0 | Self::bit(device))
    }

    /// The set without `device`.
    #[must_use]
    pub fn without(self, device: DeviceId) -> Self {
        Self(self.0 & !Self::bit(device))
    }

    /// Whether `device` is in it.
    pub fn contains(self, device: DeviceId) -> bool {
        self.0 & Self::bit(device) != 0
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The devices in it.
    pub fn iter(self) -> impl Iterator<Item = DeviceId> {
        let gpus = (0..63).map(DeviceId::Gpu);
        std::iter::once(DeviceId::Cpu)
            .chain(gpus)
            .filter(move |device| self.contains(*device))
    }
}

impl FromIterator<DeviceId> for DeviceSet {
    fn from_iter<I: IntoIterator<Item = DeviceId>>(devices: I) -> Self {
        devices.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// A way to run a part of a kernel, of which the speed is learned by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Arm {
    /// Where it runs.
    pub device: DeviceId,
    /// CPU threads that compute it; 1 on a GPU.
    pub threads: usize,
    /// The devices that compute other parts of the same call meanwhile.
    pub beside: DeviceSet,
    /// Whether some of its input had to be moved to the device first.
    pub moved: bool,
}

/// One measurement of a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How it was run.
    pub arm: Arm,
    /// How large it was: log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// Seconds that the prior gives it, from its start to its completion, without waiting for earlier work and without
    /// what the caller reads back afterwards.
    pub prior_seconds: f64,
    /// Seconds that it took, likewise.
    pub seconds: f64,
}
