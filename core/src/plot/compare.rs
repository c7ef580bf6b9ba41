//! Plots that compare: intervals or bars, one a row, and parallel coordinates.

use std::io;
use std::path::Path;

use plotters::style::Color;
use plotters::style::text_anchor::HPos;

use super::{AXIS, BOTTOM, GOAL, HEIGHT, MARGIN, RIGHT, SERIES, WIDTH, range, save, ticks};
use crate::page::{Drawn, INK, MUTED, PAGE, Page, RULE, blend};
use crate::stats::Interval;

const TOP: f64 = 66.0;
/// Rows that have room.
const MOST_ROWS: usize = 16;
/// What is left of the rows.
const WIDEST_LABEL: f64 = 340.0;

/// Estimates beside each other.
#[derive(Clone, Debug, Default)]
pub struct RowsPlot {
    /// Heading.
    pub title: String,
    /// What is on the horizontal axis.
    pub x_label: String,
    /// Name and estimate, from the top. There is room for 16; the rest is only counted.
    pub rows: Vec<(String, Interval)>,
    /// A value to compare with, drawn as a dashed line.
    pub goal: Option<f64>,
    /// The ends of the axis; those of the values without it.
    pub ends: Option<(f64, f64)>,
    /// Whether bars are drawn from the left end, and no intervals.
    pub bars: bool,
}

/// Draws `plot` to a PNG file of 1600x960 pixels.
///
/// # Errors
/// If the file can't be written; the message names it.
pub fn rows_png(path: &Path, plot: &RowsPlot) -> io::Result<()> {
    save(path, |page| draw_rows(page, plot))
}

/// Several quantities of several things: a vertical axis for each quantity, a line across them for each thing.
#[derive(Clone, Debug, Default)]
pub struct AxesPlot {
    /// Heading.
    pub title: String,
    /// Names of the axes, from the left.
    pub axes: Vec<String>,
    /// Labels on each axis, with their heights from 0 to 1.
    pub labels: Vec<Vec<(String, f64)>>,
    /// The height on each axis, from 0 to 1, of each line; and how good it is, from 0 to 1, which colours it.
    pub lines: Vec<(Vec<f64>, f64)>,
}

/// Draws `plot` to a PNG file of 1600x960 pixels; good lines last.
///
/// # Errors
/// If the file can't be written; the message names it.
pub fn axes_png(path: &Path, plot: &AxesPlot) -> io::Result<()> {
    save(path, |page| draw_axes(page, plot))
}

fn draw_rows(page: &mut Page<'_>, plot: &RowsPlot) -> Drawn<()> {
    page.heading(&plot.title)?;
    let shown = &plot.rows[..plot.rows.len().min(MOST_ROWS)];
    let mut left = MARGIN;
    let mut labels = Vec::new();
    for (label, _) in shown {
        let (label, width) = shortened(page, label, WIDEST_LABEL)?;
        left = left.max(MARGIN + width + 18.0);
        labels.push(label);
    }
    let values = shown.iter().flat_map(|(_, i)| if plot.bars { [i.estimate; 3] } else { [i.low, i.estimate, i.high] });
    let finite = values.chain(plot.goal).filter(|value| value.is_finite());
    let Some((low, high)) = plot.ends.or_else(|| range(finite, false)) else {
        return page.text("no data", (WIDTH / 2.0, HEIGHT / 2.0), 15.0, MUTED, HPos::Center);
    };
    let at = |value: f64| left + (value.clamp(low, high) - low) / (high - low) * (RIGHT - left);
    for (value, label) in ticks((low, high), 6) {
        page.line((at(value), TOP - 8.0), (at(value), BOTTOM), 1.0, RULE)?;
        page.text(&label, (at(value), BOTTOM + 16.0), 12.0, MUTED, HPos::Center)?;
    }
    let more = plot.rows.len() - shown.len();
    let more = if more > 0 { format!("; {more} more are not shown") } else { String::new() };
    page.text(&format!("{}{more}", plot.x_label), ((left + RIGHT) / 2.0, HEIGHT - 18.0), 12.5, MUTED, HPos::Center)?;
    let step = ((BOTTOM - TOP) / shown.len().max(1) as f64).min(46.0);
    for (i, ((_, interval), label)) in shown.iter().zip(&labels).enumerate() {
        let y = TOP + step * (i as f64 + 0.5);
        page.text(label, (MARGIN, y), 13.0, INK, HPos::Left)?;
        if !interval.estimate.is_finite() {
            continue;
        }
        let color = SERIES[if plot.bars { 0 } else { i % SERIES.len() }];
        if plot.bars {
            page.line((left, y), (at(interval.estimate), y), (0.5 * step).min(16.0), color)?;
            continue;
        }
        let half = (0.22 * step).min(7.0);
        let ends = [(interval.low, -half), (interval.high, -half), (interval.high, half), (interval.low, half)];
        page.fill(ends.into_iter().map(|(value, dy)| (at(value), y + dy)), color.mix(0.3))?;
        let x = at(interval.estimate);
        page.line((x, y - 1.6 * half), (x, y + 1.6 * half), 3.0, color)?;
    }
    if let Some(goal) = plot.goal.filter(|goal| (low..=high).contains(goal)) {
        let mut y = TOP - 8.0;
        while y < BOTTOM {
            page.line((at(goal), y), (at(goal), (y + 7.0).min(BOTTOM)), 1.6, GOAL)?;
            y += 12.0;
        }
    }
    page.line((left, BOTTOM), (RIGHT, BOTTOM), 1.0, AXIS)
}

fn draw_axes(page: &mut Page<'_>, plot: &AxesPlot) -> Drawn<()> {
    page.heading(&plot.title)?;
    let (top, bottom, left, right) = (TOP + 34.0, HEIGHT - 34.0, 110.0, WIDTH - 40.0);
    let gap = (right - left) / (plot.axes.len().max(2) - 1) as f64;
    let place = |axis: usize, height: f64| (left + gap * axis as f64, bottom - (bottom - top) * height);
    let mut order: Vec<&(Vec<f64>, f64)> = plot.lines.iter().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (heights, good) in order {
        let points: Vec<_> = heights.iter().enumerate().map(|(axis, height)| place(axis, *height)).collect();
        page.curve(&points, blend(AXIS, SERIES[1], *good))?;
    }
    for (axis, name) in plot.axes.iter().enumerate() {
        let (x, _) = place(axis, 0.0);
        page.line((x, top), (x, bottom), 1.2, MUTED)?;
        let (name, width) = shortened(page, name, gap - 8.0)?;
        // The outermost names would leave the page.
        let x_name = x.clamp(MARGIN + width / 2.0, RIGHT - width / 2.0);
        page.text(&name, (x_name, top - 22.0), 13.0, INK, HPos::Center)?;
        for (label, height) in &plot.labels[axis] {
            let (label, width) = shortened(page, label, gap - 16.0)?;
            let (_, y) = place(axis, *height);
            let ends = [(-width - 9.0, -8.0), (-5.0, -8.0), (-5.0, 8.0), (-width - 9.0, 8.0)];
            page.fill(ends.into_iter().map(|(dx, dy)| (x + dx, y + dy)), PAGE.mix(0.8))?;
            page.text(&label, (x - 7.0, y), 12.0, MUTED, HPos::Right)?;
        }
    }
    Ok(())
}

/// A label that fits, with an ellipsis where it had to be cut; and its width.
fn shortened(page: &mut Page<'_>, label: &str, widest: f64) -> Drawn<(String, f64)> {
    let mut text = label.to_owned();
    let mut letters: Vec<char> = label.chars().collect();
    loop {
        let width = page.width(&text, 13.0)?;
        if width <= widest || letters.len() <= 1 {
            return Ok((text, width));
        }
        letters.pop();
        text = letters.iter().collect::<String>() + "…";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Picture;

    fn drawn(draw: impl FnOnce(&mut Page) -> Drawn<()>) -> Picture {
        crate::page::picture((WIDTH, HEIGHT), draw).unwrap()
    }

    fn count(rgb: &[u8], color: plotters::style::RGBColor) -> usize {
        rgb.chunks_exact(3).filter(|pixel| **pixel == [color.0, color.1, color.2]).count()
    }

    fn interval(low: f64, estimate: f64, high: f64) -> Interval {
        Interval { estimate, low, high }
    }

    #[test]
    fn every_row_and_the_goal_are_drawn() {
        let rows = vec![("one".into(), interval(0.0, 1.0, 2.0)), ("two".into(), interval(3.0, 3.0, 3.0))];
        let plot = RowsPlot { title: "t".into(), rows, goal: Some(2.5), ..RowsPlot::default() };
        let Picture { width, height, rgb } = drawn(|page| draw_rows(page, &plot));
        assert_eq!((width, height), (1600, 960));
        assert!(count(&rgb, SERIES[0]) > 50 && count(&rgb, SERIES[1]) > 50 && count(&rgb, GOAL) > 50);
        let bare = RowsPlot { goal: None, ..plot };
        assert_eq!(count(&drawn(|page| draw_rows(page, &bare)).rgb, GOAL), 0);
    }

    #[test]
    fn longer_bars_have_more_ink_and_odd_values_do_not_panic() {
        let bar = |value: f64| RowsPlot {
            rows: vec![("a".repeat(200), interval(value, value, value))],
            ends: Some((0.0, 1.0)),
            bars: true,
            ..RowsPlot::default()
        };
        let ink = |plot: &RowsPlot| count(&drawn(|page| draw_rows(page, plot)).rgb, SERIES[0]);
        assert!(ink(&bar(0.8)) > 3 * ink(&bar(0.2)));
        assert_eq!(ink(&bar(f64::NAN)), 0);
        let many = RowsPlot { rows: vec![("x".into(), interval(0.0, 0.0, 0.0)); 40], ..RowsPlot::default() };
        drawn(|page| draw_rows(page, &many));
        drawn(|page| draw_rows(page, &RowsPlot::default()));
        drawn(|page| draw_axes(page, &AxesPlot::default()));
    }

    #[test]
    fn the_best_line_across_the_axes_is_in_its_colour() {
        let plot = AxesPlot {
            title: "t".into(),
            axes: vec!["a".into(), "b".into()],
            labels: vec![vec![("0".into(), 0.0)], vec![("1".into(), 1.0)]],
            lines: vec![(vec![0.0, 1.0], 1.0), (vec![1.0, 0.0], 0.0)],
        };
        let rgb = drawn(|page| draw_axes(page, &plot)).rgb;
        assert!(count(&rgb, SERIES[1]) > 1000 && count(&rgb, AXIS) > 1000);
    }
}
