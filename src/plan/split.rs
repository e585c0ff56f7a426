//! The shares with which several devices finish at the same time, and the borders between parts.

use smallvec::SmallVec;
use std::ops::Range;

/// Cuts `items` into contiguous parts of these shares, in order, with borders at the nearest multiples of `border`.
/// Parts may be empty. The last part with a positive share takes the remainder; at least one share must be positive.
pub fn ranges(items: usize, border: usize, shares: &[f64]) -> SmallVec<[Range<usize>; 2]> {
    let last = shares.iter().rposition(|share| *share > 0.0);
    let (mut sum, mut start) = (0.0, 0);
    let cut = shares.iter().enumerate().map(|(at, share)| {
        sum += share;
        let borders = (sum * items as f64 / border as f64).round() as usize;
        let end = match last {
            Some(last) if at >= last => items,
            _ if *share > 0.0 => borders.saturating_mul(border).clamp(start, items),
            _ => start,
        };
        let part = start..end;
        start = end;
        part
    });
    cut.collect()
}

/// The time of a device as a function of its items: `overhead + items * per_item` seconds.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Seconds before the first item.
    pub overhead: f64,
    /// Seconds for each item; positive.
    pub per_item: f64,
}

/// Shares of `items` with which every device with a part finishes at the same time `t`.
///
/// Device `d` has done `(t - overhead_d) / per_item_d` items by then; their sum is `items`, which gives `t`. While a
/// device would get fewer than `least` items, the one with the fewest gets none and the others share again.
pub fn equal_finish(items: usize, least: usize, lines: &[Line]) -> SmallVec<[f64; 8]> {
    let items = items as f64;
    let mut shares: SmallVec<[f64; 8]> = SmallVec::from_elem(1.0, lines.len());
    loop {
        let members = || lines.iter().enumerate().filter(|(at, _)| shares[*at] > 0.0);
        let speed: f64 = members().map(|(_, line)| 1.0 / line.per_item).sum();
        let head_start: f64 = members()
            .map(|(_, line)| line.overhead / line.per_item)
            .sum();
        let finish = (items + head_start) / speed;
        let count = |line: &Line| (finish - line.overhead) / line.per_item;
        let fewest = members()
            .map(|(at, line)| (at, count(line)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b));
        match fewest {
            Some((at, fewest)) if fewest < least as f64 && members().nth(1).is_some() => {
                shares[at] = 0.0
            }
            _ => {
                for (share, line) in shares
                    .iter_mut()
                    .zip(lines)
                    .filter(|(share, _)| **share > 0.0)
                {
                    *share = (finish - line.overhead) / line.per_item / items;
                }
                return shares;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_zero_share_gets_no_items_and_the_last_part_takes_the_remainder() {
        let cut = |items, shares: &[f64]| ranges(items, 64, shares).to_vec();
        assert_eq!(cut(1000, &[0.25, 0.75]), [0..256, 256..1000]);
        assert_eq!(
            cut(1000, &[0.0, 0.5, 0.0, 0.5, 0.0]),
            [0..0, 0..512, 512..512, 512..1000, 1000..1000]
        );
        assert_eq!(cut(10, &[0.3, 0.7, 0.0]), [0..0, 0..10, 10..10]);
        assert_eq!(cut(100, &[0.99, 0.01]), [0..100, 100..100]);
        assert_eq!(cut(0, &[0.5, 0.5]), [0..0, 0..0]);
    }

    #[test]
    fn shares_follow_speed_and_overhead() {
        let line = |overhead, per_item| Line { overhead, per_item };
        let shares = equal_finish(1000, 1, &[line(0.0, 1.0), line(0.0, 1.0), line(0.0, 2.0)]);
        assert_eq!(shares.to_vec(), [0.4, 0.4, 0.2]);
        let shares = equal_finish(1000, 1, &[line(200.0, 1.0), line(0.0, 1.0)]);
        assert_eq!(shares.to_vec(), [0.4, 0.6]);
        let shares = equal_finish(1000, 64, &[line(990.0, 1.0), line(0.0, 1.0)]);
        assert_eq!(shares.to_vec(), [0.0, 1.0]);
    }

    proptest! {
        #[test]
        fn parts_cover_the_items_once(items in 0usize..100_000, border in 1usize..300,
                                      weights in prop::collection::vec(0.0f64..1.0, 1..9)) {
            let total: f64 = weights.iter().sum();
            prop_assume!(total > 0.0);
            let shares: Vec<_> = weights.iter().map(|w| w / total).collect();
            let parts = ranges(items, border, &shares);
            prop_assert_eq!(parts.len(), shares.len());
            let mut at = 0;
            for (part, share) in parts.iter().zip(&shares) {
                prop_assert_eq!(part.start, at);
                prop_assert!(part.end >= part.start && (part.end == items || part.end % border == 0));
                prop_assert!(*share > 0.0 || part.is_empty());
                let wanted = share * items as f64;
                prop_assert!((part.len() as f64 - wanted).abs() <= border as f64 + 1.0);
                at = part.end;
            }
            prop_assert_eq!(at, items);
        }

        #[test]
        fn all_members_finish_together(items in 1usize..10_000_000,
                lines in prop::collection::vec((0.0f64..1e-3, 1e-12f64..1e-6), 1..9)) {
            let lines: Vec<_> = lines.into_iter().map(|(overhead, per_item)| Line { overhead, per_item }).collect();
            let shares = equal_finish(items, 64, &lines);
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{:?}", shares);
            let ends: Vec<_> = lines.iter().zip(&shares).filter(|(_, share)| **share > 0.0)
                .map(|(line, share)| line.overhead + share * items as f64 * line.per_item).collect();
            for end in &ends {
                prop_assert!((end / ends[0] - 1.0).abs() < 1e-6, "{:?}", ends);
            }
        }
    }
}
