//! Prefix sums, in three passes: the totals of tiles; the prefix sums of the totals (this kernel again, on less data);
//! the prefix sums of each tile on top of its carry. They use one fixed tree (`prefix`).

use super::prefix::{self, Kind, TILE};
use super::tree::Addend;
use crate::array::{Array, Handle};
use crate::device::gpu::TypedShaders;
use crate::error::{Error, Result};
use crate::kernel::Execution;
use crate::kernel::{
    Binding, Call, CpuPart, ErrorBound, GpuPart, Kernel, LaunchSpec, Pass, Role, Tolerance, Work,
};
use bytemuck::{Pod, Zeroable};
use std::marker::PhantomData;
use std::sync::LazyLock;

/// `out[i]` = the sum of `x[..=i]`, for arrays of the same length and type.
///
/// Integers wrap. A fixed tree adds f32. Each sum depends only on its own elements, and has the same bits on every
/// device, for every split, and for any later elements. The error is at most 15·u·Σ|x| for each level of 2048 elements
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
/// The sums of [`inclusive_scan()`] except the last, one place later and with the same bits.
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

    /// The pass that scans tiles, after the totals of all of them are scanned.
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
        SHADERS.of(T::ADDED_AS).hash()
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
        // The work of the first pass.
        let totals = Work {
            bytes_read: self.x.bytes() as f64,
            ..Work::default()
        };
        let spec = LaunchSpec::new(n, bindings, n as f64).grain(TILE);
        Ok(spec.with_other_passes(totals))
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<()> {
        let carry = Self::carry(cx, &self.x, |cx, pass| cx.launch(pass))?;
        cx.launch(&self.tiles(carry.as_ref()))
    }

    fn error_bound(&self, _: usize) -> ErrorBound {
        ErrorBound::Roundings((prefix::depth(self.x.len()) + 2) as f64)
    }
}

pub(crate) static SHADERS: LazyLock<TypedShaders> = LazyLock::new(|| {
    TypedShaders::new("scan", include_str!("../../shaders/scan.wgsl"))
        .entry("tile_totals", &[])
        .entry("scan_tile", &[])
        .entry("scan_tiles", &[])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    elements: u32,
    /// The index of the part's first tile.
    first_tile: u32,
    /// Totals before the part's first one.
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

/// The pass that computes the total of each tile.
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
        SHADERS.of(T::ADDED_AS).hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.x.len();
        let bindings = [
            Binding::read(&self.x, Role::ITEM),
            Binding::write(&self.totals, Role::per(TILE)),
        ];
        Ok(LaunchSpec::new(n, bindings, n as f64).grain(TILE))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Bitwise
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        prefix::tile_totals(part.simd(), part.read::<T>(0), part.write(1));
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let args = [part.arg(0), part.arg(1)];
        let params = Params::new(part, Kind::Inclusive, args[1].lead());
        let groups = part.len().div_ceil(TILE) as u32;
        part.dispatch_with(
            SHADERS.of(T::ADDED_AS),
            "tile_totals",
            &[],
            &args,
            &params,
            groups,
        )
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
        SHADERS.of(T::ADDED_AS).hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.x.len();
        let ends = [
            Binding::read(&self.x, Role::ITEM),
            Binding::write(&self.out, Role::ITEM),
        ];
        let carry = self.carry.iter();
        let carry = carry.map(|carry| Binding::read(carry, Role::Whole));
        Ok(LaunchSpec::new(n, ends.into_iter().chain(carry), n as f64).grain(TILE))
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
        part.simd().run(prefix::ScanTiles {
            kind: self.kind,
            first,
            carry,
            x: part.read(0),
            out: part.write(1),
        });
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let params = Params::new(part, self.kind, 0);
        let (x, out) = (part.arg(0), part.arg(1));
        let groups = part.len().div_ceil(TILE) as u32;
        let shader = SHADERS.of(T::ADDED_AS);
        if self.carry.is_some() {
            let args = [x, part.arg(2), out];
            part.dispatch_with(shader, "scan_tiles", &[], &args, &params, groups)
        } else {
            part.dispatch_with(shader, "scan_tile", &[], &[x, out], &params, groups)
        }
    }
}
