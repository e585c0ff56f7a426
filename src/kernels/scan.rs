//! Prefix sums, in three passes: the totals of tiles, the prefix sums of those (this kernel again, on less), and the
//! prefix sums of each tile on top of what carries into it. By one fixed tree (`prefix`).

use super::catalog::{self, Case, Check, Entry, LINEAR_AUDIT_SIZES, Sample, Size, by_type};
use super::prefix::{self, Kind, TILE};
use super::tree::Addend;
use crate::array::{Array, ElementType, Handle};
use crate::dispatch::{Execution, Explanation, Placement, Plan, Report};
use crate::error::{Error, Result};
use crate::kernel::Shader;
use crate::kernel::{
    Binding, Call, CpuPart, GpuPart, Kernel, LaunchSpec, Pass, Role, Tolerance, Work,
};
use crate::runtime::Runtime;
use bytemuck::{Pod, Zeroable};
use std::marker::PhantomData;
use std::sync::LazyLock;

/// `out[i]` = the sum of `x[..=i]`, for arrays of the same length and type.
///
/// Integers wrap. f32 are added by a fixed tree: each sum depends only on the elements in it, and has the same bits on
/// every device, for every split, and whatever follows; the error is at most 15·u·Σ|x| for each level of 2048 elements
/// (u = 2^-24; one level up to 2048 elements, two up to 4 Mi, three up to 8 Gi).
///
/// # Errors
/// Running fails if the arrays differ in length.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[3u32, 1, 4, 1])?;
/// let mut out = rt.uninit(4)?;
/// rt.run(inclusive_scan(&x, &mut out))?;
/// assert_eq!(out.to_vec()?, [3, 4, 8, 9]);
/// # Ok(())
/// # }
/// ```
pub fn inclusive_scan<'a, T: Addend>(x: &'a Array<T>, out: &'a mut Array<T>) -> Call<'a, Scan<T>> {
    Call::new(Scan::new(Kind::Inclusive, x, out))
}

/// `out[i]` = the sum of `x[..i]`, for arrays of the same length and type; `out[0]` is 0.
///
/// All but the last of [`inclusive_scan()`]'s sums, one place later and with the same bits.
///
/// # Errors
/// Running fails if the arrays differ in length.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[3u32, 1, 4, 1])?;
/// let mut out = rt.uninit(4)?;
/// rt.run(exclusive_scan(&x, &mut out))?;
/// assert_eq!(out.to_vec()?, [0, 3, 4, 8]);
/// # Ok(())
/// # }
/// ```
pub fn exclusive_scan<'a, T: Addend>(x: &'a Array<T>, out: &'a mut Array<T>) -> Call<'a, Scan<T>> {
    Call::new(Scan::new(Kind::Exclusive, x, out))
}

/// The kernel behind [`inclusive_scan()`] and [`exclusive_scan()`].
#[derive(Debug)]
pub struct Scan<T> {
    kind: Kind,
    x: Handle,
    out: Handle,
    element: PhantomData<fn() -> T>,
}

impl<T: Addend> Scan<T> {
    fn new(kind: Kind, x: &Array<T>, out: &Array<T>) -> Self {
        Self {
            kind,
            x: x.handle().clone(),
            out: out.handle().clone(),
            element: PhantomData,
        }
    }

    fn work(n: usize) -> Work {
        let n = n as f64;
        Work {
            flops: n,
            bytes_read: 8.0 * n,
            bytes_written: 4.0 * n,
        }
    }

    /// The pass that scans tiles, once the totals of all of them are scanned.
    fn tiles(&self, carry: Option<&Array<T>>) -> ScanTiles<T> {
        ScanTiles {
            kind: self.kind,
            x: self.x.clone(),
            out: self.out.clone(),
            carry: carry.map(|carry| carry.handle().clone()),
            element: PhantomData,
        }
    }

    /// The inclusive prefix sums of the totals of `x`'s tiles, unless there is only one. `launch` runs the first pass.
    fn carry(
        cx: &mut Execution<'_>,
        x: &Handle,
        launch: fn(&mut Execution<'_>, &TileTotals<T>) -> Result<()>,
    ) -> Result<Option<Array<T>>> {
        if x.len() <= TILE {
            return Ok(None);
        }
        let tiles = x.len().div_ceil(TILE);
        let totals = cx.uninit::<T>(tiles)?;
        let pass = TileTotals {
            x: x.clone(),
            totals: totals.handle().clone(),
            element: PhantomData,
        };
        launch(cx, &pass)?;
        let sums = cx.uninit::<T>(tiles)?;
        let above = Self::carry(cx, totals.handle(), |cx, pass| cx.launch_small(pass))?;
        let scan = Self::new(Kind::Inclusive, &totals, &sums);
        cx.launch_small(&scan.tiles(above.as_ref()))?;
        Ok(Some(sums))
    }
}

impl<T: Addend> Kernel for Scan<T> {
    type Output = ();

    fn name(&self) -> &str {
        match self.kind {
            Kind::Inclusive => "inclusive_scan",
            Kind::Exclusive => "exclusive_scan",
        }
    }

    fn implementation(&self) -> u64 {
        shader::<T>().hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.out.len();
        Error::check_length(Kernel::name(self), "x", self.x.len(), n, || {
            format!("out has {n}")
        })?;
        let bindings = [
            Binding::read(&self.x, Role::ITEM),
            Binding::write(&self.out, Role::ITEM),
        ];
        Ok(LaunchSpec::new(n, bindings, Self::work(n)).grain(TILE))
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<()> {
        let carry = Self::carry(cx, &self.x, |cx, pass| cx.launch(pass))?;
        cx.launch(&self.tiles(carry.as_ref()))
    }
}

const SOURCE: &str = include_str!("../../shaders/scan.wgsl");
static FLOATS: LazyLock<Shader> = LazyLock::new(|| Shader::builtin("scan", SOURCE));
/// For both integer types, since wrapping addition is the same for them.
static INTEGERS: LazyLock<Shader> =
    LazyLock::new(|| Shader::typed("scan", SOURCE, ElementType::U32));

fn shader<T: Addend>() -> &'static Shader {
    if T::TYPE == ElementType::F32 {
        &FLOATS
    } else {
        &INTEGERS
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    elements: u32,
    /// The number of the part's first tile.
    first_tile: u32,
    /// Elements of the totals before the first of the part.
    lead: u32,
    exclusive: u32,
    /// Always 0, which has the same bits in every type.
    zero: u32,
}

impl Params {
    fn new(part: &GpuPart<'_>, kind: Kind, lead: u32) -> Self {
        Self {
            elements: part.len() as u32,
            first_tile: (part.items().start / TILE) as u32,
            lead,
            exclusive: u32::from(kind == Kind::Exclusive),
            zero: 0,
        }
    }
}

/// The pass that adds up each tile.
struct TileTotals<T> {
    x: Handle,
    totals: Handle,
    element: PhantomData<fn() -> T>,
}

impl<T: Addend> Pass for TileTotals<T> {
    fn name(&self) -> &str {
        "scan (totals of tiles)"
    }

    fn implementation(&self) -> u64 {
        shader::<T>().hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.x.len();
        let bindings = [
            Binding::read(&self.x, Role::ITEM),
            Binding::write(&self.totals, Role::per(TILE)),
        ];
        let work = Work {
            flops: n as f64,
            bytes_read: 4.0 * n as f64,
            bytes_written: 0.0,
        };
        Ok(LaunchSpec::new(n, bindings, work).grain(TILE))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Bitwise
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        prefix::tile_totals(part.read::<T>(0), part.write(1));
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let args = [part.arg(0), part.arg(1)];
        let params = Params::new(part, Kind::Inclusive, args[1].lead());
        let groups = part.len().div_ceil(TILE) as u32;
        part.dispatch_with(shader::<T>(), "tile_totals", &[], &args, &params, groups)
    }
}

/// The pass that scans each tile.
struct ScanTiles<T> {
    kind: Kind,
    x: Handle,
    out: Handle,
    /// The inclusive prefix sums of the totals of all tiles, if there are several.
    carry: Option<Handle>,
    element: PhantomData<fn() -> T>,
}

impl<T: Addend> Pass for ScanTiles<T> {
    fn name(&self) -> &str {
        "scan (tiles)"
    }

    fn implementation(&self) -> u64 {
        shader::<T>().hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.x.len();
        let ends = [
            Binding::read(&self.x, Role::ITEM),
            Binding::write(&self.out, Role::ITEM),
        ];
        let carry = self
            .carry
            .as_ref()
            .map(|carry| Binding::read(carry, Role::Whole));
        Ok(LaunchSpec::new(n, ends.into_iter().chain(carry), Scan::<T>::work(n)).grain(TILE))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Bitwise
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let first = part.items().start / TILE;
        let carry = if self.carry.is_some() {
            part.read::<T>(2)
        } else {
            &[]
        };
        prefix::scan_tiles(self.kind, first, carry, part.read(0), part.write(1));
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let params = Params::new(part, self.kind, 0);
        let (x, out) = (part.arg(0), part.arg(1));
        let groups = part.len().div_ceil(TILE) as u32;
        let shader = shader::<T>();
        if self.carry.is_some() {
            let args = [x, part.arg(2), out];
            part.dispatch_with(shader, "scan_tiles", &[], &args, &params, groups)
        } else {
            part.dispatch_with(shader, "scan_tile", &[], &[x, out], &params, groups)
        }
    }
}

const ALL: &[ElementType] = &[ElementType::F32, ElementType::U32, ElementType::I32];
const BENCH_SIZES: &[usize] = &[1 << 10, 1 << 16, 1 << 20, 1 << 24];

/// `inclusive_scan` in the catalog.
pub const INCLUSIVE: Entry = Entry {
    name: "inclusive_scan",
    about: "prefix sums, each with its own element",
    size: Size::Items,
    dtypes: ALL,
    bitwise: true,
    bench_sizes: BENCH_SIZES,
    audit_sizes: LINEAR_AUDIT_SIZES,
    spec: |n, dtype| by_type!(dtype, T => catalog::spec_of(&inclusive_scan(&Array::<T>::uninit(n)?, &mut Array::uninit(n)?))),
    case: |n, dtype, seed| by_type!(dtype, T => ScanCase::<T>::boxed(Kind::Inclusive, n, seed)),
};

/// `exclusive_scan` in the catalog.
pub const EXCLUSIVE: Entry = Entry {
    name: "exclusive_scan",
    about: "prefix sums, each without its own element",
    size: Size::Items,
    dtypes: ALL,
    bitwise: true,
    bench_sizes: BENCH_SIZES,
    audit_sizes: LINEAR_AUDIT_SIZES,
    spec: |n, dtype| by_type!(dtype, T => catalog::spec_of(&exclusive_scan(&Array::<T>::uninit(n)?, &mut Array::uninit(n)?))),
    case: |n, dtype, seed| by_type!(dtype, T => ScanCase::<T>::boxed(Kind::Exclusive, n, seed)),
};

/// A scan of a random array.
struct ScanCase<T: Addend> {
    kind: Kind,
    elements: Vec<T>,
    x: Array<T>,
    out: Array<T>,
}

impl<T: Addend + Sample> ScanCase<T> {
    fn boxed(kind: Kind, n: usize, seed: u64) -> Result<Box<dyn Case>> {
        let elements = T::sample(n, &mut fastrand::Rng::with_seed(seed));
        let x = Array::from_slice(&elements)?;
        Ok(Box::new(Self {
            kind,
            elements,
            x,
            out: Array::uninit(n)?,
        }))
    }

    fn call(&mut self) -> Call<'_, Scan<T>> {
        Call::new(Scan::new(self.kind, &self.x, &self.out))
    }
}

impl<T: Addend + Sample> Case for ScanCase<T> {
    fn reset(&mut self) -> Result<()> {
        self.x.write_all(&self.elements)?;
        self.out.write()?.fill(T::poison());
        Ok(())
    }

    fn run(&mut self, rt: &Runtime, placement: Placement) -> Result<Report> {
        Ok(rt.run(self.call().on(placement))?.report)
    }

    fn explain(&mut self, rt: &Runtime, placement: Placement) -> Result<Explanation> {
        rt.explain(&self.call().on(placement))
    }

    fn plan(&mut self, rt: &Runtime, placement: Placement) -> Result<Plan> {
        rt.plan(&self.call().on(placement))
    }

    fn arrays(&self) -> (Vec<Handle>, Vec<Handle>) {
        (
            vec![self.x.handle().clone()],
            vec![self.out.handle().clone()],
        )
    }

    fn work(&self) -> Work {
        Scan::<T>::work(self.elements.len())
    }

    fn check(&mut self) -> Result<Check> {
        let exclusive = self.kind == Kind::Exclusive;
        if T::TYPE != ElementType::F32 {
            let mut sum = T::ZERO;
            let mut next = |x: T| {
                let before = sum;
                sum = sum.plus(x);
                if exclusive { before } else { sum }
            };
            let want: Vec<T> = self.elements.iter().map(|x| next(*x)).collect();
            return Ok(Check::exact(&self.bits()?, bytemuck::cast_slice(&want)));
        }
        let (mut sum, mut magnitude) = (0.0, 0.0);
        let unit = (prefix::depth(self.elements.len()) + 2) as f64 * f64::from(f32::EPSILON) / 2.0;
        let mut next = |x: f64| {
            let before = (sum, unit * magnitude);
            (sum, magnitude) = (sum + x, magnitude + x.abs());
            if exclusive {
                before
            } else {
                (sum, unit * magnitude)
            }
        };
        let sums: Vec<(f64, f64)> = self.elements.iter().map(|x| next(x.to_f64())).collect();
        let want = sums.iter().map(|(sum, _)| *sum);
        Ok(Check::elementwise(
            bytemuck::cast_slice(&self.out.read()?),
            want,
            |i| sums[i].1,
        ))
    }

    fn bits(&mut self) -> Result<Vec<u32>> {
        Ok(bytemuck::cast_slice(&self.out.read()?).to_vec())
    }
}
