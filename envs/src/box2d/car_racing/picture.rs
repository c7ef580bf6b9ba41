//! The picture: the scene as the observation shows it, drawn large and smooth.

use super::super::physics::{Fixture, Vec2};
use super::*;
use crate::render::{self, Canvas, Color, Fill};

const SKID_MARK: Color = Color::hex(0x7E8A93);
const FIELD: Color = Color::hex(0xBBD8BE);
const FIELD_PATCH: Color = Color::hex(0xC6E0C7);
const ROAD: Color = Color::hex(0x66718A);
const ROAD_VISITED: Color = Color::hex(0x57627C);

fn color([r, g, b]: [f64; 3]) -> Color {
    Color::hex(u32::from_be_bytes([0, r as u8, g as u8, b as u8]))
}

impl CarRacing {
    pub(super) fn picture(&self) -> Frame {
        const SIZE: (u32, u32) = (600, 400);
        let zoom = 0.1 * SCALE * (1.0 - self.time).max(0.0) + ZOOM * SCALE * self.time.min(1.0);
        let scale = (0.6 * zoom) as f32;
        // The car looks up from the middle of the lower half.
        let mut canvas = Canvas::new(SIZE.0, SIZE.1, (0.0, 100.0 / scale), scale);
        let Some(hull) = self.world.bodies().first() else { return canvas.into_frame() };
        let (origin, reach) = (hull.position(), 420.0 / scale);
        let local = move |[x, y]: [f32; 2]| (x - origin.x, y - origin.y);
        canvas.at((0.0, 0.0), -hull.angle(), |c| {
            self.draw_field(c, local, reach);
            self.draw_road(c, local, reach);
            for &[x0, y0, x1, y1] in &self.skids {
                c.line(&[local([x0, y0]), local([x1, y1])], 0.35, SKID_MARK);
            }
            self.draw_car(c, local);
        });
        let mut panel = Canvas::over(canvas, (300.0, 200.0), 1.0);
        self.draw_panel(&mut panel);
        panel.into_frame()
    }

    fn draw_field(&self, c: &mut Canvas, local: impl Fn([f32; 2]) -> (f32, f32), reach: f32) {
        let [_, ground, grass] = self.colors.map(color);
        let [ground, grass] = if self.domain_randomize { [ground, grass] } else { [FIELD, FIELD_PATCH] };
        let p = PLAYFIELD as f32;
        c.polygon(&[[p, p], [p, -p], [-p, -p], [-p, p]].map(&local), ground);
        let cell = GRASS_DIM as f32;
        for x in (-20..20).step_by(2) {
            for y in (-20..20).step_by(2) {
                let (x, y) = local([x, y].map(|i| cell * i as f32));
                if (x + cell / 2.0).hypot(y + cell / 2.0) < reach + cell {
                    c.rect((x, y), (x + cell, y + cell), 1.2, grass);
                }
            }
        }
    }

    fn draw_road(&self, c: &mut Canvas, local: impl Fn([f32; 2]) -> (f32, f32), reach: f32) {
        let near = |quad: &Quad| {
            let (x, y) = local(quad.corners[0]);
            x.hypot(y) < reach + 2.0 * TRACK_WIDTH as f32
        };
        let road = color(self.colors[0]);
        for (i, tile) in self.tiles.iter().enumerate().filter(|(_, tile)| near(tile)) {
            let [a, b, d, e] = tile.corners.map(&local);
            let fill = match (self.domain_randomize, self.visited[i]) {
                (true, _) => road,
                (false, visited) => {
                    if visited {
                        ROAD_VISITED
                    } else {
                        ROAD
                    }
                }
            };
            c.polygon(&[a, b, d, e], fill);
            // Close the seams, which are anti-aliased, and draw the edges.
            c.line(&[e, d], 0.12, fill);
            c.line(&[a, e], 0.3, render::LIGHT);
            c.line(&[b, d], 0.3, render::LIGHT);
            if i == 0 {
                c.line(&[a, b], 0.8, render::GREEN);
            } else if i % 4 < 2 {
                let middle = |(x0, y0): (f32, f32), (x1, y1): (f32, f32)| (0.5 * (x0 + x1), 0.5 * (y0 + y1));
                c.line(&[middle(a, b), middle(e, d)], 0.18, render::LIGHT.alpha(140));
            }
        }
        for border in self.borders.iter().filter(|border| near(border)) {
            let fill = if border.color == WHITE { render::LIGHT } else { render::ORANGE };
            c.polygon(&border.corners.map(&local), fill);
        }
    }

    fn draw_car(&self, c: &mut Canvas, local: impl Fn([f32; 2]) -> (f32, f32)) {
        let local = |v: Vec2| local([v.x, v.y]);
        let bodies = self.world.bodies();
        let outline = |fixture: &Fixture, shift: Vec2| -> Vec<(f32, f32)> {
            let place = |v: &Vec2| local(bodies[fixture.body].world_point(*v) + shift);
            fixture.polygon.vertices().iter().map(place).collect()
        };
        for fixture in self.world.fixtures() {
            c.polygon(&outline(fixture, Vec2::from([0.3, -0.3])), render::SHADOW);
        }
        for (i, body) in bodies.iter().enumerate().skip(FIRST_WHEEL) {
            for fixture in self.world.fixtures().iter().filter(|f| f.body == i) {
                c.polygon(&outline(fixture, Vec2::ZERO), render::INK);
            }
            if let Some(strip) = self.car.strip(i - FIRST_WHEEL, body) {
                c.polygon(&strip.map(local), render::MUTED.alpha(150));
            }
        }
        let hull = &bodies[HULL_BODY];
        for (i, fixture) in self.world.fixtures().iter().filter(|f| f.body == HULL_BODY).enumerate() {
            // The wings at both ends, and the body between them.
            c.polygon(
                &outline(fixture, Vec2::ZERO),
                [render::ORANGE, render::BLUE_LIGHT, render::BLUE, render::ORANGE][i % 4],
            );
        }
        let at = |x: f64, y: f64| local(hull.world_point(Vec2::from([x, y])));
        c.line(&[at(0.0, 2.2), at(0.0, 0.6)], 0.16, render::LIGHT);
        c.circle(at(0.0, -0.55), 0.42, render::INK);
        c.circle(at(0.0, -0.55), 0.27, render::ORANGE_LIGHT);
    }

    /// Speed, wheels, steering and gyroscope, in pixels from the lower left corner.
    fn draw_panel(&self, c: &mut Canvas) {
        c.rect((14.0, 14.0), (250.0, 66.0), 10.0, render::INK.alpha(215));
        let hull = &self.world.bodies()[HULL_BODY];
        let speed = hull.velocity().x.hypot(hull.velocity().y);
        let column = |c: &mut Canvas, x: f32, share: f32, fill: Fill| {
            c.rect((x, 22.0), (x + 10.0, 58.0), 3.0, render::INK_LIGHT);
            c.rect((x, 22.0), (x + 10.0, 22.0 + 36.0 * share.clamp(0.05, 1.0)), 3.0, fill);
        };
        column(c, 26.0, speed / 100.0, render::LIGHT.into());
        for (i, wheel) in self.car.wheels.iter().enumerate() {
            let share = wheel.omega.abs() as f32 / 200.0;
            column(c, 46.0 + 14.0 * i as f32, share, render::BLUE_LIGHT.into());
        }
        let row = |c: &mut Canvas, y: f32, share: f32, fill: Color| {
            c.rect((116.0, y), (236.0, y + 10.0), 4.0, render::INK_LIGHT);
            let end = 176.0 + 60.0 * share.clamp(-1.0, 1.0);
            c.rect((end.min(176.0) - 2.0, y), (end.max(176.0) + 2.0, y + 10.0), 2.0, fill);
        };
        row(c, 44.0, -self.world.joint_angle(0) / 0.42, render::GREEN);
        row(c, 26.0, -hull.angular_velocity() / 5.0, render::ORANGE_LIGHT);
    }
}
