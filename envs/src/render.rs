//! Pictures of environments: a small anti-aliased canvas and the palette that all scenes share.
//!
//! A scene is a pure function of the environment's state. It is drawn in world coordinates (`y` points up, lengths in
//! the simulator's own units); [`Canvas::new`] says where the world lies on the picture.

mod glyphs;

use std::f32::consts::TAU;

use tiny_skia::{
    FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path, PathBuilder, Pixmap, Point, RadialGradient,
    Shader, SpreadMode, Stroke, Transform,
};

/// A picture: row-major RGB8, `rgb.len() == 3 * width * height`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pixels a row.
    pub width: u32,
    /// Rows, from the top.
    pub height: u32,
    /// `[height, width, 3]` bytes.
    pub rgb: Vec<u8>,
}

/// A colour with opacity, not premultiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Color {
    rgb: u32,
    alpha: u8,
}

impl Color {
    /// An opaque colour from `0xRRGGBB`.
    pub(crate) const fn hex(rgb: u32) -> Self {
        Self { rgb, alpha: 255 }
    }

    /// The same colour at this opacity (255 is opaque).
    pub(crate) const fn alpha(self, alpha: u8) -> Self {
        Self { alpha, ..self }
    }

    /// This colour with a share `t` in 0..=1 of `other`; keeps this colour's opacity.
    pub(crate) fn mix(self, other: Self, t: f32) -> Self {
        let [_, r, g, b] = self.rgb.to_be_bytes();
        let [_, r1, g1, b1] = other.rgb.to_be_bytes();
        let channel = |a: u8, b: u8| (f32::from(a) + t * (f32::from(b) - f32::from(a))).round() as u8;
        Self { rgb: u32::from_be_bytes([0, channel(r, r1), channel(g, g1), channel(b, b1)]), ..self }
    }

    fn skia(self) -> tiny_skia::Color {
        let [_, r, g, b] = self.rgb.to_be_bytes();
        tiny_skia::Color::from_rgba8(r, g, b, self.alpha)
    }
}

// The palette: a cool, light page; saturated colours are kept for what moves or matters.
/// Top of the background.
pub(crate) const SKY_TOP: Color = Color::hex(0xE6EDF7);
/// Bottom of the background.
pub(crate) const SKY_BOTTOM: Color = Color::hex(0xFAFBFD);
/// Outlines, wheels, rails.
pub(crate) const INK: Color = Color::hex(0x27324A);
/// Lighter side of dark bodies.
pub(crate) const INK_LIGHT: Color = Color::hex(0x4A5878);
/// Marks that explain the scene without being a part of it.
pub(crate) const MUTED: Color = Color::hex(0x9AA7BD);
/// Bright parts on dark ones: hubs, highlights, windows.
pub(crate) const LIGHT: Color = Color::hex(0xF4F7FC);
/// The actuated body.
pub(crate) const BLUE: Color = Color::hex(0x3D6BE0);
/// Lighter side of the actuated body.
pub(crate) const BLUE_LIGHT: Color = Color::hex(0x6C95F5);
/// The body that has to be moved or held.
pub(crate) const ORANGE: Color = Color::hex(0xEE7B30);
/// Lighter side of the body that has to be moved or held.
pub(crate) const ORANGE_LIGHT: Color = Color::hex(0xFBA860);
/// Joints.
pub(crate) const VIOLET: Color = Color::hex(0x8B7FE8);
/// Goals.
pub(crate) const GREEN: Color = Color::hex(0x18A97B);
/// Lit side of ground and hills.
pub(crate) const GROUND_TOP: Color = Color::hex(0xC3D0E2);
/// Depth of ground and hills.
pub(crate) const GROUND_BOTTOM: Color = Color::hex(0xDFE7F1);
/// Soft shadows.
pub(crate) const SHADOW: Color = Color::hex(0x27324A).alpha(46);

/// What a shape is filled with. Gradient coordinates are those of the shape.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fill {
    /// One colour.
    Solid(Color),
    /// From one point and colour to another.
    Linear { from: (f32, f32, Color), to: (f32, f32, Color) },
}

impl From<Color> for Fill {
    fn from(color: Color) -> Self {
        Self::Solid(color)
    }
}

impl Fill {
    /// A vertical gradient from `y0` to `y1`.
    pub(crate) fn vertical(y0: f32, c0: Color, y1: f32, c1: Color) -> Self {
        Self::Linear { from: (0.0, y0, c0), to: (0.0, y1, c1) }
    }

    /// A horizontal gradient from `x0` to `x1`.
    pub(crate) fn horizontal(x0: f32, c0: Color, x1: f32, c1: Color) -> Self {
        Self::Linear { from: (x0, 0.0, c0), to: (x1, 0.0, c1) }
    }

    fn paint(self) -> Paint<'static> {
        let shader = match self {
            Self::Solid(color) => Shader::SolidColor(color.skia()),
            Self::Linear { from: (x0, y0, c0), to: (x1, y1, c1) } => LinearGradient::new(
                Point::from_xy(x0, y0),
                Point::from_xy(x1, y1),
                vec![GradientStop::new(0.0, c0.skia()), GradientStop::new(1.0, c1.skia())],
                SpreadMode::Pad,
                Transform::identity(),
            )
            .unwrap_or(Shader::SolidColor(c0.skia())),
        };
        Paint { shader, anti_alias: true, ..Paint::default() }
    }
}

/// From one glyph of a text to the next, in units of their grid.
const TEXT_ADVANCE: f32 = 5.8;

/// An anti-aliased drawing surface. Shapes with coordinates that are not finite are left out.
pub(crate) struct Canvas {
    pixmap: Pixmap,
    to_pixels: Transform,
}

impl Canvas {
    /// A `width` x `height` picture of the sky, with `center` of the world in its middle and `scale` pixels a world
    /// unit.
    pub(crate) fn new(width: u32, height: u32, center: (f32, f32), scale: f32) -> Self {
        let pixmap = Pixmap::new(width, height).expect("pictures of environments have a small size above zero");
        let (w, h) = (width as f32, height as f32);
        let mut canvas = Self { pixmap, to_pixels: Transform::identity() };
        canvas.polygon(&[(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)], Fill::vertical(0.0, SKY_TOP, h, SKY_BOTTOM));
        canvas.to_pixels = to_pixels(width, height, center, scale);
        canvas
    }

    /// The same picture, with another part of the world on it: for marks that lie over a scene.
    pub(crate) fn over(mut canvas: Self, center: (f32, f32), scale: f32) -> Self {
        canvas.to_pixels = to_pixels(canvas.pixmap.width(), canvas.pixmap.height(), center, scale);
        canvas
    }

    /// Draws in a local frame that is moved to `(x, y)` and turned anticlockwise by `angle` radians.
    pub(crate) fn at(&mut self, (x, y): (f32, f32), angle: f32, draw: impl FnOnce(&mut Self)) {
        let outer = self.to_pixels;
        let (sin, cos) = angle.sin_cos();
        self.to_pixels = outer.pre_concat(Transform::from_row(cos, sin, -sin, cos, x, y));
        draw(self);
        self.to_pixels = outer;
    }

    /// A filled polygon.
    pub(crate) fn polygon(&mut self, points: &[(f32, f32)], fill: impl Into<Fill>) {
        self.fill(polyline(points, true), fill.into());
    }

    /// A filled circle.
    pub(crate) fn circle(&mut self, (x, y): (f32, f32), radius: f32, fill: impl Into<Fill>) {
        self.fill(PathBuilder::from_circle(x, y, radius), fill.into());
    }

    /// A filled ellipse with its axes along `x` and `y`.
    pub(crate) fn ellipse(&mut self, (x, y): (f32, f32), radius_x: f32, radius_y: f32, fill: impl Into<Fill>) {
        let bounds = tiny_skia::Rect::from_ltrb(x - radius_x, y - radius_y, x + radius_x, y + radius_y);
        self.fill(bounds.and_then(PathBuilder::from_oval), fill.into());
    }

    /// A line of digits, capital letters and signs, with its left end and base line at a point; `height` in world units.
    pub(crate) fn text(&mut self, (x, y): (f32, f32), height: f32, text: &str, color: Color) {
        let unit = height / glyphs::HEIGHT;
        for (i, glyph) in text.chars().enumerate() {
            let left = x + i as f32 * unit * TEXT_ADVANCE;
            for stroke in glyphs::strokes(glyph) {
                let points: Vec<_> = stroke.iter().map(|(dx, dy)| (left + unit * dx, y + unit * dy)).collect();
                self.line(&points, 0.9 * unit, color);
            }
        }
    }

    /// A line as [`Canvas::text`], with its middle at a point.
    pub(crate) fn centered_text(&mut self, (x, y): (f32, f32), height: f32, text: &str, color: Color) {
        let unit = height / glyphs::HEIGHT;
        let width = unit * (text.chars().count() as f32 * TEXT_ADVANCE - TEXT_ADVANCE + glyphs::WIDTH);
        self.text((x - width / 2.0, y - height / 2.0), height, text, color);
    }

    /// A filled rectangle from its lower left to its upper right corner, with round corners.
    pub(crate) fn rect(&mut self, (x0, y0): (f32, f32), (x1, y1): (f32, f32), radius: f32, fill: impl Into<Fill>) {
        // Distance of a Bézier curve's control points that is closest to a quarter circle.
        const KAPPA: f32 = 0.552_284_8;
        let r = radius.min((x1 - x0) / 2.0).min((y1 - y0) / 2.0);
        let k = r * (1.0 - KAPPA);
        let mut p = PathBuilder::new();
        p.move_to(x0 + r, y0);
        p.line_to(x1 - r, y0);
        p.cubic_to(x1 - k, y0, x1, y0 + k, x1, y0 + r);
        p.line_to(x1, y1 - r);
        p.cubic_to(x1, y1 - k, x1 - k, y1, x1 - r, y1);
        p.line_to(x0 + r, y1);
        p.cubic_to(x0 + k, y1, x0, y1 - k, x0, y1 - r);
        p.line_to(x0, y0 + r);
        p.cubic_to(x0, y0 + k, x0 + k, y0, x0 + r, y0);
        p.close();
        self.fill(p.finish(), fill.into());
    }

    /// A line through all points, with round ends and corners; `width` in world units.
    pub(crate) fn line(&mut self, points: &[(f32, f32)], width: f32, fill: impl Into<Fill>) {
        let stroke = Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
        if let Some(path) = polyline(points, false) {
            self.pixmap.stroke_path(&path, &fill.into().paint(), &stroke, self.to_pixels, None);
        }
    }

    /// A straight line of dashes; `width`, `dash` and `gap` in world units.
    pub(crate) fn dashes(&mut self, from: (f32, f32), to: (f32, f32), width: f32, [dash, gap]: [f32; 2], color: Color) {
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let point = |along: f32| {
            let t = (along / length).min(1.0);
            (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1))
        };
        for i in 0..(length / (dash + gap)).ceil() as u32 {
            let start = i as f32 * (dash + gap);
            self.line(&[point(start), point(start + dash)], width, color);
        }
    }

    /// A rod with round ends between `from` and the point `length` away in the direction `angle`, above its own shadow.
    pub(crate) fn rod(&mut self, from: (f32, f32), angle: f32, length: f32, radius: f32, light: Color, dark: Color) {
        let (lower, upper) = ((-radius, -radius), (length + radius, radius));
        // The light comes from the upper left, whichever way the rod has turned.
        let (sun_x, sun_y) = (-0.5, 0.87);
        let lit = angle.cos() * sun_y - angle.sin() * sun_x;
        let (left, right) = (dark.mix(light, 0.5 + 0.5 * lit), dark.mix(light, 0.5 - 0.5 * lit));
        let below = (from.0 - 0.6 * radius * sun_x, from.1 - 0.6 * radius * sun_y);
        self.at(below, angle, |c| c.rect(lower, upper, radius, SHADOW.alpha(28)));
        self.at(from, angle, |c| c.rect(lower, upper, radius, Fill::vertical(radius, left, -radius, right)));
    }

    /// An axle seen from its end.
    pub(crate) fn joint(&mut self, center: (f32, f32), radius: f32) {
        self.circle(center, radius, LIGHT);
        self.circle(center, 0.58 * radius, INK);
    }

    /// A soft elliptic shadow around `center` that fades to nothing at its edge.
    pub(crate) fn shadow(&mut self, center: (f32, f32), radius_x: f32, radius_y: f32) {
        self.fade(center, radius_x, radius_y, SHADOW);
    }

    /// A round light around `center` that fades to nothing at its edge.
    pub(crate) fn glow(&mut self, center: (f32, f32), radius: f32, color: Color) {
        self.fade(center, radius, radius, color);
    }

    /// An ellipse around `center` that fades to nothing at its edge.
    pub(crate) fn fade(&mut self, center: (f32, f32), radius_x: f32, radius_y: f32, color: Color) {
        let outer = self.to_pixels;
        self.to_pixels = outer.pre_concat(Transform::from_row(radius_x, 0.0, 0.0, radius_y, center.0, center.1));
        let origin = Point::from_xy(0.0, 0.0);
        let stops = vec![GradientStop::new(0.0, color.skia()), GradientStop::new(1.0, color.alpha(0).skia())];
        let shader = RadialGradient::new(origin, 0.0, origin, 1.0, stops, SpreadMode::Pad, Transform::identity());
        if let (Some(path), Some(shader)) = (PathBuilder::from_circle(0.0, 0.0, 1.0), shader) {
            let paint = Paint { shader, anti_alias: true, ..Paint::default() };
            self.pixmap.fill_path(&path, &paint, FillRule::Winding, self.to_pixels, None);
        }
        self.to_pixels = outer;
    }

    /// The finished picture.
    pub(crate) fn into_frame(self) -> Frame {
        let rgb = self.pixmap.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
        Frame { width: self.pixmap.width(), height: self.pixmap.height(), rgb }
    }

    fn fill(&mut self, path: Option<Path>, fill: Fill) {
        if let Some(path) = path {
            self.pixmap.fill_path(&path, &fill.paint(), FillRule::Winding, self.to_pixels, None);
        }
    }
}

/// From the world, with `center` in the middle of a picture and `scale` pixels a unit, to pixels.
fn to_pixels(width: u32, height: u32, center: (f32, f32), scale: f32) -> Transform {
    let (w, h) = (width as f32, height as f32);
    Transform::from_row(scale, 0.0, 0.0, -scale, w / 2.0 - scale * center.0, h / 2.0 + scale * center.1)
}

/// Points of an arc around `center` from angle `from` to `to` (radians, anticlockwise from `x`), for a line.
pub(crate) fn arc((x, y): (f32, f32), radius: f32, from: f32, to: f32) -> Vec<(f32, f32)> {
    let segments = ((to - from).abs() / TAU * 96.0).ceil().max(1.0) as u32;
    (0..=segments)
        .map(|i| from + (to - from) * i as f32 / segments as f32)
        .map(|angle| (x + radius * angle.cos(), y + radius * angle.sin()))
        .collect()
}

fn polyline(points: &[(f32, f32)], closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    let (&(x, y), rest) = points.split_first()?;
    path.move_to(x, y);
    for &(x, y) in rest {
        path.line_to(x, y);
    }
    if closed {
        path.close();
    }
    path.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, ENVS, Env, NpRng, StateReader, StateWriter, make};

    fn pixel(frame: &Frame, x: u32, y: u32) -> [u8; 3] {
        let i = 3 * (y * frame.width + x) as usize;
        [frame.rgb[i], frame.rgb[i + 1], frame.rgb[i + 2]]
    }

    const RED: Color = Color::hex(0xFF0000);

    #[test]
    fn world_is_centred_scaled_and_points_up() {
        let mut canvas = Canvas::new(40, 20, (1.0, 2.0), 10.0);
        canvas.rect((2.0, 2.0), (2.5, 2.5), 0.0, RED);
        let frame = canvas.into_frame();
        assert_eq!((frame.width, frame.height, frame.rgb.len()), (40, 20, 2400));
        // The world point (2, 2) is one unit right of the middle: the square covers x in 30..35, y in 5..10.
        for (x, y, inside) in [(30, 9, true), (34, 5, true), (29, 9, false), (35, 9, false), (30, 10, false)] {
            assert_eq!(pixel(&frame, x, y) == [255, 0, 0], inside, "({x}, {y})");
        }
    }

    #[test]
    fn local_frames_turn_anticlockwise_and_end() {
        let mut canvas = Canvas::new(40, 40, (0.0, 0.0), 10.0);
        canvas.at((0.0, 0.0), TAU / 4.0, |c| c.rect((1.0, -0.1), (1.8, 0.1), 0.0, RED));
        canvas.rect((1.0, -0.1), (1.8, 0.1), 0.0, Color::hex(0x0000FF));
        let frame = canvas.into_frame();
        assert_eq!(pixel(&frame, 20, 5), [255, 0, 0], "turned from +x to +y, which is up");
        assert_eq!(pixel(&frame, 33, 20), [0, 0, 255], "the outer frame is back");
    }

    #[test]
    fn half_covered_pixels_are_blended() {
        let mut canvas = Canvas::new(4, 4, (2.0, 2.0), 1.0);
        canvas.rect((0.0, 0.0), (2.5, 4.0), 0.0, Color::hex(0x000000));
        let frame = canvas.into_frame();
        let edge = pixel(&frame, 2, 1)[1];
        assert_eq!(pixel(&frame, 1, 1), [0; 3]);
        assert!((90..170).contains(&edge), "{edge}");
    }

    #[test]
    fn shapes_that_are_not_finite_are_left_out() {
        let blank = Canvas::new(8, 8, (0.0, 0.0), 1.0).into_frame();
        let mut canvas = Canvas::new(8, 8, (0.0, 0.0), 1.0);
        canvas.circle((f32::NAN, 0.0), 1.0, RED);
        canvas.line(&[(0.0, 0.0), (f32::INFINITY, 0.0)], 1.0, RED);
        canvas.polygon(&[], RED);
        canvas.dashes((0.0, 0.0), (0.0, 0.0), 1.0, [1.0, 1.0], RED);
        canvas.at((0.0, 0.0), f32::NAN, |c| c.rect((0.0, 0.0), (1.0, 1.0), 0.0, RED));
        assert_eq!(canvas.into_frame(), blank);
    }

    /// An environment after `steps` random steps, starting anew after each end, and how it was drawn.
    fn played(id: &str, seed: u64, steps: u32) -> (Box<dyn Env>, Frame) {
        let mut env = make(id, &[]).unwrap();
        let mut rng = NpRng::seed(seed);
        let [mut obs, mut action] = [env.observation_space(), env.action_space()].map(|s| Buffer::new(s, 1));
        env.reset(&mut rng, obs.as_mut());
        for _ in 0..steps {
            env.action_space().sample_into(&mut rng, action.as_mut()).unwrap();
            let outcome = env.step(action.as_row(), &mut rng, obs.as_mut());
            if outcome.terminated || outcome.truncated {
                env.reset(&mut rng, obs.as_mut());
            }
        }
        let frame = env.render().unwrap_or_else(|| panic!("{id} has no picture"));
        (env, frame)
    }

    #[test]
    fn every_environment_is_drawn_from_its_state_alone() {
        for id in ENVS.iter().map(|s| s.id) {
            let (env, frame) = played(id, 1, 8);
            assert_eq!(frame.rgb.len() as u32, 3 * frame.width * frame.height, "{id}");
            assert!(env.render() == Some(frame.clone()), "{id}: drawn twice");
            assert!((0..8).any(|steps| frame != played(id, 1, steps).1), "{id}: no step is seen");
            assert!((2..6).any(|seed| frame != played(id, seed, 8).1), "{id}: no other start is seen");

            let mut state = StateWriter::default();
            env.save_state(&mut state);
            let mut restored = make(id, &[]).unwrap();
            restored.load_state(&mut StateReader::new(&state.into_bytes())).unwrap();
            assert!(restored.render() == Some(frame), "{id}: drawn from something that is not saved");
        }
    }

    #[test]
    fn classic_pictures_have_gymnasiums_sizes() {
        for (id, size) in [
            ("CartPole-v1", (600, 400)),
            ("Acrobot-v1", (500, 500)),
            ("MountainCar-v0", (600, 400)),
            ("MountainCarContinuous-v0", (600, 400)),
            ("Pendulum-v1", (500, 500)),
        ] {
            let frame = played(id, 0, 0).1;
            assert_eq!((frame.width, frame.height), size, "{id}");
        }
    }
}
