//! The list of built-in kernels, with random arguments and a reference for each.
//!
//! Tests, benchmarks, the audit and the command line are stamped from this list. **Unstable**: it is public only for
//! them, and may change in any release.
//!
//! An entry states its kernel's arguments and reference. Everything else follows from the kernel itself: its arrays and
//! their cost from its launch spec, and the accepted error from its error bounds. The catalog knows runtimes and
//! kernels; neither knows the catalog.

/// The table of [`Entry::types`]: how to make a case of each element type.
macro_rules! types {
    ($T:ident: $($Type:ty),+ => $make:expr) => {
        &[$({
            type $T = $Type;
            (<$T as $crate::array::Element>::TYPE, $make)
        }),+]
    };
}

mod argument;
mod axpy;
mod case;
mod check;
mod dot;
mod entry;
mod extremum;
mod fill;
mod gemm;
mod gemv;
mod heat;
mod nbody;
mod random;
mod scan;
#[doc(hidden)]
pub mod shaders;
mod sum;
mod transform;
mod zip;

pub use argument::Generator;
pub use case::Case;
pub use check::Check;
pub use entry::{Entry, MakeCase, NewCase, Size};
pub use random::{POISON, Sample, random_f32};

use crate::error::Result;
use crate::kernel::{Exact, LaunchSpec};
use case::bind;
use entry::{LINEAR, product};

/// Every built-in kernel, in the order of listings.
pub const CATALOG: &[Entry] = &[
    axpy::ENTRY,
    transform::ENTRY,
    zip::ENTRY,
    fill::ENTRY,
    sum::ENTRY,
    dot::ENTRY,
    extremum::MIN,
    extremum::MAX,
    extremum::ARGMIN,
    extremum::ARGMAX,
    scan::EXCLUSIVE,
    scan::INCLUSIVE,
    gemm::ENTRY,
    gemv::ENTRY,
    nbody::ENTRY,
    heat::ENTRY,
];

/// The entry of the kernel named `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|entry| entry.name == name)
}

/// The launch spec of the kernel named `name` at size `n`, with its first element type; `None` if there is no such
/// kernel.
pub fn spec(name: &str, n: usize) -> Option<Result<LaunchSpec>> {
    find(name).map(|entry| entry.spec(n, entry.default_type()))
}
