//! Plane vectors, rotations and the motion of a body over one step, in single precision.

use std::ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign};

/// A vector or point in metres.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Vec2 {
    pub x: f32,
    pub y: f32,
}

/// The vector `(x, y)`.
pub(crate) const fn vec2(x: f32, y: f32) -> Vec2 {
    Vec2 { x, y }
}

impl From<[f64; 2]> for Vec2 {
    fn from([x, y]: [f64; 2]) -> Self {
        vec2(x as f32, y as f32)
    }
}

impl Add for Vec2 {
    type Output = Self;
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        vec2(self.x + o.x, self.y + o.y)
    }
}

impl Sub for Vec2 {
    type Output = Self;
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        vec2(self.x - o.x, self.y - o.y)
    }
}

impl Neg for Vec2 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        vec2(-self.x, -self.y)
    }
}

impl Mul<Vec2> for f32 {
    type Output = Vec2;
    #[inline(always)]
    fn mul(self, v: Vec2) -> Vec2 {
        vec2(self * v.x, self * v.y)
    }
}

impl AddAssign for Vec2 {
    #[inline(always)]
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl SubAssign for Vec2 {
    #[inline(always)]
    fn sub_assign(&mut self, o: Self) {
        *self = *self - o;
    }
}

impl Vec2 {
    /// The origin.
    pub(crate) const ZERO: Self = vec2(0.0, 0.0);

    #[inline(always)]
    pub(crate) fn dot(self, o: Self) -> f32 {
        self.x * o.x + self.y * o.y
    }

    /// The third component of the cross product.
    #[inline(always)]
    pub(crate) fn cross(self, o: Self) -> f32 {
        self.x * o.y - self.y * o.x
    }

    /// Turned clockwise by a quarter: the outward normal of an anticlockwise polygon's edge.
    #[inline(always)]
    pub(crate) fn clockwise(self) -> Self {
        vec2(self.y, -self.x)
    }

    /// Velocity of the point at `self` from the centre of a body that turns at `w`.
    #[inline(always)]
    pub(crate) fn spun(self, w: f32) -> Self {
        vec2(-w * self.y, w * self.x)
    }

    #[inline(always)]
    pub(crate) fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// Direction and length; a vector shorter than the rounding unit is left as it is, with length 0.
    #[inline(always)]
    pub(crate) fn normalized(self) -> (Self, f32) {
        let length = self.length();
        if length < f32::EPSILON { (self, 0.0) } else { ((1.0 / length) * self, length) }
    }

    #[inline(always)]
    pub(crate) fn min(self, o: Self) -> Self {
        vec2(min(self.x, o.x), min(self.y, o.y))
    }

    #[inline(always)]
    pub(crate) fn max(self, o: Self) -> Self {
        vec2(max(self.x, o.x), max(self.y, o.y))
    }
}

/// The lesser of two numbers: one instruction, which `f32::min` is not.
#[inline(always)]
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The greater of two numbers.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `x` kept in `low..=high`.
#[inline(always)]
pub(crate) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    max(low, min(x, high))
}

/// A rotation as the sine and cosine of its angle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rot {
    pub s: f32,
    pub c: f32,
}

impl Rot {
    pub(crate) fn new(angle: f32) -> Self {
        Self { s: angle.sin(), c: angle.cos() }
    }

    #[inline(always)]
    pub(crate) fn apply(self, v: Vec2) -> Vec2 {
        vec2(self.c * v.x - self.s * v.y, self.s * v.x + self.c * v.y)
    }

    #[inline(always)]
    pub(crate) fn undo(self, v: Vec2) -> Vec2 {
        vec2(self.c * v.x + self.s * v.y, -self.s * v.x + self.c * v.y)
    }
}

/// A body's frame: rotation, then translation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Transform {
    pub p: Vec2,
    pub q: Rot,
}

impl Transform {
    /// The frame of a body whose centre of mass, `center` in its own coordinates, lies at `c`.
    #[inline(always)]
    pub(crate) fn around(center: Vec2, c: Vec2, q: Rot) -> Self {
        Self { p: c - q.apply(center), q }
    }

    #[inline(always)]
    pub(crate) fn apply(&self, v: Vec2) -> Vec2 {
        self.q.apply(v) + self.p
    }

    #[inline(always)]
    pub(crate) fn undo(&self, v: Vec2) -> Vec2 {
        self.q.undo(v - self.p)
    }
}

/// The motion of a body's centre of mass and angle over a step: at `alpha0` it is at `c0`, `a0`, at 1 at `c`, `a`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sweep {
    /// Centre of mass in body coordinates.
    pub center: Vec2,
    pub c0: Vec2,
    pub c: Vec2,
    pub a0: f32,
    pub a: f32,
    pub alpha0: f32,
}

impl Sweep {
    /// The frame at the share `beta` of the way.
    #[inline(always)]
    pub(crate) fn at(&self, beta: f32) -> Transform {
        let c = (1.0 - beta) * self.c0 + beta * self.c;
        Transform::around(self.center, c, Rot::new((1.0 - beta) * self.a0 + beta * self.a))
    }

    /// Moves the start of the sweep on to the time `alpha`.
    pub(crate) fn advance(&mut self, alpha: f32) {
        let beta = (alpha - self.alpha0) / (1.0 - self.alpha0);
        self.c0 = (1.0 - beta) * self.c0 + beta * self.c;
        self.a0 = (1.0 - beta) * self.a0 + beta * self.a;
        self.alpha0 = alpha;
    }

    /// The same sweep with its first angle in `[0, 2 pi)`.
    pub(crate) fn normalized(mut self) -> Self {
        let turn = 2.0 * std::f32::consts::PI;
        let d = turn * (self.a0 / turn).floor();
        self.a0 -= d;
        self.a -= d;
        self
    }
}

/// A box with sides along the axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Aabb {
    pub lower: Vec2,
    pub upper: Vec2,
}

impl Aabb {
    /// The least box around points, grown by `radius` on all sides.
    #[inline(always)]
    pub(crate) fn around(points: impl IntoIterator<Item = Vec2>, radius: f32) -> Self {
        let mut points = points.into_iter();
        let first = points.next().expect("a shape has vertices");
        let (lower, upper) = points.fold((first, first), |(low, high), p| (low.min(p), high.max(p)));
        Self { lower, upper }.grown(radius)
    }

    #[inline(always)]
    pub(crate) fn grown(self, by: f32) -> Self {
        let r = vec2(by, by);
        Self { lower: self.lower - r, upper: self.upper + r }
    }

    #[inline(always)]
    pub(crate) fn union(self, o: Self) -> Self {
        Self { lower: self.lower.min(o.lower), upper: self.upper.max(o.upper) }
    }

    #[inline(always)]
    pub(crate) fn contains(&self, o: &Self) -> bool {
        self.lower.x <= o.lower.x && self.lower.y <= o.lower.y && o.upper.x <= self.upper.x && o.upper.y <= self.upper.y
    }

    #[inline(always)]
    pub(crate) fn overlaps(&self, o: &Self) -> bool {
        (o.lower.x - self.upper.x <= 0.0)
            & (o.lower.y - self.upper.y <= 0.0)
            & (self.lower.x - o.upper.x <= 0.0)
            & (self.lower.y - o.upper.y <= 0.0)
    }
}
