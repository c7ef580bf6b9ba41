//! Observation and action spaces, after `gymnasium.spaces`: what they hold, how they lie in a buffer row, sampling.

use std::convert::Infallible;
use std::fmt;

use crate::{ActionRef, EnvError, NpRng, ObsMut};

/// Element type of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// Byte.
    U8,
    /// 32-bit integer.
    I32,
}

/// A set of values.
///
/// In a buffer a value is one row: the leaves' elements in order, see [`Space::len`] and [`Space::dtype`].
#[derive(Clone, Debug, PartialEq)]
pub enum Space {
    /// Arrays with a closed interval for each element; an infinite bound is no bound.
    Box {
        /// Lower bounds, in row-major order.
        low: Vec<f32>,
        /// Upper bounds, in row-major order.
        high: Vec<f32>,
        /// Shape of the array.
        shape: Vec<usize>,
        /// Element type.
        dtype: Dtype,
    },
    /// The integers `start..start + n`.
    Discrete {
        /// How many integers.
        n: i32,
        /// The least of them.
        start: i32,
    },
    /// Vectors of integers, element `i` in `0..nvec[i]`.
    MultiDiscrete {
        /// How many integers for each element.
        nvec: Vec<i32>,
    },
    /// Arrays of zeros and ones.
    MultiBinary {
        /// Shape of the array.
        shape: Vec<usize>,
    },
    /// One value of each space.
    Tuple(Vec<Space>),
    /// One value of each space, by name, in this order. (Gymnasium sorts the names of a plain `dict`.)
    Dict(Vec<(String, Space)>),
}

/// A value of a [`Space`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An element of a `Box` of floats.
    F32(Vec<f32>),
    /// An element of a `Box` of bytes or of a `MultiBinary`.
    U8(Vec<u8>),
    /// An element of a `Box` of integers or of a `MultiDiscrete`.
    I32(Vec<i32>),
    /// An element of a `Discrete`.
    Int(i32),
    /// An element of a `Tuple`.
    Tuple(Vec<Value>),
    /// An element of a `Dict`.
    Dict(Vec<(String, Value)>),
}

impl Space {
    /// All real arrays of a shape.
    pub fn unbounded_box(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let len = shape.iter().product();
        Self::bounded(vec![f32::NEG_INFINITY; len], vec![f32::INFINITY; len], shape)
    }

    /// Real arrays between bounds, which may be infinite.
    ///
    /// # Panics
    /// If the bounds do not fit the shape, or `low <= high` does not hold everywhere.
    pub fn bounded(low: impl Into<Vec<f32>>, high: impl Into<Vec<f32>>, shape: impl Into<Vec<usize>>) -> Self {
        Self::boxed(low.into(), high.into(), shape.into(), Dtype::F32)
    }

    /// Images: bytes from 0 to 255.
    pub fn image(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let len = shape.iter().product();
        Self::boxed(vec![0.0; len], vec![255.0; len], shape, Dtype::U8)
    }

    /// Arrays of any element type between bounds.
    ///
    /// # Panics
    /// If the bounds do not fit the shape or the element type, or `low <= high` does not hold everywhere.
    pub fn boxed(low: Vec<f32>, high: Vec<f32>, shape: Vec<usize>, dtype: Dtype) -> Self {
        let len: usize = shape.iter().product();
        assert!(low.len() == len && high.len() == len, "{} and {} bounds for {shape:?}", low.len(), high.len());
        assert!(low.iter().zip(&high).all(|(l, h)| l <= h), "bounds {low:?} and {high:?} must be ordered");
        let bytes = low.iter().chain(&high).all(|b| (0.0..=255.0).contains(b));
        assert!(dtype != Dtype::U8 || bytes, "bounds of bytes must lie in 0..=255, found {low:?} and {high:?}");
        Self::Box { low, high, shape, dtype }
    }

    /// The integers `0..n`.
    ///
    /// # Panics
    /// If `n` is not positive.
    pub fn discrete(n: i32) -> Self {
        assert!(n > 0, "a space of {n} integers");
        Self::Discrete { n, start: 0 }
    }

    /// Vectors of integers, element `i` in `0..nvec[i]`.
    ///
    /// # Panics
    /// If a number in `nvec` is not positive.
    pub fn multi_discrete(nvec: impl Into<Vec<i32>>) -> Self {
        let nvec = nvec.into();
        assert!(nvec.iter().all(|n| *n > 0), "a space of {nvec:?} integers");
        Self::MultiDiscrete { nvec }
    }

    /// Arrays of zeros and ones.
    pub fn multi_binary(shape: impl Into<Vec<usize>>) -> Self {
        Self::MultiBinary { shape: shape.into() }
    }

    /// A `Dict` with these entries.
    pub fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Dict(entries.into_iter().map(|(name, space)| (name.to_owned(), space)).collect())
    }

    /// Element type of a buffer row: the leaves' own where they agree, else [`Dtype::F32`].
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::Box { dtype, .. } => *dtype,
            Self::Discrete { .. } | Self::MultiDiscrete { .. } => Dtype::I32,
            Self::MultiBinary { .. } => Dtype::U8,
            Self::Tuple(_) | Self::Dict(_) => {
                let mut dtypes = self.parts().map(Self::dtype);
                let first = dtypes.next().unwrap_or(Dtype::F32);
                if dtypes.all(|d| d == first) { first } else { Dtype::F32 }
            }
        }
    }

    /// Number of elements of a buffer row: one for a `Discrete`, the sum over the parts of a `Tuple` or `Dict`.
    #[allow(clippy::len_without_is_empty)] // A space is not a collection.
    pub fn len(&self) -> usize {
        match self {
            Self::Box { shape, .. } | Self::MultiBinary { shape } => shape.iter().product(),
            Self::Discrete { .. } => 1,
            Self::MultiDiscrete { nvec } => nvec.len(),
            Self::Tuple(_) | Self::Dict(_) => self.parts().map(Self::len).sum(),
        }
    }

    /// Shape of a value: none for a `Discrete`, `[len]` for a `Tuple` or `Dict`.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Box { shape, .. } | Self::MultiBinary { shape } => shape.clone(),
            Self::Discrete { .. } => Vec::new(),
            Self::MultiDiscrete { nvec } => vec![nvec.len()],
            Self::Tuple(_) | Self::Dict(_) => vec![self.len()],
        }
    }

    /// The spaces directly inside a `Tuple` or `Dict`.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Self> {
        let (tuple, dict): (&[Self], &[(String, Self)]) = match self {
            Self::Tuple(parts) => (parts, &[]),
            Self::Dict(parts) => (&[], parts),
            _ => (&[], &[]),
        };
        tuple.iter().chain(dict.iter().map(|(_, part)| part))
    }

    /// Draws the elements of a leaf as Gymnasium does and hands each to `put` with its index.
    ///
    /// A `Box` draws all unbounded elements first (normal), then those bounded on one side (exponential; those bounded
    /// below, then above), then the bounded ones (uniform).
    fn sample_leaf(&self, rng: &mut NpRng, put: &mut dyn FnMut(usize, f64)) {
        match self {
            Self::Box { low, high, dtype, .. } => {
                let whole = *dtype != Dtype::F32;
                let limits = match dtype {
                    Dtype::F32 => (f64::NEG_INFINITY, f64::INFINITY),
                    Dtype::U8 => (0.0, 255.0),
                    Dtype::I32 => (i32::MIN.into(), i32::MAX.into()),
                };
                for (below, above) in [(false, false), (true, false), (false, true), (true, true)] {
                    for (i, (low, high)) in low.iter().zip(high).enumerate() {
                        if (*low > f32::NEG_INFINITY, *high < f32::INFINITY) != (below, above) {
                            continue;
                        }
                        let (low, last) = (f64::from(*low), f64::from(*high));
                        // Integers are rounded down from below the next integer.
                        let high = if whole { last + 1.0 } else { last };
                        let x = match (below, above) {
                            (false, false) => rng.normal(),
                            (true, false) => rng.exponential() + low,
                            (false, true) => high - rng.exponential(),
                            (true, true) => rng.uniform(low, high),
                        };
                        put(i, if whole { x.floor().clamp(limits.0, limits.1.min(last)) } else { x });
                    }
                }
            }
            Self::Discrete { n, start } => {
                put(0, (i64::from(*start) + rng.integers(0, i64::from(*n))) as f64);
            }
            Self::MultiDiscrete { nvec } => {
                nvec.iter().enumerate().for_each(|(i, n)| put(i, (rng.random() * f64::from(*n)).floor()));
            }
            Self::MultiBinary { .. } => {
                rng.bits(self.len()).enumerate().for_each(|(i, bit)| put(i, bit.into()));
            }
            Self::Tuple(_) | Self::Dict(_) => unreachable!("not a leaf"),
        }
    }

    /// Builds a value leaf by leaf, in order.
    fn build<E>(&self, leaf: &mut dyn FnMut(&Self) -> Result<Value, E>) -> Result<Value, E> {
        Ok(match self {
            Self::Tuple(parts) => Value::Tuple(parts.iter().map(|p| p.build(leaf)).collect::<Result<_, _>>()?),
            Self::Dict(parts) => {
                let named = |(name, part): &(String, Self)| Ok((name.clone(), part.build(leaf)?));
                Value::Dict(parts.iter().map(named).collect::<Result<_, _>>()?)
            }
            _ => leaf(self)?,
        })
    }

    /// Visits leaves with their values, in order; false where the structures differ or `leaf` said so.
    fn visit(&self, value: &Value, leaf: &mut dyn FnMut(&Self, &Value) -> bool) -> bool {
        match (self, value) {
            (Self::Tuple(parts), Value::Tuple(values)) => {
                parts.len() == values.len() && parts.iter().zip(values).all(|(part, value)| part.visit(value, leaf))
            }
            (Self::Dict(parts), Value::Dict(values)) => {
                parts.len() == values.len()
                    && parts.iter().zip(values).all(|((k, part), (l, value))| k == l && part.visit(value, leaf))
            }
            (Self::Tuple(_) | Self::Dict(_), _) | (_, Value::Tuple(_) | Value::Dict(_)) => false,
            _ => leaf(self, value),
        }
    }

    /// A leaf's value from its elements.
    fn leaf_value(&self, elements: &[f64]) -> Value {
        match (self, self.dtype()) {
            (Self::Discrete { .. }, _) => Value::Int(elements[0] as i32),
            (_, Dtype::F32) => Value::F32(elements.iter().map(|x| *x as f32).collect()),
            (_, Dtype::U8) => Value::U8(elements.iter().map(|x| *x as u8).collect()),
            (_, Dtype::I32) => Value::I32(elements.iter().map(|x| *x as i32).collect()),
        }
    }

    fn sample_leaf_value(&self, rng: &mut NpRng) -> Value {
        let mut elements = vec![0.0; self.len()];
        self.sample_leaf(rng, &mut |i, x| elements[i] = x);
        self.leaf_value(&elements)
    }

    /// A random value. A leaf draws what Gymnasium's `sample()` draws from the same generator; the parts of a `Tuple`
    /// or `Dict` draw from it one after the other, where Gymnasium keeps a generator for each part: see [`Sampler`].
    pub fn sample(&self, rng: &mut NpRng) -> Value {
        let Ok(value) = self.build::<Infallible>(&mut |leaf| Ok(leaf.sample_leaf_value(rng)));
        value
    }

    /// A random value into a buffer row, without allocation; the draws are those of [`Space::sample`].
    ///
    /// # Errors
    /// [`EnvError::Space`] if the row does not have the type and length of this space's rows.
    pub fn sample_into(&self, rng: &mut NpRng, mut row: ObsMut<'_>) -> Result<(), EnvError> {
        if (row.dtype(), row.len()) != (self.dtype(), self.len()) {
            let expected = format!("a row of {} {}", self.len(), self.dtype());
            return Err(self.error(expected, format!("{} {}", row.len(), row.dtype())));
        }
        self.sample_row(rng, &mut row, 0);
        Ok(())
    }

    fn sample_row(&self, rng: &mut NpRng, row: &mut ObsMut<'_>, at: usize) -> usize {
        match self {
            Self::Tuple(_) | Self::Dict(_) => self.parts().fold(at, |at, part| part.sample_row(rng, row, at)),
            leaf => {
                leaf.sample_leaf(rng, &mut |i, x| row.put(at + i, x));
                at + leaf.len()
            }
        }
    }

    /// Whether `value` has this space's structure and element types and lies inside its bounds. NaN lies in no space.
    pub fn contains(&self, value: &Value) -> bool {
        self.visit(value, &mut |leaf, value| match (leaf, value) {
            (Self::Discrete { .. }, Value::Int(x)) => leaf.holds(|_| (*x).into(), true),
            (Self::Discrete { .. }, _) | (_, Value::Int(_)) => false,
            _ => value.dtype() == Some(leaf.dtype()) && value.len() == leaf.len() && leaf.holds(|i| value.get(i), true),
        })
    }

    /// Whether a buffer row has this space's type and length and holds one of its values.
    pub fn contains_action(&self, row: ActionRef<'_>) -> bool {
        self.row_holds(row, true)
    }

    /// Like [`Space::contains_action`], but any finite float will do for a `Box` of floats: Gymnasium's environments
    /// clamp such actions themselves, and an unbounded policy relies on it.
    pub fn accepts_action(&self, row: ActionRef<'_>) -> bool {
        self.row_holds(row, false)
    }

    fn row_holds(&self, row: ActionRef<'_>, bounds: bool) -> bool {
        match (self, row) {
            (Self::Discrete { n, start }, ActionRef::I32(&[x])) => {
                x >= *start && i64::from(x) - i64::from(*start) < i64::from(*n)
            }
            (Self::Box { low, dtype: Dtype::F32, .. }, ActionRef::F32(row)) if !bounds => {
                row.len() == low.len() && row.iter().all(|x| x.is_finite())
            }
            _ => row.dtype() == self.dtype() && row.len() == self.len() && self.rows_hold(row, 0, bounds).is_some(),
        }
    }

    /// Checks the leaves in a row from element `at` on; the element after them, or `None` if one holds no value.
    fn rows_hold(&self, row: ActionRef<'_>, at: usize, bounds: bool) -> Option<usize> {
        match self {
            Self::Tuple(_) | Self::Dict(_) => self.parts().try_fold(at, |at, part| part.rows_hold(row, at, bounds)),
            leaf => leaf.holds(|i| row.get(at + i), bounds).then(|| at + leaf.len()),
        }
    }

    /// Whether a leaf holds the value of these elements.
    fn holds(&self, get: impl Fn(usize) -> f64, bounds: bool) -> bool {
        let whole =
            |x: f64, low: i32, n: i32| x.fract() == 0.0 && f64::from(low) <= x && x < f64::from(low) + f64::from(n);
        match self {
            Self::Box { low, dtype: Dtype::F32, .. } if !bounds => (0..low.len()).all(|i| get(i).is_finite()),
            Self::Box { low, high, dtype, .. } => (0..low.len()).all(|i| {
                let x = get(i);
                f64::from(low[i]) <= x && x <= f64::from(high[i]) && (*dtype == Dtype::F32 || x.fract() == 0.0)
            }),
            Self::Discrete { n, start } => whole(get(0), *start, *n),
            Self::MultiDiscrete { nvec } => nvec.iter().enumerate().all(|(i, n)| whole(get(i), 0, *n)),
            Self::MultiBinary { .. } => (0..self.len()).all(|i| whole(get(i), 0, 2)),
            Self::Tuple(_) | Self::Dict(_) => unreachable!("not a leaf"),
        }
    }

    /// Length of a flattened value: one element for each number, `n` for a `Discrete`, the sum of `nvec` for a
    /// `MultiDiscrete`.
    pub fn flat_len(&self) -> usize {
        match self {
            Self::Box { .. } | Self::MultiBinary { .. } => self.len(),
            Self::Discrete { n, .. } => *n as usize,
            Self::MultiDiscrete { nvec } => nvec.iter().map(|n| *n as usize).sum(),
            Self::Tuple(_) | Self::Dict(_) => self.parts().map(Self::flat_len).sum(),
        }
    }

    /// A value as one vector of floats, as `gymnasium.spaces.flatten`: integers of a `Discrete` or `MultiDiscrete`
    /// become one-hot vectors, parts follow each other.
    ///
    /// # Errors
    /// [`EnvError::Space`] if the value is not in this space.
    pub fn flatten(&self, value: &Value) -> Result<Vec<f32>, EnvError> {
        if !self.contains(value) {
            return Err(self.error("one of its values".into(), format!("{value:?}")));
        }
        let mut flat = Vec::with_capacity(self.flat_len());
        self.visit(value, &mut |leaf, value| {
            let mut one_hot = |n: i32, x: i32| flat.extend((0..n).map(|i| if i == x { 1.0 } else { 0.0 }));
            match (leaf, value) {
                (Self::Discrete { n, start }, Value::Int(x)) => one_hot(*n, x - start),
                (Self::MultiDiscrete { nvec }, Value::I32(xs)) => {
                    nvec.iter().zip(xs).for_each(|(n, x)| one_hot(*n, *x))
                }
                _ => flat.extend((0..leaf.len()).map(|i| value.get(i) as f32)),
            }
            true
        });
        Ok(flat)
    }

    /// The `Box` of flattened values, as `gymnasium.spaces.flatten_space`; one-hot elements are integers from 0 to 1.
    pub fn flat_space(&self) -> Self {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        self.flat_bounds(&mut low, &mut high);
        let shape = vec![low.len()];
        Self::Box { low, high, shape, dtype: self.dtype() }
    }

    fn flat_bounds(&self, low: &mut Vec<f32>, high: &mut Vec<f32>) {
        match self {
            Self::Box { low: own_low, high: own_high, .. } => {
                low.extend(own_low);
                high.extend(own_high);
            }
            Self::Tuple(_) | Self::Dict(_) => self.parts().for_each(|part| part.flat_bounds(low, high)),
            leaf => {
                low.resize(low.len() + leaf.flat_len(), 0.0);
                high.resize(high.len() + leaf.flat_len(), 1.0);
            }
        }
    }

    /// Flattens the value in a buffer row into a row of [`Space::flat_space`], without allocation.
    pub(crate) fn flatten_row(&self, row: ActionRef<'_>, flat: &mut ObsMut<'_>) {
        self.flatten_row_at(row, 0, flat, 0);
    }

    /// The same from element `at` on to element `to` on; the elements after both.
    fn flatten_row_at(&self, row: ActionRef<'_>, at: usize, flat: &mut ObsMut<'_>, to: usize) -> (usize, usize) {
        let mut one_hot = |to: usize, n: i32, x: f64| {
            (0..n).for_each(|i| flat.put(to + i as usize, if f64::from(i) == x { 1.0 } else { 0.0 }));
        };
        match self {
            Self::Discrete { n, start } => one_hot(to, *n, row.get(at) - f64::from(*start)),
            Self::MultiDiscrete { nvec } => {
                nvec.iter().enumerate().fold(to, |to, (i, n)| {
                    one_hot(to, *n, row.get(at + i));
                    to + *n as usize
                });
            }
            Self::Box { .. } | Self::MultiBinary { .. } => flat.copy_from(to, row.slice(at..at + self.len())),
            Self::Tuple(_) | Self::Dict(_) => {
                return self.parts().fold((at, to), |(at, to), part| part.flatten_row_at(row, at, flat, to));
            }
        }
        (at + self.len(), to + self.flat_len())
    }

    /// The value that [`Space::flatten`] made `flat` of.
    ///
    /// # Errors
    /// [`EnvError::Space`] if the length is wrong, a one-hot vector has not exactly one element that is not zero, or
    /// the value is not in this space.
    pub fn unflatten(&self, flat: &[f32]) -> Result<Value, EnvError> {
        if flat.len() != self.flat_len() {
            return Err(self.error(format!("{} elements", self.flat_len()), flat.len().to_string()));
        }
        let mut rest = flat;
        let value = self.build(&mut |leaf| {
            let (mut own, others) = rest.split_at(leaf.flat_len());
            rest = others;
            let mut hot = |n: i32| {
                let (one, others) = own.split_at(n as usize);
                own = others;
                let mut nonzero = one.iter().enumerate().filter(|(_, x)| **x != 0.0).map(|(i, _)| i as f64);
                match (nonzero.next(), nonzero.next()) {
                    (Some(at), None) => Ok(at),
                    _ => Err(self.error("a one-hot vector".into(), format!("{one:?}"))),
                }
            };
            Ok(match leaf {
                Self::Discrete { n, start } => leaf.leaf_value(&[hot(*n)? + f64::from(*start)]),
                Self::MultiDiscrete { nvec } => {
                    leaf.leaf_value(&nvec.iter().map(|n| hot(*n)).collect::<Result<Vec<_>, _>>()?)
                }
                _ => {
                    if leaf.dtype() != Dtype::F32 && own.iter().any(|x| x.fract() != 0.0) {
                        return Err(self.error("whole numbers".into(), format!("{own:?}")));
                    }
                    leaf.leaf_value(&own.iter().map(|x| f64::from(*x)).collect::<Vec<_>>())
                }
            })
        })?;
        if self.contains(&value) {
            Ok(value)
        } else {
            Err(self.error("one of its values".into(), format!("{value:?}")))
        }
    }

    fn error(&self, expected: String, found: String) -> EnvError {
        EnvError::Space { space: self.to_string(), expected, found }
    }
}

impl Value {
    /// Element type of a leaf; `None` for a `Tuple` or `Dict`.
    pub fn dtype(&self) -> Option<Dtype> {
        match self {
            Self::F32(_) => Some(Dtype::F32),
            Self::U8(_) => Some(Dtype::U8),
            Self::I32(_) | Self::Int(_) => Some(Dtype::I32),
            Self::Tuple(_) | Self::Dict(_) => None,
        }
    }

    /// Number of elements of a leaf, or of parts.
    #[allow(clippy::len_without_is_empty)] // A value is not a collection.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::U8(x) => x.len(),
            Self::I32(x) => x.len(),
            Self::Int(_) => 1,
            Self::Tuple(x) => x.len(),
            Self::Dict(x) => x.len(),
        }
    }

    /// Element `i` of a leaf.
    fn get(&self, i: usize) -> f64 {
        match self {
            Self::F32(x) => x[i].into(),
            Self::U8(x) => x[i].into(),
            Self::I32(x) => x[i].into(),
            Self::Int(x) => (*x).into(),
            Self::Tuple(_) | Self::Dict(_) => unreachable!("not a leaf"),
        }
    }
}

impl Space {
    /// As [`Space`]'s text, but for the bounds of a `Box` whose elements have different ones: those are left out.
    pub fn brief(&self) -> String {
        let uniform = |bounds: &[f32]| bounds.windows(2).all(|pair| pair[0] == pair[1]);
        match self {
            Self::Box { low, high, shape, dtype } if ![low, high].into_iter().all(|bounds| uniform(bounds)) => {
                format!("Box({}, {dtype})", tuple(shape))
            }
            Self::Tuple(parts) => format!("Tuple({})", join(parts.iter().map(Self::brief), ", ")),
            Self::Dict(parts) => {
                format!("Dict({})", join(parts.iter().map(|(name, part)| format!("'{name}': {}", part.brief())), ", "))
            }
            other => other.to_string(),
        }
    }
}

/// Samples like Gymnasium's `space.seed(seed)` followed by `space.sample()`s: each leaf has a generator of its own, and
/// the generator of a `Tuple` or `Dict` serves to draw the seeds of its parts.
#[derive(Clone, Debug)]
pub struct Sampler {
    space: Space,
    leaves: Vec<NpRng>,
}

impl Sampler {
    /// Seeds the generators.
    pub fn new(space: Space, seed: u64) -> Self {
        fn seed_leaves(space: &Space, seed: u64, leaves: &mut Vec<NpRng>) {
            let mut rng = NpRng::seed(seed);
            if !matches!(space, Space::Tuple(_) | Space::Dict(_)) {
                return leaves.push(rng);
            }
            // All the seeds are drawn before the parts are seeded, but parts draw from generators of their own.
            space.parts().for_each(|part| seed_leaves(part, rng.integers(0, i32::MAX.into()) as u64, leaves));
        }
        let mut leaves = Vec::new();
        seed_leaves(&space, seed, &mut leaves);
        Self { space, leaves }
    }

    /// The next value.
    pub fn sample(&mut self) -> Value {
        let mut rngs = self.leaves.iter_mut();
        let Ok(value) = self.space.build::<Infallible>(&mut |leaf| {
            Ok(leaf.sample_leaf_value(rngs.next().expect("one generator for each leaf")))
        });
        value
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "float32",
            Self::U8 => "uint8",
            Self::I32 => "int32",
        })
    }
}

/// Reads like Gymnasium's `repr`, for example `Box(-2.0, 2.0, (1,), float32)`, but does not pad bounds to columns.
impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Box { low, high, shape, dtype } => {
                let number = |x: f32, scalar: bool| match dtype {
                    Dtype::F32 if scalar => format!("{x:?}"),
                    Dtype::F32 => {
                        let text = format!("{x:?}");
                        text.strip_suffix(".0").map(|whole| format!("{whole}.")).unwrap_or(text)
                    }
                    Dtype::U8 | Dtype::I32 => format!("{x:.0}"),
                };
                let bounds = |bounds: &[f32]| match bounds {
                    [first, rest @ ..] if rest.iter().all(|x| x == first) => number(*first, true),
                    _ => format!("[{}]", join(bounds.iter().map(|x| number(*x, false)), " ")),
                };
                write!(f, "Box({}, {}, {}, {dtype})", bounds(low), bounds(high), tuple(shape))
            }
            Self::Discrete { n, start: 0 } => write!(f, "Discrete({n})"),
            Self::Discrete { n, start } => write!(f, "Discrete({n}, start={start})"),
            Self::MultiDiscrete { nvec } => write!(f, "MultiDiscrete([{}])", join(nvec.iter(), " ")),
            Self::MultiBinary { shape } => match shape[..] {
                [n] => write!(f, "MultiBinary({n})"),
                _ => write!(f, "MultiBinary({})", tuple(shape)),
            },
            Self::Tuple(parts) => write!(f, "Tuple({})", join(parts.iter(), ", ")),
            Self::Dict(parts) => {
                write!(f, "Dict({})", join(parts.iter().map(|(name, part)| format!("'{name}': {part}")), ", "))
            }
        }
    }
}

/// As Python writes a tuple.
fn tuple(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => format!("({})", join(shape.iter(), ", ")),
    }
}

fn join(items: impl Iterator<Item = impl fmt::Display>, by: &str) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(by)
}
