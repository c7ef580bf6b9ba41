//! Distance between convex shapes (the GJK algorithm on the simplex of difference vertices) and the time at which a
//! moving polygon meets the ground (conservative advancement along local separating axes).

use super::math::{Rot, Sweep, Transform, Vec2, max};
use super::{LINEAR_SLOP, POLYGON_RADIUS};

/// Both shapes' skins.
const TOTAL_RADIUS: f32 = 2.0 * POLYGON_RADIUS;
const MAX_DISTANCE_ITERATIONS: u32 = 20;
const MAX_TOI_ITERATIONS: u32 = 20;
const MAX_ROOT_ITERATIONS: u32 = 50;
const MAX_PUSH_BACKS: u32 = 16;

/// A difference vertex: a point of the body minus one of the ground.
#[derive(Clone, Copy, Default)]
struct Vertex {
    ground: Vec2,
    body: Vec2,
    difference: Vec2,
    /// Barycentric coordinate of the point closest to the origin.
    weight: f32,
    /// Which vertices of the two shapes.
    index: [usize; 2],
}

/// Up to three difference vertices. Kept between calls, it tells the next one where to start.
#[derive(Clone, Copy, Default)]
struct Simplex {
    count: usize,
    v: [Vertex; 3],
}

/// The vertex furthest in direction `d`; the first one of equals.
#[inline(always)]
fn support(vertices: &[Vec2], d: Vec2) -> usize {
    let (mut best, mut most) = (0, vertices[0].dot(d));
    for (i, v) in vertices.iter().enumerate().skip(1) {
        let value = v.dot(d);
        if value > most {
            (best, most) = (i, value);
        }
    }
    best
}

impl Vertex {
    #[inline(always)]
    fn new(index: [usize; 2], weight: f32, ground: &[Vec2], body: &[Vec2], xf: &Transform) -> Self {
        let (a, b) = (ground[index[0]], xf.apply(body[index[1]]));
        Self { ground: a, body: b, difference: b - a, weight, index }
    }
}

impl Simplex {
    /// Length or doubled area.
    fn metric(&self) -> f32 {
        let [a, b, c] = self.v.map(|v| v.difference);
        match self.count {
            2 => (a - b).length(),
            3 => (b - a).cross(c - a),
            _ => 0.0,
        }
    }

    /// The last simplex's vertices where the shapes are now, or a first vertex if that is another shape altogether.
    fn restart(&mut self, ground: &[Vec2], body: &[Vec2], xf: &Transform) {
        let before = self.metric();
        for v in &mut self.v[..self.count] {
            *v = Vertex::new(v.index, 0.0, ground, body, xf);
        }
        if self.count > 1 {
            let now = self.metric();
            if now < 0.5 * before || 2.0 * before < now || now < f32::EPSILON {
                self.count = 0;
            }
        }
        if self.count == 0 {
            self.v[0] = Vertex::new([0, 0], 1.0, ground, body, xf);
            self.count = 1;
        }
    }

    fn keep1(&mut self, i: usize) {
        self.v[i].weight = 1.0;
        self.v[0] = self.v[i];
        self.count = 1;
    }

    /// Keeps the edge from vertex `i` to `j`, at `slots`, with the weights proportional to `wi`, `wj`.
    fn keep2(&mut self, (i, wi): (usize, f32), (j, wj): (usize, f32)) {
        let inverse = 1.0 / (wi + wj);
        self.v[i].weight = wi * inverse;
        self.v[j].weight = wj * inverse;
        self.count = 2;
    }

    /// Reduces the simplex to the part closest to the origin.
    fn solve(&mut self) {
        match self.count {
            2 => self.solve_edge(),
            3 => self.solve_triangle(),
            _ => {}
        }
    }

    fn solve_edge(&mut self) {
        let (w1, w2) = (self.v[0].difference, self.v[1].difference);
        let e = w2 - w1;
        let second = -w1.dot(e);
        if second <= 0.0 {
            return self.keep1(0);
        }
        let first = w2.dot(e);
        if first <= 0.0 {
            return self.keep1(1);
        }
        self.keep2((0, first), (1, second));
    }

    fn solve_triangle(&mut self) {
        let [w1, w2, w3] = self.v.map(|v| v.difference);
        let (e12, e13, e23) = (w2 - w1, w3 - w1, w3 - w2);
        let (d12_1, d12_2) = (w2.dot(e12), -w1.dot(e12));
        let (d13_1, d13_2) = (w3.dot(e13), -w1.dot(e13));
        let (d23_1, d23_2) = (w3.dot(e23), -w2.dot(e23));
        let n = e12.cross(e13);
        let (d1, d2, d3) = (n * w2.cross(w3), n * w3.cross(w1), n * w1.cross(w2));
        if d12_2 <= 0.0 && d13_2 <= 0.0 {
            self.keep1(0);
        } else if d12_1 > 0.0 && d12_2 > 0.0 && d3 <= 0.0 {
            self.keep2((0, d12_1), (1, d12_2));
        } else if d13_1 > 0.0 && d13_2 > 0.0 && d2 <= 0.0 {
            self.keep2((0, d13_1), (2, d13_2));
            self.v[1] = self.v[2];
        } else if d12_1 <= 0.0 && d23_2 <= 0.0 {
            self.keep1(1);
        } else if d13_1 <= 0.0 && d23_1 <= 0.0 {
            self.keep1(2);
        } else if d23_1 > 0.0 && d23_2 > 0.0 && d1 <= 0.0 {
            self.keep2((1, d23_1), (2, d23_2));
            self.v[0] = self.v[2];
        } else {
            let inverse = 1.0 / (d1 + d2 + d3);
            for (v, d) in self.v.iter_mut().zip([d1, d2, d3]) {
                v.weight = d * inverse;
            }
        }
    }

    /// The direction in which to look for the next vertex.
    fn search_direction(&self) -> Vec2 {
        let first = self.v[0].difference;
        if self.count == 1 {
            return -first;
        }
        let e = self.v[1].difference - first;
        if e.cross(-first) > 0.0 { e.spun(1.0) } else { e.clockwise() }
    }

    /// Distance between the closest points.
    fn distance(&self) -> f32 {
        let [v1, v2, _] = &self.v;
        let (a, b) = match self.count {
            1 => (v1.ground, v1.body),
            2 => (v1.weight * v1.ground + v2.weight * v2.ground, v1.weight * v1.body + v2.weight * v2.body),
            _ => return 0.0,
        };
        (a - b).length()
    }
}

/// Distance between the vertices of a ground shape and of a body's polygon, without their skins.
fn distance(simplex: &mut Simplex, ground: &[Vec2], body: &[Vec2], xf: &Transform) -> f32 {
    simplex.restart(ground, body, xf);
    for _ in 0..MAX_DISTANCE_ITERATIONS {
        let before = *simplex;
        simplex.solve();
        if simplex.count == 3 {
            break;
        }
        let d = simplex.search_direction();
        if d.dot(d) < f32::EPSILON * f32::EPSILON {
            break;
        }
        let index = [support(ground, -d), support(body, xf.q.undo(d))];
        simplex.v[simplex.count] = Vertex::new(index, 0.0, ground, body, xf);
        if before.v[..before.count].iter().any(|v| v.index == index) {
            break;
        }
        simplex.count += 1;
    }
    simplex.distance()
}

/// Whether two shapes overlap, skins included.
pub(crate) fn overlap(ground: &[Vec2], body: &[Vec2], xf: &Transform) -> bool {
    let d = distance(&mut Simplex::default(), ground, body, xf);
    d - TOTAL_RADIUS < 10.0 * f32::EPSILON
}

/// A direction along which two shapes are apart, given by features of one or both.
enum Axis {
    /// Between two vertices; fixed in the world.
    Points(Vec2),
    /// Normal of a ground edge through a point.
    Ground { normal: Vec2, point: Vec2 },
    /// Normal of a body edge through a point, in body coordinates.
    Body { normal: Vec2, point: Vec2 },
}

/// Separation of a moving polygon from the ground along one axis.
struct Separation<'a> {
    ground: &'a [Vec2],
    body: &'a [Vec2],
    sweep: &'a Sweep,
    axis: Axis,
}

impl<'a> Separation<'a> {
    fn new(simplex: &Simplex, ground: &'a [Vec2], body: &'a [Vec2], sweep: &'a Sweep, t: f32) -> Self {
        let xf = sweep.at(t);
        let [[a1, b1], [a2, b2]] = [simplex.v[0].index, simplex.v[1].index];
        let axis = if simplex.count == 1 {
            Axis::Points((xf.apply(body[b1]) - ground[a1]).normalized().0)
        } else if a1 == a2 {
            let mut normal = (body[b2] - body[b1]).clockwise().normalized().0;
            let point = 0.5 * (body[b1] + body[b2]);
            if (ground[a1] - xf.apply(point)).dot(xf.q.apply(normal)) < 0.0 {
                normal = -normal;
            }
            Axis::Body { normal, point }
        } else {
            let mut normal = (ground[a2] - ground[a1]).clockwise().normalized().0;
            let point = 0.5 * (ground[a1] + ground[a2]);
            if (xf.apply(body[b1]) - point).dot(normal) < 0.0 {
                normal = -normal;
            }
            Axis::Ground { normal, point }
        };
        Self { ground, body, sweep, axis }
    }

    /// The vertices that are deepest at time `t`.
    fn deepest(&self, t: f32) -> [usize; 2] {
        let q = Rot::new((1.0 - t) * self.sweep.a0 + t * self.sweep.a);
        match self.axis {
            Axis::Points(axis) => [support(self.ground, axis), support(self.body, q.undo(-axis))],
            Axis::Ground { normal, .. } => [0, support(self.body, q.undo(-normal))],
            Axis::Body { normal, .. } => [support(self.ground, -q.apply(normal)), 0],
        }
    }

    /// Separation of two vertices at time `t`.
    fn at(&self, [a, b]: [usize; 2], t: f32) -> f32 {
        let xf = self.sweep.at(t);
        match self.axis {
            Axis::Points(axis) => (xf.apply(self.body[b]) - self.ground[a]).dot(axis),
            Axis::Ground { normal, point } => (xf.apply(self.body[b]) - point).dot(normal),
            Axis::Body { normal, point } => (self.ground[a] - xf.apply(point)).dot(xf.q.apply(normal)),
        }
    }
}

/// The share of the sweep at which a polygon comes to touch the ground; `None` if it stays apart, or overlaps from the
/// start.
pub(crate) fn time_of_impact(ground: &[Vec2], body: &[Vec2], sweep: &Sweep) -> Option<f32> {
    let sweep = &sweep.normalized();
    let target = max(LINEAR_SLOP, TOTAL_RADIUS - 3.0 * LINEAR_SLOP);
    let tolerance = 0.25 * LINEAR_SLOP;
    let mut t1 = 0.0;
    let mut simplex = Simplex::default();
    for _ in 0..MAX_TOI_ITERATIONS {
        let d = distance(&mut simplex, ground, body, &sweep.at(t1));
        if d <= 0.0 {
            return None;
        }
        if d < target + tolerance {
            return Some(t1);
        }
        let separation = Separation::new(&simplex, ground, body, sweep, t1);
        let mut t2 = 1.0;
        for _ in 0..MAX_PUSH_BACKS {
            let pair = separation.deepest(t2);
            let mut s2 = separation.at(pair, t2);
            if s2 > target + tolerance {
                return None;
            }
            if s2 > target - tolerance {
                t1 = t2;
                break;
            }
            let mut s1 = separation.at(pair, t1);
            if s1 < target - tolerance {
                return None;
            }
            if s1 <= target + tolerance {
                return Some(t1);
            }
            // Root of the separation minus the target, by bisection and secant in turn.
            let (mut a1, mut a2) = (t1, t2);
            for i in 0..MAX_ROOT_ITERATIONS {
                let t = if i % 2 == 1 { a1 + (target - s1) * (a2 - a1) / (s2 - s1) } else { 0.5 * (a1 + a2) };
                let s = separation.at(pair, t);
                if (s - target).abs() < tolerance {
                    t2 = t;
                    break;
                }
                if s > target {
                    (a1, s1) = (t, s);
                } else {
                    (a2, s2) = (t, s);
                }
            }
        }
    }
    None
}
