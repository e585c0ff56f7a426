//! Seconds as a function of a size, given at a few sizes.

/// Times are limited to this, so that no sum of them overflows.
const LONGEST: f64 = 1e15;

/// `[size, seconds]` at strictly ascending sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    points: Vec<[f64; 2]>,
}

impl Table {
    /// A table of `points`. `None` unless there is at least one, all numbers are finite and not negative, and the sizes
    /// strictly ascend.
    pub fn new(points: Vec<[f64; 2]>) -> Option<Self> {
        let usable = !points.is_empty()
            && points.iter().flatten().all(|x| x.is_finite() && *x >= 0.0)
            && points.windows(2).all(|pair| pair[0][0] < pair[1][0]);
        usable.then_some(Self { points })
    }

    /// The points.
    pub fn points(&self) -> &[[f64; 2]] {
        &self.points
    }

    /// Seconds to compute at a size. Outside the table: along the nearest segment if it rises, else constant.
    pub fn compute(&self, size: f64) -> f64 {
        let points = &self.points;
        let last = points.len() - 1;
        let seconds = if size <= points[0][0] {
            let slope = points.get(1).map_or(0.0, |next| slope(&points[0], next));
            along(&points[0], slope, size)
        } else if size >= points[last][0] {
            let before = last.checked_sub(1).map(|at| &points[at]);
            along(
                &points[last],
                before.map_or(0.0, |before| slope(before, &points[last])),
                size,
            )
        } else {
            self.between(size)
        };
        seconds.min(LONGEST)
    }

    /// Seconds to move this many bytes. Below the table: constant. Above it: along the last segment if it rises; with a
    /// single point, in proportion.
    pub fn transfer(&self, bytes: f64) -> f64 {
        let points = &self.points;
        let last = points.len() - 1;
        let seconds = if bytes <= points[0][0] {
            points[0][1]
        } else if bytes >= points[last][0] {
            let before = last.checked_sub(1).map(|at| &points[at]);
            along(
                &points[last],
                before.map_or(1.0, |before| slope(before, &points[last])),
                bytes,
            )
        } else {
            self.between(bytes)
        };
        seconds.min(LONGEST)
    }

    /// Seconds at a size between two points.
    fn between(&self, size: f64) -> f64 {
        let above = self.points.partition_point(|[at, _]| *at <= size);
        let (low, high) = (self.points[above - 1], self.points[above]);
        if low[0] > 0.0 && low[1] > 0.0 && high[1] > 0.0 {
            let share = (size / low[0]).ln() / (high[0] / low[0]).ln();
            low[1] * (high[1] / low[1]).powf(share)
        } else {
            // 0 has no logarithm.
            low[1] + (high[1] - low[1]) * (size - low[0]) / (high[0] - low[0])
        }
    }
}

/// The exponent with which the time grows from one point to the next, at least 0.
fn slope(low: &[f64; 2], high: &[f64; 2]) -> f64 {
    let slope = (high[1] / low[1]).ln() / (high[0] / low[0]).ln();
    if slope.is_finite() {
        slope.max(0.0)
    } else {
        0.0
    }
}

/// The time at `size` if it grows from `point` with the exponent `slope`.
fn along(point: &[f64; 2], slope: f64, size: f64) -> f64 {
    if slope == 0.0 {
        point[1]
    } else {
        point[1] * (size / point[0]).powf(slope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(points: &[[f64; 2]]) -> Table {
        Table::new(points.to_vec()).expect("ascending")
    }

    fn assert_near(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 1e-12, "{got} for {want}");
    }

    #[test]
    fn times_are_interpolated_in_log_log() {
        let table = table(&[[10.0, 1.0], [1000.0, 100.0], [100_000.0, 100.0]]);
        for (size, seconds) in [
            (10.0, 1.0),
            (100.0, 10.0),
            (1000.0, 100.0),
            (5000.0, 100.0),
            (100_000.0, 100.0),
        ] {
            assert_near(table.compute(size), seconds);
            assert_near(table.transfer(size), seconds);
        }
    }

    #[test]
    fn outside_the_table_compute_times_follow_the_nearest_segment_but_never_fall() {
        let rising = table(&[[10.0, 1.0], [100.0, 100.0]]);
        assert_near(rising.compute(1.0), 0.01);
        assert_near(rising.compute(1000.0), 1e4);
        let falling = table(&[[10.0, 5.0], [100.0, 2.0]]);
        assert_near(falling.compute(1.0), 5.0);
        assert_near(falling.compute(1000.0), 2.0);
        assert_near(
            falling.compute(10.0f64.sqrt() * 10.0),
            (5.0f64 * 2.0).sqrt(),
        );
        let single = table(&[[10.0, 5.0]]);
        assert_near(single.compute(1.0), 5.0);
        assert_near(single.compute(1e9), 5.0);
        let steep = table(&[[1.0, 1e-9], [2.0, 1e9]]);
        assert!(steep.compute(1e12).is_finite());
    }

    #[test]
    fn transfer_times_are_constant_below_the_table_and_grow_above_it() {
        let link = table(&[[100.0, 1.0], [1000.0, 10.0]]);
        assert_near(link.transfer(1.0), 1.0);
        assert_near(link.transfer(1e4), 100.0);
        let single = table(&[[100.0, 1.0]]);
        assert_near(single.transfer(50.0), 1.0);
        assert_near(single.transfer(200.0), 2.0);
        let free = table(&[[0.0, 0.0], [100.0, 1.0]]);
        assert_near(free.transfer(50.0), 0.5);
        assert_eq!(free.transfer(0.0), 0.0);
        assert_near(free.transfer(200.0), 1.0);
    }

    proptest! {
        #[test]
        fn times_that_rise_in_the_table_rise_everywhere(
            steps in prop::collection::vec((0.01f64..5.0, 0.0f64..5.0), 1..8), a in -5.0f64..40.0, b in -5.0f64..40.0,
        ) {
            let mut at = [1.0, 1e-6];
            let points = steps.iter().map(|(size, seconds)| {
                at = [at[0] * size.exp(), at[1] * seconds.exp()];
                at
            });
            let table = Table::new(points.collect()).expect("ascending");
            let (small, large) = (a.min(b).exp(), a.max(b).exp());
            for time in [Table::compute, Table::transfer] {
                let (less, more) = (time(&table, small), time(&table, large));
                prop_assert!(less.is_finite() && less >= 0.0);
                prop_assert!(less <= more * (1.0 + 1e-12), "{} at {}, {} at {}", less, small, more, large);
            }
        }
    }
}
