//! What was learned, as plain data that can be kept.

use super::variant::Variant;
use crate::device::DeviceId;
use crate::element::ElementType;
use serde::{Deserialize, Serialize};

/// What was learned of one arm of one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// The kernel's name.
    pub kernel: String,
    /// The type of its elements.
    pub element_type: Option<ElementType>,
    /// The hash of its implementation.
    pub implementation: u64,
    /// Where it ran.
    pub device: DeviceId,
    /// CPU threads that computed it; 1 on a GPU.
    pub threads: usize,
    /// The devices that computed other parts of the same calls meanwhile.
    pub beside: Vec<DeviceId>,
    /// Whether some of its input had to be moved first.
    pub moved: bool,
    /// What was measured, by ascending size.
    pub classes: Vec<ClassRecord>,
}

/// What was measured of sizes within half an octave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClassRecord {
    /// log2 of the sum of operations, bytes and items, the mean of those measured.
    pub size: f64,
    /// How many measurements there ever were.
    pub samples: u64,
    /// Natural logarithms of measured seconds over the prior's: the recent ones that are no outliers, oldest first.
    pub recent: Vec<f64>,
}

impl Record {
    /// The way to run the kernel that it is about.
    pub fn variant(&self) -> Variant {
        Variant {
            device: self.device,
            threads: self.threads,
            beside: self.beside.iter().copied().collect(),
            moved: self.moved,
        }
    }

    /// Whether all its figures can be true: sizes and factors finite and of a magnitude that some machine has.
    pub fn is_sound(&self) -> bool {
        self.classes.iter().all(|class| {
            let sound = |factor: &f64| factor.abs() <= Self::LARGEST_LOG_FACTOR;
            class.size.abs() <= Self::LARGEST_SIZE
                && !class.recent.is_empty()
                && class.recent.iter().all(sound)
        })
    }

    /// log2 of more work than any machine will do.
    const LARGEST_SIZE: f64 = 200.0;
    /// The logarithm of a factor of about 10^13.
    const LARGEST_LOG_FACTOR: f64 = 30.0;
}
