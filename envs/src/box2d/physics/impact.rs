//! Continuous collision: bodies stop where they meet the ground within a step, and go on from there.

use super::math::{Rot, max, min};
use super::solver::{ContactSolver, Position, Velocity};
use super::{LINEAR_SLOP, MAX_BODIES, TimeStep, World, distance, integrate, solve_velocities};

/// Share of the overlap that a position iteration at a time of impact takes away.
const IMPACT_POSITION_RATE: f32 = 0.75;
const IMPACT_POSITION_ITERATIONS: usize = 20;
/// A contact may stop its body this often within a step.
const MAX_SUB_STEPS: u8 = 8;
/// Most contacts that are solved together at a time of impact.
pub(super) const MAX_IMPACT_CONTACTS: usize = 32;

impl World {
    /// Stops bodies where they meet the ground within the step, and lets them go on from there.
    pub(super) fn solve_impacts(&mut self, step: TimeStep) {
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
