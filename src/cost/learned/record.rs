//! What was learned, as plain data that can be saved.

use super::variant::Variant;
use crate::cost::bounds::LARGEST_LOG_FACTOR;
use crate::device::DeviceId;
use crate::element::ElementType;
use serde::{Deserialize, Serialize};

/// What was learned about one variant of one kernel.
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
    /// The devices that computed other parts of the same calls at the same time.
    pub beside: Vec<DeviceId>,
    /// Whether some of its input had to be moved first.
    pub moved: bool,
    /// The measurements, by ascending size.
    pub classes: Vec<ClassRecord>,
}

/// The measurements of sizes within half an octave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClassRecord {
    /// The mean of the measured sizes; a size is log2 of the sum of operations, bytes and items.
    pub size: f64,
    /// The number of all measurements there ever were.
    pub samples: u64,
    /// Natural logarithms of measured seconds over the prior's: the recent ones without outliers, oldest first.
    pub recent: Vec<f64>,
}

impl Record {
    /// The variant that it is about.
    pub fn variant(&self) -> Variant {
        Variant {
            device: self.device,
            threads: self.threads,
            beside: self.beside.iter().copied().collect(),
            moved: self.moved,
        }
    }

    /// Whether all its figures are possible: sizes and factors are finite and of a magnitude that some machine has.
    pub fn is_sound(&self) -> bool {
        self.classes.iter().all(|class| {
            let sound = |factor: &f64| factor.abs() <= LARGEST_LOG_FACTOR;
            class.size.abs() <= Self::LARGEST_SIZE
                && !class.recent.is_empty()
                && class.recent.iter().all(sound)
        })
    }

    /// log2 of more work than any machine will do.
    const LARGEST_SIZE: f64 = 200.0;
}
