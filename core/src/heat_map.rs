//! Heat maps as PNG pictures: square maps with named rows and columns, in a grid.

use std::io;
use std::path::Path;

use plotters::prelude::{BitMapBackend, DrawingBackend, FontStyle, RGBColor};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, FontTransform, TextStyle};

use crate::media::{named, save_png};
use crate::plot::{INK, MUTED, PAGE, RULE, averaged, register_fonts};

/// Drawn pixels a layout unit: twice those of the finished picture, which is averaged down.
const SCALE: f64 = 4.0;
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
    let (width, height, rgb) = draw(heading, labels, maps).map_err(|e| named(path, e))?;
    save_png(path, width, height, &rgb)
}

type Drawn<T> = Result<T, Box<dyn std::error::Error>>;

fn draw(heading: &str, labels: &[String], maps: &[Vec<HeatMap>]) -> Drawn<(u32, u32, Vec<u8>)> {
    if !register_fonts() {
        return Err("the built-in font is not readable".into());
    }
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
    let (w, h) = ((width * SCALE) as u32, (height * SCALE) as u32);
    let (w, h) = (w.next_multiple_of(2), h.next_multiple_of(2));
    let mut drawn = [PAGE.0, PAGE.1, PAGE.2].repeat((w * h) as usize);
    let mut page = BitMapBackend::with_buffer(&mut drawn, (w, h));

    let largest = maps.iter().flatten().flat_map(|map| &map.values).fold(0.0f32, |m, v| m.max(*v)).max(1e-12);
    let bar = 110.0;
    let heading_room = width - 2.0 * MARGIN - bar - 70.0;
    let estimated = f64::from(page.estimate_text_size(heading, &font(18.0, FontStyle::Bold))?.0) / SCALE;
    let heading_size = 18.0 * (heading_room / estimated.max(1.0)).min(1.0);
    text(&mut page, heading, (MARGIN, 30.0), heading_size, FontStyle::Bold, INK, HPos::Left)?;
    let start = width - MARGIN - bar - 34.0;
    for i in 0..bar as usize {
        let x = start + i as f64;
        rectangle(&mut page, (x, 24.0), (x + 1.0, 36.0), ramp(i as f32 / bar as f32))?;
    }
    text(&mut page, "0", (start - 6.0, 30.0), 11.0, FontStyle::Normal, MUTED, HPos::Right)?;
    let end = format!("{largest:.2}");
    text(&mut page, &end, (start + bar + 6.0, 30.0), 11.0, FontStyle::Normal, MUTED, HPos::Left)?;

    let left = MARGIN + room;
    for (row, maps) in maps.iter().enumerate() {
        let top = HEADING + row as f64 * (TITLE + side) + TITLE;
        for (i, label) in labels.iter().enumerate().filter(|_| named) {
            let y = top + (i as f64 + 0.5) * cell;
            text(&mut page, label, (left - 6.0, y), size, FontStyle::Normal, INK, HPos::Right)?;
        }
        for (column, map) in maps.iter().enumerate() {
            let x = left + column as f64 * (side + GAP);
            text(&mut page, &map.title, (x, top - 11.0), 11.5, FontStyle::Normal, MUTED, HPos::Left)?;
            rectangle(&mut page, (x, top), (x + side, top + side), RULE)?;
            for (i, value) in map.values.iter().enumerate() {
                let (r, c) = ((i / labels.len()) as f64, (i % labels.len()) as f64);
                // A hair of the ground between cells, where there is room for one.
                let hair = if cell > 8.0 { 0.5 } else { 0.0 };
                let corner = (x + c * cell, top + r * cell);
                let to = (corner.0 + cell - hair, corner.1 + cell - hair);
                rectangle(&mut page, corner, to, ramp(value / largest))?;
            }
        }
    }
    let bottom = HEADING + maps.len() as f64 * (TITLE + side) + 6.0;
    for column in (0..maps.last().map_or(0, Vec::len)).filter(|_| named) {
        let x = left + column as f64 * (side + GAP);
        for (i, label) in labels.iter().enumerate() {
            let style = font(size, FontStyle::Normal).color(&INK).transform(FontTransform::Rotate270);
            let style = style.pos(Pos::new(HPos::Right, VPos::Center));
            page.draw_text(label, &style, pixel((x + (i as f64 + 0.5) * cell - 0.05 * size, bottom)))?;
        }
    }
    drop(page);
    Ok(averaged(&drawn, w, h))
}

/// The colour of a value between 0 and 1.
fn ramp(value: f32) -> RGBColor {
    let at = value.clamp(0.0, 1.0) * (RAMP.len() - 1) as f32;
    let i = (at as usize).min(RAMP.len() - 2);
    let part = at - i as f32;
    let mix = |a: u8, b: u8| (f32::from(a) + part * (f32::from(b) - f32::from(a))).round() as u8;
    let (a, b) = (RAMP[i], RAMP[i + 1]);
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

fn rectangle(page: &mut BitMapBackend<'_>, from: (f64, f64), to: (f64, f64), color: RGBColor) -> Drawn<()> {
    let (from, to) = (pixel(from), pixel(to));
    // Both corners are a part of the rectangle.
    Ok(page.draw_rect(from, (to.0 - 1, to.1 - 1), &color, true)?)
}

fn text(
    page: &mut BitMapBackend<'_>,
    text: &str,
    (x, y): (f64, f64),
    size: f64,
    style: FontStyle,
    color: RGBColor,
    anchor: HPos,
) -> Drawn<()> {
    let style = font(size, style).color(&color).pos(Pos::new(anchor, VPos::Center));
    // plotters centres the em box, which reaches farther above the letters than below.
    Ok(page.draw_text(text, &style, pixel((x, y + 0.2 * size)))?)
}

fn font(size: f64, style: FontStyle) -> TextStyle<'static> {
    FontDesc::new(FontFamily::Name("roboto"), size * SCALE, style).into()
}

fn pixel((x, y): (f64, f64)) -> (i32, i32) {
    ((x * SCALE).round() as i32, (y * SCALE).round() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_has_the_darkest_colour_and_its_place() {
        let labels = ["the".to_owned(), "cat".to_owned()];
        let map = |values: [f32; 4]| HeatMap { title: "head".into(), values: values.to_vec() };
        let dark = |values| {
            let (width, _, rgb) = draw("a", &labels, &[vec![map(values)]]).unwrap();
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
