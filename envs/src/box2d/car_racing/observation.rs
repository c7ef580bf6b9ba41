//! The observation: what Gymnasium paints with pygame, on its large picture, before it is shrunk.

use std::io::Write;

use super::super::raster::{self, Raster, Rgb, Rule};
use super::*;

const HULL_COLOR: Rgb = [204, 0, 0];
const STRIP_COLOR: Rgb = [77; 3];

impl CarRacing {
    /// Paints what Gymnasium paints, on its large picture.
    pub(super) fn paint(&self, raster: &mut Raster) {
        const HALF_WIDTH: f64 = raster::WIDTH as f64 / 2.0;
        const QUARTER_HEIGHT: f64 = raster::HEIGHT as f64 / 4.0;
        /// The corner of the picture that is furthest from the car.
        const REACH: f64 = 790.0;
        raster.clear();
        let hull = &self.world.bodies()[HULL_BODY];
        let (sin, cos) = (-f64::from(hull.angle())).sin_cos();
        let zoom = 0.1 * SCALE * (1.0 - self.time).max(0.0) + ZOOM * SCALE * self.time.min(1.0);
        let center = [f64::from(hull.position().x), f64::from(hull.position().y)];
        let shift = [-center[0] * zoom, -center[1] * zoom];
        let shift = [HALF_WIDTH + shift[0] * cos - shift[1] * sin, QUARTER_HEIGHT + shift[0] * sin + shift[1] * cos];
        // The picture is upside down until it is complete.
        let project = |[x, y]: [f64; 2]| {
            let (x, y) = (x * cos - y * sin, x * sin + y * cos);
            [(x * zoom + shift[0]) as i32, (y * zoom + shift[1]) as i32]
        };
        let near = |[x, y]: [f64; 2], radius: f64| {
            let (dx, dy, reach) = (x - center[0], y - center[1], REACH / zoom + radius);
            dx * dx + dy * dy <= reach * reach
        };
        raster.flipped = true;
        let p = PLAYFIELD;
        let [ground, grass] = [1, 2].map(|i| self.colors[i].map(|c| c as u8));
        raster.polygon(&[[p, p], [p, -p], [-p, -p], [-p, p]].map(project), ground, Rule::Gfx);
        for x in (-20..20).step_by(2) {
            for y in (-20..20).step_by(2) {
                let [left, bottom] = [x, y].map(|i| GRASS_DIM * f64::from(i));
                let (right, top) = (left + GRASS_DIM, bottom + GRASS_DIM);
                if near([left + GRASS_DIM / 2.0, bottom + GRASS_DIM / 2.0], 0.71 * GRASS_DIM) {
                    let corners = [[right, bottom], [left, bottom], [left, top], [right, top]];
                    raster.polygon(&corners.map(project), grass, Rule::Gfx);
                }
            }
        }
        for quad in self.quads() {
            let corners = quad.corners.map(|c| c.map(f64::from));
            if near(corners[0], 2.5 * TRACK_WIDTH) {
                raster.polygon(&corners.map(project), quad.color, Rule::Gfx);
            }
        }

        let project = |v: Vec2| project([f64::from(v.x), f64::from(v.y)]);
        for (i, body) in self.world.bodies().iter().enumerate().skip(FIRST_WHEEL).chain([(HULL_BODY, hull)]) {
            let color = if i == HULL_BODY { HULL_COLOR } else { BLACK };
            for fixture in self.world.fixtures().iter().filter(|f| f.body == i) {
                let mut corners = [[0; 2]; 8];
                let vertices = fixture.polygon.vertices();
                corners.iter_mut().zip(vertices).for_each(|(to, v)| *to = project(body.world_point(*v)));
                raster.polygon(&corners[..vertices.len()], color, Rule::Draw);
            }
            let strip = (i != HULL_BODY).then(|| self.car.strip(i - FIRST_WHEEL, body)).flatten();
            if let Some(strip) = strip {
                raster.polygon(&strip.map(project), STRIP_COLOR, Rule::Draw);
            }
        }
        raster.flipped = false;
        self.paint_indicators(raster);
    }

    fn paint_indicators(&self, raster: &mut Raster) {
        const W: f64 = raster::WIDTH as f64;
        const H: f64 = raster::HEIGHT as f64;
        const UNIT_X: f64 = W / 40.0;
        const UNIT_Y: f64 = H / 40.0;
        let mut rectangle = |x0: f64, y0: f64, x1: f64, y1: f64, color: Rgb| {
            let corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]].map(|c| c.map(|x| x as i32));
            raster.polygon(&corners, color, Rule::Draw);
        };
        rectangle(0.0, H - 5.0 * UNIT_Y, W, H, BLACK);
        let mut vertical = |place: f64, value: f64, share: f64, color: Rgb| {
            if value.abs() > 1e-4 {
                let top = H - (UNIT_Y + UNIT_Y * (share * value));
                rectangle(place * UNIT_X, top, (place + 1.0) * UNIT_X, H - UNIT_Y, color);
            }
        };
        let hull = &self.world.bodies()[HULL_BODY];
        let [vx, vy] = [hull.velocity().x, hull.velocity().y].map(f64::from);
        vertical(5.0, (vx * vx + vy * vy).sqrt(), 0.02, WHITE);
        let front = [0, 0, 255];
        for (wheel, (place, color)) in
            self.car.wheels.iter().zip([(7.0, front), (8.0, front), (9.0, [51, 0, 255]), (10.0, [51, 0, 255])])
        {
            vertical(place, wheel.omega, 0.01, color);
        }
        let mut horizontal = |place: f64, value: f64, share: f64, color: Rgb| {
            if value.abs() > 1e-4 {
                let end = (place + share * value) * UNIT_X;
                rectangle(place * UNIT_X, H - 4.0 * UNIT_Y, end, H - 2.0 * UNIT_Y, color);
            }
        };
        horizontal(20.0, self.world.joint_angle(0).into(), -10.0, [0, 255, 0]);
        horizontal(30.0, hull.angular_velocity().into(), -0.8, RED);
        self.paint_reward(raster);
    }

    /// The reward so far, rounded to a whole number, in four numerals or more.
    fn paint_reward(&self, raster: &mut Raster) {
        let mut text = [0u8; 24];
        let mut rest = &mut text[..];
        // More than fits is cut off.
        let _ = write!(rest, "{:04.0}", self.reward);
        let unused = rest.len();
        let text = &text[..text.len() - unused];
        let pitch = |c: &u8| if *c == b'-' { MINUS_PITCH } else { NUMERAL_PITCH };
        let mut x = 60 - text.iter().map(pitch).sum::<i32>() / 2;
        for c in text {
            let pieces = if *c == b'-' { &MINUS[..] } else { NUMERALS[usize::from(c.wrapping_sub(b'0') % 10)] };
            for (color, corners) in pieces {
                let corners = corners.map(|[a, b]| [x + a, 729 + b]);
                raster.polygon(&corners, *color, Rule::Draw);
            }
            x += pitch(c);
        }
    }
}

/// A part of a numeral: colour and corners, in pixels.
type Piece = (Rgb, [[i32; 2]; 8]);

/// A rectangle without its corners.
const fn round(color: Rgb, [x0, y0, x1, y1]: [i32; 4], cut: i32) -> Piece {
    let corners = [
        [x0 + cut, y0],
        [x1 - cut, y0],
        [x1, y0 + cut],
        [x1, y1 - cut],
        [x1 - cut, y1],
        [x0 + cut, y1],
        [x0, y1 - cut],
        [x0, y0 + cut],
    ];
    (color, corners)
}

const fn bar(rectangle: [i32; 4]) -> Piece {
    round(WHITE, rectangle, 0)
}

const fn quad([a, b, c, d]: [[i32; 2]; 4]) -> Piece {
    (WHITE, [a, a, b, b, c, c, d, d])
}

/// Numerals of white parts, some with black holes.
const NUMERALS: [&[Piece]; 10] = [
    &[round(WHITE, [1, 2, 21, 33], 6), round(BLACK, [7, 7, 15, 28], 3)],
    &[bar([10, 4, 15, 33]), quad([[3, 10], [10, 6], [10, 14], [3, 14]])],
    &[
        round(WHITE, [1, 4, 21, 20], 5),
        round(BLACK, [7, 9, 15, 15], 2),
        round(BLACK, [0, 14, 12, 22], 0),
        quad([[15, 16], [21, 17], [9, 28], [2, 28]]),
        bar([1, 28, 21, 33]),
    ],
    &[
        round(WHITE, [2, 2, 20, 18], 5),
        round(WHITE, [1, 15, 21, 33], 5),
        round(BLACK, [7, 7, 14, 14], 2),
        round(BLACK, [7, 20, 15, 28], 2),
        round(BLACK, [0, 11, 7, 23], 0),
    ],
    &[bar([13, 4, 18, 33]), bar([1, 21, 21, 26]), quad([[13, 4], [13, 11], [7, 21], [1, 21]])],
    &[
        round(WHITE, [1, 14, 21, 33], 5),
        bar([3, 4, 8, 18]),
        bar([4, 4, 19, 9]),
        round(BLACK, [7, 19, 15, 28], 2),
        round(BLACK, [0, 20, 7, 24], 0),
    ],
    &[
        round(WHITE, [1, 2, 21, 33], 6),
        round(BLACK, [7, 19, 15, 28], 2),
        round(BLACK, [7, 7, 15, 14], 2),
        round(BLACK, [15, 10, 21, 14], 0),
    ],
    &[bar([1, 4, 21, 9]), quad([[15, 9], [21, 9], [13, 33], [7, 33]])],
    &[
        round(WHITE, [2, 2, 20, 18], 5),
        round(WHITE, [1, 15, 21, 33], 5),
        round(BLACK, [8, 7, 14, 13], 2),
        round(BLACK, [7, 20, 15, 28], 2),
    ],
    &[
        round(WHITE, [1, 3, 21, 34], 6),
        round(BLACK, [7, 8, 15, 17], 2),
        round(BLACK, [7, 22, 15, 29], 2),
        round(BLACK, [1, 22, 7, 26], 0),
    ],
];
const NUMERAL_PITCH: i32 = 25;
const MINUS: [Piece; 1] = [bar([1, 19, 12, 24])];
const MINUS_PITCH: i32 = 15;
