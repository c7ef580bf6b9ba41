//! The picture of the rocket: dusk at sea, the ship, the booster with its flame, and what the pilot reads.
//!
//! World coordinates are metres above the deck's middle. The camera comes closer as the booster comes down, and keeps
//! both it and, where it can, the ship in view. All that moves by itself (waves, flicker, spray) follows the step count.

use super::*;

/// Pixels.
const WIDTH: u32 = 600;
const FRAME_HEIGHT: u32 = 800;

const ZENITH: Color = Color::hex(0x1B2A52);
const DUSK: Color = Color::hex(0x5F6FB0);
const HORIZON: Color = Color::hex(0xF8C9A0);
const SUN: Color = Color::hex(0xFFE9C4);
const CLOUD: Color = Color::hex(0xF3D9D3);
const SEA_FAR: Color = Color::hex(0x7F86B4);
const SEA: Color = Color::hex(0x2B3E72);
const SEA_DEEP: Color = Color::hex(0x14214A);
const HULL: Color = Color::hex(0x2A3248);
const DECK_TOP: Color = Color::hex(0x56617C);
const BODY: Color = Color::hex(0xF5F6FA);
const BODY_SHADE: Color = Color::hex(0xA9B3CB);
const SOOT: Color = Color::hex(0x6E7690);
const FLAME: Color = Color::hex(0xFF8A3C);
const FLAME_CORE: Color = Color::hex(0xFFF3D0);
const STEAM: Color = Color::hex(0xEFEDF5);

/// How far the water lies below the deck (m).
const FREEBOARD: f32 = 5.0;
/// Half of the ship's length (m).
const SHIP: f32 = 24.0;

/// Where the camera looks, and how large a metre is.
struct Camera {
    center: (f32, f32),
    scale: f32,
}

impl Camera {
    fn of(booster: &Booster) -> Self {
        let [x, y] = booster.position.map(|v| v as f32);
        let view = (1.22 * y + 82.0).clamp(88.0, 460.0);
        let scale = FRAME_HEIGHT as f32 / view;
        let room = 0.15 * WIDTH as f32 / scale;
        // The water takes the lower end of the picture.
        let bottom = (y + 40.0 - view).max(0.0) - 0.04 * view - 10.0;
        Self { center: (x - x.clamp(-room, room), bottom + view / 2.0), scale }
    }

    /// The world point of a pixel.
    fn world(&self, x: f32, y: f32) -> (f32, f32) {
        let (width, height) = (WIDTH as f32, FRAME_HEIGHT as f32);
        (self.center.0 + (x - width / 2.0) / self.scale, self.center.1 + (height / 2.0 - y) / self.scale)
    }
}

/// A number in 0..1 that looks random.
fn noise(i: u32) -> f32 {
    let mixed = (i ^ 0x9e37).wrapping_mul(0x85eb_ca6b);
    ((mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35) >> 8) as f32 / 16_777_216.0
}

pub(super) fn scene(rocket: &Rocket) -> Frame {
    let camera = Camera::of(&rocket.booster);
    let mut canvas = Canvas::new(WIDTH, FRAME_HEIGHT, camera.center, camera.scale);
    let seconds = rocket.steps as f32 * DT as f32;
    sky(&mut canvas, &camera, rocket);
    sea(&mut canvas, &camera, seconds);
    ship(&mut canvas, seconds);
    trail(&mut canvas, rocket);
    spray(&mut canvas, rocket);
    match rocket.flight {
        Flight::Crashed if rocket.foot_is_down() => explosion(&mut canvas, rocket),
        _ => booster(&mut canvas, rocket),
    }
    panel(&mut canvas, &camera, rocket);
    canvas.into_frame()
}

impl Rocket {
    fn foot_is_down(&self) -> bool {
        self.booster.foot()[1] <= LEG_SPAN * self.booster.tilt.sin().abs()
    }

    /// Where the booster's centre is drawn.
    fn middle(&self) -> (f32, f32) {
        let [x, y] = self.booster.position;
        (x as f32, (y + FOOT_ARM) as f32)
    }
}

/// Dusk from zenith to horizon, stars, the sun behind the sea, and clouds that lie far behind.
fn sky(c: &mut Canvas, camera: &Camera, rocket: &Rocket) {
    let (left, top) = camera.world(0.0, 0.0);
    let (right, bottom) = camera.world(WIDTH as f32, FRAME_HEIGHT as f32);
    // The sky of 500 m is seen through the window of the camera.
    let (low, high) = (-FREEBOARD, 330.0);
    let middle = 0.36 * high;
    c.rect((left, bottom), (right, top), 0.0, Fill::vertical(high, ZENITH, middle, DUSK));
    // Ends at a whole pixel, or the edge would show.
    let (_, edge) = camera.world(0.0, (FRAME_HEIGHT as f32 / 2.0 - (middle - camera.center.1) * camera.scale).round());
    c.rect((left, bottom), (right, edge.min(top)), 0.0, Fill::vertical(middle, DUSK, low, HORIZON));
    for i in 0..70 {
        let (x, y) = (-300.0 + 600.0 * noise(3 * i), 130.0 + 330.0 * noise(3 * i + 1));
        let (size, bright) = (0.25 + 0.5 * noise(3 * i + 2), (y - 130.0) / 330.0);
        c.circle(
            (x + 0.8 * camera.center.0, y),
            size * 1.6 / camera.scale.max(1.0),
            LIGHT.alpha((150.0 * bright) as u8),
        );
    }
    let sun = (0.9 * camera.center.0 + 0.22 * (right - left), -FREEBOARD + 5.0 / camera.scale.sqrt());
    c.glow(sun, 190.0 / camera.scale.sqrt(), SUN.alpha(150));
    c.circle(sun, 26.0 / camera.scale.sqrt(), SUN);
    // Clouds move with the mean wind, slower than the camera.
    let drift = rocket.wind[0] as f32 * rocket.steps as f32 * DT as f32 * 0.4;
    for i in 0..9 {
        let (x, y) = (-260.0 + 520.0 * noise(100 + i), 45.0 + 260.0 * noise(200 + i));
        let (x, size) = (x + drift + 0.7 * camera.center.0, 14.0 + 16.0 * noise(300 + i));
        for k in 0..5 {
            let (dx, dy) = ((k as f32 - 2.0) * 0.62 * size, 0.12 * size * noise(400 + 5 * i + k));
            let radius = size * (0.78 - 0.13 * (k as f32 - 2.0).abs());
            c.fade((x + dx, y + dy), 1.5 * radius, 0.42 * radius, CLOUD.alpha(70));
        }
    }
}

/// Water from the horizon down, with bands of waves that move and the sun's reflection.
fn sea(c: &mut Canvas, camera: &Camera, seconds: f32) {
    let (left, _) = camera.world(0.0, 0.0);
    let (right, bottom) = camera.world(WIDTH as f32, FRAME_HEIGHT as f32);
    let level = -FREEBOARD;
    c.rect((left, level - 3.0), (right, level + 0.4), 0.0, Fill::vertical(level, SEA_FAR, level - 3.0, SEA));
    c.rect(
        (left, bottom.min(level - 4.0)),
        (right, level - 2.9),
        0.0,
        Fill::vertical(level - 3.0, SEA, level - 26.0, SEA_DEEP),
    );
    let sun = 0.9 * camera.center.0 + 0.22 * (right - left);
    let depth = level - bottom;
    for i in 0..60 {
        let far = noise(600 + i);
        let y = level - 0.3 - depth * far * far;
        let length = (2.0 + 7.0 * noise(700 + i)) * (0.3 + far);
        let phase = seconds * (0.5 + far) * 1.2 + 600.0 * noise(800 + i);
        let x = left + (phase * 1.0 + 900.0 * noise(900 + i)).rem_euclid(right - left);
        let shine = (1.0 - ((x - sun) / 40.0).abs()).max(0.0);
        let color = LIGHT.mix(SUN, shine).alpha((28.0 + 110.0 * shine) as u8);
        c.line(&[(x - length / 2.0, y), (x + length / 2.0, y)], 0.16 + 0.22 * far, color);
    }
}

/// The landing ship from the side: hull, deck with its mark, containers, lamps, and its wake on the water.
fn ship(c: &mut Canvas, seconds: f32) {
    let bob = 0.05 * (1.3 * seconds).sin();
    c.shadow((0.0, -FREEBOARD - 0.6), 1.5 * SHIP, 1.6);
    let hull = [(-SHIP, -1.2), (SHIP, -1.2), (SHIP - 2.5, -FREEBOARD - 1.0), (-SHIP + 2.5, -FREEBOARD - 1.0)];
    c.polygon(&hull, Fill::vertical(-1.2, HULL.mix(LIGHT, 0.12), -FREEBOARD, HULL));
    c.rect((-SHIP + 1.6, -FREEBOARD + 0.6), (SHIP - 1.6, -FREEBOARD + 0.9), 0.1, ORANGE.mix(HULL, 0.35));
    c.rect(
        (-SHIP - 0.6, -1.4),
        (SHIP + 0.6, 0.0),
        0.35,
        Fill::vertical(0.0, DECK_TOP.mix(LIGHT, 0.18), -1.4, DECK_TOP.mix(INK, 0.35)),
    );
    let deck = DECK as f32;
    for i in 0..12 {
        let (from, to) = (-deck + i as f32 * deck / 6.0, -deck + (i as f32 + 1.0) * deck / 6.0);
        let color = if i % 2 == 0 { ORANGE_LIGHT } else { LIGHT };
        c.rect((from, -0.42), (to, -0.02), 0.0, color.alpha(230));
    }
    c.rect((-2.2, -0.5), (2.2, 0.02), 0.1, GREEN);
    for side in [-1.0, 1.0] {
        for (i, height) in [2.6, 4.4].into_iter().enumerate() {
            let x = side * (SHIP - 1.9 - 2.6 * i as f32);
            let color = [INK_LIGHT, HULL.mix(LIGHT, 0.25)][i];
            c.rect(
                (x - 1.2, 0.0),
                (x + 1.2, height * 0.62),
                0.15,
                Fill::vertical(height * 0.62, color.mix(LIGHT, 0.2), 0.0, color),
            );
        }
        let lamp = (side * (SHIP + 0.1), 0.7);
        c.line(&[(lamp.0, 0.0), lamp], 0.2, INK_LIGHT);
        c.glow(lamp, 3.4, if side < 0.0 { ORANGE.alpha(150) } else { GREEN.alpha(150) });
        c.circle(lamp, 0.35, LIGHT);
        let wake = side * (SHIP - 1.0);
        let foam = [(wake - 5.0, -FREEBOARD - 0.35 + bob), (wake + 5.0, -FREEBOARD - 0.35 - bob)];
        c.line(&foam, 0.5, LIGHT.alpha(120));
    }
    c.line(&[(-SHIP + 2.0, -FREEBOARD - 0.2), (SHIP - 2.0, -FREEBOARD - 0.2)], 0.45, LIGHT.alpha(90));
}

/// The way that the booster has come: smoke that widens and fades with its age.
fn trail(c: &mut Canvas, rocket: &Rocket) {
    let points = rocket.trail();
    let way: Vec<_> = points.iter().map(|[x, y]| (*x, y + FOOT_ARM as f32)).chain([rocket.middle()]).collect();
    // Whole lines over each other: pieces would show where they overlap.
    for (share, width, alpha) in [(1.0, 2.2, 22), (0.6, 1.6, 26), (0.3, 1.1, 30), (0.12, 0.8, 36)] {
        let from = ((1.0 - share) * way.len() as f32) as usize;
        c.line(&way[from..], width, LIGHT.alpha(alpha));
    }
}

/// Steam and spray that the jet throws up from deck and water.
fn spray(c: &mut Canvas, rocket: &Rocket) {
    let booster = &rocket.booster;
    let [x, y] = booster.foot().map(|v| v as f32);
    let strength = booster.throttle as f32 * (1.0 - y / 55.0).max(0.0);
    if strength <= 0.0 || rocket.flight == Flight::Crashed {
        return;
    }
    for i in 0..44 {
        let life = (noise(i) + rocket.steps as f32 * (0.035 + 0.02 * noise(50 + i))).fract();
        let side = if i % 2 == 0 { 1.0 } else { -1.0 };
        let reach = side * (2.0 + (8.0 + 18.0 * noise(90 + i)) * life.sqrt());
        let rise = (0.6 + 6.0 * noise(130 + i)) * life * (1.0 + 0.6 * life);
        let ground = if (x + reach).abs() < SHIP { 0.0 } else { -FREEBOARD };
        let radius = (0.8 + 3.4 * life) * (0.6 + 0.4 * strength);
        let alpha = 230.0 * strength.sqrt() * (1.0 - life) * (0.35 + 0.65 * life.min(0.3) / 0.3);
        c.fade((x + reach, ground + 0.4 + rise), 1.7 * radius, 1.5 * radius, STEAM.alpha(alpha as u8));
    }
    c.glow((x, 1.0), 9.0 + 15.0 * strength, FLAME.alpha((130.0 * strength) as u8));
}

/// The booster in its own frame: engine and flame, legs, hull, fins.
fn booster(c: &mut Canvas, rocket: &Rocket) {
    let Booster { tilt, throttle, gimbal, .. } = rocket.booster;
    let height = rocket.booster.foot()[1] as f32;
    let deployed = (1.0 - (height - 35.0) / 60.0).clamp(0.0, 1.0);
    // Landed or far from the deck there is nothing to cast a shadow on it.
    if height < 60.0 && rocket.foot_is_over_deck() {
        let fade = 1.0 - height / 60.0;
        c.shadow((rocket.booster.foot()[0] as f32, -0.1), 3.0 + 5.0 * fade, 0.5);
    }
    c.at(rocket.middle(), tilt as f32, |c| {
        let (foot, engine) = (-FOOT_ARM as f32, -ENGINE_ARM as f32);
        c.at((0.0, engine + 0.6), gimbal as f32, |c| {
            if throttle > 0.02 {
                flame(c, throttle as f32, height + 2.0, rocket.steps);
            }
            let bell = [(-0.45, 0.6), (0.45, 0.6), (0.95, -1.1), (-0.95, -1.1)];
            c.polygon(&bell, Fill::horizontal(-0.95, INK_LIGHT, 0.95, INK));
        });
        for side in [-1.0, 1.0] {
            leg(c, side, deployed, foot);
        }
        let (bottom, top) = (engine + 0.4, engine + HEIGHT as f32 - 1.6);
        let shade = |c: &mut Canvas, low: f32, high: f32, light: Color, dark: Color| {
            c.rect((-1.75, low), (0.35, high), 0.25, Fill::horizontal(-1.75, light.mix(dark, 0.45), -0.7, light));
            c.rect((-0.4, low), (1.75, high), 0.25, Fill::horizontal(-0.4, light, 1.75, dark));
        };
        shade(c, bottom, top, BODY, BODY_SHADE);
        shade(c, bottom, bottom + 3.4, SOOT.mix(BODY, 0.25), SOOT.mix(INK, 0.3));
        c.rect(
            (-1.75, bottom + 3.4),
            (1.75, bottom + 8.5),
            0.0,
            Fill::vertical(bottom + 3.4, SOOT.alpha(120), bottom + 8.5, SOOT.alpha(0)),
        );
        shade(c, top - 4.6, top, INK_LIGHT, INK);
        c.rect((-1.75, top - 5.1), (1.75, top - 4.7), 0.0, ORANGE);
        c.rect((-1.72, bottom + 12.0), (1.72, bottom + 12.25), 0.0, MUTED.alpha(120));
        for (i, x) in [-0.55, 0.0, 0.55].into_iter().enumerate() {
            c.rect(
                (x - 0.17, bottom + 15.0),
                (x + 0.17, bottom + 17.6 - 0.5 * (i % 2) as f32),
                0.1,
                Color::hex(0x3D6BE0),
            );
        }
        for side in [-1.0, 1.0] {
            let (x0, x1): (f32, f32) = (side * 1.7, side * 3.9);
            c.rect((x0.min(x1), top - 2.6), (x0.max(x1), top - 1.9), 0.15, INK_LIGHT);
            for k in 0..4 {
                let x = x0 + (x1 - x0) * (k as f32 + 0.5) / 4.0;
                c.line(&[(x, top - 2.5), (x, top - 2.0)], 0.16, MUTED);
            }
        }
    });
}

impl Rocket {
    fn foot_is_over_deck(&self) -> bool {
        self.booster.foot()[0].abs() < f64::from(SHIP)
    }
}

/// One leg, between folded against the hull (0) and set out (1).
fn leg(c: &mut Canvas, side: f32, deployed: f32, foot: f32) {
    let hinge = (side * 1.55, foot + 4.6);
    let span = LEG_SPAN as f32;
    let (folded, out) = ((side * 1.9, foot + 12.5), (side * span, foot));
    // On an arc: the foot swings outwards while it comes down.
    let swing = (deployed * std::f32::consts::PI).sin() * 2.2;
    let mix = |a: f32, b: f32| a + (b - a) * deployed;
    let tip = (mix(folded.0, out.0) + side * swing, mix(folded.1, out.1));
    c.line(
        &[(side * 1.55, foot + 9.5), (mix(hinge.0, 0.55 * (hinge.0 + tip.0)), mix(hinge.1, 0.5 * (hinge.1 + tip.1)))],
        0.32,
        INK_LIGHT,
    );
    c.line(&[hinge, tip], 0.75, INK);
    c.line(&[hinge, tip], 0.32, INK_LIGHT);
    if deployed > 0.5 {
        c.line(&[(tip.0 - 0.9, tip.1 + 0.15), (tip.0 + 0.9, tip.1 + 0.15)], 0.42, INK);
    }
}

/// The jet below the engine, which flickers from step to step and ends at the deck, `room` metres below.
fn flame(c: &mut Canvas, throttle: f32, room: f32, step: u32) {
    let flicker = 0.92 + 0.16 * noise(1000 + step);
    let length = ((3.0 + 15.0 * throttle) * flicker).min(room.max(0.6));
    let mouth = -1.0;
    c.glow((0.0, mouth - 0.4 * length), 0.85 * length, FLAME.alpha((70.0 + 90.0 * throttle) as u8));
    let jet = |c: &mut Canvas, width: f32, reach: f32, from: Color, to: Color| {
        let sway = 0.25 * (noise(2000 + step) - 0.5);
        let outline: Vec<(f32, f32)> = (0..=16)
            .chain((0..16).rev())
            .enumerate()
            .map(|(k, i)| {
                let t = i as f32 / 16.0;
                let half = width * (1.0 - t).powf(0.7) * (1.0 + 0.9 * t);
                (if k <= 16 { half } else { -half } + sway * t * t * width, mouth - reach * t)
            })
            .collect();
        c.polygon(&outline, Fill::vertical(mouth, from, mouth - reach, to));
    };
    jet(c, 1.05, length, FLAME.alpha(225), FLAME.alpha(0));
    jet(c, 0.85, 0.78 * length, ORANGE_LIGHT.alpha(240), ORANGE.alpha(20));
    jet(c, 0.6, 0.5 * length, FLAME_CORE, FLAME_CORE.alpha(40));
    for k in 0..3 {
        let y = mouth - length * (0.1 + 0.12 * k as f32);
        c.ellipse((0.0, y), 0.42 - 0.08 * k as f32, 0.5, LIGHT.alpha(150));
    }
}

/// What is left where a booster hit deck or water.
fn explosion(c: &mut Canvas, rocket: &Rocket) {
    let x = rocket.booster.foot()[0] as f32;
    let ground = if x.abs() < SHIP { 0.0 } else { -FREEBOARD };
    c.glow((x, ground + 6.0), 46.0, FLAME.alpha(190));
    for i in 0..40 {
        let (angle, reach) = (noise(i) * 3.1, 4.0 + 13.0 * noise(60 + i));
        let at = (x + reach * angle.cos(), ground + 2.0 + 0.9 * reach * angle.sin());
        let color = [SOOT, FLAME, ORANGE_LIGHT, INK_LIGHT, FLAME][i as usize % 5];
        c.glow(at, 3.5 + 5.0 * noise(120 + i), color.alpha(150 + (100.0 * noise(180 + i)) as u8));
    }
    for i in 0..14 {
        let (angle, reach) = (noise(240 + i) * 3.1, 10.0 + 20.0 * noise(300 + i));
        let (from, to) = (0.8 * reach, reach);
        let at = |r: f32| (x + r * angle.cos(), ground + 1.0 + r * angle.sin());
        c.line(&[at(from), at(to)], 0.5, ORANGE_LIGHT.alpha(220));
    }
    c.glow((x, ground + 4.0), 11.0, FLAME_CORE);
}

/// Height, speed and tilt as numbers, throttle and fuel as bars, the wind as an arrow.
fn panel(c: &mut Canvas, camera: &Camera, rocket: &Rocket) {
    let booster = &rocket.booster;
    let px = 1.0 / camera.scale;
    let at = |x: f32, y: f32| camera.world(x, y);
    let text =
        |c: &mut Canvas, x: f32, y: f32, size: f32, text: &str, color: Color| c.text(at(x, y), size * px, text, color);
    let bar = |c: &mut Canvas, y: f32, share: f32, color: Color| {
        c.rect(at(76.0, y + 5.0), at(196.0, y - 5.0), 5.0 * px, LIGHT.alpha(46));
        if share > 0.004 {
            c.rect(at(76.0, y + 5.0), at(76.0 + 120.0 * share.max(0.08), y - 5.0), 5.0 * px, color);
        }
    };
    c.rect(at(16.0, 176.0), at(212.0, 16.0), 12.0 * px, INK.mix(ZENITH, 0.5).alpha(120));
    let sink = booster.velocity[1];
    let tilt = booster.tilt.to_degrees();
    let height = booster.foot()[1].max(0.0);
    let close = height < 60.0;
    let warn = |bad: bool| if close && bad { ORANGE_LIGHT } else { LIGHT };
    for (i, (name, value, unit, color)) in [
        ("ALT", format!("{height:.0}"), "M", LIGHT),
        ("SPD", format!("{:.0}", sink.hypot(booster.velocity[0])), "M/S", warn(-sink > 2.0 * MAX_SINK + 0.25 * height)),
        ("TILT", format!("{:.0}", tilt.abs()), "DEG", warn(booster.tilt.abs() > MAX_TILT)),
    ]
    .into_iter()
    .enumerate()
    {
        let y = 44.0 + 27.0 * i as f32;
        text(c, 30.0, y, 9.0, name, LIGHT.alpha(150));
        text(c, 78.0, y, 14.0, &value, color);
        text(c, 150.0, y, 9.0, unit, LIGHT.alpha(150));
    }
    for (name, y, share, color) in [
        ("THR", 124.0, booster.throttle as f32, ORANGE_LIGHT),
        ("FUEL", 145.0, (booster.fuel / FULL_TANK) as f32, if booster.fuel < 300.0 { FLAME } else { GREEN }),
    ] {
        text(c, 30.0, y + 4.0, 8.0, name, LIGHT.alpha(150));
        bar(c, y, share, color);
    }
    text(c, 30.0, 168.0, 8.0, "WIND", LIGHT.alpha(150));
    let (middle, reach) = (136.0, 3.4 * rocket.wind().clamp(-17.0, 17.0) as f32);
    let head = 5.0 * reach.signum();
    c.line(&[at(middle - reach, 164.0), at(middle + reach, 164.0)], 2.5 * px, LIGHT);
    let tip = [(reach - head, 159.0), (reach + head, 164.0), (reach - head, 169.0)];
    c.polygon(&tip.map(|(x, y)| at(middle + x, y)), LIGHT);
    let (word, color) = match rocket.flight {
        Flight::Flying => return,
        Flight::Landed => ("LANDED", GREEN.mix(LIGHT, 0.35)),
        Flight::Crashed => ("LOST", FLAME),
    };
    c.centered_text(at(WIDTH as f32 / 2.0, 210.0), 34.0 * px, word, color);
}
