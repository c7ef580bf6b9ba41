//! Which keys play an environment. An environment registers its own; others get a default for their action space.

use std::fmt;

use crate::{Buffer, EnvError, EnvSpec, Space};

/// A key of the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The left arrow.
    Left,
    /// The right arrow.
    Right,
    /// The up arrow.
    Up,
    /// The down arrow.
    Down,
    /// The space bar.
    Space,
    /// A letter, in lower case, or a digit.
    Char(char),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("←"),
            Self::Right => f.write_str("→"),
            Self::Up => f.write_str("↑"),
            Self::Down => f.write_str("↓"),
            Self::Space => f.write_str("space"),
            Self::Char(char) => write!(f, "{char}"),
        }
    }
}

/// What a key does: elements of the action with the values that they get, and a word for it.
pub type Binding = (Key, &'static [(usize, f32)], &'static str);

/// The keys of an environment. Elements of the action that no held key sets have their value in `idle`.
///
/// `r`, `q` and Escape belong to the program that is played in.
#[derive(Clone, Copy, Debug)]
pub struct Controls {
    /// The action without a key; `None` where time waits for one.
    pub idle: Option<&'static [f32]>,
    /// The keys.
    pub keys: &'static [Binding],
}

impl Controls {
    /// Whether these are keys for a space: for each of the actions of a `Discrete`, for so many elements of a `Box`.
    fn fit(&self, space: &Space) -> bool {
        let values = || self.keys.iter().flat_map(|(_, sets, _)| *sets);
        match space {
            Space::Discrete { n, start: 0 } => {
                let mut all: Vec<_> =
                    values().map(|(_, x)| *x).chain(self.idle.into_iter().flatten().copied()).collect();
                all.sort_by(f32::total_cmp);
                all.dedup();
                all.into_iter().eq((0..*n).map(|x| x as f32)) && values().all(|(element, _)| *element == 0)
            }
            Space::Box { .. } => {
                self.idle.is_some_and(|idle| idle.len() == space.len())
                    && values().all(|(element, _)| *element < space.len())
            }
            _ => false,
        }
    }
}

/// The keys for one environment as it was made, with its options and wrappers.
#[derive(Clone, Debug)]
pub struct Keymap {
    space: Space,
    idle: Option<Vec<f32>>,
    keys: Vec<OwnBinding>,
}

/// A [`Binding`] that may be of a default.
type OwnBinding = (Key, Vec<(usize, f32)>, String);

/// Pairs of keys that raise and lower elements of an action.
const PAIRS: [(char, char); 8] =
    [('w', 's'), ('e', 'd'), ('t', 'g'), ('y', 'h'), ('u', 'j'), ('i', 'k'), ('o', 'l'), ('p', 'm')];
/// Keys for the actions of a `Discrete`, without those that belong to the program.
const CHOICES: &str = "0123456789abcdefghijklmnopstuvwxyz";

impl Keymap {
    /// The keys for `space`, the action space of the environment of `spec` with its wrappers: the registered ones where
    /// they fit it, else a key for each action of a `Discrete`, or a pair of keys for each element of a `Box`.
    ///
    /// # Errors
    /// [`EnvError::Keys`] for a space with too many actions or elements, or of another kind.
    pub fn new(spec: &EnvSpec, space: &Space) -> Result<Self, EnvError> {
        let refused = |expected: String| EnvError::Keys { env: spec.id.to_owned(), expected, space: space.to_string() };
        if let Some(controls) = spec.controls.iter().find(|controls| controls.fit(space)) {
            let keys = controls.keys.iter().map(|(key, sets, what)| (*key, sets.to_vec(), (*what).to_owned()));
            return Ok(Self { space: space.clone(), idle: controls.idle.map(<[f32]>::to_vec), keys: keys.collect() });
        }
        match space {
            Space::Discrete { n, start } if *n as usize <= CHOICES.len() => {
                let choice = |(char, action)| (Key::Char(char), vec![(0, action as f32)], format!("action {action}"));
                let keys = CHOICES.chars().zip(*start..start + n).map(choice).collect();
                Ok(Self { space: space.clone(), idle: None, keys })
            }
            Space::Box { low, high, .. } if space.len() <= PAIRS.len() => {
                // Without bounds a step of 1 is as good as another.
                let finite = |bound: f32, other: f32| if bound.is_finite() { bound } else { other };
                let keys = low.iter().zip(high).zip(PAIRS).enumerate().flat_map(|(i, ((low, high), (up, down)))| {
                    [(up, finite(*high, 1.0), "up"), (down, finite(*low, -1.0), "down")]
                        .map(|(char, value, way)| (Key::Char(char), vec![(i, value)], format!("element {i} {way}")))
                });
                let idle = low.iter().zip(high).map(|(low, high)| 0f32.max(*low).min(*high)).collect();
                Ok(Self { space: space.clone(), idle: Some(idle), keys: keys.collect() })
            }
            Space::Discrete { .. } => Err(refused(format!("at most {} actions", CHOICES.len()))),
            Space::Box { .. } => Err(refused(format!("at most {} elements", PAIRS.len()))),
            _ => Err(refused("a `Discrete` or a `Box`".to_owned())),
        }
    }

    /// Whether time waits for a key.
    pub fn waits(&self) -> bool {
        self.idle.is_none()
    }

    /// The keys with a word for what each does.
    pub fn keys(&self) -> impl Iterator<Item = (Key, &str)> {
        self.keys.iter().map(|(key, _, what)| (*key, what.as_str()))
    }

    /// Whether this key is one of them.
    pub fn contains(&self, key: Key) -> bool {
        self.sets(key).next().is_some()
    }

    /// Whether two keys set the same element, so that a newly pressed one takes the place of the other.
    pub fn conflict(&self, one: Key, other: Key) -> bool {
        self.sets(one).any(|(element, _)| self.sets(other).any(|(taken, _)| taken == element))
    }

    fn sets(&self, key: Key) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.keys.iter().filter(move |(other, ..)| *other == key).flat_map(|(_, sets, _)| sets.iter().copied())
    }

    /// The action while these keys are held, later ones over earlier ones; `None` if time waits for a key.
    pub fn action(&self, held: &[Key]) -> Option<Buffer> {
        let mut action = match &self.idle {
            Some(idle) => idle.clone(),
            None if held.iter().any(|key| self.contains(*key)) => vec![0.0; self.space.len()],
            None => return None,
        };
        for (element, value) in held.iter().flat_map(|key| self.sets(*key)) {
            action[element] = value;
        }
        let mut row = Buffer::new(&self.space, 1);
        action.into_iter().enumerate().for_each(|(i, x)| row.as_mut().put(i, x.into()));
        Some(row)
    }
}
