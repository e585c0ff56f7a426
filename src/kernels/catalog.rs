//! The list of built-in kernels, and what each must offer besides running: random arguments, an f64 reference
//! and a tolerance. Tests, benchmarks and the command line are stamped from this list, so that a new kernel is its
//! file, its shader, one line here and its name in `kernels`.

use crate::array::{Array, Element, ElementType, Handle};
use crate::dispatch::{Explanation, Placement, Plan, Report};
use crate::error::{Error, Result};
use crate::kernel::{Call, Kernel, LaunchSpec, Work};
use crate::runtime::Runtime;

/// Every built-in kernel, in the order in which they are listed to users.
pub const CATALOG: &[Entry] = &[
    super::axpy::ENTRY,
    super::transform::ENTRY,
    super::zip::ENTRY,
    super::fill::ENTRY,
    super::sum::ENTRY,
    super::dot::ENTRY,
    super::extremum::MIN,
    super::extremum::MAX,
    super::extremum::ARGMIN,
    super::extremum::ARGMAX,
    super::scan::EXCLUSIVE,
    super::scan::INCLUSIVE,
    super::gemm::ENTRY,
    super::gemv::ENTRY,
    super::nbody::ENTRY,
    super::heat::ENTRY,
];

/// [`Entry::audit_sizes`] of kernels whose time grows in proportion to `n`.
pub const LINEAR_AUDIT_SIZES: &[usize] = &[1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 22];

/// The entry of the kernel named `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|entry| entry.name == name)
}

/// The outline of the kernel named `name` at size `n`, of its first element type, or `None` if there is no such kernel.
pub fn spec(name: &str, n: usize) -> Option<Result<LaunchSpec>> {
    find(name).map(|entry| (entry.spec)(n, entry.dtypes[0]))
}

/// A built-in kernel as the catalog knows it.
#[derive(Debug)]
pub struct Entry {
    /// Its name in reports and on the command line.
    pub name: &'static str,
    /// One line on what it computes.
    pub about: &'static str,
    /// What `n` counts.
    pub size: Size,
    /// The element types it has; the first is the default.
    pub dtypes: &'static [ElementType],
    /// Whether its result is bitwise the same wherever and however split it ran.
    pub bitwise: bool,
    /// Sizes that benchmarks use, ascending.
    pub bench_sizes: &'static [usize],
    /// Sizes at which choices are audited, ascending: from where launching is all that counts to where computing is.
    /// Smaller than those of benchmarks, since each is run in every way, also on adapters that are slow.
    pub audit_sizes: &'static [usize],
    /// The outline of the kernel at size `n`, over arrays that take no memory: for planning without running.
    pub spec: fn(n: usize, dtype: ElementType) -> Result<LaunchSpec>,
    /// Binds the kernel to random arguments of size `n`, drawn from `seed`.
    pub case: fn(n: usize, dtype: ElementType, seed: u64) -> Result<Box<dyn Case>>,
}

impl Entry {
    /// Whether time grows in proportion to `n`, so that tests may use large ones.
    pub fn is_linear(&self) -> bool {
        self.size == Size::Items
    }

    /// Binds the kernel to random arguments, after making sure that it has the element type and that the host could
    /// hold arguments of that size. What [`Entry::case`] does with sizes that it cannot hold is unspecified.
    ///
    /// # Errors
    /// [`Error::Argument`] for another element type, [`Error::TooLarge`] and [`Error::HostMemory`] for the size.
    pub fn bind(&self, n: usize, dtype: ElementType, seed: u64) -> Result<Box<dyn Case>> {
        if !self.dtypes.contains(&dtype) {
            let names: Vec<_> = self.dtypes.iter().map(|dtype| dtype.name()).collect();
            let problem = format!("there is none for {dtype}, only for {}", names.join(", "));
            return Err(Error::argument(self.name, problem));
        }
        self.check_size(n, dtype)?;
        (self.case)(n, dtype, seed)
    }

    /// Refuses sizes whose arguments the host cannot hold, going by the arguments of a small case.
    fn check_size(&self, n: usize, dtype: ElementType) -> Result<()> {
        const SAMPLE: usize = 64;
        if n <= SAMPLE {
            return Ok(());
        }
        let elements = |n: usize| match self.size {
            Size::Items | Size::Bodies => n as u128,
            Size::Side => n as u128 * n as u128,
        };
        // A case keeps a copy of what it drew, to reset its arrays.
        let kept = 2 * (self.case)(SAMPLE, dtype, 0)?.footprint() as u128;
        let most = isize::MAX as u128 * elements(SAMPLE) / kept.max(1);
        if elements(n) > most {
            let limit = match self.size {
                Size::Items | Size::Bodies => most,
                Size::Side => most.isqrt(),
            };
            return Err(Error::TooLarge {
                what: format!("{}: n", self.name),
                given: n.to_string(),
                limit: limit.to_string(),
            });
        }
        let words = (elements(n) * kept / elements(SAMPLE)).div_ceil(4) as usize;
        // Allocated and given back untouched: that costs next to nothing.
        Array::<u32>::uninit(words)?.handle().fetch()
    }
}

/// The outline of a call, for [`Entry::spec`].
pub(super) fn spec_of<K: Kernel>(call: &Call<'_, K>) -> Result<LaunchSpec> {
    call.kernel.spec()
}

/// `n * n`, for kernels whose size is a side.
pub(super) fn squared(kernel: &str, n: usize) -> Result<usize> {
    n.checked_mul(n).ok_or_else(|| Error::TooLarge {
        what: format!("{kernel}: a square"),
        given: format!("{n} rows of {n}"),
        limit: format!("{} elements", usize::MAX),
    })
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

/// A kernel bound to random arguments, with the reference to check it by.
pub trait Case: Send {
    /// Puts inputs back to what they were drawn as and poisons outputs, so that an element that is not written is
    /// seen. Afterwards every array is valid on the host only.
    fn reset(&mut self) -> Result<()>;

    /// Runs the kernel once. A returned value is kept for [`Case::check`].
    fn run(&mut self, rt: &Runtime, placement: Placement) -> Result<Report>;

    /// What `run` with this placement would do, and why.
    fn explain(&mut self, rt: &Runtime, placement: Placement) -> Result<Explanation>;

    /// What `run` with this placement would do, without the reasons: what deciding costs a call.
    fn plan(&mut self, rt: &Runtime, placement: Placement) -> Result<Plan>;

    /// The arrays the kernel reads, and those it writes (an array may be in both).
    fn arrays(&self) -> (Vec<Handle>, Vec<Handle>);

    /// What one run costs in the abstract.
    fn work(&self) -> Work;

    /// Compares the last run's results with the f64 reference. Only meaningful after `reset` and one `run`.
    fn check(&mut self) -> Result<Check>;

    /// The bits of the last run's results, for comparisons between placements.
    fn bits(&mut self) -> Result<Vec<u32>>;
}

impl dyn Case + '_ {
    /// The distinct arrays of the kernel.
    pub fn distinct_arrays(&self) -> Vec<Handle> {
        let (read, written) = self.arrays();
        let mut distinct: Vec<Handle> = Vec::new();
        for array in read.into_iter().chain(written) {
            if !distinct.iter().any(|other| other.same_array(&array)) {
                distinct.push(array);
            }
        }
        distinct
    }

    /// Bytes of the kernel's arrays, each counted once.
    pub fn footprint(&self) -> usize {
        self.distinct_arrays().iter().map(Handle::bytes).sum()
    }
}

/// How far a result is from its reference.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Check {
    /// The largest error found, in units in which `tolerance` is the most that is accepted.
    pub max_error: f64,
    /// The largest error accepted.
    pub tolerance: f64,
    /// Whether every element is within tolerance. A NaN never is.
    pub ok: bool,
}

impl Check {
    /// Compares element by element: `|got - want|` may be at most `bound(i)`. The error is given as a share of the
    /// bound, so that the tolerance is 1. Two NaNs agree, and so do equal infinities.
    pub fn elementwise(
        got: &[f32],
        want: impl IntoIterator<Item = f64>,
        bound: impl Fn(usize) -> f64,
    ) -> Self {
        let mut worst = 0.0f64;
        let mut count = 0;
        for (i, (got, want)) in got.iter().map(|g| f64::from(*g)).zip(want).enumerate() {
            count += 1;
            if got == want || (got.is_nan() && want.is_nan()) {
                continue;
            }
            let error = (got - want).abs() / bound(i).max(f64::from(f32::MIN_POSITIVE));
            // A NaN must not be lost in `max`.
            worst = if error.is_nan() {
                f64::INFINITY
            } else {
                worst.max(error)
            };
        }
        let complete = count == got.len();
        Self {
            max_error: worst,
            tolerance: 1.0,
            ok: complete && worst <= 1.0,
        }
    }

    /// Compares bit by bit; the error is the share of elements that differ.
    pub fn exact(got: &[u32], want: &[u32]) -> Self {
        let differ =
            got.iter().zip(want).filter(|(g, w)| g != w).count() + got.len().abs_diff(want.len());
        Self {
            max_error: differ as f64 / got.len().max(1) as f64,
            tolerance: 0.0,
            ok: differ == 0,
        }
    }
}

/// Evaluates an expression with a type alias bound to the type that an [`ElementType`] stands for.
macro_rules! by_type {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::array::ElementType::F32 => {
                type $T = f32;
                $body
            }
            $crate::array::ElementType::U32 => {
                type $T = u32;
                $body
            }
            $crate::array::ElementType::I32 => {
                type $T = i32;
                $body
            }
        }
    };
}
pub(crate) use by_type;

/// Element types of which random arguments can be drawn.
pub trait Sample: Element {
    /// `n` random elements.
    fn sample(n: usize, rng: &mut fastrand::Rng) -> Vec<Self>;

    /// The value, exactly.
    fn to_f64(self) -> f64;

    /// The element whose bits are [`POISON`].
    fn poison() -> Self {
        bytemuck::cast(POISON)
    }
}

impl Sample for f32 {
    fn sample(n: usize, rng: &mut fastrand::Rng) -> Vec<Self> {
        random_f32(n, rng)
    }

    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Sample for u32 {
    fn sample(n: usize, rng: &mut fastrand::Rng) -> Vec<Self> {
        (0..n).map(|_| rng.u32(..) >> (8 * rng.u32(0..4))).collect()
    }

    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Sample for i32 {
    fn sample(n: usize, rng: &mut fastrand::Rng) -> Vec<Self> {
        (0..n).map(|_| rng.i32(..) >> (8 * rng.u32(0..4))).collect()
    }

    fn to_f64(self) -> f64 {
        self.into()
    }
}

/// Random inputs: both signs, tiny and large magnitudes, no subnormals.
pub fn random_f32(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    (0..n)
        .map(|_| {
            let magnitude = match rng.u32(0..16) {
                0 => 1e-6,
                1 => 1e4,
                _ => 1.0,
            };
            (rng.f32() * 2.0 - 1.0) * magnitude
        })
        .map(|x| if x.is_subnormal() { 0.0 } else { x })
        .collect()
}

/// What [`Case::reset`] writes into outputs that a kernel must overwrite.
pub const POISON: u32 = 0x7fc0_dead;
