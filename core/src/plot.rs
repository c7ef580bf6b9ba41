//! Learning curves and scatter plots as PNG pictures.
//!
//! The picture is laid out at 800x480, and has 1600x960 pixels.

mod compare;

use std::io;
use std::path::Path;

use plotters::style::text_anchor::HPos;
use plotters::style::{Color, RGBColor};

use crate::media::named;
use crate::page::{Drawn, INK, MUTED, Page, RULE, picture};

pub use crate::page::register_fonts;
pub use compare::{AxesPlot, RowsPlot, axes_png, rows_png};

/// Layout units: 800x480.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 480.0;

const MARGIN: f64 = 20.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 28.0;
const BOTTOM: f64 = HEIGHT - 54.0;

const AXIS: RGBColor = RGBColor(0xA9, 0xB5, 0xC7);
const GOAL: RGBColor = RGBColor(0x18, 0xA9, 0x7B);
const SERIES: [RGBColor; 10] = [
    RGBColor(0x3D, 0x6B, 0xE0),
    RGBColor(0xEE, 0x7B, 0x30),
    RGBColor(0x8B, 0x5F, 0xD8),
    RGBColor(0xD9, 0x3D, 0x6E),
    RGBColor(0x17, 0x9F, 0xB8),
    RGBColor(0x9A, 0x8B, 0x1C),
    RGBColor(0x8A, 0x5A, 0x44),
    RGBColor(0x4A, 0x58, 0x78),
    RGBColor(0x2F, 0x9E, 0x44),
    RGBColor(0xC2, 0x5A, 0xC9),
];

/// A learning curve, or several to compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CurvePlot {
    /// Heading, for example the algorithm and the environment.
    pub title: String,
    /// What is on the horizontal axis, for example "environment steps".
    pub x_label: String,
    /// What is on the vertical axis, for example "episode return".
    pub y_label: String,
    /// The curves, drawn in this order.
    pub series: Vec<Series>,
    /// A value to reach, drawn as a dashed line, and its name.
    pub threshold: Option<(f64, String)>,
}

/// One curve. Where a number is not finite, it has a gap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Name in the legend; an empty one is left out of it.
    pub label: String,
    /// `(x, y)` in the order of `x`.
    pub points: Vec<(f64, f64)>,
    /// `(low, high)` of a band around each point, for example the spread over seeds; empty for none.
    pub band: Vec<(f64, f64)>,
}

/// Draws `plot` to a PNG file of 1600x960 pixels.
///
/// # Errors
/// If the file can't be written; the message names it.
pub fn curve_png(path: &Path, plot: &CurvePlot) -> io::Result<()> {
    save(path, |page| draw(page, plot))
}

/// Points of the plane in named groups, such as the classes of a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScatterPlot {
    /// Heading.
    pub title: String,
    /// What is on the horizontal axis.
    pub x_label: String,
    /// What is on the vertical axis.
    pub y_label: String,
    /// Name and points `(x, y)` of each group; an empty name is left out of the legend.
    pub groups: Vec<(String, Vec<(f64, f64)>)>,
}

/// Draws `plot` to a PNG file of 1600x960 pixels. Points of all groups are drawn in turn, so that none hides the others.
///
/// # Errors
/// If the file can't be written; the message names it.
pub fn scatter_png(path: &Path, plot: &ScatterPlot) -> io::Result<()> {
    save(path, |page| draw_scatter(page, plot))
}

fn save(path: &Path, draw: impl FnOnce(&mut Page) -> Drawn<()>) -> io::Result<()> {
    picture((WIDTH, HEIGHT), draw).map_err(|e| named(path, e))?.save(path)
}

fn draw_scatter(page: &mut Page, plot: &ScatterPlot) -> Drawn<()> {
    page.heading(&plot.title)?;
    let names = plot.groups.iter().enumerate().map(|(i, group)| (&group.0, Some(SERIES[i % SERIES.len()])));
    let legend_end = page.legend_of(names)?;
    let top = legend_end + 28.0;
    page.text(&plot.y_label, (MARGIN, legend_end + 8.0), 12.5, MUTED, HPos::Left)?;
    page.text(&plot.x_label, ((LEFT + RIGHT) / 2.0, HEIGHT - 18.0), 12.5, MUTED, HPos::Center)?;
    let finite = |p: &&(f64, f64)| p.0.abs() < 1e100 && p.1.abs() < 1e100;
    let points = || plot.groups.iter().flat_map(|group| group.1.iter()).filter(finite);
    if let (Some(x), Some(y)) = (range(points().map(|p| p.0), false), range(points().map(|p| p.1), false)) {
        let place = |p: &(f64, f64)| {
            (LEFT + (p.0 - x.0) / (x.1 - x.0) * (RIGHT - LEFT), BOTTOM - (p.1 - y.0) / (y.1 - y.0) * (BOTTOM - top))
        };
        for (value, label) in ticks(y, 6) {
            let (_, at) = place(&(x.0, value));
            page.line((LEFT, at), (RIGHT, at), 1.0, RULE)?;
            page.text(&label, (LEFT - 10.0, at), 12.0, MUTED, HPos::Right)?;
        }
        for (value, label) in ticks(x, 8) {
            let (at, _) = place(&(value, y.0));
            page.line((at, BOTTOM), (at, top), 1.0, RULE)?;
            page.text(&label, (at, BOTTOM + 16.0), 12.0, MUTED, HPos::Center)?;
        }
        page.line((LEFT, BOTTOM), (RIGHT, BOTTOM), 1.0, AXIS)?;
        let longest = plot.groups.iter().map(|group| group.1.len()).max().unwrap_or(0);
        for turn in 0..longest {
            for (i, (_, points)) in plot.groups.iter().enumerate() {
                if let Some(point) = points.get(turn).filter(finite) {
                    page.dot(place(point), 2.3, SERIES[i % SERIES.len()].mix(0.75))?;
                }
            }
        }
    }
    Ok(())
}

fn draw(page: &mut Page, plot: &CurvePlot) -> Drawn<()> {
    page.heading(&plot.title)?;
    let legend_end = page.legend(plot)?;
    let top = legend_end + 28.0;
    page.text(&plot.y_label, (MARGIN, legend_end + 8.0), 12.5, MUTED, HPos::Left)?;
    page.text(&plot.x_label, ((LEFT + RIGHT) / 2.0, HEIGHT - 18.0), 12.5, MUTED, HPos::Center)?;

    let finite = |x: &f64| x.abs() < 1e100;
    let threshold = plot.threshold.as_ref().filter(|t| finite(&t.0));
    let xs = plot.series.iter().flat_map(|s| s.points.iter().filter(|p| finite(&p.1)).map(|p| p.0)).filter(finite);
    let ys = plot.series.iter().flat_map(|s| {
        let finite_x = |i: usize| s.points.get(i).is_some_and(|p| finite(&p.0));
        let band = s.band.iter().enumerate().filter(move |(i, _)| finite_x(*i)).flat_map(|(_, b)| [b.0, b.1]);
        s.points.iter().filter(|p| finite(&p.0)).map(|p| p.1).chain(band)
    });
    let (Some(x), Some(y)) = (range(xs, true), range(ys.chain(threshold.map(|t| t.0)).filter(finite), false)) else {
        page.line((LEFT, BOTTOM), (RIGHT, BOTTOM), 1.0, AXIS)?;
        page.text("no data", ((LEFT + RIGHT) / 2.0, (top + BOTTOM) / 2.0), 15.0, MUTED, HPos::Center)?;
        return Ok(());
    };
    let place = |(px, py): (f64, f64)| {
        (LEFT + (px - x.0) / (x.1 - x.0) * (RIGHT - LEFT), BOTTOM - (py - y.0) / (y.1 - y.0) * (BOTTOM - top))
    };

    for (value, label) in ticks(y, 8) {
        let (_, at) = place((x.0, value));
        page.line((LEFT, at), (RIGHT, at), 1.0, RULE)?;
        page.text(&label, (LEFT - 10.0, at), 12.0, MUTED, HPos::Right)?;
    }
    for (value, label) in ticks(x, 8) {
        let (at, _) = place((value, y.0));
        page.line((at, BOTTOM), (at, BOTTOM + 5.0), 1.0, AXIS)?;
        page.text(&label, (at, BOTTOM + 16.0), 12.0, MUTED, HPos::Center)?;
    }
    page.line((LEFT, BOTTOM), (RIGHT, BOTTOM), 1.0, AXIS)?;

    if let Some((value, _)) = threshold {
        let (_, at) = place((x.0, *value));
        page.dashes((LEFT, at), RIGHT)?;
    }
    let color = |i: usize| SERIES[i % SERIES.len()];
    for (i, series) in plot.series.iter().enumerate() {
        let edges: Vec<_> = series.points.iter().zip(&series.band).map(|(p, b)| [(p.0, b.0), (p.0, b.1)]).collect();
        for run in edges.split(|pair| pair.iter().any(|p| !finite(&p.0) || !finite(&p.1))) {
            let (low, high) = (run.iter().map(|p| place(p[0])), run.iter().rev().map(|p| place(p[1])));
            page.fill(low.chain(high), color(i).mix(0.16))?;
        }
    }
    for (i, series) in plot.series.iter().enumerate() {
        for run in series.points.split(|p| !finite(&p.0) || !finite(&p.1)) {
            let run: Vec<_> = run.iter().map(|&p| place(p)).collect();
            page.curve(&run, color(i))?;
        }
    }
    Ok(())
}

/// What is the same on every plot.
impl Page<'_> {
    /// A dashed line to the right.
    fn dashes(&mut self, (start, y): (f64, f64), end: f64) -> Drawn<()> {
        let (dash, gap) = (7.0, 5.0);
        for i in 0..((end - start) / (dash + gap)).ceil() as u32 {
            let x = start + f64::from(i) * (dash + gap);
            self.line((x, y), ((x + dash).min(end), y), 1.6, GOAL)?;
        }
        Ok(())
    }

    /// A curve with round corners, or a dot for one point.
    fn curve(&mut self, points: &[(f64, f64)], color: RGBColor) -> Drawn<()> {
        let width = 2.0;
        for pair in points.windows(2) {
            self.line(pair[0], pair[1], width, color)?;
        }
        let radius = if points.len() == 1 { 1.8 * width } else { width / 2.0 };
        points.iter().try_for_each(|&point| self.dot(point, radius, color.to_rgba()))
    }

    /// The title, made smaller where it would not fit.
    fn heading(&mut self, title: &str) -> Drawn<()> {
        self.fitted(title, (MARGIN, 32.0), 21.0, RIGHT - MARGIN)
    }

    /// Names of the curves and of the threshold.
    fn legend(&mut self, plot: &CurvePlot) -> Drawn<f64> {
        let curves = plot.series.iter().enumerate().map(|(i, s)| (&s.label, Some(SERIES[i % SERIES.len()])));
        self.legend_of(curves.chain(plot.threshold.iter().map(|t| (&t.1, None))))
    }

    /// Names beside their colours, or beside dashes, in as many rows as they need; returns where the last row ends.
    fn legend_of<'n>(&mut self, names: impl Iterator<Item = (&'n String, Option<RGBColor>)>) -> Drawn<f64> {
        let (mut x, mut y) = (MARGIN, 62.0);
        let mut end = 50.0;
        for (label, color) in names.filter(|(label, _)| !label.is_empty()) {
            let width = self.width(label, 13.0)?;
            if x > MARGIN && x + 26.0 + width > RIGHT {
                (x, y) = (MARGIN, y + 20.0);
            }
            match color {
                Some(color) => self.line((x, y), (x + 19.0, y), 3.0, color)?,
                None => self.dashes((x, y), x + 19.0)?,
            }
            self.text(label, (x + 26.0, y), 13.0, INK, HPos::Left)?;
            x += 26.0 + width + 22.0;
            end = y + 14.0;
        }
        Ok(end)
    }
}

/// The interval of an axis: all values, with a margin unless it is `tight`; a tight one begins at zero where the
/// values begin close to it. `None` without values.
fn range(values: impl Iterator<Item = f64>, tight: bool) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    if low > high {
        return None;
    }
    if tight && low >= 0.0 && high > 0.0 && low < 0.25 * high {
        return Some((0.0, high));
    }
    // A range far below the numbers' precision could not be told apart on the axis.
    let smallest = (1e-9 * low.abs().max(high.abs())).max(1e-90);
    if high - low < smallest {
        let margin = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
        return Some((low - margin, high + margin));
    }
    let margin = if tight { 0.0 } else { 0.05 * (high - low) };
    Some((low - margin, high + margin))
}

/// At most about `count` round values in an interval, with labels such as `0.25`, `400`, `100 k` or `1.5 M`.
fn ticks((low, high): (f64, f64), count: u32) -> Vec<(f64, String)> {
    let rough = (high - low) / f64::from(count);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough * 0.999).unwrap_or(rough);
    let largest = low.abs().max(high.abs());
    let (unit, suffix) = match largest {
        x if x >= 1e15 => (1.0, ""),
        x if x >= 1e9 => (1e9, " G"),
        x if x >= 1e6 => (1e6, " M"),
        x if x >= 1e4 => (1e3, " k"),
        _ => (1.0, ""),
    };
    let decimals = (-(step / unit).log10() + 1.0).ceil().clamp(0.0, 12.0) as usize;
    let label = |value: f64| {
        if value == 0.0 {
            return "0".to_owned();
        }
        if !(1e-4..1e15).contains(&largest) {
            return format!("{value:.1e}").replace('-', "−");
        }
        let number = format!("{:.decimals$}", value / unit);
        let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
        format!("{}{suffix}", number.replace('-', "−"))
    };
    let first = (low / step - 1e-6).ceil();
    let last = (high / step + 1e-6).floor();
    (0..=(last - first).max(0.0) as u32).map(|i| (first + f64::from(i)) * step).map(|v| (v, label(v))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{PAGE, PIXELS, Picture};

    fn drawn(plot: &CurvePlot) -> Picture {
        picture((WIDTH, HEIGHT), |page| draw(page, plot)).unwrap()
    }

    fn plot(points: Vec<(f64, f64)>) -> CurvePlot {
        CurvePlot {
            title: "PPO on CartPole-v1".into(),
            x_label: "environment steps".into(),
            y_label: "episode return".into(),
            series: vec![Series { label: "mean".into(), points, band: Vec::new() }],
            threshold: None,
        }
    }

    /// Pixels of the finished picture in the colour of series `i`.
    fn colored(plot: &CurvePlot, color: RGBColor) -> Vec<(u32, u32)> {
        let Picture { width, rgb, .. } = drawn(plot);
        let is = |p: &[u8]| p == [color.0, color.1, color.2];
        let at = |i: usize| (i as u32 % width, i as u32 / width);
        rgb.chunks_exact(3).enumerate().filter(|(_, p)| is(p)).map(|(i, _)| at(i)).collect()
    }

    /// Where the plot begins, below the legend.
    const PLOT_TOP: u32 = 180;

    #[test]
    fn a_rising_curve_rises_from_corner_to_corner() {
        let pixels = colored(&plot((0..100).map(|i| (f64::from(i) * 1000.0, f64::from(i))).collect()), SERIES[0]);
        let curve: Vec<_> = pixels.into_iter().filter(|p| p.1 > PLOT_TOP).collect();
        let (left, right) = (curve.iter().min().unwrap(), curve.iter().max().unwrap());
        assert!(left.0.abs_diff(PIXELS * LEFT as u32) < 6 && right.0.abs_diff(PIXELS * RIGHT as u32) < 6);
        assert!(left.1 > right.1 + 500, "{left:?} {right:?}");
    }

    #[test]
    fn series_without_a_line_do_not_panic() {
        let cases = [
            vec![],
            vec![(5.0, 3.0)],
            vec![(0.0, 2.0), (10.0, 2.0), (20.0, 2.0)],
            vec![(1.0, 0.0), (1.0, 0.0)],
            vec![(0.0, f64::NAN), (1.0, f64::INFINITY), (f64::NAN, 1.0), (f64::NEG_INFINITY, 1.0)],
            vec![(0.0, 1e300), (1.0, -1e300)],
            vec![(0.0, 1e90), (1.0, -1e90)],
            vec![(0.0, 1e-95), (1.0, 2e-95)],
            vec![(0.0, 1e17), (1.0, 1e17 + 16.0)],
        ];
        let counts = cases.map(|points| {
            let plot = plot(points);
            assert_ne!(drawn(&plot).rgb, drawn(&CurvePlot::default()).rgb);
            colored(&plot, SERIES[0]).iter().filter(|p| p.1 > PLOT_TOP).count()
        });
        assert_eq!([counts[0], counts[4], counts[5]], [0; 3], "nothing to draw");
        assert!(counts[1] > 50 && counts[1] < 400, "a dot: {counts:?}");
        assert!(counts[2] > 3000 && counts[6] > 1000, "lines: {counts:?}");
    }

    #[test]
    fn a_gap_divides_the_curve() {
        let line = |hole: bool| (0..21).map(|i| (f64::from(i), if hole && i == 10 { f64::NAN } else { 1.0 })).collect();
        let middle = |plot: CurvePlot| {
            let x = PIXELS * ((LEFT + RIGHT) / 2.0) as u32;
            colored(&plot, SERIES[0]).iter().any(|p| p.0 == x && p.1 > PLOT_TOP)
        };
        assert!(middle(plot(line(false))));
        assert!(!middle(plot(line(true))));
    }

    #[test]
    fn band_and_threshold_are_drawn_where_they_are() {
        let mut plot = plot(vec![(0.0, 0.0), (1.0, 0.0)]);
        plot.series[0].band = vec![(-1.0, 1.0), (-1.0, 1.0)];
        plot.threshold = Some((3.0, "solved".into()));
        let Picture { width, rgb, .. } = drawn(&plot);
        let column: Vec<_> = rgb.chunks_exact(3).skip(801).step_by(width as usize).collect();
        let mix = |k: u8, p: u8| (f64::from(k) * 0.16 + f64::from(p) * 0.84).round() as u8;
        let band = [mix(SERIES[0].0, PAGE.0), mix(SERIES[0].1, PAGE.1), mix(SERIES[0].2, PAGE.2)];
        let in_band = column.iter().filter(|p| (0..3).all(|k| p[k].abs_diff(band[k]) <= 2)).count();
        // The axis runs from -1 to 3 with margins of a twentieth; the band is 2 of 4.4 units high.
        let height = f64::from(PIXELS) * (BOTTOM - 110.0);
        assert!((in_band as f64 - height * 2.0 / 4.4).abs() < 20.0, "{in_band} of {height}");
        let goal = colored(&plot, GOAL);
        assert!(goal.len() > 1500 && goal.iter().all(|p| p.1 < 300));
    }

    #[test]
    fn ticks_are_round_and_short() {
        let labels = |range, count| ticks(range, count).into_iter().map(|t| t.1).collect::<Vec<_>>().join(" | ");
        assert_eq!(labels((0.0, 500_000.0), 5), "0 | 100 k | 200 k | 300 k | 400 k | 500 k");
        assert_eq!(labels((0.0, 2_000_000.0), 4), "0 | 0.5 M | 1 M | 1.5 M | 2 M");
        assert_eq!(labels((0.0, 500.0), 5), "0 | 100 | 200 | 300 | 400 | 500");
        assert_eq!(labels((-0.02, 0.52), 5), "0 | 0.2 | 0.4");
        assert_eq!(labels((0.0, 1.0), 4), "0 | 0.25 | 0.5 | 0.75 | 1");
        assert_eq!(labels((-1600.0, 0.0), 4), "−1500 | −1000 | −500 | 0");
        assert_eq!(labels((0.0, 5e-6), 5), "0 | 1.0e−6 | 2.0e−6 | 3.0e−6 | 4.0e−6 | 5.0e−6");
    }

    #[test]
    fn the_file_has_the_documented_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curve.png");
        curve_png(&path, &plot(vec![(0.0, 0.0), (1.0, 1.0)])).unwrap();
        let picture = image::open(&path).unwrap();
        assert_eq!((picture.width(), picture.height()), (1600, 960));
        let error = curve_png(Path::new("/nowhere/curve.png"), &CurvePlot::default()).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/curve.png: "), "{error}");
    }
}
