//! A way to run a kernel, and one measurement of it.

use crate::device::{DeviceId, DeviceSet};
use crate::element::ElementType;

/// The identity under which the speed of a kernel is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KernelKey<'a> {
    /// The kernel's name.
    pub name: &'a str,
    /// The type of its elements: that of its first array.
    pub element_type: Option<ElementType>,
    /// A hash of its implementation: another implementation is learned separately.
    pub implementation: u64,
}

impl<'a> KernelKey<'a> {
    /// The key of a kernel with this name, no element type and no implementation hash.
    pub fn named(name: &'a str) -> Self {
        Self {
            name,
            element_type: None,
            implementation: 0,
        }
    }
}

/// A way to run a part of a kernel, whose speed is learned separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Variant {
    /// Where it runs.
    pub device: DeviceId,
    /// CPU threads that compute it; 1 on a GPU.
    pub threads: usize,
    /// The devices that compute other parts of the same call at the same time.
    pub beside: DeviceSet,
    /// Whether some of its input had to be moved to the device first.
    pub moved: bool,
}

impl Variant {
    /// A part that runs by itself on a device, with this many of its threads, of which nothing had to be moved.
    pub fn alone(device: DeviceId, threads: usize) -> Self {
        Self {
            device,
            threads,
            beside: DeviceSet::EMPTY,
            moved: false,
        }
    }
}

/// One measurement of a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How it was run.
    pub variant: Variant,
    /// Its size: log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// The prior's seconds from its start to its completion, without the wait for earlier work and without what the
    /// caller reads back afterwards.
    pub prior_seconds: f64,
    /// The measured seconds, likewise.
    pub seconds: f64,
}
