//! Top-down car: a hull with four wheels that steer, spin, brake and slip.
//!
//! Each wheel is a body of its own on a joint. It has a spin of its own, too, which engine and brakes change; the
//! difference between the tread's and the ground's speed makes a force, up to the friction of what is below the wheel.
//! After Gymnasium's `car_dynamics`, by Oleg Klimov, which follows C. Campbell's top-down car tutorial (2014).

use super::physics::{Body, JointDef, Material, Polygon, Vec2, World, vec2};
use crate::{EnvError, StateReader, StateWriter};

const SIZE: f64 = 0.02;
const ENGINE_POWER: f64 = 100_000_000.0 * SIZE * SIZE;
const WHEEL_MOMENT_OF_INERTIA: f64 = 4000.0 * SIZE * SIZE;
const FRICTION_LIMIT: f64 = 1_000_000.0 * SIZE * SIZE;
/// Force for each metre a second that a tread slips: chosen to die out within a few steps.
const SLIP_FORCE: f64 = 205_000.0 * SIZE * SIZE;
/// Share of the friction that grass has.
const GRASS_FRICTION: f64 = 0.6;
/// Radians a second that full brakes take away in a step.
const BRAKE_FORCE: f64 = 15.0;
const WHEEL_R: f64 = 27.0;
const WHEEL_W: f64 = 14.0;
const WHEEL_RADIUS: f64 = WHEEL_R * SIZE;
const WHEEL_POSITIONS: [[f64; 2]; 4] = [[-55., 80.], [55., 80.], [-55., -82.], [55., -82.]];
const HULL: [&[[f64; 2]]; 4] = [
    &[[-60., 130.], [60., 130.], [60., 110.], [-60., 110.]],
    &[[-15., 120.], [15., 120.], [20., 20.], [-20., 20.]],
    &[[25., 20.], [50., -10.], [50., -40.], [20., -90.], [-20., -90.], [-50., -40.], [-50., -10.], [-25., 20.]],
    &[[-50., -120.], [50., -120.], [50., -90.], [-50., -90.]],
];

/// Bodies of the world.
pub(super) const HULL_BODY: usize = 0;
pub(super) const FIRST_WHEEL: usize = 1;

/// A wheel beside its body.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Wheel {
    gas: f64,
    brake: f64,
    steer: f64,
    /// Angle and angular velocity of its spin.
    phase: f64,
    pub omega: f64,
    /// Tiles of the road that it touches.
    pub tiles: u32,
    /// It leaves a mark on the ground.
    pub skids: bool,
}

/// The car; its bodies and joints are those of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Car {
    pub wheels: [Wheel; 4],
}

/// numpy's sign: 0 for 0.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

fn scaled([x, y]: [f64; 2]) -> Vec2 {
    Vec2::from([x * SIZE, y * SIZE])
}

impl Car {
    /// Adds a car to a world.
    pub(super) fn new(world: &mut World, angle: f64, [x, y]: [f64; 2]) -> Self {
        let angle = angle as f32;
        let parts = HULL.map(|corners| {
            let mut points = [Vec2::ZERO; 8];
            points.iter_mut().zip(corners).for_each(|(to, corner)| *to = scaled(*corner));
            (Polygon::hull(&points[..corners.len()]), 1.0, Material::DEFAULT)
        });
        world.add_body(Vec2::from([x, y]), angle, &parts);
        let tread = [[-WHEEL_W, WHEEL_R], [WHEEL_W, WHEEL_R], [WHEEL_W, -WHEEL_R], [-WHEEL_W, -WHEEL_R]];
        let wheel = (Polygon::hull(&tread.map(scaled)), 0.1, Material::DEFAULT);
        for at @ [wx, wy] in WHEEL_POSITIONS {
            let body = world.add_body(Vec2::from([x + wx * SIZE, y + wy * SIZE]), angle, &[wheel]);
            world.add_joint(JointDef {
                bodies: [HULL_BODY, body],
                anchors: [scaled(at), Vec2::ZERO],
                limits: [-0.4, 0.4],
                motor_speed: 0.0,
                max_motor_torque: (180.0 * 900.0 * SIZE * SIZE) as f32,
            });
        }
        Self::default()
    }

    /// Where the front wheels shall turn: -1 right to 1 left. The steering takes time.
    pub(super) fn steer(&mut self, target: f64) {
        self.wheels[..2].iter_mut().for_each(|wheel| wheel.steer = target);
    }

    /// Power for the rear wheels, 0 to 1: rises gradually, falls at once.
    pub(super) fn gas(&mut self, gas: f64) {
        let gas = gas.clamp(0.0, 1.0);
        self.wheels[2..].iter_mut().for_each(|wheel| wheel.gas += (gas - wheel.gas).min(0.1));
    }

    /// Brakes of all wheels, 0 to 1; from 0.9 on they lock.
    pub(super) fn brake(&mut self, brake: f64) {
        self.wheels.iter_mut().for_each(|wheel| wheel.brake = brake);
    }

    /// Applies motors and tyre forces for a step of `dt`.
    pub(super) fn step(&mut self, world: &mut World, dt: f64) {
        for (joint, wheel) in self.wheels.iter_mut().enumerate() {
            let turn = wheel.steer - f64::from(world.joint_angle(joint));
            world.set_motor(joint, (sign(turn) * (50.0 * turn.abs()).min(3.0)) as f32, None);

            let limit = if wheel.tiles > 0 { FRICTION_LIMIT } else { FRICTION_LIMIT * GRASS_FRICTION };
            let body = world.body_mut(FIRST_WHEEL + joint);
            let double = |v: Vec2| [f64::from(v.x), f64::from(v.y)];
            let forward = double(body.world_vector(vec2(0.0, 1.0)));
            let side = double(body.world_vector(vec2(1.0, 0.0)));
            let v = double(body.velocity());
            let forward_speed = forward[0] * v[0] + forward[1] * v[1];
            let side_speed = side[0] * v[0] + side[1] * v[1];

            // A small number keeps the power finite at rest.
            wheel.omega += dt * ENGINE_POWER * wheel.gas / WHEEL_MOMENT_OF_INERTIA / (wheel.omega.abs() + 5.0);
            if wheel.brake >= 0.9 {
                wheel.omega = 0.0;
            } else if wheel.brake > 0.0 {
                let most = wheel.omega.abs();
                wheel.omega += -sign(wheel.omega) * (BRAKE_FORCE * wheel.brake).min(most);
            }
            wheel.phase += wheel.omega * dt;

            let mut along = (-forward_speed + wheel.omega * WHEEL_RADIUS) * SLIP_FORCE;
            let mut across = -side_speed * SLIP_FORCE;
            let force = (along * along + across * across).sqrt();
            wheel.skids = force > 2.0 * limit;
            if force > limit {
                along = along / force * limit;
                across = across / force * limit;
            }
            wheel.omega -= dt * along * WHEEL_RADIUS / WHEEL_MOMENT_OF_INERTIA;
            body.apply_force(Vec2::from([
                across * side[0] + along * forward[0],
                across * side[1] + along * forward[1],
            ]));
        }
    }

    /// Corners, in the world, of the light strip that shows how a wheel spins; `None` while it is below.
    pub(super) fn strip(&self, wheel: usize, body: &Body) -> Option<[Vec2; 4]> {
        let [first, last] = [self.wheels[wheel].phase, self.wheels[wheel].phase + 1.2];
        let end = |angle: f64| if angle.sin() > 0.0 { sign(angle.cos()) } else { angle.cos() };
        if first.sin() > 0.0 && last.sin() > 0.0 {
            return None;
        }
        let corner = |x: f64, c: f64| body.world_point(Vec2::from([x * SIZE, WHEEL_R * c * SIZE]));
        let [c1, c2] = [end(first), end(last)];
        Some([corner(-WHEEL_W, c1), corner(WHEEL_W, c1), corner(WHEEL_W, c2), corner(-WHEEL_W, c2)])
    }

    pub(super) fn save(&self, to: &mut StateWriter) {
        for wheel in &self.wheels {
            [wheel.gas, wheel.brake, wheel.steer, wheel.phase, wheel.omega].into_iter().for_each(|x| to.f64(x));
            to.u32(wheel.tiles);
            to.bool(wheel.skids);
        }
    }

    pub(super) fn load(from: &mut StateReader<'_>) -> Result<Self, EnvError> {
        let mut car = Self::default();
        for wheel in &mut car.wheels {
            *wheel = Wheel {
                gas: from.f64()?,
                brake: from.f64()?,
                steer: from.f64()?,
                phase: from.f64()?,
                omega: from.f64()?,
                tiles: from.u32()?,
                skids: from.bool()?,
            };
        }
        Ok(car)
    }
}
