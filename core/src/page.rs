//! The surface that plots and maps are drawn on, in layout units.
//!
//! It is drawn with plotters at four times its size and averaged down to twice its size: its bitmap backend has no
//! anti-aliased thick lines, and the averaging gives them. The font is a part of the program (`assets/`), so a picture
//! looks the same on every machine.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use plotters::prelude::{BitMapBackend, DrawingBackend, FontDesc, FontFamily, FontStyle, FontTransform, TextStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBAColor, RGBColor, register_font};

use crate::media::save_png;

/// Pixels of the finished picture a layout unit.
pub(crate) const PIXELS: u32 = 2;
/// Drawn pixels, squared, that are averaged to one.
const SAMPLES: u32 = 2;
const SCALE: f64 = (PIXELS * SAMPLES) as f64;

pub(crate) const PAGE: RGBColor = RGBColor(0xFC, 0xFD, 0xFE);
pub(crate) const INK: RGBColor = RGBColor(0x27, 0x32, 0x4A);
pub(crate) const MUTED: RGBColor = RGBColor(0x6B, 0x78, 0x90);
pub(crate) const RULE: RGBColor = RGBColor(0xE3, 0xE9, 0xF1);

pub(crate) type Drawn<T> = Result<T, Box<dyn std::error::Error>>;

/// A finished picture.
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// `[height, width, 3]`.
    pub(crate) rgb: Vec<u8>,
}

impl Picture {
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        save_png(path, self.width, self.height, &self.rgb)
    }
}

/// The picture that `draw` makes of an empty page of `width` by `height` layout units.
pub(crate) fn picture((width, height): (f64, f64), draw: impl FnOnce(&mut Page<'_>) -> Drawn<()>) -> Drawn<Picture> {
    if !register_fonts() {
        return Err("the built-in font is not readable".into());
    }
    let pixels = |units: f64| ((units * SCALE) as u32).next_multiple_of(SAMPLES);
    let (width, height) = (pixels(width), pixels(height));
    let mut drawn = [PAGE.0, PAGE.1, PAGE.2].repeat((width * height) as usize);
    draw(&mut Page(BitMapBackend::with_buffer(&mut drawn, (width, height))))?;
    Ok(averaged(&drawn, width, height))
}

pub(crate) struct Page<'a>(BitMapBackend<'a>);

impl Page<'_> {
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, color: RGBColor) -> Drawn<()> {
        let (from, to) = (pixel(from), pixel(to));
        if from == to {
            return Ok(());
        }
        Ok(self.0.draw_path([from, to], &color.stroke_width((width * SCALE).round() as u32))?)
    }

    pub(crate) fn fill(&mut self, outline: impl Iterator<Item = (f64, f64)>, color: RGBAColor) -> Drawn<()> {
        let outline: Vec<_> = outline.map(pixel).collect();
        if outline.len() < 3 {
            return Ok(());
        }
        Ok(self.0.fill_polygon(outline, &color)?)
    }

    pub(crate) fn rectangle(&mut self, from: (f64, f64), to: (f64, f64), color: RGBColor) -> Drawn<()> {
        let (from, to) = (pixel(from), pixel(to));
        // Both corners are a part of the rectangle.
        Ok(self.0.draw_rect(from, (to.0 - 1, to.1 - 1), &color, true)?)
    }

    /// A round spot.
    pub(crate) fn dot(&mut self, at: (f64, f64), radius: f64, color: RGBAColor) -> Drawn<()> {
        Ok(self.0.draw_circle(pixel(at), (radius * SCALE).round() as u32, &color, true)?)
    }

    /// Text whose lower-case letters and digits are centred on `y`.
    pub(crate) fn text(&mut self, text: &str, at: (f64, f64), size: f64, color: RGBColor, anchor: HPos) -> Drawn<()> {
        self.centred(text, at, size, font(size, FontStyle::Normal).color(&color), anchor)
    }

    /// Bold text from `at` to the right, made smaller where it is longer than `room`.
    pub(crate) fn fitted(&mut self, text: &str, at: (f64, f64), size: f64, room: f64) -> Drawn<()> {
        let width = f64::from(self.0.estimate_text_size(text, &font(size, FontStyle::Bold))?.0) / SCALE;
        let size = size * (room / width.max(1.0)).min(1.0);
        self.centred(text, at, size, font(size, FontStyle::Bold).color(&INK), HPos::Left)
    }

    fn centred(&mut self, text: &str, at: (f64, f64), size: f64, style: TextStyle<'_>, anchor: HPos) -> Drawn<()> {
        let style = style.pos(Pos::new(anchor, VPos::Center));
        // plotters centres the em box, which reaches farther above the letters than below.
        Ok(self.0.draw_text(text, &style, pixel((at.0, at.1 + 0.2 * size)))?)
    }

    /// Text that is read from below and ends at `at`.
    pub(crate) fn upright(&mut self, text: &str, at: (f64, f64), size: f64, color: RGBColor) -> Drawn<()> {
        let style = font(size, FontStyle::Normal).color(&color).transform(FontTransform::Rotate270);
        Ok(self.0.draw_text(text, &style.pos(Pos::new(HPos::Right, VPos::Center)), pixel(at))?)
    }

    /// Width of a text.
    pub(crate) fn width(&self, text: &str, size: f64) -> Drawn<f64> {
        Ok(f64::from(self.0.estimate_text_size(text, &font(size, FontStyle::Normal))?.0) / SCALE)
    }
}

/// Makes the program's own font known to plotters as `roboto`, and as the `sans-serif` that other users of plotters in
/// the same program ask for (criterion, whose reports would lack a font); whether that went well.
pub fn register_fonts() -> bool {
    static FONTS: OnceLock<bool> = OnceLock::new();
    *FONTS.get_or_init(|| {
        let regular = include_bytes!("../assets/Roboto-Regular.ttf");
        let medium = include_bytes!("../assets/Roboto-Medium.ttf");
        register_font("roboto", FontStyle::Normal, regular).is_ok()
            && register_font("roboto", FontStyle::Bold, medium).is_ok()
            && register_font("sans-serif", FontStyle::Normal, regular).is_ok()
    })
}

/// The colour between two, `part` of the way from `a` to `b`.
pub(crate) fn blend(a: RGBColor, b: RGBColor, part: f64) -> RGBColor {
    let mix = |a: u8, b: u8| (f64::from(a) + part * (f64::from(b) - f64::from(a))).round() as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

fn font(size: f64, style: FontStyle) -> TextStyle<'static> {
    FontDesc::new(FontFamily::Name("roboto"), size * SCALE, style).into()
}

fn pixel((x, y): (f64, f64)) -> (i32, i32) {
    ((x * SCALE).round() as i32, (y * SCALE).round() as i32)
}

/// Means of squares of pixels.
fn averaged(drawn: &[u8], width: u32, height: u32) -> Picture {
    let (k, stride) = (SAMPLES as usize, 3 * width as usize);
    let (w, h) = (width / SAMPLES, height / SAMPLES);
    let mut rgb = Vec::with_capacity(3 * (w * h) as usize);
    for y in 0..h as usize {
        for x in 0..w as usize {
            for channel in 0..3 {
                let at = |dx: usize, dy: usize| u32::from(drawn[(y * k + dy) * stride + 3 * (x * k + dx) + channel]);
                let sum: u32 = (0..k * k).map(|i| at(i % k, i / k)).sum();
                rgb.push(((sum + SAMPLES * SAMPLES / 2) / (SAMPLES * SAMPLES)) as u8);
            }
        }
    }
    Picture { width: w, height: h, rgb }
}
