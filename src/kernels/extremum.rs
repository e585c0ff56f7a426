//! The least and the greatest element of an array, and their indices. One pass finds the best element of each block;
//! the host then finds the best of those. All comparisons are by rank (`order`).

use super::order::{Ordered, Ranking};
use crate::array::{Array, Handle};
use crate::error::Result;
use crate::kernel::Execution;
use crate::kernel::Shader;
use crate::kernel::{
    Binding, Call, CpuPart, GpuArg, GpuPart, Kernel, LaunchSpec, Pass, Role, Tolerance,
};
use crate::simd::{Lanes, Simd, VectorLoop};
use bytemuck::{Pod, Zeroable};
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// The least element, or `None` if the array is empty or all NaN.
///
/// NaN are ignored and -0 is less than +0, so that the result has the same bits on every device.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[1.5f32, f32::NAN, -0.25])?;
/// assert_eq!(rt.run(min(&x))?.value, Some(-0.25));
/// # Ok(())
/// # }
/// ```
pub fn min<T: Ordered>(x: &Array<T>) -> Call<'_, Extremum<T, Min>> {
    Call::new(Extremum::new(x))
}

/// The greatest element, or `None` if the array is empty or all NaN.
///
/// NaN are ignored and -0 is less than +0, so that the result has the same bits on every device.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[3i32, -7, 5])?;
/// assert_eq!(rt.run(max(&x))?.value, Some(5));
/// # Ok(())
/// # }
/// ```
pub fn max<T: Ordered>(x: &Array<T>) -> Call<'_, Extremum<T, Max>> {
    Call::new(Extremum::new(x))
}

/// The index of the least element, the lowest if there are several; `None` if the array is empty or all NaN.
///
/// NaN are ignored and -0 equals +0.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[2.0f32, -1.0, f32::NAN, -1.0])?;
/// assert_eq!(rt.run(argmin(&x))?.value, Some(1));
/// # Ok(())
/// # }
/// ```
pub fn argmin(x: &Array<f32>) -> Call<'_, Extremum<f32, ArgMin>> {
    Call::new(Extremum::new(x))
}

/// The index of the greatest element, the lowest if there are several; `None` if the array is empty or all NaN.
///
/// NaN are ignored and -0 equals +0.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// let x = rt.array_from(&[f32::NAN, 2.0, 7.0, 7.0])?;
/// assert_eq!(rt.run(argmax(&x))?.value, Some(2));
/// # Ok(())
/// # }
/// ```
pub fn argmax(x: &Array<f32>) -> Call<'_, Extremum<f32, ArgMax>> {
    Call::new(Extremum::new(x))
}

/// The goal of a search, and how its result is reported.
pub trait Wanted<T>: Send + Sync + 'static {
    /// The value that the caller gets.
    type Found: Copy + Send + std::fmt::Debug;
    /// The kernel's name.
    const NAME: &'static str;
    /// Whether the search is for the greatest element, not the least.
    const GREATEST: bool;
    /// Whether the index matters.
    const PLACE: bool;

    /// The value that the caller gets.
    fn found(value: T, index: usize) -> Self::Found;
}

macro_rules! wanted {
    ($($Wanted:ident of $($T:ident)? $(<$G:ident>)?, $name:literal, $greatest:literal, $place:literal,
       $Found:ty, |$value:pat_param, $index:pat_param| $found:expr;)*) => {$(
        #[doc = concat!("What [`", $name, "()`] looks for.")]
        #[derive(Debug)]
        pub enum $Wanted {}

        impl $(<$G: Ordered>)? Wanted<$($T)? $($G)?> for $Wanted {
            type Found = $Found;
            const NAME: &'static str = $name;
            const GREATEST: bool = $greatest;
            const PLACE: bool = $place;

            fn found($value: $($T)? $($G)?, $index: usize) -> $Found {
                $found
            }
        }
    )*};
}
wanted! {
    Min of <T>, "min", false, false, T, |value, _| value;
    Max of <T>, "max", true, false, T, |value, _| value;
    ArgMin of f32, "argmin", false, true, usize, |_, index| index;
    ArgMax of f32, "argmax", true, true, usize, |_, index| index;
}

/// The kernel behind [`min()`], [`max()`], [`argmin()`] and [`argmax()`].
pub struct Extremum<T, W> {
    x: Handle,
    wanted: PhantomData<fn() -> (T, W)>,
}

impl<T: Ordered, W: Wanted<T>> Extremum<T, W> {
    /// The best element has the lowest rank.
    const RANKING: Ranking = {
        let ranking = if W::GREATEST {
            Ranking::descending::<T>()
        } else {
            Ranking::ascending::<T>()
        };
        if W::PLACE {
            ranking.equal_zeros::<T>()
        } else {
            ranking
        }
    };

    fn new(x: &Array<T>) -> Self {
        Self {
            x: x.handle().clone(),
            wanted: PhantomData,
        }
    }
}

impl<T: Ordered, W: Wanted<T>> Kernel for Extremum<T, W> {
    type Output = Option<W::Found>;

    fn name(&self) -> &str {
        W::NAME
    }

    fn implementation(&self) -> u64 {
        SHADER.hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.x.len();
        let spec = LaunchSpec::new(n, [Binding::read(&self.x, Role::ITEM)], n as f64);
        let arrays = 1 + usize::from(W::PLACE);
        Ok(spec
            .grain(BLOCK)
            .returning(n.div_ceil(BLOCK) * arrays * size_of::<u32>()))
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<Self::Output> {
        let blocks = self.x.len().div_ceil(BLOCK);
        let ranks = cx.uninit::<u32>(blocks)?;
        let places = if W::PLACE {
            Some(cx.uninit::<u32>(blocks)?)
        } else {
            None
        };
        cx.launch(&BlockBests {
            x: self.x.clone(),
            ranks: ranks.handle().clone(),
            places: places.as_ref().map(|places| places.handle().clone()),
            wanted: self.wanted,
        })?;
        let ranks = ranks.read()?;
        let Some(rank) = ranks
            .iter()
            .copied()
            .min()
            .filter(|r| !Self::RANKING.is_nan::<T>(*r))
        else {
            return Ok(None);
        };
        let index = match places {
            // The first block that has the best element also has its first occurrence.
            Some(places) => {
                let block = ranks.iter().position(|r| *r == rank).unwrap_or(0);
                block * BLOCK + places.read_range(block..block + 1)?[0] as usize
            }
            None => 0,
        };
        Ok(Some(W::found(
            bytemuck::cast(Self::RANKING.bits(rank)),
            index,
        )))
    }
}

/// The elements of a block.
const BLOCK: usize = 4096;
/// The index reported for a block that cannot contain the answer.
const NO_INDEX: u32 = u32::MAX;

/// The pass that finds the lowest rank of each block, and its index in the block.
struct BlockBests<T, W> {
    x: Handle,
    ranks: Handle,
    places: Option<Handle>,
    wanted: PhantomData<fn() -> (T, W)>,
}

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("extremum", include_str!("../../shaders/extremum.wgsl"))
        .entry("extreme", &[])
        .entry("locate", &[])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    elements: u32,
    /// Elements of the outputs before the part's first one.
    lead: u32,
    ranking: Ranking,
}

impl<T: Ordered, W: Wanted<T>> Pass for BlockBests<T, W> {
    fn name(&self) -> &str {
        W::NAME
    }

    fn implementation(&self) -> u64 {
        SHADER.hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let n = self.x.len();
        let x = [Binding::read(&self.x, Role::ITEM)];
        let outputs = [&self.ranks].into_iter().chain(&self.places);
        let outputs = outputs.map(|output| Binding::write(output, Role::per(BLOCK)));
        let bindings = x.into_iter().chain(outputs);
        Ok(LaunchSpec::new(n, bindings, n as f64).grain(BLOCK))
    }

    fn tolerance(&self, binding: usize) -> Tolerance {
        match binding {
            2 => Tolerance::BitwiseUnless(NO_INDEX),
            _ => Tolerance::Bitwise,
        }
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let x = part.read::<T>(0);
        let (ranks, simd) = (part.write::<u32>(1), part.simd());
        let wanted = self.wanted;
        simd.run(LowestRanks { x, ranks, wanted });
        if W::PLACE {
            let mut best = u32::MAX;
            let blocks = x.chunks(BLOCK).zip(ranks);
            for ((x, rank), place) in blocks.zip(part.write::<u32>(2)) {
                // Only a block that is better than all before it can contain the answer.
                *place = NO_INDEX;
                if *rank < best {
                    best = *rank;
                    *place = first_with(simd, Extremum::<T, W>::RANKING, x, best) as u32;
                }
            }
        }
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let outputs = 1 + usize::from(W::PLACE);
        let args: SmallVec<[GpuArg; 3]> = (0..=outputs).map(|i| part.arg(i)).collect();
        let params = Params {
            elements: part.len() as u32,
            lead: args[1].lead(),
            ranking: Extremum::<T, W>::RANKING,
        };
        let entry = if W::PLACE { "locate" } else { "extreme" };
        let groups = part.len().div_ceil(BLOCK) as u32;
        part.dispatch_with(&SHADER, entry, &[], &args, &params, groups)
    }
}

/// The lowest rank of each block.
struct LowestRanks<'a, T, W> {
    x: &'a [T],
    ranks: &'a mut [u32],
    wanted: PhantomData<fn() -> (T, W)>,
}

impl<T: Ordered, W: Wanted<T>> VectorLoop for LowestRanks<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (x, rank) in self.x.chunks(BLOCK).zip(self.ranks) {
            *rank = lowest_rank(Extremum::<T, W>::RANKING, x);
        }
    }
}

/// The lowest rank of any element.
#[inline(always)]
fn lowest_rank<T: Ordered>(ranking: Ranking, x: &[T]) -> u32 {
    const LANES: usize = 128;
    let mut lowest = [u32::MAX; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for (lowest, x) in lowest.iter_mut().zip(row) {
            *lowest = ranking.rank(bytemuck::cast(*x)).min(*lowest);
        }
    }
    for (lowest, x) in lowest.iter_mut().zip(rest) {
        *lowest = ranking.rank(bytemuck::cast(*x)).min(*lowest);
    }
    lowest.into_iter().fold(u32::MAX, u32::min)
}

/// The index of the first element of this rank. 0 if there is none.
fn first_with<T: Ordered>(simd: Simd, ranking: Ranking, x: &[T], rank: u32) -> usize {
    let start = simd.run(FirstStride { ranking, x, rank });
    let has = |x: &T| ranking.rank(bytemuck::cast(*x)) == rank;
    let place = x.iter().skip(start).position(has);
    place.map_or(0, |place| start + place)
}

/// Finds the first stride that has an element of a rank, and returns the index of the stride's first element.
struct FirstStride<'a, T> {
    ranking: Ranking,
    x: &'a [T],
    rank: u32,
}

impl<T: Ordered> VectorLoop for FirstStride<'_, T> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> usize {
        const STRIDE: usize = 64;
        let mut start = 0;
        for stride in self.x.chunks(STRIDE) {
            // Checks all of a stride, since a loop that leaves early is not vectorised.
            let mut there = false;
            for x in stride {
                there |= self.ranking.rank(bytemuck::cast(*x)) == self.rank;
            }
            if there {
                break;
            }
            start += STRIDE;
        }
        start
    }
}
