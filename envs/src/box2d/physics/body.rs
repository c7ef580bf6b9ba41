//! What can be asked of a body and done to it.

use super::math::{Rot, Transform};
use super::solver::Velocity;
use super::{Body, Vec2};

impl Body {
    /// Position of the origin of the body's coordinates.
    pub(crate) fn position(&self) -> Vec2 {
        self.xf.p
    }

    pub(crate) fn angle(&self) -> f32 {
        self.sweep.a
    }

    /// Velocity of the centre of mass.
    pub(crate) fn velocity(&self) -> Vec2 {
        self.velocity.v
    }

    pub(crate) fn angular_velocity(&self) -> f32 {
        self.velocity.w
    }

    pub(crate) fn awake(&self) -> bool {
        self.awake
    }

    /// A vector of body coordinates in world coordinates.
    pub(crate) fn world_vector(&self, v: Vec2) -> Vec2 {
        self.xf.q.apply(v)
    }

    /// A point of body coordinates in world coordinates.
    pub(crate) fn world_point(&self, v: Vec2) -> Vec2 {
        self.xf.apply(v)
    }

    pub(crate) fn wake(&mut self) {
        if !self.awake {
            self.awake = true;
            self.sleep_time = 0.0;
        }
    }

    pub(super) fn sleep(&mut self) {
        self.awake = false;
        self.sleep_time = 0.0;
        self.velocity = Velocity::default();
        (self.force, self.torque) = (Vec2::ZERO, 0.0);
    }

    /// Pushes the centre of mass during the next step, and wakes the body.
    pub(crate) fn apply_force(&mut self, force: Vec2) {
        self.wake();
        self.force += force;
    }

    /// Turns the body during the next step, and wakes it.
    pub(crate) fn apply_torque(&mut self, torque: f32) {
        self.wake();
        self.torque += torque;
    }

    /// Changes the velocities at once, and wakes the body.
    pub(crate) fn apply_impulse(&mut self, impulse: Vec2, at: Vec2) {
        self.wake();
        self.velocity.v += self.inv_mass * impulse;
        self.velocity.w += self.inv_inertia * (at - self.sweep.c).cross(impulse);
    }

    /// Puts the frame where the sweep ends.
    pub(super) fn synchronize(&mut self) {
        self.xf = Transform::around(self.sweep.center, self.sweep.c, Rot::new(self.sweep.a));
    }

    /// Moves the body to the time `alpha` of the step, and ends its sweep there.
    pub(super) fn advance(&mut self, alpha: f32) {
        self.sweep.advance(alpha);
        self.sweep.c = self.sweep.c0;
        self.sweep.a = self.sweep.a0;
        self.synchronize();
    }
}
