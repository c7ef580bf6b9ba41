//! The contact solver: sequential impulses on velocities, with friction before non-penetration and both points of a
//! face solved together, then non-linear Gauss-Seidel on positions. The ground does not move, so that each contact
//! acts on one body.

use super::collide::{Face, Manifold};
use super::math::{Rot, Transform, Vec2, clamp, max, min};
use super::{Body, Contact, LINEAR_SLOP, MAX_LINEAR_CORRECTION, POLYGON_RADIUS, VELOCITY_THRESHOLD};

/// Centre of mass and angle of a body during a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Position {
    pub c: Vec2,
    pub a: f32,
}

/// Velocities of a body during a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Velocity {
    pub v: Vec2,
    pub w: f32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    arm: Vec2,
    normal_mass: f32,
    tangent_mass: f32,
    bias: f32,
}

/// Accumulated normal and tangent impulses of both points.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ContactImpulses {
    pub normal: [f32; 2],
    pub tangent: [f32; 2],
}

/// A contact during a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContactSolver {
    /// Which contact of the world.
    pub contact: usize,
    body: usize,
    inv_mass: f32,
    inv_inertia: f32,
    center: Vec2,
    friction: f32,
    restitution: f32,
    /// Points of the manifold, and those that the velocity solver uses.
    count: usize,
    used: usize,
    manifold: Manifold,
    normal: Vec2,
    points: [Point; 2],
    /// Effective mass of the two normal constraints: diagonal and off-diagonal elements of the matrix and its inverse.
    k: [f32; 3],
    k_inverse: [f32; 3],
    pub impulses: ContactImpulses,
    /// Impulses of the iteration that later ones are compared with.
    pub kept: ContactImpulses,
}

impl ContactSolver {
    /// The part that does not depend on positions; impulses start from `warm` times those of the last step.
    pub(super) fn new(index: usize, contact: &Contact, body: &Body, warm: f32) -> Self {
        let points = &contact.manifold.points;
        let impulses = ContactImpulses {
            normal: [warm * points[0].normal_impulse, warm * points[1].normal_impulse],
            tangent: [warm * points[0].tangent_impulse, warm * points[1].tangent_impulse],
        };
        Self {
            contact: index,
            body: contact.body,
            inv_mass: body.inv_mass,
            inv_inertia: body.inv_inertia,
            center: body.sweep.center,
            friction: contact.friction,
            restitution: contact.restitution,
            count: contact.manifold.count,
            used: contact.manifold.count,
            manifold: contact.manifold,
            normal: Vec2::ZERO,
            points: [Point::default(); 2],
            k: [0.0; 3],
            k_inverse: [0.0; 3],
            impulses,
            kept: impulses,
        }
    }

    /// The part that depends on positions. `q` is the rotation of the body's angle.
    pub(super) fn place(&mut self, position: &Position, q: Rot, velocity: &Velocity) {
        let (m, i) = (self.inv_mass, self.inv_inertia);
        let xf = Transform::around(self.center, position.c, q);
        let manifold = &self.manifold;
        let mut world = [Vec2::ZERO; 2];
        match manifold.face {
            Face::Ground => {
                self.normal = manifold.normal;
                for (to, point) in world.iter_mut().zip(&manifold.points[..self.count]) {
                    let clip = xf.apply(point.local);
                    let depth = POLYGON_RADIUS - (clip - manifold.point).dot(self.normal);
                    let on_ground = clip + depth * self.normal;
                    let on_body = clip - POLYGON_RADIUS * self.normal;
                    *to = 0.5 * (on_ground + on_body);
                }
            }
            Face::Body => {
                let normal = q.apply(manifold.normal);
                let plane = xf.apply(manifold.point);
                for (to, point) in world.iter_mut().zip(&manifold.points[..self.count]) {
                    let clip = point.local;
                    let on_body = clip + (POLYGON_RADIUS - (clip - plane).dot(normal)) * normal;
                    let on_ground = clip - POLYGON_RADIUS * normal;
                    *to = 0.5 * (on_ground + on_body);
                }
                self.normal = -normal;
            }
        }
        let (normal, tangent) = (self.normal, self.normal.clockwise());
        for (point, world) in self.points[..self.count].iter_mut().zip(world) {
            let arm = world - position.c;
            let (rn, rt) = (arm.cross(normal), arm.cross(tangent));
            let along = normal.dot(velocity.v + arm.spun(velocity.w));
            *point = Point {
                arm,
                normal_mass: 1.0 / (m + i * rn * rn),
                tangent_mass: 1.0 / (m + i * rt * rt),
                bias: if along < -VELOCITY_THRESHOLD { -self.restitution * along } else { 0.0 },
            };
        }
        self.used = self.count;
        if self.count == 2 {
            /// Least condition of the pair: below it the two points count as one.
            const MAX_CONDITION: f32 = 1000.0;
            let [r1, r2] = self.points.map(|p| p.arm.cross(normal));
            let (k11, k22, k12) = (m + i * r1 * r1, m + i * r2 * r2, m + i * r1 * r2);
            if k11 * k11 < MAX_CONDITION * (k11 * k22 - k12 * k12) {
                let det = k11 * k22 - k12 * k12;
                let inverse = if det != 0.0 { 1.0 / det } else { det };
                self.k = [k11, k12, k22];
                self.k_inverse = [inverse * k22, -inverse * k12, inverse * k11];
            } else {
                self.used = 1;
            }
        }
    }

    /// Applies the impulses that the step starts from.
    pub(super) fn warm_start(&self, velocities: &mut [Velocity]) {
        let velocity = &mut velocities[self.body];
        let tangent = self.normal.clockwise();
        for j in 0..self.used {
            let p = self.impulses.normal[j] * self.normal + self.impulses.tangent[j] * tangent;
            velocity.w += self.inv_inertia * self.points[j].arm.cross(p);
            velocity.v += self.inv_mass * p;
        }
    }

    /// One iteration of the velocity solver.
    #[inline(always)]
    pub(super) fn solve_velocity(&mut self, velocities: &mut [Velocity]) {
        let (m, i) = (self.inv_mass, self.inv_inertia);
        let Velocity { mut v, mut w } = velocities[self.body];
        let (normal, tangent) = (self.normal, self.normal.clockwise());
        for (j, point) in self.points[..self.used].iter().enumerate() {
            let slip = (v + point.arm.spun(w)).dot(tangent);
            let old = self.impulses.tangent[j];
            let most = self.friction * self.impulses.normal[j];
            self.impulses.tangent[j] = clamp(old + point.tangent_mass * -slip, -most, most);
            let p = (self.impulses.tangent[j] - old) * tangent;
            v += m * p;
            w += i * point.arm.cross(p);
        }
        if self.used == 1 {
            let point = &self.points[0];
            let along = (v + point.arm.spun(w)).dot(normal);
            let old = self.impulses.normal[0];
            self.impulses.normal[0] = max(old + -point.normal_mass * (along - point.bias), 0.0);
            let p = (self.impulses.normal[0] - old) * normal;
            v += m * p;
            w += i * point.arm.cross(p);
        } else {
            let [p1, p2] = &self.points;
            let [a1, a2] = self.impulses.normal;
            let [k11, k12, k22] = self.k;
            let along1 = (v + p1.arm.spun(w)).dot(normal);
            let along2 = (v + p2.arm.spun(w)).dot(normal);
            let b1 = along1 - p1.bias - (k11 * a1 + k12 * a2);
            let b2 = along2 - p2.bias - (k12 * a1 + k22 * a2);
            if let Some([x1, x2]) = self.total_impulses(b1, b2) {
                let (i1, i2) = ((x1 - a1) * normal, (x2 - a2) * normal);
                v += m * (i1 + i2);
                w += i * (p1.arm.cross(i1) + p2.arm.cross(i2));
                self.impulses.normal = [x1, x2];
            }
        }
        velocities[self.body] = Velocity { v, w };
    }

    /// The total normal impulses `x >= 0` of a face with `k x + b >= 0` and one of the two zero for each point. The
    /// four cases are tried in turn; rounding may leave none.
    #[inline(always)]
    fn total_impulses(&self, b1: f32, b2: f32) -> Option<[f32; 2]> {
        let [j11, j12, j22] = self.k_inverse;
        let (x1, x2) = (-(j11 * b1 + j12 * b2), -(j12 * b1 + j22 * b2));
        if x1 >= 0.0 && x2 >= 0.0 {
            return Some([x1, x2]);
        }
        let k12 = self.k[1];
        let x1 = -self.points[0].normal_mass * b1;
        if x1 >= 0.0 && k12 * x1 + b2 >= 0.0 {
            return Some([x1, 0.0]);
        }
        let x2 = -self.points[1].normal_mass * b2;
        if x2 >= 0.0 && k12 * x2 + b1 >= 0.0 {
            return Some([0.0, x2]);
        }
        (b1 >= 0.0 && b2 >= 0.0).then_some([0.0, 0.0])
    }

    /// Keeps the impulses for the next step.
    pub(super) fn store(&self, contact: &mut Contact) {
        for (j, point) in contact.manifold.points[..self.used].iter_mut().enumerate() {
            point.normal_impulse = self.impulses.normal[j];
            point.tangent_impulse = self.impulses.tangent[j];
        }
    }

    /// One iteration of the position solver, which takes the share `rate` of the overlap; the least separation seen.
    pub(super) fn solve_position(&self, positions: &mut [Position], rate: f32) -> f32 {
        let (m, i) = (self.inv_mass, self.inv_inertia);
        let Position { mut c, mut a } = positions[self.body];
        let manifold = &self.manifold;
        let mut least = 0.0;
        for point in &manifold.points[..self.count] {
            let xf = Transform::around(self.center, c, Rot::new(a));
            let (normal, at, separation);
            match manifold.face {
                Face::Ground => {
                    normal = manifold.normal;
                    at = xf.apply(point.local);
                    separation = (at - manifold.point).dot(normal) - POLYGON_RADIUS - POLYGON_RADIUS;
                }
                Face::Body => {
                    let out = xf.q.apply(manifold.normal);
                    at = point.local;
                    separation = (at - xf.apply(manifold.point)).dot(out) - POLYGON_RADIUS - POLYGON_RADIUS;
                    normal = -out;
                }
            }
            let arm = at - c;
            least = min(least, separation);
            let correction = clamp(rate * (separation + LINEAR_SLOP), -MAX_LINEAR_CORRECTION, 0.0);
            let rn = arm.cross(normal);
            let p = (-correction / (m + i * rn * rn)) * normal;
            c += m * p;
            a += i * arm.cross(p);
        }
        positions[self.body] = Position { c, a };
        least
    }
}
