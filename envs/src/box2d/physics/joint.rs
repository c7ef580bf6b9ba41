//! The revolute joint: two bodies share a point; a motor with limited torque drives their relative angle, which stays
//! between limits.

use super::math::{Rot, Vec2, clamp};
use super::solver::{Position, Velocity};
use super::{ANGULAR_SLOP, Body, LINEAR_SLOP, MAX_ANGULAR_CORRECTION};

/// Which limit the angle has reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    Inside,
    Lower,
    Upper,
}

/// What is given of a joint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct JointDef {
    /// The two bodies.
    pub bodies: [usize; 2],
    /// The shared point in the coordinates of each.
    pub anchors: [Vec2; 2],
    /// Least and greatest angle that the second body may turn relative to the first, from where it is added.
    pub limits: [f32; 2],
    /// Angular velocity that the motor wants.
    pub motor_speed: f32,
    /// Torque that it has for that.
    pub max_motor_torque: f32,
}

/// A revolute joint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Joint {
    pub def: JointDef,
    /// Angle of the second body relative to the first when the joint was made.
    pub reference_angle: f32,
    /// Impulses of the last step: of the shared point, of the limit, of the motor.
    pub impulse: Vec2,
    pub limit_impulse: f32,
    pub motor_impulse: f32,
    pub limit: Limit,
}

impl Joint {
    pub(crate) fn new(def: JointDef, reference_angle: f32) -> Self {
        Self { def, reference_angle, impulse: Vec2::ZERO, limit_impulse: 0.0, motor_impulse: 0.0, limit: Limit::Inside }
    }
}

/// A joint during a step: constants of the velocity solver beside the impulses that it changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct JointSolver {
    /// Which joint of the world.
    pub joint: usize,
    bodies: [usize; 2],
    inv_mass: [f32; 2],
    inv_inertia: [f32; 2],
    arms: [Vec2; 2],
    motor_speed: f32,
    max_motor_impulse: f32,
    motor_mass: f32,
    limit: Limit,
    /// Columns of the symmetric effective mass matrix.
    ex: [f32; 3],
    ey: [f32; 3],
    ez: [f32; 3],
    ey_x_ez: [f32; 3],
    /// Reciprocal determinants of its upper left 2 x 2 part and of the whole.
    inv_det2: f32,
    inv_det3: f32,
    /// Accumulated impulse of the shared point, and what the last iteration added to it. Nothing depends on the sum.
    pub point_impulse: Vec2,
    pub last_point_impulse: Vec2,
    /// Accumulated impulses that the next iteration depends on.
    pub impulses: JointImpulses,
    /// Those of the iteration that later ones are compared with.
    pub kept: JointImpulses,
}

/// Accumulated impulses of the limit and of the motor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct JointImpulses {
    pub limit: f32,
    pub motor: f32,
}

#[inline(always)]
fn cross3(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

#[inline(always)]
fn dot3(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// `1 / det`, and 0 for a singular matrix.
#[inline(always)]
fn inverse(det: f32) -> f32 {
    if det != 0.0 { 1.0 / det } else { det }
}

impl JointSolver {
    /// Prepares a step and applies last step's impulses, scaled by `dt_ratio`. Sets the joint's limit state.
    pub(super) fn new(
        index: usize,
        joint: &mut Joint,
        bodies: &[Body],
        positions: &[Position],
        velocities: &mut [Velocity],
        [dt, dt_ratio]: [f32; 2],
    ) -> Self {
        let def = &joint.def;
        let [a, b] = def.bodies;
        let [body_a, body_b] = [&bodies[a], &bodies[b]];
        // The frames' rotations are those of the positions that a step starts from.
        let ra = body_a.xf.q.apply(def.anchors[0] - body_a.sweep.center);
        let rb = body_b.xf.q.apply(def.anchors[1] - body_b.sweep.center);
        let ([ma, mb], [ia, ib]) = ([body_a.inv_mass, body_b.inv_mass], [body_a.inv_inertia, body_b.inv_inertia]);
        let k01 = -ra.y * ra.x * ia - rb.y * rb.x * ib;
        let k02 = -ra.y * ia - rb.y * ib;
        let k12 = ra.x * ia + rb.x * ib;
        let ex = [ma + mb + ra.y * ra.y * ia + rb.y * rb.y * ib, k01, k02];
        let ey = [k01, ma + mb + ra.x * ra.x * ia + rb.x * rb.x * ib, k12];
        let ez = [k02, k12, ia + ib];
        let ey_x_ez = cross3(ey, ez);

        let angle = positions[b].a - positions[a].a - joint.reference_angle;
        let limit = if angle <= def.limits[0] {
            Limit::Lower
        } else if angle >= def.limits[1] {
            Limit::Upper
        } else {
            Limit::Inside
        };
        if limit == Limit::Inside || limit != joint.limit {
            joint.limit_impulse = 0.0;
        }
        joint.limit = limit;

        let p = dt_ratio * joint.impulse;
        let impulses = JointImpulses { limit: dt_ratio * joint.limit_impulse, motor: dt_ratio * joint.motor_impulse };
        velocities[a].v -= ma * p;
        velocities[a].w -= ia * (ra.cross(p) + impulses.motor + impulses.limit);
        velocities[b].v += mb * p;
        velocities[b].w += ib * (rb.cross(p) + impulses.motor + impulses.limit);

        Self {
            joint: index,
            bodies: [a, b],
            inv_mass: [ma, mb],
            inv_inertia: [ia, ib],
            arms: [ra, rb],
            motor_speed: def.motor_speed,
            max_motor_impulse: dt * def.max_motor_torque,
            motor_mass: inverse(ia + ib),
            limit,
            ex,
            ey,
            ez,
            ey_x_ez,
            inv_det2: inverse(ex[0] * ey[1] - ey[0] * ex[1]),
            inv_det3: inverse(dot3(ex, ey_x_ez)),
            point_impulse: p,
            last_point_impulse: Vec2::ZERO,
            impulses,
            kept: impulses,
        }
    }

    /// Solution of the upper left 2 x 2 part.
    #[inline(always)]
    fn solve2(&self, b: Vec2) -> Vec2 {
        Vec2 {
            x: self.inv_det2 * (self.ey[1] * b.x - self.ey[0] * b.y),
            y: self.inv_det2 * (self.ex[0] * b.y - self.ex[1] * b.x),
        }
    }

    #[inline(always)]
    fn solve3(&self, b: [f32; 3]) -> [f32; 3] {
        [
            self.inv_det3 * dot3(b, self.ey_x_ez),
            self.inv_det3 * dot3(self.ex, cross3(b, self.ez)),
            self.inv_det3 * dot3(self.ex, cross3(self.ey, b)),
        ]
    }

    /// One iteration of the velocity solver: motor, then limit and point together.
    #[inline(always)]
    pub(super) fn solve_velocity(&mut self, velocities: &mut [Velocity]) {
        let [a, b] = self.bodies;
        let [ma, mb] = self.inv_mass;
        let [ia, ib] = self.inv_inertia;
        let [ra, rb] = self.arms;
        let (mut va, mut wa) = (velocities[a].v, velocities[a].w);
        let (mut vb, mut wb) = (velocities[b].v, velocities[b].w);

        let impulse = -self.motor_mass * (wb - wa - self.motor_speed);
        let old = self.impulses.motor;
        self.impulses.motor = clamp(old + impulse, -self.max_motor_impulse, self.max_motor_impulse);
        let impulse = self.impulses.motor - old;
        wa -= ia * impulse;
        wb += ib * impulse;

        let slip = vb + rb.spun(wb) - va - ra.spun(wa);
        if self.limit == Limit::Inside {
            let p = self.solve2(-slip);
            self.last_point_impulse = p;
            va -= ma * p;
            wa -= ia * ra.cross(p);
            vb += mb * p;
            wb += ib * rb.cross(p);
        } else {
            let [x, y, z] = self.solve3([slip.x, slip.y, wb - wa]).map(|x| -x);
            let (mut p, mut turn) = (Vec2 { x, y }, z);
            let total = self.impulses.limit + z;
            let pulls = if self.limit == Limit::Lower { total < 0.0 } else { total > 0.0 };
            if pulls {
                // A limit only pushes: drop its impulse and hold the point alone.
                p = self.solve2(-slip + self.impulses.limit * Vec2 { x: self.ez[0], y: self.ez[1] });
                turn = -self.impulses.limit;
                self.impulses.limit = 0.0;
            } else {
                self.impulses.limit = total;
            }
            self.last_point_impulse = p;
            va -= ma * p;
            wa -= ia * (ra.cross(p) + turn);
            vb += mb * p;
            wb += ib * (rb.cross(p) + turn);
        }
        self.point_impulse += self.last_point_impulse;
        velocities[a] = Velocity { v: va, w: wa };
        velocities[b] = Velocity { v: vb, w: wb };
    }

    /// One iteration of the position solver; whether the joint holds well enough.
    pub(super) fn solve_position(&self, joint: &Joint, bodies: &[Body], positions: &mut [Position]) -> bool {
        let def = &joint.def;
        let [a, b] = self.bodies;
        let [ma, mb] = self.inv_mass;
        let [ia, ib] = self.inv_inertia;
        let (mut ca, mut aa) = (positions[a].c, positions[a].a);
        let (mut cb, mut ab) = (positions[b].c, positions[b].a);

        let mut angular_error = 0.0;
        if self.limit != Limit::Inside {
            let angle = ab - aa - joint.reference_angle;
            let correction = if self.limit == Limit::Lower {
                let c = angle - def.limits[0];
                angular_error = -c;
                clamp(c + ANGULAR_SLOP, -MAX_ANGULAR_CORRECTION, 0.0)
            } else {
                let c = angle - def.limits[1];
                angular_error = c;
                clamp(c - ANGULAR_SLOP, 0.0, MAX_ANGULAR_CORRECTION)
            };
            let impulse = -self.motor_mass * correction;
            aa -= ia * impulse;
            ab += ib * impulse;
        }

        let ra = Rot::new(aa).apply(def.anchors[0] - bodies[a].sweep.center);
        let rb = Rot::new(ab).apply(def.anchors[1] - bodies[b].sweep.center);
        let c = cb + rb - ca - ra;
        let position_error = c.length();
        let k11 = ma + mb + ia * ra.y * ra.y + ib * rb.y * rb.y;
        let k12 = -ia * ra.x * ra.y - ib * rb.x * rb.y;
        let k22 = ma + mb + ia * ra.x * ra.x + ib * rb.x * rb.x;
        let inv_det = inverse(k11 * k22 - k12 * k12);
        let p = -Vec2 { x: inv_det * (k22 * c.x - k12 * c.y), y: inv_det * (k11 * c.y - k12 * c.x) };
        ca -= ma * p;
        aa -= ia * ra.cross(p);
        cb += mb * p;
        ab += ib * rb.cross(p);

        positions[a] = Position { c: ca, a: aa };
        positions[b] = Position { c: cb, a: ab };
        position_error <= LINEAR_SLOP && angular_error <= ANGULAR_SLOP
    }

    /// Keeps the impulses for the next step.
    pub(super) fn store(&self, joint: &mut Joint) {
        joint.impulse = self.point_impulse;
        joint.limit_impulse = self.impulses.limit;
        joint.motor_impulse = self.impulses.motor;
    }
}
