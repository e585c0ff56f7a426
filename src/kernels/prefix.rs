//! The one tree that adds up prefix sums, for every device and every split of the array.
//!
//! A tile of [`TILE`] elements is 128 runs of 16. Within a run, and then over the totals of the runs, sums grow as in
//! Sklansky (1960): pairs, fours, eights and so on; at each level the right half gains the last sum of the left half.
//! The same procedure sums the totals of the tiles, which gives the carry of each tile. Then, for run r of tile t,
//!
//! - the base of the run is the carry of the tiles before t, plus the totals of the runs before r (if there are any);
//! - the exclusive sum of the run's first element is its base, that of the others base + sum of the run's elements
//!   before;
//! - the inclusive sum of an element is the exclusive sum of the next, also where that is in the next run, the next
//!   tile, or past the end.
//!
//! So a sum depends only on its elements and their indices: not on the length, the device or the split. It is at most
//! 4 + 7 + 2 additions deep per level of 2048 elements. The first carry is +0, so a sum is never -0.
//!
//! This module is the CPU's implementation and works on slices only. `shaders/scan.wgsl` computes a tile in the same
//! way.

use super::run_prefix::{RUN, prefix_of_run, shifted, with_last};
use super::tree::{Addend, levels};
use crate::simd::{Lanes, Simd, VectorLoop};

/// Runs of a tile.
const RUNS: usize = 128;
/// Elements of a tile.
pub(crate) const TILE: usize = RUN * RUNS;

/// The totals of consecutive tiles, from which the carries follow.
pub(crate) fn tile_totals<T: Addend>(simd: Simd, x: &[T], totals: &mut [T]) {
    assert_eq!(totals.len(), x.len().div_ceil(TILE));
    simd.run(TileTotals { x, totals });
}

/// The loop of [`tile_totals`].
struct TileTotals<'a, T> {
    x: &'a [T],
    totals: &'a mut [T],
}

impl<T: Addend> VectorLoop for TileTotals<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (tile, total) in self.x.chunks(TILE).zip(self.totals) {
            let mut sums = Totals([T::ZERO; RUNS]);
            run_totals(tile, &mut sums);
            // The last prefix sum over the runs: a balanced tree over neighbours.
            let mut pairs = RUNS / 2;
            while pairs > 0 {
                for i in 0..pairs {
                    sums.0[i] = sums.0[2 * i].plus(sums.0[2 * i + 1]);
                }
                pairs /= 2;
            }
            *total = sums.0[0];
        }
    }
}

/// The totals of a tile's runs, aligned to a cache line so that no vector straddles two.
#[repr(align(64))]
struct Totals<T>([T; RUNS]);

/// The number of runs whose totals fill a vector.
const GROUP: usize = 16;

/// Sums the runs of a tile, or those that exist of the last tile. Totals of missing runs stay unchanged.
#[inline(always)]
fn run_totals<T: Addend>(x: &[T], Totals(totals): &mut Totals<T>) {
    const ELEMENTS: usize = GROUP * RUN;
    let (groups, rest) = x.as_chunks::<ELEMENTS>();
    let (totals, _) = totals.as_chunks_mut::<GROUP>();
    for (x, totals) in groups.iter().zip(totals.iter_mut()) {
        *totals = group_totals(x);
    }
    if let Some(totals) = totals.get_mut(groups.len())
        && !rest.is_empty()
    {
        let mut x = [T::ZERO; ELEMENTS];
        x[..rest.len()].copy_from_slice(rest);
        *totals = group_totals(&x);
    }
}

/// The last prefix sum of each of sixteen runs: a balanced tree over neighbours.
#[inline(always)]
fn group_totals<T: Addend>(x: &[T; GROUP * RUN]) -> [T; GROUP] {
    let pairs: [T; GROUP * RUN / 2] = neighbours(x);
    let fours: [T; GROUP * RUN / 4] = neighbours(&pairs);
    let eights: [T; GROUP * RUN / 8] = neighbours(&fours);
    neighbours(&eights)
}

/// The sums of pairs of neighbours.
#[inline(always)]
fn neighbours<T: Addend, const N: usize, const HALF: usize>(x: &[T; N]) -> [T; HALF] {
    const { assert!(N == 2 * HALF) };
    let mut sums = [T::ZERO; HALF];
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = x[2 * i].plus(x[2 * i + 1]);
    }
    sums
}

/// Whether an element counts in its own sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Inclusive,
    Exclusive,
}

/// The prefix sums of the consecutive tiles from tile `first` on. `carry` holds the inclusive prefix sums of the totals
/// of all tiles of the array, unless there is only one tile.
pub(crate) struct ScanTiles<'a, T> {
    pub(crate) kind: Kind,
    pub(crate) first: usize,
    pub(crate) carry: &'a [T],
    pub(crate) x: &'a [T],
    pub(crate) out: &'a mut [T],
}

impl<T: Addend> VectorLoop for ScanTiles<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self {
            kind,
            first,
            carry,
            x,
            out,
        } = self;
        let mut totals = Totals([T::ZERO; RUNS]);
        for (i, (x, out)) in x.chunks(TILE).zip(out.chunks_mut(TILE)).enumerate() {
            let tile = first + i;
            let before = if tile == 0 { T::ZERO } else { carry[tile - 1] };
            let after = carry.get(tile).copied();
            // Two copies of the loops within, so that neither has this branch in it.
            match kind {
                Kind::Inclusive => {
                    scan_tile::<T, L, true>(lanes, &mut totals, before, after, x, out);
                }
                Kind::Exclusive => {
                    scan_tile::<T, L, false>(lanes, &mut totals, before, after, x, out);
                }
            }
        }
    }
}

/// The prefix sums of one tile, or of the elements that exist of the last one.
#[inline(always)]
fn scan_tile<T: Addend, L: Lanes, const INCLUSIVE: bool>(
    lanes: L,
    totals: &mut Totals<T>,
    before: T,
    after: Option<T>,
    x: &[T],
    out: &mut [T],
) {
    // All elements are read twice, the second time from the cache. Keeping the sums within runs from the first time
    // took longer: to store and load them again costs more than a tree of additions.
    run_totals(x, totals);
    scan_totals(lanes, &mut totals.0);
    let (runs, rest) = x.as_chunks::<RUN>();
    let (out, out_rest) = out.as_chunks_mut::<RUN>();
    let mut base = before;
    for ((run, out), total) in runs.iter().zip(out.iter_mut()).zip(&totals.0) {
        let next = before.plus(*total);
        let prefix = prefix_of_run(lanes, *run);
        if INCLUSIVE {
            let mut sums = [T::ZERO; RUN];
            for (sum, prefix) in sums.iter_mut().zip(prefix) {
                *sum = base.plus(prefix);
            }
            *out = with_last(lanes, sums, next);
        } else {
            for (out, prefix) in out.iter_mut().zip(shifted(lanes, prefix)) {
                *out = base.plus(prefix);
            }
        }
        base = next;
    }
    if let (true, Some(last), Some(after)) = (INCLUSIVE, out.get_mut(RUNS - 1), after) {
        last[RUN - 1] = after;
    }
    if !rest.is_empty() {
        let mut run = [T::ZERO; RUN];
        run[..rest.len()].copy_from_slice(rest);
        let prefix = prefix_of_run(lanes, run);
        let sums = if INCLUSIVE {
            prefix
        } else {
            shifted(lanes, prefix)
        };
        for (out, sum) in out_rest.iter_mut().zip(sums) {
            *out = base.plus(sum);
        }
    }
}

/// Turns the totals of runs into their inclusive prefix sums.
#[inline(always)]
fn scan_totals<T: Addend, L: Lanes>(lanes: L, totals: &mut [T; RUNS]) {
    let (vectors, _) = totals.as_chunks_mut::<RUN>();
    for vector in vectors.iter_mut() {
        *vector = prefix_of_run(lanes, *vector);
    }
    let mut half = 1;
    while half < RUNS / RUN {
        for i in 0..RUNS / RUN {
            if i & half != 0 {
                let last = vectors[(i & !(half - 1)) - 1][RUN - 1];
                for total in &mut vectors[i] {
                    *total = total.plus(last);
                }
            }
        }
        half *= 2;
    }
}

/// The most roundings between an element and a prefix sum of `n` elements. They bound its error, in units of u·Σ|x|.
pub(crate) fn depth(n: usize) -> usize {
    (TILE.ilog2() as usize + 2) * levels(n, TILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;

    const SIZES: &[usize] = &[
        0,
        1,
        2,
        15,
        16,
        17,
        255,
        256,
        257,
        1000,
        2047,
        2048,
        2049,
        4095,
        4096,
        4097,
        100_003,
        2048 * 2048 + 2049,
    ];

    /// Scans as the kernel does, with a cut after `cut` tiles.
    fn scan<T: Addend>(kind: Kind, x: &[T], cut: usize) -> Vec<T> {
        scan_with(Simd::best(), kind, x, cut)
    }

    fn scan_with<T: Addend>(simd: Simd, kind: Kind, x: &[T], cut: usize) -> Vec<T> {
        let mut carry = Vec::new();
        if x.len() > TILE {
            let mut totals = vec![T::ZERO; x.len().div_ceil(TILE)];
            tile_totals(simd, x, &mut totals);
            carry = scan_with(simd, Kind::Inclusive, &totals, 0);
        }
        let mut out = vec![T::ZERO; x.len()];
        let border = (cut * TILE).min(x.len());
        let (left, right) = out.split_at_mut(border);
        let carry = &carry[..];
        for (first, x, out) in [(0, &x[..border], left), (cut, &x[border..], right)] {
            simd.run(ScanTiles {
                kind,
                first,
                carry,
                x,
                out,
            });
        }
        out
    }

    /// Sklansky's prefix sums, element by element.
    fn sklansky(x: &mut [f32]) {
        let mut half = 1;
        while half < x.len() {
            for i in (0..x.len()).filter(|i| i & half != 0) {
                x[i] += x[(i & !(half - 1)) - 1];
            }
            half *= 2;
        }
    }

    /// The exclusive prefix sums as the module describes them, with the total as an extra last element.
    fn by_the_book(x: &[f32]) -> Vec<f32> {
        let tiles: Vec<Vec<Vec<f32>>> = x
            .chunks(TILE)
            .map(|tile| tile.chunks(RUN).map(<[f32]>::to_vec).collect())
            .collect();
        let mut local = tiles;
        local.iter_mut().flatten().for_each(|run| sklansky(run));
        let run_totals: Vec<Vec<f32>> = local
            .iter()
            .map(|tile| {
                let mut totals: Vec<f32> = tile
                    .iter()
                    .map(|run| *run.last().expect("no run is empty"))
                    .collect();
                sklansky(&mut totals);
                totals
            })
            .collect();
        let tile_totals: Vec<f32> = run_totals
            .iter()
            .map(|t| *t.last().expect("no tile is empty"))
            .collect();
        let carry = if x.len() > TILE {
            by_the_book(&tile_totals)
        } else {
            vec![0.0]
        };
        let mut sums = Vec::new();
        for (t, tile) in local.iter().enumerate() {
            for (r, run) in tile.iter().enumerate() {
                let base = if r == 0 {
                    carry[t]
                } else {
                    carry[t] + run_totals[t][r - 1]
                };
                sums.push(base);
                sums.extend(run[..run.len() - 1].iter().map(|sum| base + sum));
            }
        }
        if let (Some(tile), Some(totals)) = (local.last(), run_totals.last()) {
            let (t, r) = (local.len() - 1, tile.len() - 1);
            let run = &tile[r];
            let base = if r == 0 {
                carry[t]
            } else {
                carry[t] + totals[r - 1]
            };
            sums.push(
                match (run.len() == RUN, tile.len() == RUNS, x.len() > TILE) {
                    (true, true, true) => carry[t + 1],
                    (true, _, _) => carry[t] + totals[r],
                    _ => base + run[run.len() - 1],
                },
            );
        } else {
            sums.push(0.0);
        }
        sums
    }

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n)
            .map(|_| (rng.f32() * 2.0 - 1.0) * 10f32.powi(rng.i32(-6..5)))
            .collect()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn sums_follow_the_documented_tree_bit_by_bit() {
        for &n in SIZES {
            let x = random(n, n as u64);
            let want = bits(&by_the_book(&x));
            let sets = InstructionSet::available();
            for (cut, set) in [0, 1, 40]
                .iter()
                .flat_map(|cut| sets.iter().map(move |set| (*cut, *set)))
            {
                let simd = Simd::new(set).expect("it is available");
                assert!(
                    bits(&scan_with(simd, Kind::Exclusive, &x, cut)) == want[..n],
                    "n={n} cut={cut} {set}"
                );
                assert!(
                    bits(&scan_with(simd, Kind::Inclusive, &x, cut)) == want[1..],
                    "n={n} cut={cut} {set}"
                );
            }
        }
    }

    #[test]
    fn sums_do_not_depend_on_later_elements() {
        let x = random(3 * TILE + 77, 5);
        let whole = bits(&scan(Kind::Inclusive, &x, 0));
        for n in [1, 16, 100, 2048, 2049, 4096, 5000] {
            assert_eq!(
                bits(&scan(Kind::Inclusive, &x[..n], 0)),
                whole[..n],
                "n={n}"
            );
        }
    }

    #[test]
    fn sums_stay_within_the_error_bound_of_the_tree() {
        for &n in SIZES {
            let x = random(n, 11 + n as u64);
            let unit = depth(n) as f64 * f64::from(f32::EPSILON) / 2.0;
            let (mut exact, mut magnitude) = (0.0, 0.0);
            for (i, (x, sum)) in x.iter().zip(scan(Kind::Inclusive, &x, 0)).enumerate() {
                exact += f64::from(*x);
                magnitude += f64::from(x.abs());
                let error = (f64::from(sum) - exact).abs();
                assert!(error <= unit * magnitude, "n={n} i={i}: {error:e}");
            }
        }
    }

    #[test]
    fn integers_wrap() {
        let mut rng = fastrand::Rng::with_seed(1);
        for &n in SIZES {
            let x: Vec<u32> = (0..n).map(|_| rng.u32(..)).collect();
            let exclusive: Vec<u32> = x
                .iter()
                .scan(0u32, |sum, x| {
                    let before = *sum;
                    *sum = sum.wrapping_add(*x);
                    Some(before)
                })
                .collect();
            assert!(scan(Kind::Exclusive, &x, 1) == exclusive, "n={n}");
        }
    }

    #[test]
    fn no_sum_is_minus_zero() {
        for n in [1, 16, 17, 2048, 5000] {
            for kind in [Kind::Inclusive, Kind::Exclusive] {
                assert!(
                    scan(kind, &vec![-0.0f32; n], 0)
                        .iter()
                        .all(|s| s.to_bits() == 0),
                    "{n}"
                );
            }
        }
    }
}
