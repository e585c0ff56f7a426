//! A log-log plot of seconds over sizes, as an SVG element with colours from the page's style sheet.

use super::page::escape;
use divvy::units::{count, seconds};
use std::fmt::Write;

/// A plot.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// Its description for screen readers.
    pub title: String,
    /// Lines through points.
    pub series: Vec<Series>,
    /// Single points on top of the lines.
    pub marks: Vec<Mark>,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Series {
    /// The class that gives it a colour.
    pub class: String,
    /// Its points, by ascending size.
    pub points: Vec<Point>,
}

/// A highlighted point.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Its position.
    pub point: Point,
    /// Its shape.
    pub shape: Shape,
    /// The class that gives it a colour.
    pub class: String,
    /// Its tooltip.
    pub title: String,
}

/// The time of a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The size.
    pub n: usize,
    /// Seconds.
    pub seconds: f64,
}

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// For the CPU.
    Circle,
    /// For a GPU.
    Square,
    /// For several devices.
    Diamond,
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// Half of the size of a mark.
const MARK: f64 = 5.5;

impl Plot {
    /// The element.
    pub fn svg(&self) -> String {
        let scales = Scales::of(&self.points());
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title)
        );
        scales.draw(&mut svg);
        for series in &self.series {
            let class = escape(&series.class);
            let points: Vec<Point> = series
                .points
                .iter()
                .copied()
                .filter(Point::can_be_drawn)
                .collect();
            let line: Vec<String> = points.iter().map(|point| scales.place(point)).collect();
            add(
                &mut svg,
                format_args!(
                    "<polyline class=\"line {class}\" points=\"{}\"/>\n",
                    line.join(" ")
                ),
            );
            for point in &points {
                let (x, y) = (scales.x(point.n), scales.y(point.seconds));
                add(
                    &mut svg,
                    format_args!(
                        "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>\n"
                    ),
                );
            }
        }
        for mark in self.marks.iter().filter(|mark| mark.point.can_be_drawn()) {
            let (x, y) = (scales.x(mark.point.n), scales.y(mark.point.seconds));
            add(
                &mut svg,
                format_args!(
                    "<g class=\"mark {}\"><title>{}</title>{}</g>\n",
                    escape(&mark.class),
                    escape(&mark.title),
                    mark.shape.svg(x, y)
                ),
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn points(&self) -> Vec<Point> {
        let lines = self.series.iter().flat_map(|series| &series.points);
        let all = lines.chain(self.marks.iter().map(|mark| &mark.point));
        all.copied().filter(Point::can_be_drawn).collect()
    }
}

impl Point {
    /// Whether both logarithms are finite.
    fn can_be_drawn(&self) -> bool {
        self.n > 0 && self.seconds > 0.0 && self.seconds.is_finite()
    }
}

impl Shape {
    /// The element of a mark with this centre.
    pub fn svg(self, x: f64, y: f64) -> String {
        match self {
            Self::Circle => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{MARK}\"/>"),
            Self::Square => {
                let (left, top, side) = (x - MARK, y - MARK, 2.0 * MARK);
                format!("<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{side}\" height=\"{side}\"/>")
            }
            Self::Diamond => {
                let far = 1.35 * MARK;
                format!(
                    "<polygon points=\"{x:.1},{:.1} {:.1},{y:.1} {x:.1},{:.1} {:.1},{y:.1}\"/>",
                    y - far,
                    x + far,
                    y + far,
                    x - far
                )
            }
        }
    }
}

/// The positions of sizes and seconds on the plot: whole decades of seconds, and the sizes with a margin on both sides.
struct Scales {
    sizes: Vec<usize>,
    /// The natural logarithm of the size at the left edge.
    left: f64,
    /// The natural logarithm of the size at the right edge.
    right: f64,
    /// The exponent of ten of the seconds at the bottom.
    bottom: i32,
    /// The exponent of ten of the seconds at the top.
    top: i32,
}

impl Scales {
    fn of(points: &[Point]) -> Self {
        let mut sizes: Vec<usize> = points.iter().map(|point| point.n).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let log = |n: Option<&usize>| n.map_or(0.0, |n| (*n as f64).ln());
        let (first, last) = (log(sizes.first()), log(sizes.last()));
        let margin = (0.06 * (last - first)).max(0.2);
        let exponent = |seconds: f64| seconds.log10();
        let least = points
            .iter()
            .map(|p| exponent(p.seconds))
            .min_by(f64::total_cmp);
        let most = points
            .iter()
            .map(|p| exponent(p.seconds))
            .max_by(f64::total_cmp);
        let bottom = least.unwrap_or(-6.0).floor() as i32;
        let top = most.unwrap_or(-3.0).ceil() as i32;
        Self {
            sizes,
            left: first - margin,
            right: last + margin,
            bottom,
            top: top.max(bottom + 1),
        }
    }

    fn x(&self, n: usize) -> f64 {
        let share = ((n as f64).ln() - self.left) / (self.right - self.left);
        LEFT + (WIDTH - LEFT - RIGHT) * share
    }

    fn y(&self, seconds: f64) -> f64 {
        let (bottom, top) = (f64::from(self.bottom), f64::from(self.top));
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (seconds.log10() - bottom) / (top - bottom)
    }

    fn place(&self, point: &Point) -> String {
        format!("{:.1},{:.1}", self.x(point.n), self.y(point.seconds))
    }

    /// Draws the grid and its labels.
    fn draw(&self, svg: &mut String) {
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
        for exponent in self.bottom..=self.top {
            let decade = 10f64.powi(exponent);
            let y = self.y(decade);
            add(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n"
                ),
            );
            let (x, y, label) = (left - 8.0, y + 4.0, decade_name(exponent));
            add(
                svg,
                format_args!(
                    "<text class=\"tick\" text-anchor=\"end\" x=\"{x}\" y=\"{y:.1}\">{label}</text>\n"
                ),
            );
            if exponent == self.top {
                break;
            }
            for step in 2..10 {
                let y = self.y(f64::from(step) * decade);
                add(
                    svg,
                    format_args!(
                        "<line class=\"fine\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n"
                    ),
                );
            }
        }
        let mut free = f64::NEG_INFINITY;
        for &n in &self.sizes {
            let (x, label) = (self.x(n), size_name(n));
            add(
                svg,
                format_args!(
                    "<line class=\"fine\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\n"
                ),
            );
            // Labels that would overlap are left out. A digit is about 7 wide.
            let half = 3.5 * label.chars().count() as f64;
            if x - half > free {
                free = x + half + 6.0;
                let y = bottom + 18.0;
                add(
                    svg,
                    format_args!(
                        "<text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{label}</text>\n"
                    ),
                );
            }
        }
        add(
            svg,
            format_args!(
                "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\n"
            ),
        );
    }
}

/// Writing to a string cannot fail.
fn add(svg: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(element);
}

/// A power of ten of seconds: `10 µs`.
fn decade_name(exponent: i32) -> String {
    let text = seconds(10f64.powi(exponent));
    // A power of ten needs no decimals: "10.0 µs" becomes "10 µs".
    match text.split_once(' ') {
        Some((number, unit)) => {
            let whole = number.split_once('.').map_or(number, |(whole, _)| whole);
            format!("{whole} {unit}")
        }
        None => text,
    }
}

/// A size as an argument: `64Ki`.
fn size_name(n: usize) -> String {
    let whole = |shift: u32| n >= 1 << shift && n.is_multiple_of(1 << shift);
    match n {
        _ if whole(20) => format!("{}Mi", count(n >> 20)),
        _ if whole(10) => format!("{}Ki", count(n >> 10)),
        _ => count(n),
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::assert_well_formed;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_readable() {
        assert_eq!(decade_name(-6), "1 µs");
        assert_eq!(decade_name(-5), "10 µs");
        assert_eq!(decade_name(-1), "100 ms");
        assert_eq!(decade_name(1), "10 s");
        assert_eq!(size_name(1 << 16), "64Ki");
        assert_eq!(size_name(1 << 22), "4Mi");
        assert_eq!(size_name(384), "384");
        assert_eq!(size_name(100_003), "100,003");
    }

    #[test]
    fn a_plot_of_nothing_is_empty() {
        assert_well_formed(&Plot::default().svg());
    }

    #[test]
    fn points_without_a_logarithm_are_left_out() {
        let points = [
            (0, 1.0),
            (1, 0.0),
            (2, f64::NAN),
            (3, f64::INFINITY),
            (4, -1.0),
        ];
        let plot = Plot {
            series: vec![Series {
                class: "cpu".into(),
                points: points.map(|(n, seconds)| Point { n, seconds }).to_vec(),
            }],
            ..Plot::default()
        };
        let svg = plot.svg();
        assert_well_formed(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(!svg.contains("class=\"dot"), "{svg}");
    }

    proptest! {
        #[test]
        fn every_point_lies_on_the_plot(points in proptest::collection::vec((1usize..1 << 40, 1e-9f64..1e3), 1..20)) {
            let points: Vec<Point> = points.into_iter().map(|(n, seconds)| Point { n, seconds }).collect();
            let scales = Scales::of(&points);
            for point in &points {
                prop_assert!((LEFT..=WIDTH - RIGHT).contains(&scales.x(point.n)));
                prop_assert!((TOP - 1e-6..=HEIGHT - BOTTOM + 1e-6).contains(&scales.y(point.seconds)));
            }
        }

        #[test]
        fn larger_values_lie_further_right_and_higher(n in 1usize..1 << 30, seconds in 1e-9f64..1.0) {
            let more = Point { n: 2 * n, seconds: 2.0 * seconds };
            let scales = Scales::of(&[Point { n, seconds }, more]);
            prop_assert!(scales.x(more.n) > scales.x(n));
            prop_assert!(scales.y(more.seconds) < scales.y(seconds));
        }
    }
}
