//! Why a device cannot, or may not, run a call, and how a part streams through a memory that is too small for it.

use crate::units;
use std::fmt;
use std::sync::Arc;

/// How a part streams through a memory that is too small for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streaming {
    /// The number of tiles.
    pub tiles: u64,
    /// Bytes of its arrays.
    pub bytes: u64,
    /// The memory for arrays, in bytes.
    pub memory: u64,
}

impl fmt::Display for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of arrays do not fit its {}: they go through it in {} pieces, and results make way for what follows",
            units::bytes(self.bytes),
            units::bytes(self.memory),
            self.tiles
        )
    }
}

/// Why a device cannot, or may not, run a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RuledOut {
    NoImplementation,
    /// The device is broken, or has just failed to run this call.
    Unusable(Arc<str>),
    Binding {
        array: usize,
        bytes: u64,
        limit: u64,
    },
    Buffer {
        array: usize,
        bytes: u64,
        limit: u64,
    },
    Memory {
        bytes: u64,
        limit: u64,
    },
    SmallestTile {
        bytes: u64,
        limit: u64,
    },
    Arrays {
        count: usize,
        limit: u32,
    },
    Uniform {
        bytes: u64,
        limit: u64,
    },
    Software,
    Compiling,
}

impl fmt::Display for RuledOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImplementation => f.write_str("the kernel has no implementation for it"),
            Self::Unusable(reason) => f.write_str(reason),
            Self::Binding { array, bytes, limit } => write!(
                f,
                "array {array} must be bound in pieces of at least {bytes} bytes; the adapter binds at most {limit}"
            ),
            Self::Buffer { array, bytes, limit } => write!(
                f,
                "array {array} needs one buffer of {bytes} bytes; the adapter allows at most {limit}"
            ),
            Self::Memory { bytes, limit } => {
                write!(f, "the arrays need {bytes} bytes; it has {limit}")
            }
            Self::SmallestTile { bytes, limit } => write!(
                f,
                "the least piece needs {bytes} bytes at a time; it has {limit} for arrays"
            ),
            Self::Arrays { count, limit } => write!(
                f,
                "the kernel binds {count} arrays at a time; the adapter binds at most {limit}"
            ),
            Self::Uniform { bytes, limit } => write!(
                f,
                "the kernel has a uniform of {bytes} bytes; it takes at most {limit}"
            ),
            Self::Software => f.write_str(
                "a software adapter computes on the CPU's cores, and is not known to be faster than they are",
            ),
            Self::Compiling => f.write_str(
                "its pipelines for the kernel are not compiled yet; the CPU runs it meanwhile",
            ),
        }
    }
}
