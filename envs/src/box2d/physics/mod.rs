//! Rigid bodies in the plane, for scenes of one linkage of dynamic bodies over fixed ground.
//!
//! An independent implementation of the algorithms of Box2D 2.3 (Erin Catto, <https://box2d.org>, zlib licence), which
//! Gymnasium's environments run on: sequential impulses with warm starting, a block solver for two-point contacts,
//! non-linear Gauss-Seidel for positions, islands that sleep, and continuous collision against the ground. It computes
//! in single precision in Box2D's order of operations, so that trajectories agree with Box2D's to the last bit where
//! the platform's sine and cosine do.
//!
//! What is left out is what the scenes cannot need: bodies here collide with the ground alone, the ground does not
//! move, and all bodies hang together by joints, so that there is one island. Three things are done differently, with
//! the same results:
//! - Bounds are compared one by one instead of in a tree: contacts are made in the order of their shapes either way.
//! - The velocity solver stops when its state repeats: what the remaining iterations would do is then known.
//! - Factors of zero that come from the ground's infinite mass are dropped.

mod collide;
mod distance;
mod joint;
mod math;
mod shape;
mod solver;

use std::f32::consts::PI;
use std::ops::RangeInclusive;

use crate::{EnvError, StateReader, StateWriter};

use collide::{Face, Manifold, ManifoldPoint};
pub(crate) use joint::JointDef;
use joint::{Joint, JointSolver, Limit};
use math::{Aabb, Rot, Sweep, Transform, max, min};
pub(crate) use math::{Vec2, vec2};
pub(crate) use shape::{GroundShape, Polygon};
use shape::{get, put};
use solver::{ContactSolver, Position, Velocity};

/// Most vertices of a polygon.
const MAX_VERTICES: usize = 8;
/// Most bodies and joints of a scene.
const MAX_BODIES: usize = 8;
/// Longest round of states of the velocity solver that is made use of.
const MAX_ROUND: usize = 16;

/// Bounds are kept larger by this much, so that a small motion needs no new search for contacts.
const AABB_EXTENSION: f32 = 0.1;
/// They reach ahead by this many times the last displacement.
const AABB_MULTIPLIER: f32 = 2.0;
/// Overlap that is allowed, in metres and radians.
const LINEAR_SLOP: f32 = 0.005;
const ANGULAR_SLOP: f32 = 2.0 / 180.0 * PI;
/// Thickness of the skin around polygons and edges.
const POLYGON_RADIUS: f32 = 2.0 * LINEAR_SLOP;
/// Slower contacts do not bounce.
const VELOCITY_THRESHOLD: f32 = 1.0;
const MAX_LINEAR_CORRECTION: f32 = 0.2;
const MAX_ANGULAR_CORRECTION: f32 = 8.0 / 180.0 * PI;
/// Furthest motion of a step.
const MAX_TRANSLATION: f32 = 2.0;
const MAX_ROTATION: f32 = 0.5 * PI;
/// Share of the overlap that a position iteration takes away: in a step, and at a time of impact.
const POSITION_RATE: f32 = 0.2;
const IMPACT_POSITION_RATE: f32 = 0.75;
const IMPACT_POSITION_ITERATIONS: usize = 20;
/// A contact may stop its body this often within a step.
const MAX_SUB_STEPS: u8 = 8;
/// Most contacts that are solved together at a time of impact.
const MAX_IMPACT_CONTACTS: usize = 32;
const TIME_TO_SLEEP: f32 = 0.5;
const LINEAR_SLEEP_TOLERANCE: f32 = 0.01;
const ANGULAR_SLEEP_TOLERANCE: f32 = 2.0 / 180.0 * PI;

/// How shapes of the ground and of bodies touch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Material {
    pub friction: f32,
    pub restitution: f32,
}

impl Material {
    /// What a shape has that nothing is said of.
    pub(crate) const DEFAULT: Self = Self { friction: 0.2, restitution: 0.0 };
}

/// A shape of the ground.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ground {
    pub shape: GroundShape,
    material: Material,
    /// Notices bodies without holding them.
    sensor: bool,
    /// Shapes with the same number belong to one fixed body.
    body: usize,
}

/// A rigid body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Body {
    pub xf: Transform,
    sweep: Sweep,
    velocity: Velocity,
    force: Vec2,
    torque: f32,
    inv_mass: f32,
    inv_inertia: f32,
    sleep_time: f32,
    awake: bool,
}

/// A shape of a body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fixture {
    pub body: usize,
    pub polygon: Polygon,
    material: Material,
    /// Bounds with room to move in.
    bounds: Aabb,
    /// The bounds changed: there may be new contacts.
    moved: bool,
}

/// A pair of a ground shape and a body's shape whose bounds overlap.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Contact {
    ground: usize,
    fixture: usize,
    body: usize,
    friction: f32,
    restitution: f32,
    sensor: bool,
    enabled: bool,
    touching: bool,
    manifold: Manifold,
    /// Time of impact in this step, where it is known.
    impact: Option<f32>,
    impacts: u8,
}

/// A contact that began or ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ContactEvent {
    /// The ground shape.
    pub ground: usize,
    /// The body's shape.
    pub fixture: usize,
    /// The body.
    pub body: usize,
    /// It began.
    pub begins: bool,
}

/// Length of a step and iterations of the solvers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeStep {
    pub dt: f32,
    pub velocity_iterations: usize,
    pub position_iterations: usize,
}

/// Ground, bodies, joints, and what touches what.
#[derive(Clone, Debug)]
pub(crate) struct World {
    gravity: Vec2,
    grounds: Vec<Ground>,
    bounds: GroundBounds,
    bodies: Vec<Body>,
    fixtures: Vec<Fixture>,
    joints: Vec<Joint>,
    /// In the order in which they were made. Box2D's lists have the newest first: walk backwards.
    contacts: Vec<Contact>,
    /// 1 / length of the last step, 0 before the first.
    inv_dt0: f32,
    /// Of the last step, in order.
    pub events: Vec<ContactEvent>,
    /// Bodies and joints in the order in which the island is built from the last body that is awake.
    island: Island,
    /// Times up to which fixed bodies were advanced in this step; not empty only after an impact.
    ground_times: Vec<(usize, f32)>,
    solvers: Vec<ContactSolver>,
    joint_solvers: Vec<JointSolver>,
    pairs: Vec<(u32, u32)>,
}

/// Bounds of the ground's shapes, a column for each side.
#[derive(Clone, Debug, Default)]
struct GroundBounds {
    lower_x: Vec<f32>,
    lower_y: Vec<f32>,
    upper_x: Vec<f32>,
    upper_y: Vec<f32>,
}

impl GroundBounds {
    fn push(&mut self, bounds: Aabb) {
        self.lower_x.push(bounds.lower.x);
        self.lower_y.push(bounds.lower.y);
        self.upper_x.push(bounds.upper.x);
        self.upper_y.push(bounds.upper.y);
    }

    fn clear(&mut self) {
        for column in [&mut self.lower_x, &mut self.lower_y, &mut self.upper_x, &mut self.upper_y] {
            column.clear();
        }
    }

    fn get(&self, i: usize) -> Aabb {
        Aabb { lower: vec2(self.lower_x[i], self.lower_y[i]), upper: vec2(self.upper_x[i], self.upper_y[i]) }
    }

    /// Calls `found` for each shape whose bounds overlap `bounds`, in order.
    fn overlapping(&self, bounds: &Aabb, mut found: impl FnMut(usize)) {
        const BLOCK: usize = 32;
        let len = self.lower_x.len();
        let (lower_x, lower_y) = (&self.lower_x[..len], &self.lower_y[..len]);
        let (upper_x, upper_y) = (&self.upper_x[..len], &self.upper_y[..len]);
        for first in (0..len).step_by(BLOCK) {
            let last = (first + BLOCK).min(len);
            let mut mask = 0u32;
            // Comparisons of whole blocks are vectorised; hits are rare.
            for i in first..last {
                let hit = (lower_x[i] - bounds.upper.x <= 0.0)
                    & (lower_y[i] - bounds.upper.y <= 0.0)
                    & (bounds.lower.x - upper_x[i] <= 0.0)
                    & (bounds.lower.y - upper_y[i] <= 0.0);
                mask |= u32::from(hit) << (i - first);
            }
            while mask != 0 {
                found(first + mask.trailing_zeros() as usize);
                mask &= mask - 1;
            }
        }
    }
}

/// The order of bodies and joints in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Island {
    seed: usize,
    bodies: [usize; MAX_BODIES],
    joints: [usize; MAX_BODIES],
}

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

    fn sleep(&mut self) {
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
    fn synchronize(&mut self) {
        self.xf = Transform::around(self.sweep.center, self.sweep.c, Rot::new(self.sweep.a));
    }

    /// Moves the body to the time `alpha` of the step, and ends its sweep there.
    fn advance(&mut self, alpha: f32) {
        self.sweep.advance(alpha);
        self.sweep.c = self.sweep.c0;
        self.sweep.a = self.sweep.a0;
        self.synchronize();
    }
}

/// Moves a body over a time, no further than one step may.
#[inline(always)]
fn integrate(position: &mut Position, velocity: &mut Velocity, h: f32) {
    let translation = h * velocity.v;
    if translation.dot(translation) > MAX_TRANSLATION * MAX_TRANSLATION {
        velocity.v = (MAX_TRANSLATION / translation.length()) * velocity.v;
    }
    let rotation = h * velocity.w;
    if rotation * rotation > MAX_ROTATION * MAX_ROTATION {
        velocity.w *= MAX_ROTATION / rotation.abs();
    }
    position.c += h * velocity.v;
    position.a += h * velocity.w;
}

impl World {
    /// An empty world.
    pub(crate) fn new(gravity: Vec2) -> Self {
        Self {
            gravity,
            grounds: Vec::new(),
            bounds: GroundBounds::default(),
            bodies: Vec::with_capacity(MAX_BODIES),
            fixtures: Vec::with_capacity(MAX_BODIES),
            joints: Vec::with_capacity(MAX_BODIES),
            contacts: Vec::with_capacity(64),
            inv_dt0: 0.0,
            events: Vec::with_capacity(64),
            island: Island { seed: usize::MAX, bodies: [0; MAX_BODIES], joints: [0; MAX_BODIES] },
            ground_times: Vec::with_capacity(MAX_IMPACT_CONTACTS),
            solvers: Vec::with_capacity(64),
            joint_solvers: Vec::with_capacity(MAX_BODIES),
            pairs: Vec::with_capacity(64),
        }
    }

    /// Removes everything but keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.grounds.clear();
        self.bounds.clear();
        self.bodies.clear();
        self.fixtures.clear();
        self.joints.clear();
        self.contacts.clear();
        self.events.clear();
        self.ground_times.clear();
        self.inv_dt0 = 0.0;
        self.island.seed = usize::MAX;
    }

    /// Adds a shape of a fixed body.
    pub(crate) fn add_ground(&mut self, body: usize, shape: GroundShape, material: Material, sensor: bool) {
        self.bounds.push(shape.aabb().grown(AABB_EXTENSION));
        self.grounds.push(Ground { shape, material, sensor, body });
    }

    /// Adds a body of polygons with densities.
    ///
    /// # Panics
    /// If there are too many bodies.
    pub(crate) fn add_body(&mut self, position: Vec2, angle: f32, shapes: &[(Polygon, f32, Material)]) -> usize {
        let index = self.bodies.len();
        assert!(index < MAX_BODIES, "too many bodies");
        let xf = Transform { p: position, q: Rot::new(angle) };
        for &(polygon, _, material) in shapes {
            let bounds = polygon.aabb(&xf).grown(AABB_EXTENSION);
            self.fixtures.push(Fixture { body: index, polygon, material, bounds, moved: true });
        }
        let (mut mass, mut center, mut inertia) = (0.0, Vec2::ZERO, 0.0);
        // Box2D's list of shapes has the newest first.
        for (polygon, density, _) in shapes.iter().rev() {
            let part = polygon.mass(*density);
            mass += part.mass;
            center += part.mass * part.center;
            inertia += part.inertia;
        }
        let inv_mass = 1.0 / mass;
        let center = inv_mass * center;
        let inertia = inertia - mass * center.dot(center);
        let c = xf.apply(center);
        self.bodies.push(Body {
            xf,
            sweep: Sweep { center, c0: c, c, a0: angle, a: angle, alpha0: 0.0 },
            velocity: Velocity::default(),
            force: Vec2::ZERO,
            torque: 0.0,
            inv_mass,
            inv_inertia: 1.0 / inertia,
            sleep_time: 0.0,
            awake: true,
        });
        index
    }

    /// Adds a revolute joint.
    ///
    /// # Panics
    /// If there are too many joints.
    pub(crate) fn add_joint(&mut self, def: JointDef) -> usize {
        assert!(self.joints.len() < MAX_BODIES, "too many joints");
        let [a, b] = def.bodies.map(|b| self.bodies[b].sweep.a);
        self.joints.push(Joint::new(def, b - a));
        self.joints.len() - 1
    }

    pub(crate) fn bodies(&self) -> &[Body] {
        &self.bodies
    }

    pub(crate) fn body_mut(&mut self, i: usize) -> &mut Body {
        &mut self.bodies[i]
    }

    pub(crate) fn fixtures(&self) -> &[Fixture] {
        &self.fixtures
    }

    pub(crate) fn grounds(&self) -> &[Ground] {
        &self.grounds
    }

    /// Angle that a joint's second body has turned relative to its first.
    pub(crate) fn joint_angle(&self, joint: usize) -> f32 {
        let joint = &self.joints[joint];
        let [a, b] = joint.def.bodies;
        self.bodies[b].sweep.a - self.bodies[a].sweep.a - joint.reference_angle
    }

    /// Angular velocity of a joint's second body relative to its first.
    pub(crate) fn joint_speed(&self, joint: usize) -> f32 {
        let [a, b] = self.joints[joint].def.bodies;
        self.bodies[b].velocity.w - self.bodies[a].velocity.w
    }

    /// Sets what a joint's motor does from the next step on, and wakes its bodies. No torque: as before.
    pub(crate) fn set_motor(&mut self, joint: usize, speed: f32, max_torque: Option<f32>) {
        let def = &mut self.joints[joint].def;
        def.motor_speed = speed;
        def.max_motor_torque = max_torque.unwrap_or(def.max_motor_torque);
        def.bodies.into_iter().for_each(|b| self.bodies[b].wake());
    }

    /// Share of the way from `from` to `to` at which a ray meets the ground, 1 if it does not.
    pub(crate) fn cast_ray(&self, from: Vec2, to: Vec2) -> f32 {
        let mut fraction = 1.0;
        self.bounds.overlapping(&Aabb::around([from, to], 0.0), |i| {
            if let Some(t) = self.grounds[i].shape.cast(from, to, fraction) {
                fraction = t;
            }
        });
        fraction
    }

    /// Advances the world.
    pub(crate) fn step(&mut self, step: TimeStep) {
        self.events.clear();
        if self.fixtures.iter().any(|f| f.moved) {
            self.find_contacts();
        }
        let dt_ratio = self.inv_dt0 * step.dt;
        self.collide();
        if let Some(seed) = (0..self.bodies.len()).rev().find(|&b| self.bodies[b].awake) {
            self.solve(seed, step, dt_ratio);
        }
        if !self.contacts.is_empty() {
            self.solve_impacts(step);
        }
        self.inv_dt0 = 1.0 / step.dt;
        for body in &mut self.bodies {
            (body.force, body.torque) = (Vec2::ZERO, 0.0);
        }
    }

    /// Makes contacts for the fixtures whose bounds changed.
    fn find_contacts(&mut self) {
        self.pairs.clear();
        for (i, fixture) in self.fixtures.iter_mut().enumerate() {
            if std::mem::take(&mut fixture.moved) {
                self.bounds.overlapping(&fixture.bounds, |ground| self.pairs.push((ground as u32, i as u32)));
            }
        }
        self.pairs.sort_unstable();
        for &(ground, fixture) in &self.pairs {
            let (ground, fixture) = (ground as usize, fixture as usize);
            if self.contacts.iter().any(|c| c.ground == ground && c.fixture == fixture) {
                continue;
            }
            let (below, above) = (&self.grounds[ground], &self.fixtures[fixture]);
            let contact = Contact {
                ground,
                fixture,
                body: above.body,
                friction: (below.material.friction * above.material.friction).sqrt(),
                restitution: max(below.material.restitution, above.material.restitution),
                sensor: below.sensor,
                enabled: true,
                touching: false,
                manifold: Manifold::default(),
                impact: None,
                impacts: 0,
            };
            if !contact.sensor {
                self.bodies[contact.body].wake();
            }
            self.contacts.push(contact);
        }
    }

    /// Drops contacts whose bounds no longer overlap, and finds out for the others where they touch.
    fn collide(&mut self) {
        let mut i = self.contacts.len();
        while i > 0 {
            i -= 1;
            let contact = &self.contacts[i];
            if !self.bodies[contact.body].awake {
                continue;
            }
            if self.bounds.get(contact.ground).overlaps(&self.fixtures[contact.fixture].bounds) {
                self.update(i);
                continue;
            }
            if contact.touching {
                self.events.push(contact.event(false));
            }
            if contact.manifold.count > 0 && !contact.sensor {
                self.bodies[contact.body].wake();
            }
            self.contacts.remove(i);
        }
    }

    /// Finds out where a contact touches now.
    fn update(&mut self, i: usize) {
        let contact = &mut self.contacts[i];
        let ground = &self.grounds[contact.ground];
        let polygon = &self.fixtures[contact.fixture].polygon;
        let body = &mut self.bodies[contact.body];
        contact.enabled = true;
        let was_touching = contact.touching;
        if contact.sensor {
            contact.touching = distance::overlap(ground.shape.vertices(), polygon.vertices(), &body.xf);
        } else {
            let old = contact.manifold;
            collide::collide(&mut contact.manifold, &ground.shape, polygon, &body.xf);
            for point in &mut contact.manifold.points[..contact.manifold.count] {
                if let Some(same) = old.points[..old.count].iter().find(|p| p.id == point.id) {
                    (point.normal_impulse, point.tangent_impulse) = (same.normal_impulse, same.tangent_impulse);
                }
            }
            contact.touching = contact.manifold.count > 0;
            if contact.touching != was_touching {
                body.wake();
            }
        }
        if contact.touching != was_touching {
            self.events.push(contact.event(contact.touching));
        }
    }

    /// The order in which bodies and joints are reached from `seed`, depth first, newest joints first.
    fn order_island(&mut self, seed: usize) {
        let mut island = Island { seed, bodies: [0; MAX_BODIES], joints: [0; MAX_BODIES] };
        let (mut stack, mut depth) = ([0; MAX_BODIES], 1);
        let (mut seen, mut taken) = ([false; MAX_BODIES], [false; MAX_BODIES]);
        let (mut bodies, mut joints) = (0, 0);
        stack[0] = seed;
        seen[seed] = true;
        while depth > 0 {
            depth -= 1;
            let b = stack[depth];
            island.bodies[bodies] = b;
            bodies += 1;
            for (j, joint) in self.joints.iter().enumerate().rev() {
                let [first, second] = joint.def.bodies;
                if taken[j] || (first != b && second != b) {
                    continue;
                }
                taken[j] = true;
                island.joints[joints] = j;
                joints += 1;
                let other = if first == b { second } else { first };
                if !seen[other] {
                    seen[other] = true;
                    stack[depth] = other;
                    depth += 1;
                }
            }
        }
        debug_assert_eq!(bodies, self.bodies.len(), "bodies hang together");
        self.island = island;
    }

    /// Velocities, then positions of all bodies, which hang together by joints and so wake together.
    fn solve(&mut self, seed: usize, step: TimeStep, dt_ratio: f32) {
        if self.island.seed != seed {
            self.order_island(seed);
        }
        let island = self.island;
        let h = step.dt;
        let count = self.bodies.len();
        let (mut positions, mut velocities) = ([Position::default(); MAX_BODIES], [Velocity::default(); MAX_BODIES]);
        for (i, body) in self.bodies.iter_mut().enumerate() {
            body.wake();
            positions[i] = Position { c: body.sweep.c, a: body.sweep.a };
            let Velocity { v, w } = body.velocity;
            (body.sweep.c0, body.sweep.a0) = (body.sweep.c, body.sweep.a);
            velocities[i] = Velocity {
                v: v + h * (self.gravity + body.inv_mass * body.force),
                w: w + h * body.inv_inertia * body.torque,
            };
        }
        let (positions, velocities) = (&mut positions[..count], &mut velocities[..count]);

        self.solvers.clear();
        for &b in &island.bodies[..count] {
            for (i, contact) in self.contacts.iter().enumerate().rev() {
                if contact.body == b && contact.enabled && contact.touching && !contact.sensor {
                    let mut solver = ContactSolver::new(i, contact, &self.bodies[b], dt_ratio);
                    solver.place(&positions[b], self.bodies[b].xf.q, &velocities[b]);
                    self.solvers.push(solver);
                }
            }
        }
        self.solvers.iter().for_each(|s| s.warm_start(velocities));

        self.joint_solvers.clear();
        for &j in &island.joints[..self.joints.len()] {
            let joint = &mut self.joints[j];
            let solver = JointSolver::new(j, joint, &self.bodies, positions, velocities, [h, dt_ratio]);
            self.joint_solvers.push(solver);
        }

        solve_velocities(&mut self.joint_solvers, &mut self.solvers, velocities, step.velocity_iterations);

        for solver in &self.solvers {
            solver.store(&mut self.contacts[solver.contact]);
        }
        for solver in &self.joint_solvers {
            solver.store(&mut self.joints[solver.joint]);
        }

        for (position, velocity) in positions.iter_mut().zip(velocities.iter_mut()) {
            integrate(position, velocity, h);
        }
        let mut solved = false;
        for _ in 0..step.position_iterations {
            let mut least = 0.0;
            for solver in &self.solvers {
                least = min(least, solver.solve_position(positions, POSITION_RATE));
            }
            let mut joints_hold = true;
            for solver in &self.joint_solvers {
                joints_hold &= solver.solve_position(&self.joints[solver.joint], &self.bodies, positions);
            }
            if least >= -3.0 * LINEAR_SLOP && joints_hold {
                solved = true;
                break;
            }
        }

        let mut sleep_time = f32::MAX;
        for ((body, position), velocity) in self.bodies.iter_mut().zip(&*positions).zip(&*velocities) {
            (body.sweep.c, body.sweep.a) = (position.c, position.a);
            body.velocity = *velocity;
            body.synchronize();
            let fast = velocity.w * velocity.w > ANGULAR_SLEEP_TOLERANCE * ANGULAR_SLEEP_TOLERANCE
                || velocity.v.dot(velocity.v) > LINEAR_SLEEP_TOLERANCE * LINEAR_SLEEP_TOLERANCE;
            body.sleep_time = if fast { 0.0 } else { body.sleep_time + h };
            sleep_time = min(sleep_time, body.sleep_time);
        }
        if sleep_time >= TIME_TO_SLEEP && solved {
            self.bodies.iter_mut().for_each(Body::sleep);
        }
        for b in 0..count {
            self.move_bounds(b);
        }
        if self.fixtures.iter().any(|f| f.moved) {
            self.find_contacts();
        }
    }

    /// Moves the bounds of a body's shapes that have left them.
    fn move_bounds(&mut self, b: usize) {
        let body = &self.bodies[b];
        let before = Transform::around(body.sweep.center, body.sweep.c0, Rot::new(body.sweep.a0));
        let displacement = AABB_MULTIPLIER * (body.xf.p - before.p);
        for fixture in self.fixtures.iter_mut().filter(|f| f.body == b) {
            let swept = fixture.polygon.aabb(&before).union(fixture.polygon.aabb(&body.xf));
            if fixture.bounds.contains(&swept) {
                continue;
            }
            let mut bounds = swept.grown(AABB_EXTENSION);
            let (x, y) = (displacement.x, displacement.y);
            *(if x < 0.0 { &mut bounds.lower.x } else { &mut bounds.upper.x }) += x;
            *(if y < 0.0 { &mut bounds.lower.y } else { &mut bounds.upper.y }) += y;
            fixture.bounds = bounds;
            fixture.moved = true;
        }
    }

    /// Continuous collision: stops bodies where they meet the ground within the step, and lets them go on from there.
    fn solve_impacts(&mut self, step: TimeStep) {
        self.ground_times.clear();
        self.bodies.iter_mut().for_each(|b| b.sweep.alpha0 = 0.0);
        for contact in &mut self.contacts {
            (contact.impact, contact.impacts) = (None, 0);
        }
        while let Some((first, alpha)) = self.next_impact() {
            let (b, ground) = (self.contacts[first].body, self.grounds[self.contacts[first].ground].body);
            let backup = (self.bodies[b].sweep, self.ground_time(ground));
            self.bodies[b].advance(alpha);
            self.set_ground_time(ground, alpha);
            self.update(first);
            let contact = &mut self.contacts[first];
            contact.impact = None;
            contact.impacts += 1;
            if !contact.touching {
                contact.enabled = false;
                self.bodies[b].sweep = backup.0;
                self.set_ground_time(ground, backup.1);
                self.bodies[b].synchronize();
                continue;
            }
            self.bodies[b].wake();
            self.solve_impact(first, alpha, step);
            for contact in self.contacts.iter_mut().filter(|c| c.body == b) {
                contact.impact = None;
            }
            self.find_contacts();
        }
    }

    /// Time up to which a fixed body was advanced in this step.
    fn ground_time(&self, ground: usize) -> f32 {
        self.ground_times.iter().find(|(g, _)| *g == ground).map_or(0.0, |(_, t)| *t)
    }

    fn set_ground_time(&mut self, ground: usize, time: f32) {
        match self.ground_times.iter_mut().find(|(g, _)| *g == ground) {
            Some((_, t)) => *t = time,
            None => self.ground_times.push((ground, time)),
        }
    }

    /// The contact that is next to stop its body in this step, and when.
    fn next_impact(&mut self) -> Option<(usize, f32)> {
        let (mut first, mut least) = (None, 1.0);
        for i in (0..self.contacts.len()).rev() {
            let contact = &self.contacts[i];
            if !contact.enabled || contact.impacts > MAX_SUB_STEPS {
                continue;
            }
            let alpha = if let Some(alpha) = contact.impact {
                alpha
            } else {
                if contact.sensor || !self.bodies[contact.body].awake {
                    continue;
                }
                let ground = &self.grounds[contact.ground];
                let (ground_time, body_time) = (self.ground_time(ground.body), self.bodies[contact.body].sweep.alpha0);
                if body_time < ground_time {
                    self.bodies[contact.body].sweep.advance(ground_time);
                } else if ground_time < body_time {
                    self.set_ground_time(ground.body, body_time);
                }
                let alpha0 = max(ground_time, body_time);
                let contact = &mut self.contacts[i];
                let polygon = &self.fixtures[contact.fixture].polygon;
                let ground = &self.grounds[contact.ground];
                let sweep = &self.bodies[contact.body].sweep;
                let impact = distance::time_of_impact(ground.shape.vertices(), polygon.vertices(), sweep);
                let alpha = impact.map_or(1.0, |beta| min(alpha0 + (1.0 - alpha0) * beta, 1.0));
                contact.impact = Some(alpha);
                alpha
            };
            if alpha < least {
                (first, least) = (Some(i), alpha);
            }
        }
        first.filter(|_| least <= 1.0 - 10.0 * f32::EPSILON).map(|i| (i, least))
    }

    /// Solves the contacts of a body that was stopped at `alpha`, and moves it through the rest of the step.
    fn solve_impact(&mut self, first: usize, alpha: f32, step: TimeStep) {
        let b = self.contacts[first].body;
        self.solvers.clear();
        self.solvers.push(ContactSolver::new(first, &self.contacts[first], &self.bodies[b], 0.0));
        // Fixed bodies of contacts that are solved stay at `alpha`.
        let mut solved = [0; MAX_IMPACT_CONTACTS];
        solved[0] = self.grounds[self.contacts[first].ground].body;
        for i in (0..self.contacts.len()).rev() {
            let count = self.solvers.len();
            if count == MAX_IMPACT_CONTACTS {
                break;
            }
            let contact = &self.contacts[i];
            if contact.body != b || i == first || contact.sensor {
                continue;
            }
            let ground = self.grounds[contact.ground].body;
            let known = solved[..count].contains(&ground);
            let backup = self.ground_time(ground);
            if !known {
                self.set_ground_time(ground, alpha);
            }
            self.update(i);
            if !self.contacts[i].touching {
                if !known {
                    self.set_ground_time(ground, backup);
                }
                continue;
            }
            solved[count] = ground;
            self.solvers.push(ContactSolver::new(i, &self.contacts[i], &self.bodies[b], 0.0));
        }

        let body = &self.bodies[b];
        let (mut positions, mut velocities) = ([Position::default(); MAX_BODIES], [Velocity::default(); MAX_BODIES]);
        positions[b] = Position { c: body.sweep.c, a: body.sweep.a };
        velocities[b] = body.velocity;
        for _ in 0..IMPACT_POSITION_ITERATIONS {
            let mut least = 0.0;
            for solver in &self.solvers {
                least = min(least, solver.solve_position(&mut positions, IMPACT_POSITION_RATE));
            }
            if least >= -1.5 * LINEAR_SLOP {
                break;
            }
        }
        let body = &mut self.bodies[b];
        (body.sweep.c0, body.sweep.a0) = (positions[b].c, positions[b].a);
        let q = Rot::new(positions[b].a);
        for solver in &mut self.solvers {
            solver.place(&positions[b], q, &velocities[b]);
        }
        solve_velocities(&mut [], &mut self.solvers, &mut velocities, step.velocity_iterations);
        integrate(&mut positions[b], &mut velocities[b], (1.0 - alpha) * step.dt);
        (body.sweep.c, body.sweep.a) = (positions[b].c, positions[b].a);
        body.velocity = velocities[b];
        body.synchronize();
        self.move_bounds(b);
    }
}

/// Iterations of joints, then contacts, on the velocities of the bodies.
///
/// All that an iteration depends on are the velocities and the impulses that it limits. They come to rest within a few
/// iterations, up to rounding: then they repeat, mostly at once, else in a short round of states. From there on the
/// remaining iterations add the same impulses to the joints' shared points over and over. Only these sums are
/// computed, which is exact and takes a small part of the time. A repetition is found by Brent's method: the state is
/// compared with one that is kept, which is replaced after 1, 2, 4, ... iterations.
fn solve_velocities(
    joints: &mut [JointSolver],
    contacts: &mut [ContactSolver],
    velocities: &mut [Velocity],
    iterations: usize,
) {
    let mut kept = [Velocity::default(); MAX_BODIES];
    let kept = &mut kept[..velocities.len()];
    kept.copy_from_slice(velocities);
    let (mut since, mut window) = (0, 1);
    let mut added = [[Vec2::ZERO; MAX_BODIES]; MAX_ROUND];
    let mut left = iterations;
    while left > 0 {
        let round = &mut added[left % MAX_ROUND];
        for (joint, added) in joints.iter_mut().zip(round) {
            joint.solve_velocity(velocities);
            *added = joint.last_point_impulse;
        }
        for contact in contacts.iter_mut() {
            contact.solve_velocity(velocities);
        }
        left -= 1;
        since += 1;
        let repeats = *kept == *velocities
            && joints.iter().all(|j| j.kept == j.impulses)
            && contacts.iter().all(|c| c.kept == c.impulses);
        if repeats && since <= MAX_ROUND && since <= left {
            let mut sums = [Vec2::ZERO; MAX_BODIES];
            sums.iter_mut().zip(&*joints).for_each(|(sum, joint)| *sum = joint.point_impulse);
            for _ in 0..left / since {
                for back in (0..since).rev() {
                    let added = &added[(left + 1 + back) % MAX_ROUND];
                    sums.iter_mut().zip(added).for_each(|(sum, added)| *sum += *added);
                }
            }
            joints.iter_mut().zip(&sums).for_each(|(joint, sum)| joint.point_impulse = *sum);
            left %= since;
        } else if since == window {
            (since, window) = (0, 2 * window);
            kept.copy_from_slice(velocities);
            joints.iter_mut().for_each(|j| j.kept = j.impulses);
            contacts.iter_mut().for_each(|c| c.kept = c.impulses);
        }
    }
}

impl World {
    /// Writes everything that the next step depends on.
    pub(crate) fn save(&self, to: &mut StateWriter) {
        to.u32(self.grounds.len() as u32);
        for ground in &self.grounds {
            ground.shape.save(to);
            to.f32(ground.material.friction);
            to.f32(ground.material.restitution);
            to.bool(ground.sensor);
            to.u32(ground.body as u32);
        }
        to.u32(self.bodies.len() as u32);
        self.bodies.iter().for_each(|body| body.save(to));
        to.u32(self.fixtures.len() as u32);
        self.fixtures.iter().for_each(|fixture| fixture.save(to));
        to.u32(self.joints.len() as u32);
        self.joints.iter().for_each(|joint| joint.save(to));
        to.u32(self.contacts.len() as u32);
        self.contacts.iter().for_each(|contact| contact.save(to));
        to.f32(self.inv_dt0);
    }

    /// Restores what [`World::save`] wrote. After an error the world is in no state to be stepped.
    ///
    /// # Errors
    /// [`EnvError::State`] if the bytes are not a world's.
    pub(crate) fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        const MANY: usize = 1 << 16;
        self.clear();
        for _ in 0..load_count(from, 0..=MANY, "shapes of the ground")? {
            let shape = GroundShape::load(from)?;
            let material = Material { friction: from.f32()?, restitution: from.f32()? };
            let sensor = from.bool()?;
            self.add_ground(from.u32()? as usize, shape, material, sensor);
        }
        for _ in 0..load_count(from, 0..=MAX_BODIES, "bodies")? {
            self.bodies.push(Body::load(from)?);
        }
        for _ in 0..load_count(from, 0..=MANY, "shapes of bodies")? {
            self.fixtures.push(Fixture::load(from, self.bodies.len())?);
        }
        for _ in 0..load_count(from, 0..=MAX_BODIES, "joints")? {
            self.joints.push(Joint::load(from, self.bodies.len())?);
        }
        for _ in 0..load_count(from, 0..=MANY, "contacts")? {
            let contact = Contact::load(from, &self.grounds, &self.fixtures)?;
            self.contacts.push(contact);
        }
        self.inv_dt0 = from.f32()?;
        Ok(())
    }
}

/// Reads an index below `len`.
fn load_index(from: &mut StateReader<'_>, len: usize, what: &str) -> Result<usize, EnvError> {
    let index = from.u32()? as usize;
    if index < len {
        return Ok(index);
    }
    Err(EnvError::State { expected: format!("{what} below {len}"), found: index.to_string() })
}

impl Body {
    fn save(&self, to: &mut StateWriter) {
        [self.xf.p, self.sweep.center, self.sweep.c, self.velocity.v, self.force].into_iter().for_each(|v| put(v, to));
        [self.xf.q.s, self.xf.q.c, self.sweep.a, self.velocity.w, self.torque].into_iter().for_each(|x| to.f32(x));
        [self.inv_mass, self.inv_inertia, self.sleep_time].into_iter().for_each(|x| to.f32(x));
        to.bool(self.awake);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, EnvError> {
        let [p, center, c, v, force] = [get(from)?, get(from)?, get(from)?, get(from)?, get(from)?];
        let [s, cosine, a, w, torque] = [from.f32()?, from.f32()?, from.f32()?, from.f32()?, from.f32()?];
        Ok(Self {
            xf: Transform { p, q: Rot { s, c: cosine } },
            // A step begins by putting the start of the sweep to its end.
            sweep: Sweep { center, c0: c, c, a0: a, a, alpha0: 0.0 },
            velocity: Velocity { v, w },
            force,
            torque,
            inv_mass: from.f32()?,
            inv_inertia: from.f32()?,
            sleep_time: from.f32()?,
            awake: from.bool()?,
        })
    }
}

impl Fixture {
    fn save(&self, to: &mut StateWriter) {
        to.u32(self.body as u32);
        self.polygon.save(to);
        [self.material.friction, self.material.restitution].into_iter().for_each(|x| to.f32(x));
        [self.bounds.lower, self.bounds.upper].into_iter().for_each(|v| put(v, to));
        to.bool(self.moved);
    }

    fn load(from: &mut StateReader<'_>, bodies: usize) -> Result<Self, EnvError> {
        Ok(Self {
            body: load_index(from, bodies, "a body")?,
            polygon: Polygon::load(from)?,
            material: Material { friction: from.f32()?, restitution: from.f32()? },
            bounds: Aabb { lower: get(from)?, upper: get(from)? },
            moved: from.bool()?,
        })
    }
}

impl Joint {
    fn save(&self, to: &mut StateWriter) {
        let def = &self.def;
        def.bodies.into_iter().for_each(|b| to.u32(b as u32));
        def.anchors.into_iter().for_each(|v| put(v, to));
        [def.limits[0], def.limits[1], def.motor_speed, def.max_motor_torque].into_iter().for_each(|x| to.f32(x));
        to.f32(self.reference_angle);
        put(self.impulse, to);
        [self.limit_impulse, self.motor_impulse].into_iter().for_each(|x| to.f32(x));
        to.u8(self.limit as u8);
    }

    fn load(from: &mut StateReader<'_>, bodies: usize) -> Result<Self, EnvError> {
        let def = JointDef {
            bodies: [load_index(from, bodies, "a body")?, load_index(from, bodies, "a body")?],
            anchors: [get(from)?, get(from)?],
            limits: [from.f32()?, from.f32()?],
            motor_speed: from.f32()?,
            max_motor_torque: from.f32()?,
        };
        Ok(Self {
            def,
            reference_angle: from.f32()?,
            impulse: get(from)?,
            limit_impulse: from.f32()?,
            motor_impulse: from.f32()?,
            limit: match from.u8()? {
                0 => Limit::Inside,
                1 => Limit::Lower,
                2 => Limit::Upper,
                other => return Err(EnvError::State { expected: "a limit".into(), found: other.to_string() }),
            },
        })
    }
}

impl Contact {
    fn save(&self, to: &mut StateWriter) {
        to.u32(self.ground as u32);
        to.u32(self.fixture as u32);
        [self.friction, self.restitution].into_iter().for_each(|x| to.f32(x));
        [self.enabled, self.touching, self.manifold.face == Face::Body].into_iter().for_each(|x| to.bool(x));
        let manifold = &self.manifold;
        to.u32(manifold.count as u32);
        [manifold.normal, manifold.point].into_iter().for_each(|v| put(v, to));
        for point in &manifold.points[..manifold.count] {
            put(point.local, to);
            [point.normal_impulse, point.tangent_impulse].into_iter().for_each(|x| to.f32(x));
            to.u32(point.id);
        }
    }

    fn load(from: &mut StateReader<'_>, grounds: &[Ground], fixtures: &[Fixture]) -> Result<Self, EnvError> {
        let ground = load_index(from, grounds.len(), "a shape of the ground")?;
        let fixture = load_index(from, fixtures.len(), "a shape of a body")?;
        let (friction, restitution) = (from.f32()?, from.f32()?);
        let (enabled, touching) = (from.bool()?, from.bool()?);
        let face = if from.bool()? { Face::Body } else { Face::Ground };
        let count = load_count(from, 0..=2, "points of a contact")?;
        let mut manifold = Manifold { face, count, normal: get(from)?, point: get(from)?, points: Default::default() };
        for point in &mut manifold.points[..count] {
            *point = ManifoldPoint {
                local: get(from)?,
                normal_impulse: from.f32()?,
                tangent_impulse: from.f32()?,
                id: from.u32()?,
            };
        }
        Ok(Self {
            ground,
            fixture,
            body: fixtures[fixture].body,
            friction,
            restitution,
            sensor: grounds[ground].sensor,
            enabled,
            touching,
            manifold,
            impact: None,
            impacts: 0,
        })
    }
}

impl Contact {
    fn event(&self, begins: bool) -> ContactEvent {
        ContactEvent { ground: self.ground, fixture: self.fixture, body: self.body, begins }
    }
}

/// Reads a number of things that lies in a range.
fn load_count(from: &mut StateReader<'_>, range: RangeInclusive<usize>, what: &str) -> Result<usize, EnvError> {
    let count = from.u32()? as usize;
    if range.contains(&count) {
        return Ok(count);
    }
    let expected = format!("{} to {} {what}", range.start(), range.end());
    Err(EnvError::State { expected, found: count.to_string() })
}
