//! The state of a world as bytes.

use std::ops::RangeInclusive;

use super::*;

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

/// Reads a number of things that lies in a range.
pub(super) fn load_count(
    from: &mut StateReader<'_>,
    range: RangeInclusive<usize>,
    what: &str,
) -> Result<usize, EnvError> {
    let count = from.u32()? as usize;
    if range.contains(&count) {
        return Ok(count);
    }
    let expected = format!("{} to {} {what}", range.start(), range.end());
    Err(EnvError::State { expected, found: count.to_string() })
}
