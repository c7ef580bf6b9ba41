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

mod body;
mod bounds;
mod collide;
mod distance;
mod impact;
mod joint;
mod math;
mod save;
mod shape;
mod solver;

use std::f32::consts::PI;

use crate::{EnvError, StateReader, StateWriter};

use bounds::GroundBounds;
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
/// Share of the overlap that a position iteration of a step takes away.
const POSITION_RATE: f32 = 0.2;
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

impl Contact {
    fn event(&self, begins: bool) -> ContactEvent {
        ContactEvent { ground: self.ground, fixture: self.fixture, body: self.body, begins }
    }
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

/// The order of bodies and joints in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Island {
    seed: usize,
    bodies: [usize; MAX_BODIES],
    joints: [usize; MAX_BODIES],
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
            ground_times: Vec::with_capacity(impact::MAX_IMPACT_CONTACTS),
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
