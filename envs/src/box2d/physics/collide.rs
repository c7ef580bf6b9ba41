//! Contact manifolds between a ground shape and a body's polygon: the one or two points where they touch, found by
//! the separating axis of least overlap and by clipping the incident edge. The ground's frame is the world's.

use super::POLYGON_RADIUS;
use super::math::{Rot, Transform, Vec2};
use super::shape::{GroundShape, Polygon};

/// Both shapes' skins.
const TOTAL_RADIUS: f32 = 2.0 * POLYGON_RADIUS;
/// The other shape's face must be this much better to become the reference face: a pair should not flicker.
const RELATIVE_TOLERANCE: f32 = 0.98;
const ABSOLUTE_TOLERANCE: f32 = 0.001;

/// One touching point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ManifoldPoint {
    /// In the frame of the shape that does not own the reference face.
    pub local: Vec2,
    /// Impulses of the last step, where the solver starts from.
    pub normal_impulse: f32,
    pub tangent_impulse: f32,
    /// Names the two features that meet.
    pub id: u32,
}

/// Which shape owns the reference face.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Face {
    #[default]
    Ground,
    Body,
}

/// The touching points of a pair; none if `count` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Manifold {
    pub face: Face,
    pub count: usize,
    /// Outward normal of the reference face and a point on it, in its owner's frame.
    pub normal: Vec2,
    pub point: Vec2,
    pub points: [ManifoldPoint; 2],
}

/// The features of two shapes that meet in a point: a vertex or a face of each.
fn feature(ground: usize, body: usize, ground_is_face: bool) -> u32 {
    let kinds = if ground_is_face { 1 << 16 } else { 1 << 24 };
    ground as u32 | (body as u32) << 8 | kinds
}

/// The same features with the shapes swapped.
fn swapped(id: u32) -> u32 {
    (id & 0xff) << 8 | (id >> 8 & 0xff) | (id >> 16 & 0xff) << 24 | (id >> 24) << 16
}

#[derive(Clone, Copy)]
struct ClipVertex {
    v: Vec2,
    id: u32,
}

/// The part of a segment behind a line; `None` unless two points are left. A point on the line takes the feature
/// `vertex` of the reference shape and that of the segment's first end.
fn clip([a, b]: [ClipVertex; 2], normal: Vec2, offset: f32, vertex: usize) -> Option<[ClipVertex; 2]> {
    let (da, db) = (normal.dot(a.v) - offset, normal.dot(b.v) - offset);
    if da <= 0.0 && db <= 0.0 {
        return Some([a, b]);
    }
    if da * db < 0.0 {
        let cut = ClipVertex {
            v: a.v + (da / (da - db)) * (b.v - a.v),
            id: feature(vertex, (a.id >> 8 & 0xff) as usize, false),
        };
        return Some([if da <= 0.0 { a } else { b }, cut]);
    }
    None
}

/// Replaces `manifold` by the touching points of a pair, without impulses.
pub(crate) fn collide(manifold: &mut Manifold, ground: &GroundShape, polygon: &Polygon, xf: &Transform) {
    manifold.count = 0;
    match ground {
        GroundShape::Edge(ends) => edge_and_polygon(manifold, *ends, polygon, xf),
        GroundShape::Polygon(ground) => polygons(manifold, ground, polygon, xf),
    }
}

/// Index of the least value; the first one of equals.
#[inline(always)]
fn least(values: impl Iterator<Item = f32>) -> (usize, f32) {
    values.enumerate().fold((0, f32::MAX), |best, (i, x)| if x < best.1 { (i, x) } else { best })
}

fn edge_and_polygon(manifold: &mut Manifold, [v1, v2]: [Vec2; 2], polygon: &Polygon, xf: &Transform) {
    let side = (v2 - v1).normalized().0.clockwise();
    // The edge is solid from the side on which the polygon's middle lies.
    let front = side.dot(xf.apply(polygon.centroid) - v1) >= 0.0;
    let normal = if front { side } else { -side };

    let count = polygon.vertices().len();
    let (mut vertices, mut normals) = ([Vec2::ZERO; super::MAX_VERTICES], [Vec2::ZERO; super::MAX_VERTICES]);
    for i in 0..count {
        vertices[i] = xf.apply(polygon.vertices()[i]);
        normals[i] = xf.q.apply(polygon.normals()[i]);
    }
    let (vertices, normals) = (&vertices[..count], &normals[..count]);

    let edge_separation = vertices.iter().map(|v| normal.dot(*v - v1)).fold(f32::MAX, |a, b| if b < a { b } else { a });
    if edge_separation > TOTAL_RADIUS {
        return;
    }
    let (mut face, mut face_separation) = (0, -f32::MAX);
    for (i, (v, n)) in vertices.iter().zip(normals).enumerate() {
        let n = -*n;
        let (s1, s2) = (n.dot(*v - v1), n.dot(*v - v2));
        let s = super::math::min(s1, s2);
        if s > TOTAL_RADIUS {
            return;
        }
        if s > face_separation {
            (face, face_separation) = (i, s);
        }
    }

    let body_face = face_separation > RELATIVE_TOLERANCE * edge_separation + ABSOLUTE_TOLERANCE;
    let (incident, i1, i2, p1, p2, reference);
    if body_face {
        (i1, i2) = (face, (face + 1) % count);
        (p1, p2, reference) = (vertices[i1], vertices[i2], normals[i1]);
        // An end of the edge meets the face.
        incident = [v1, v2].map(|v| ClipVertex { v, id: feature(0, face, false) });
    } else {
        let (a, _) = least(normals.iter().map(|n| normal.dot(*n)));
        let b = (a + 1) % count;
        incident = [a, b].map(|i| ClipVertex { v: vertices[i], id: feature(0, i, true) });
        (i1, i2, p1, p2) = if front { (0, 1, v1, v2) } else { (1, 0, v2, v1) };
        reference = normal;
    }
    let side1 = reference.clockwise();
    let side2 = -side1;
    let Some(points) = clip(incident, side1, side1.dot(p1), i1) else { return };
    let Some(points) = clip(points, side2, side2.dot(p2), i2) else { return };

    (manifold.face, manifold.normal, manifold.point) = if body_face {
        (Face::Body, polygon.normals()[i1], polygon.vertices()[i1])
    } else {
        (Face::Ground, reference, p1)
    };
    for ClipVertex { v, id } in points {
        if reference.dot(v - p1) <= TOTAL_RADIUS {
            let (local, id) = if body_face { (v, swapped(id)) } else { (xf.undo(v), id) };
            manifold.points[manifold.count] = ManifoldPoint { local, id, ..ManifoldPoint::default() };
            manifold.count += 1;
        }
    }
}

/// A polygon in its frame; the ground's is the world's.
#[derive(Clone, Copy)]
struct Placed<'a> {
    polygon: &'a Polygon,
    xf: Transform,
}

impl Placed<'_> {
    /// Separation of `other` from the face `edge` of this polygon.
    fn edge_separation(&self, edge: usize, other: &Self) -> f32 {
        let normal = self.xf.q.apply(self.polygon.normals()[edge]);
        let local = other.xf.q.undo(normal);
        let (deepest, _) = least(other.polygon.vertices().iter().map(|v| v.dot(local)));
        let v1 = self.xf.apply(self.polygon.vertices()[edge]);
        let v2 = other.xf.apply(other.polygon.vertices()[deepest]);
        (v2 - v1).dot(normal)
    }

    /// The face of this polygon with the greatest separation from `other`: a walk uphill from the face that looks at
    /// the other's middle.
    fn best_face(&self, other: &Self) -> (usize, f32) {
        let count = self.polygon.vertices().len();
        let between = other.xf.apply(other.polygon.centroid) - self.xf.apply(self.polygon.centroid);
        let towards = self.xf.q.undo(between);
        let (mut edge, mut most) = (0, -f32::MAX);
        for (i, n) in self.polygon.normals().iter().enumerate() {
            let dot = n.dot(towards);
            if dot > most {
                (edge, most) = (i, dot);
            }
        }
        let (before, after) = ((edge + count - 1) % count, (edge + 1) % count);
        let here = self.edge_separation(edge, other);
        let left = self.edge_separation(before, other);
        let right = self.edge_separation(after, other);
        let (mut best, step) = if left > here && left > right {
            ((before, left), count - 1)
        } else if right > here {
            ((after, right), 1)
        } else {
            return (edge, here);
        };
        loop {
            let next = (best.0 + step) % count;
            let s = self.edge_separation(next, other);
            if s <= best.1 {
                return best;
            }
            best = (next, s);
        }
    }
}

fn polygons(manifold: &mut Manifold, ground: &Polygon, polygon: &Polygon, xf: &Transform) {
    let world = Transform { p: Vec2::ZERO, q: Rot { s: 0.0, c: 1.0 } };
    let a = Placed { polygon: ground, xf: world };
    let b = Placed { polygon, xf: *xf };
    let (edge_a, separation_a) = a.best_face(&b);
    if separation_a > TOTAL_RADIUS {
        return;
    }
    let (edge_b, separation_b) = b.best_face(&a);
    if separation_b > TOTAL_RADIUS {
        return;
    }
    let body_face = separation_b > RELATIVE_TOLERANCE * separation_a + ABSOLUTE_TOLERANCE;
    let (one, two, i1) = if body_face { (b, a, edge_b) } else { (a, b, edge_a) };

    let normal_in_two = two.xf.q.undo(one.xf.q.apply(one.polygon.normals()[i1]));
    let (j1, _) = least(two.polygon.normals().iter().map(|n| normal_in_two.dot(*n)));
    let j2 = (j1 + 1) % two.polygon.vertices().len();
    let incident =
        [j1, j2].map(|j| ClipVertex { v: two.xf.apply(two.polygon.vertices()[j]), id: feature(i1, j, true) });

    let i2 = (i1 + 1) % one.polygon.vertices().len();
    let (v1, v2) = (one.polygon.vertices()[i1], one.polygon.vertices()[i2]);
    let local_tangent = (v2 - v1).normalized().0;
    let (local_normal, local_point) = (local_tangent.clockwise(), 0.5 * (v1 + v2));
    let tangent = one.xf.q.apply(local_tangent);
    let normal = tangent.clockwise();
    let (v1, v2) = (one.xf.apply(v1), one.xf.apply(v2));
    let front = normal.dot(v1);
    let Some(points) = clip(incident, -tangent, -tangent.dot(v1) + TOTAL_RADIUS, i1) else { return };
    let Some(points) = clip(points, tangent, tangent.dot(v2) + TOTAL_RADIUS, i2) else { return };

    manifold.face = if body_face { Face::Body } else { Face::Ground };
    (manifold.normal, manifold.point) = (local_normal, local_point);
    for ClipVertex { v, id } in points {
        if normal.dot(v) - front <= TOTAL_RADIUS {
            let id = if body_face { swapped(id) } else { id };
            manifold.points[manifold.count] = ManifoldPoint { local: two.xf.undo(v), id, ..ManifoldPoint::default() };
            manifold.count += 1;
        }
    }
}
