//! The plots of a section as PNG pictures beside the page.

use std::path::Path;

use hotfire_core::CoreError;
use hotfire_core::metrics::short;
use hotfire_core::plot::{AxesPlot, CurvePlot, RowsPlot, Series, axes_png, curve_png, rows_png};
use hotfire_core::stats::Interval;
use serde_json::Value;

use super::CURVES_SHOWN;
use super::compare::Keys;
use super::page::Section;

/// Draws what there is: `curves.png`, `intervals.png`, `profile.png`, `improvement.png`, `importance.png` and
/// `configurations.png`, their names after `stem`.
pub fn all(out: &Path, stem: &str, section: &Section) -> Result<(), CoreError> {
    let write = |name: &str, draw: &dyn Fn(&Path) -> std::io::Result<()>| {
        let path = out.join(format!("{stem}{name}.png"));
        draw(&path).map_err(CoreError::io(&path, "draw"))
    };
    if let Some(plot) = curves(section) {
        write("curves", &|path| curve_png(path, &plot))?;
    }
    if let Some(plot) = profile(section) {
        write("profile", &|path| curve_png(path, &plot))?;
    }
    let point = |estimate: f64| Interval { estimate, low: estimate, high: estimate };
    let estimates = section
        .rows
        .iter()
        .filter_map(|row| Some((row.label.clone(), row.interval.or(row.interquartile_mean.map(point))?)));
    let intervals = RowsPlot {
        title: format!("{}: interquartile mean, 95 % interval", section.name),
        x_label: section.objective.clone(),
        rows: estimates.collect(),
        goal: section.target,
        ..RowsPlot::default()
    };
    if !intervals.rows.is_empty() {
        write("intervals", &|path| rows_png(path, &intervals))?;
    }
    let improvement = RowsPlot {
        title: format!("{}: probability of improvement", section.name),
        x_label: "chance that a run of the first beats a run of the second".into(),
        rows: section
            .pairs
            .iter()
            .map(|pair| (format!("{} > {}", pair.better, pair.worse), pair.probability))
            .collect(),
        goal: Some(0.5),
        ends: Some((0.0, 1.0)),
        bars: false,
    };
    if !improvement.rows.is_empty() {
        write("improvement", &|path| rows_png(path, &improvement))?;
    }
    if let Some(keys) = &section.keys {
        let importance = RowsPlot {
            title: format!("{}: what matters", section.name),
            x_label: "share of the variance between configurations that a key explains alone".into(),
            rows: keys.importance.iter().map(|item| (item.key.clone(), point(item.share))).collect(),
            goal: None,
            ends: Some((0.0, 1.0)),
            bars: true,
        };
        if !importance.rows.is_empty() {
            write("importance", &|path| rows_png(path, &importance))?;
        }
        let plot = configurations(section, keys);
        write("configurations", &|path| axes_png(path, &plot))?;
    }
    Ok(())
}

fn curves(section: &Section) -> Option<CurvePlot> {
    let first = section.curves.first()?;
    let series = |(i, curve): (usize, &super::curves::Curve)| {
        let at = |i: usize| Some(((first.steps[i], curve.mean[i]?), (curve.low[i]?, curve.high[i]?)));
        let (points, band) = (0..first.steps.len()).filter_map(at).unzip();
        Series { label: section.rows[i].label.clone(), points, band }
    };
    Some(CurvePlot {
        title: section.name.clone(),
        x_label: "steps".into(),
        y_label: first.metric.clone(),
        series: first.groups.iter().enumerate().map(series).collect(),
        threshold: section.target.map(|value| (value, "target".into())),
    })
}

fn profile(section: &Section) -> Option<CurvePlot> {
    let profile = section.profile.as_ref()?;
    let series = |(i, shares): (usize, &Vec<f64>)| Series {
        label: section.rows[i].label.clone(),
        points: profile.thresholds.iter().copied().zip(shares.iter().copied()).collect(),
        band: Vec::new(),
    };
    Some(CurvePlot {
        title: format!("{}: share of runs beyond a score", section.name),
        x_label: section.objective.clone(),
        y_label: "share of runs".into(),
        series: profile.groups.iter().enumerate().take(CURVES_SHOWN).map(series).collect(),
        threshold: None,
    })
}

fn configurations(section: &Section, keys: &Keys) -> AxesPlot {
    let scores: Vec<Value> = keys.rows.iter().map(|row| row.score.into()).collect();
    let mut plot = AxesPlot { title: format!("{}: configurations", section.name), ..AxesPlot::default() };
    let mut heights = Vec::new();
    for (i, key) in keys.keys.iter().enumerate() {
        let values: Vec<Value> = keys.rows.iter().map(|row| row.values[i].clone()).collect();
        let (at, labels) = axis(&values);
        plot.axes.push(key.strip_prefix("agent.").or(key.strip_prefix("model.")).unwrap_or(key).to_owned());
        plot.labels.push(labels);
        heights.push(at);
    }
    let (at, labels) = axis(&scores);
    plot.axes.push(section.objective.clone());
    plot.labels.push(labels);
    let good = |i: usize| if section.maximize { at[i] } else { 1.0 - at[i] };
    let line = |i: usize| (heights.iter().map(|at| at[i]).chain([at[i]]).collect(), good(i));
    plot.lines = (0..keys.rows.len()).map(line).collect();
    plot
}

/// Where values lie on an axis from 0 to 1, and its labels. Positive numbers that differ much have a logarithmic one.
fn axis(values: &[Value]) -> (Vec<f64>, Vec<(String, f64)>) {
    let Some(numbers) = values.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>() else {
        let mut distinct: Vec<String> = values.iter().map(Value::to_string).collect();
        distinct.sort();
        distinct.dedup();
        let share = |i: usize| if distinct.len() > 1 { i as f64 / (distinct.len() - 1) as f64 } else { 0.5 };
        let texts = values.iter().map(Value::to_string);
        let at = texts.map(|text| share(distinct.partition_point(|other| *other < text)));
        let labels = distinct.iter().enumerate().map(|(i, text)| (text.replace('"', ""), share(i)));
        return (at.collect(), labels.collect());
    };
    let (low, high) = numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
    let log = low > 0.0 && high / low > 50.0;
    let place = |x: f64| if log { x.ln() } else { x };
    let share = |x: f64| if high > low { (place(x) - place(low)) / (place(high) - place(low)) } else { 0.5 };
    let middle = if log { (low * high).sqrt() } else { (low + high) / 2.0 };
    let mut marks = vec![low, middle, high];
    marks.dedup();
    (numbers.iter().map(|x| share(*x)).collect(), marks.into_iter().map(|x| (short(x), share(x))).collect())
}
