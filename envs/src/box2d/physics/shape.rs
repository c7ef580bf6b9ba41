//! Convex polygons and line segments: hulls, mass, bounds, ray casts.

use super::math::{Aabb, Transform, Vec2, vec2};
use super::{MAX_VERTICES, POLYGON_RADIUS};
use crate::{EnvError, StateReader, StateWriter};

/// A convex polygon, anticlockwise, with a thin skin of [`POLYGON_RADIUS`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Polygon {
    count: usize,
    vertices: [Vec2; MAX_VERTICES],
    normals: [Vec2; MAX_VERTICES],
    /// Centroid of the area.
    pub centroid: Vec2,
}

/// Mass, centre of mass, and rotational inertia about the origin of the shape's coordinates.
pub(crate) struct Mass {
    pub mass: f32,
    pub center: Vec2,
    pub inertia: f32,
}

impl Polygon {
    /// The convex hull of points, by gift wrapping from the rightmost (then lowest) one.
    ///
    /// # Panics
    /// If there are fewer than 3 or more than [`MAX_VERTICES`] points.
    pub(crate) fn hull(points: &[Vec2]) -> Self {
        assert!((3..=MAX_VERTICES).contains(&points.len()), "a polygon of {} points", points.len());
        let mut start = 0;
        for (i, p) in points.iter().enumerate().skip(1) {
            let first = points[start];
            if p.x > first.x || (p.x == first.x && p.y < first.y) {
                start = i;
            }
        }
        let mut vertices = [Vec2::ZERO; MAX_VERTICES];
        let (mut count, mut at) = (0, start);
        loop {
            vertices[count] = points[at];
            count += 1;
            let mut next = 0;
            for j in 1..points.len() {
                if next == at {
                    next = j;
                    continue;
                }
                let (r, v) = (points[next] - points[at], points[j] - points[at]);
                let turn = r.cross(v);
                if turn < 0.0 || (turn == 0.0 && v.dot(v) > r.dot(r)) {
                    next = j;
                }
            }
            at = next;
            if at == start || count == MAX_VERTICES {
                break;
            }
        }
        let mut normals = [Vec2::ZERO; MAX_VERTICES];
        for i in 0..count {
            normals[i] = (vertices[(i + 1) % count] - vertices[i]).clockwise().normalized().0;
        }
        let centroid = centroid(&vertices[..count]);
        Self { count, vertices, normals, centroid }
    }

    /// The axis-aligned rectangle of half width `hx` and half height `hy` around the origin.
    pub(crate) fn rectangle(hx: f32, hy: f32) -> Self {
        let (mut vertices, mut normals) = ([Vec2::ZERO; MAX_VERTICES], [Vec2::ZERO; MAX_VERTICES]);
        vertices[..4].copy_from_slice(&[vec2(-hx, -hy), vec2(hx, -hy), vec2(hx, hy), vec2(-hx, hy)]);
        normals[..4].copy_from_slice(&[vec2(0.0, -1.0), vec2(1.0, 0.0), vec2(0.0, 1.0), vec2(-1.0, 0.0)]);
        Self { count: 4, vertices, normals, centroid: Vec2::ZERO }
    }

    #[inline(always)]
    pub(crate) fn vertices(&self) -> &[Vec2] {
        &self.vertices[..self.count]
    }

    /// Outward normals; number `i` belongs to the edge from vertex `i` to the next one.
    #[inline(always)]
    pub(crate) fn normals(&self) -> &[Vec2] {
        &self.normals[..self.count]
    }

    /// Mass properties at a density: integrals over the triangles between the edges and the mean vertex.
    pub(crate) fn mass(&self, density: f32) -> Mass {
        const THIRD: f32 = 1.0 / 3.0;
        let vertices = self.vertices();
        let mut origin = Vec2::ZERO;
        vertices.iter().for_each(|v| origin += *v);
        origin = (1.0 / vertices.len() as f32) * origin;
        let (mut center, mut area, mut inertia) = (Vec2::ZERO, 0.0, 0.0);
        for (i, v) in vertices.iter().enumerate() {
            let (e1, e2) = (*v - origin, vertices[(i + 1) % vertices.len()] - origin);
            let d = e1.cross(e2);
            let triangle = 0.5 * d;
            area += triangle;
            center += (triangle * THIRD) * (e1 + e2);
            let x2 = e1.x * e1.x + e2.x * e1.x + e2.x * e2.x;
            let y2 = e1.y * e1.y + e2.y * e1.y + e2.y * e2.y;
            inertia += (0.25 * THIRD * d) * (x2 + y2);
        }
        let mass = density * area;
        center = (1.0 / area) * center;
        let shifted = center + origin;
        let inertia = density * inertia + mass * (shifted.dot(shifted) - center.dot(center));
        Mass { mass, center: shifted, inertia }
    }

    /// Bounds in world coordinates, skin included.
    #[inline(always)]
    pub(crate) fn aabb(&self, xf: &Transform) -> Aabb {
        Aabb::around(self.vertices().iter().map(|v| xf.apply(*v)), POLYGON_RADIUS)
    }

    /// Share of the way from `p1` to `p2`, at most `limit`, at which a ray enters the polygon.
    fn cast(&self, p1: Vec2, p2: Vec2, limit: f32) -> Option<f32> {
        let d = p2 - p1;
        let (mut lower, mut upper) = (0.0, limit);
        let mut entered = false;
        for (n, v) in self.normals().iter().zip(self.vertices()) {
            let numerator = n.dot(*v - p1);
            let denominator = n.dot(d);
            if denominator == 0.0 {
                if numerator < 0.0 {
                    return None;
                }
            } else if denominator < 0.0 && numerator < lower * denominator {
                lower = numerator / denominator;
                entered = true;
            } else if denominator > 0.0 && numerator < upper * denominator {
                upper = numerator / denominator;
            }
            if upper < lower {
                return None;
            }
        }
        entered.then_some(lower)
    }

    pub(crate) fn save(&self, to: &mut StateWriter) {
        to.u32(self.count as u32);
        for v in self.vertices().iter().chain(self.normals()).chain([&self.centroid]) {
            put(*v, to);
        }
    }

    pub(crate) fn load(from: &mut StateReader<'_>) -> Result<Self, EnvError> {
        let count = super::save::load_count(from, 3..=MAX_VERTICES, "vertices of a polygon")?;
        let (mut vertices, mut normals) = ([Vec2::ZERO; MAX_VERTICES], [Vec2::ZERO; MAX_VERTICES]);
        for v in vertices[..count].iter_mut().chain(&mut normals[..count]) {
            *v = get(from)?;
        }
        Ok(Self { count, vertices, normals, centroid: get(from)? })
    }
}

/// Area-weighted mean of the triangles between the edges and the origin.
fn centroid(vertices: &[Vec2]) -> Vec2 {
    const THIRD: f32 = 1.0 / 3.0;
    let (mut c, mut area) = (Vec2::ZERO, 0.0);
    for (i, &p) in vertices.iter().enumerate() {
        let next = vertices[(i + 1) % vertices.len()];
        let triangle = 0.5 * p.cross(next);
        area += triangle;
        c += (triangle * THIRD) * (p + next);
    }
    (1.0 / area) * c
}

/// A shape of the ground, in world coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum GroundShape {
    /// A line segment that is solid from both sides.
    Edge([Vec2; 2]),
    /// A convex polygon.
    Polygon(Polygon),
}

impl GroundShape {
    pub(crate) fn vertices(&self) -> &[Vec2] {
        match self {
            Self::Edge(ends) => ends,
            Self::Polygon(polygon) => polygon.vertices(),
        }
    }

    pub(crate) fn aabb(&self) -> Aabb {
        Aabb::around(self.vertices().iter().copied(), POLYGON_RADIUS)
    }

    /// Share of the way from `p1` to `p2`, at most `limit`, at which a ray meets the shape.
    pub(crate) fn cast(&self, p1: Vec2, p2: Vec2, limit: f32) -> Option<f32> {
        let [v1, v2] = match self {
            Self::Edge(ends) => *ends,
            Self::Polygon(polygon) => return polygon.cast(p1, p2, limit),
        };
        let d = p2 - p1;
        let r = v2 - v1;
        let normal = r.clockwise().normalized().0;
        let denominator = normal.dot(d);
        if denominator == 0.0 {
            return None;
        }
        let t = normal.dot(v1 - p1) / denominator;
        if t < 0.0 || limit < t {
            return None;
        }
        let q = p1 + t * d;
        let s = (q - v1).dot(r) / r.dot(r);
        (0.0..=1.0).contains(&s).then_some(t)
    }

    pub(crate) fn save(&self, to: &mut StateWriter) {
        match self {
            Self::Edge(ends) => {
                to.u8(0);
                ends.iter().for_each(|v| put(*v, to));
            }
            Self::Polygon(polygon) => {
                to.u8(1);
                polygon.save(to);
            }
        }
    }

    pub(crate) fn load(from: &mut StateReader<'_>) -> Result<Self, EnvError> {
        Ok(if from.bool()? { Self::Polygon(Polygon::load(from)?) } else { Self::Edge([get(from)?, get(from)?]) })
    }
}

/// Writes a vector.
pub(crate) fn put(v: Vec2, to: &mut StateWriter) {
    to.f32(v.x);
    to.f32(v.y);
}

/// Reads a vector.
pub(crate) fn get(from: &mut StateReader<'_>) -> Result<Vec2, EnvError> {
    Ok(vec2(from.f32()?, from.f32()?))
}
