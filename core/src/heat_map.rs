//! Heat maps as PNG pictures: square maps with named rows and columns, in a grid.

use std::io;
use std::path::Path;

use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use crate::media::named;
use crate::page::{Drawn, INK, MUTED, Picture, RULE, blend, picture};

const MARGIN: f64 = 24.0;
const HEADING: f64 = 64.0;
const TITLE: f64 = 26.0;
const GAP: f64 = 14.0;

/// Colours from the smallest value to the largest, at even distances.
const RAMP: [RGBColor; 5] = [
    RGBColor(0xF3, 0xF6, 0xFB),
    RGBColor(0xB9, 0xD0, 0xF5),
    RGBColor(0x6A, 0x96, 0xEA),
    RGBColor(0x2F, 0x55, 0xC4),
    RGBColor(0x15, 0x1F, 0x5C),
];

/// One map.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// What is above it.
    pub title: String,
    /// `[T, T]`, rows from top to bottom.
    pub values: Vec<f32>,
}

/// Draws rows of maps over the same `T` labels to a PNG file. All maps share one colour scale, from 0 to the largest
/// value, which is shown beside the heading.
///
/// # Errors
/// If there is no map, a map is not `[T, T]`, or the file can't be written; the message names the file.
pub fn heat_maps_png(path: &Path, heading: &str, labels: &[String], maps: &[Vec<HeatMap>]) -> io::Result<()> {
    let fits = |map: &HeatMap| map.values.len() == labels.len() * labels.len();
    if labels.is_empty() || maps.iter().flatten().next().is_none() || !maps.iter().flatten().all(fits) {
        return Err(named(path, format!("expected maps of {0} x {0} values", labels.len())));
    }
    draw(heading, labels, maps).map_err(|e| named(path, e))?.save(path)
}

fn draw(heading: &str, labels: &[String], maps: &[Vec<HeatMap>]) -> Drawn<Picture> {
    let columns = maps.iter().map(Vec::len).max().unwrap_or(1);
    let cell = (180.0 / labels.len() as f64).clamp(4.0, 26.0);
    let side = cell * labels.len() as f64;
    // Roboto's letters are half as wide as high.
    let size = (0.72 * cell).min(11.0);
    let named = size >= 4.0;
    let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0) as f64;
    let room = if named { 0.58 * size * longest + 8.0 } else { 0.0 };
    let body = columns as f64 * (side + GAP) - GAP;
    let width = (2.0 * MARGIN + room + body).max(420.0);
    let height = HEADING + maps.len() as f64 * (TITLE + side) + room + MARGIN;
    let largest = maps.iter().flatten().flat_map(|map| &map.values).fold(0.0f32, |m, v| m.max(*v)).max(1e-12);
    picture((width, height), |page| {
        let bar = 110.0;
        let heading_room = width - 2.0 * MARGIN - bar - 70.0;
        page.fitted(heading, (MARGIN, 30.0), 18.0, heading_room)?;
        let start = width - MARGIN - bar - 34.0;
        for i in 0..bar as usize {
            let x = start + i as f64;
            page.rectangle((x, 24.0), (x + 1.0, 36.0), ramp(i as f32 / bar as f32))?;
        }
        page.text("0", (start - 6.0, 30.0), 11.0, MUTED, HPos::Right)?;
        let end = format!("{largest:.2}");
        page.text(&end, (start + bar + 6.0, 30.0), 11.0, MUTED, HPos::Left)?;

        let left = MARGIN + room;
        for (row, maps) in maps.iter().enumerate() {
            let top = HEADING + row as f64 * (TITLE + side) + TITLE;
            for (i, label) in labels.iter().enumerate().filter(|_| named) {
                let y = top + (i as f64 + 0.5) * cell;
                page.text(label, (left - 6.0, y), size, INK, HPos::Right)?;
            }
            for (column, map) in maps.iter().enumerate() {
                let x = left + column as f64 * (side + GAP);
                page.text(&map.title, (x, top - 11.0), 11.5, MUTED, HPos::Left)?;
                page.rectangle((x, top), (x + side, top + side), RULE)?;
                for (i, value) in map.values.iter().enumerate() {
                    let (r, c) = ((i / labels.len()) as f64, (i % labels.len()) as f64);
                    // A hair of the ground between cells, where there is room for one.
                    let hair = if cell > 8.0 { 0.5 } else { 0.0 };
                    let corner = (x + c * cell, top + r * cell);
                    let to = (corner.0 + cell - hair, corner.1 + cell - hair);
                    page.rectangle(corner, to, ramp(value / largest))?;
                }
            }
        }
        let bottom = HEADING + maps.len() as f64 * (TITLE + side) + 6.0;
        for column in (0..maps.last().map_or(0, Vec::len)).filter(|_| named) {
            let x = left + column as f64 * (side + GAP);
            for (i, label) in labels.iter().enumerate() {
                page.upright(label, (x + (i as f64 + 0.5) * cell - 0.05 * size, bottom), size, INK)?;
            }
        }
        Ok(())
    })
}

/// The colour of a value between 0 and 1.
fn ramp(value: f32) -> RGBColor {
    let at = value.clamp(0.0, 1.0) * (RAMP.len() - 1) as f32;
    let i = (at as usize).min(RAMP.len() - 2);
    blend(RAMP[i], RAMP[i + 1], f64::from(at - i as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_has_the_darkest_colour_and_its_place() {
        let labels = ["the".to_owned(), "cat".to_owned()];
        let map = |values: [f32; 4]| HeatMap { title: "head".into(), values: values.to_vec() };
        let dark = |values| {
            let Picture { width, rgb, .. } = draw("a", &labels, &[vec![map(values)]]).unwrap();
            let is = |p: &[u8]| p == [RAMP[4].0, RAMP[4].1, RAMP[4].2];
            let spots = rgb
                .chunks_exact(3)
                .enumerate()
                .filter(|(_, p)| is(p))
                .map(|(i, _)| (i as u32 % width, i as u32 / width));
            // Below the heading with its scale.
            let spots: Vec<_> = spots.filter(|(_, y)| *y > 2 * HEADING as u32).collect();
            let n = spots.len() as f64;
            assert!(n > 500.0, "{n} dark pixels");
            (
                spots.iter().map(|s| f64::from(s.0)).sum::<f64>() / n,
                spots.iter().map(|s| f64::from(s.1)).sum::<f64>() / n,
            )
        };
        let (a, b, c) = (dark([0.8, 0.2, 0.5, 0.5]), dark([0.2, 0.8, 0.5, 0.5]), dark([0.2, 0.2, 0.8, 0.5]));
        assert!(b.0 > a.0 + 40.0 && (b.1 - a.1).abs() < 1.0, "a column to the right: {a:?} {b:?}");
        assert!(c.1 > a.1 + 40.0 && (c.0 - a.0).abs() < 1.0, "a row below: {a:?} {c:?}");
    }

    #[test]
    fn maps_of_another_size_are_refused() {
        let map = HeatMap { title: String::new(), values: vec![0.5; 3] };
        let error = heat_maps_png(Path::new("x.png"), "", &["a".into(), "b".into()], &[vec![map]]).unwrap_err();
        assert!(error.to_string().contains("2 x 2"), "{error}");
    }
}
