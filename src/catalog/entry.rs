//! What the catalog states about a kernel.

use super::argument::Generator;
use super::case::Case;
use crate::array::HostBuffer;
use crate::element::ElementType;
use crate::error::{Error, Result};
use crate::kernel::LaunchSpec;

/// A built-in kernel as the catalog knows it.
#[derive(Debug)]
pub struct Entry {
    /// Its name in reports and on the command line.
    pub name: &'static str,
    /// One line on what it computes.
    pub about: &'static str,
    /// What `n` counts.
    pub size: Size,
    /// Its element types, the first of which is the default, and how to make a case of each.
    pub types: &'static [(ElementType, MakeCase)],
    /// Whether its result is bitwise the same on every device and for every split.
    pub bitwise: bool,
    /// Sizes that benchmarks use, ascending.
    pub bench_sizes: &'static [usize],
    /// Sizes at which choices are audited, ascending: from where launching dominates to where computing does. They are
    /// smaller than those of benchmarks, since the audit runs each in every way, also on slow adapters.
    pub audit_sizes: &'static [usize],
}

/// Binds a kernel to arguments of size `n`.
pub type MakeCase = fn(n: usize, draw: &mut Generator) -> NewCase;

/// A case, or the error of making its arguments.
pub type NewCase = Result<Box<dyn Case>>;

/// The common defaults of kernels whose time grows in proportion to `n`.
pub(super) const LINEAR: Entry = Entry {
    name: "",
    about: "",
    size: Size::Items,
    types: &[],
    bitwise: true,
    bench_sizes: &[1 << 10, 1 << 16, 1 << 20, 1 << 24],
    audit_sizes: &[1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 22],
};

impl Entry {
    /// Its element types.
    pub fn element_types(&self) -> impl Iterator<Item = ElementType> + use<> {
        self.types.iter().map(|(ty, _)| *ty)
    }

    /// The element type that is used by default.
    pub fn default_type(&self) -> ElementType {
        self.types[0].0
    }

    /// The launch spec of the kernel at size `n`, over arrays that take no memory, for planning without running.
    ///
    /// # Errors
    /// [`Error::Argument`] for an element type that it lacks; [`Error::TooLarge`] for the size.
    pub fn spec(&self, n: usize, ty: ElementType) -> Result<LaunchSpec> {
        let case = self.make(ty)?(n, &mut Generator::new(0, false))?;
        Ok(case.spec().clone())
    }

    /// Binds the kernel to random arguments of size `n`, drawn from `seed`, after checking that the host can hold them.
    ///
    /// # Errors
    /// As [`Entry::spec`], and [`Error::HostMemory`].
    pub fn bind(&self, n: usize, ty: ElementType, seed: u64) -> Result<Box<dyn Case>> {
        let make = self.make(ty)?;
        let shapes = make(n, &mut Generator::new(seed, false))?;
        // A case keeps a copy of its drawn elements. Memory that is released untouched costs next to nothing.
        HostBuffer::zeroed(shapes.spec().footprint().saturating_mul(2))?;
        make(n, &mut Generator::new(seed, true))
    }

    fn make(&self, ty: ElementType) -> Result<MakeCase> {
        let found = self.types.iter().find(|(of, _)| *of == ty);
        found.map(|(_, make)| *make).ok_or_else(|| {
            let names: Vec<_> = self.element_types().map(ElementType::name).collect();
            let problem = format!("there is none for {ty}, only for {}", names.join(", "));
            Error::argument(self.name, problem)
        })
    }
}

/// What the size `n` of a kernel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Elements of a one-dimensional array.
    Items,
    /// The side of a square matrix or grid.
    Side,
    /// Bodies of an all-pairs computation.
    Bodies,
}

/// `a * b` elements.
pub(super) fn product(kernel: &str, a: usize, b: usize) -> Result<usize> {
    a.checked_mul(b).ok_or_else(|| Error::TooLarge {
        what: format!("{kernel}: an array"),
        given: format!("{a} times {b} elements"),
        limit: format!("{} elements", usize::MAX),
    })
}
