//! Environments of Python's Gymnasium: `gymnasium:ID` is what `gymnasium.make("ID")` makes, in an interpreter inside
//! this process (PyO3).
//!
//! # Seeds
//! [`crate::VecEnv::reset`] hands its seeds to `env.reset(seed=...)`, later resets pass none and the environment goes
//! on with its own generator, as Gymnasium's `SyncVectorEnv` does. A caller that only has an [`NpRng`] gets a seed that
//! is drawn from it.
//!
//! # Observations
//! An array is read through the buffer protocol, straight from Python's memory into the caller's row. Its type is the
//! space's: float32, uint8 and int32 are copied as they are, other floats are rounded to float32, booleans become 0 and
//! 1, other integers int32.
//!
//! # Time limit
//! Gymnasium's own `TimeLimit` is left out and this crate's takes its place, with the registered limit.
//!
//! # Threads
//! One interpreter runs one thread at a time: a batch is stepped by one thread, which never waits for another.
//!
//! # Saved states
//! An environment is saved by pickling it. Those that Gymnasium pickles by their constructor's arguments (`EzPickle`:
//! Box2D, MuJoCo, Atari) or that cannot be pickled at all are refused when a saved state is loaded, unless the option
//! `on_resume = "truncate"` was given: then the interrupted episode is truncated at its last observation, and the run
//! goes on with new ones.

use std::cell::OnceCell;
use std::sync::Mutex;

use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::{
    ActionRef, Buffer, Dtype, Env, EnvError, EnvSpec, Foreign, Frame, NpRng, ObsMut, OptionValue, Options, Space,
    StateReader, StateWriter, StepOutcome,
};

/// The registry entries of the ids that were asked for so far. They live as long as the process: ids are few.
static SPECS: Mutex<Vec<&'static EnvSpec>> = Mutex::new(Vec::new());

/// The registry entry of `id`, `gymnasium:` and `name`.
pub(crate) fn spec(id: &str, name: &str) -> Result<&'static EnvSpec, EnvError> {
    let mut specs = SPECS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(spec) = specs.iter().find(|spec| spec.id == id) {
        return Ok(spec);
    }
    let (max_episode_steps, reward_threshold, render_fps) =
        Python::attach(|py| bridge(py)?.getattr("spec")?.call1((name,))?.extract::<(Option<u32>, Option<f64>, u32)>())
            .map_err(|error| foreign(id, error))?;
    let spec: &'static EnvSpec = Box::leak(Box::new(EnvSpec {
        id: Box::leak(id.into()),
        summary: "an environment of Python's Gymnasium",
        max_episode_steps,
        reward_threshold,
        render_fps,
        controls: &[],
        make: |options| Ok(Box::new(GymEnv::new(options)?)),
        make_batch: None,
    }));
    specs.push(spec);
    Ok(spec)
}

/// The module `bridge.py`, with the virtual environment activated and Gymnasium imported.
fn bridge(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static BRIDGE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = BRIDGE.get_or_try_init(py, || {
        let code = std::ffi::CString::new(include_str!("python/bridge.py"))?;
        let module = PyModule::from_code(py, &code, c"bridge.py", c"hotfire_bridge")?;
        module.getattr("activate")?.call0()?;
        if let Err(error) = py.import("gymnasium") {
            let interpreter: String = module.getattr("interpreter")?.call0()?.extract()?;
            return Err(PyErr::new::<pyo3::exceptions::PyImportError, _>(format!(
                "{interpreter} cannot import `gymnasium` ({error}): install it there (`pip install gymnasium`), or \
                 activate a virtual environment that has it"
            )));
        }
        PyResult::Ok(module.unbind())
    })?;
    Ok(module.bind(py))
}

fn foreign(env: &str, error: PyErr) -> EnvError {
    EnvError::Foreign { env: env.to_owned(), problem: error.to_string() }
}

/// What to do with a saved state that does not hold the environment.
#[derive(Clone, Copy, PartialEq)]
enum OnResume {
    Refuse,
    Truncate,
}

/// A leaf of an action that is an array.
struct Array {
    /// Makes one, of the element type of the action's row.
    new: Py<PyAny>,
    /// The space's element type where it is another.
    dtype: Option<Py<PyAny>>,
}

/// The last observation.
enum Last {
    /// As Python returned it.
    Value(Py<PyAny>),
    /// From a saved state.
    Row(Buffer),
}

/// An environment of Python's Gymnasium.
struct GymEnv {
    id: String,
    env: Py<PyAny>,
    /// Bound methods of `env`.
    reset: Py<PyAny>,
    step: Py<PyAny>,
    observation_space: Space,
    action_space: Space,
    /// The action's leaves in order; `None` for a `Discrete`.
    action_leaves: Vec<Option<Array>>,
    draws_pictures: bool,
    on_resume: OnResume,
    /// For the next reset.
    seed: Option<u128>,
    /// The caller's generator when it was last seen: another one asks for a new seed.
    generator: Option<NpRng>,
    last: Last,
    /// A state was loaded that does not hold the environment: the episode ends at the last observation.
    interrupted: bool,
    /// The environment pickled, or why it can't be, since it last changed: drawing it makes another pickle of the same
    /// state.
    snapshot: OnceCell<Result<Vec<u8>, String>>,
    /// Since the last step or reset.
    error: Option<EnvError>,
}

impl GymEnv {
    fn new(options: &mut Options) -> Result<Self, EnvError> {
        let id = options.env().to_owned();
        let name = id.strip_prefix(crate::registry::GYMNASIUM).unwrap_or(&id);
        let on_resume = match options.text("on_resume")?.as_deref() {
            None | Some("refuse") => OnResume::Refuse,
            Some("truncate") => OnResume::Truncate,
            Some(other) => return Err(options.bad("on_resume", "\"refuse\" or \"truncate\"", format!("{other:?}"))),
        };
        let given = options.take_all();
        Python::attach(|py| Self::make(py, &id, name, &given, on_resume)).map_err(|error| foreign(&id, error))
    }

    fn make(
        py: Python<'_>,
        id: &str,
        name: &str,
        given: &[(String, OptionValue)],
        on_resume: OnResume,
    ) -> PyResult<Self> {
        let bridge = bridge(py)?;
        let kwargs = PyDict::new(py);
        for (key, value) in given {
            match value {
                OptionValue::Bool(x) => kwargs.set_item(key, x)?,
                OptionValue::Int(x) => kwargs.set_item(key, x)?,
                OptionValue::Float(x) => kwargs.set_item(key, x)?,
                OptionValue::Text(x) => kwargs.set_item(key, x)?,
                OptionValue::Lines(x) => kwargs.set_item(key, x)?,
                OptionValue::Numbers(x) => kwargs.set_item(key, x)?,
            }
        }
        let (env, draws_pictures): (Py<PyAny>, bool) = bridge.getattr("make")?.call1((name, kwargs))?.extract()?;
        let env = env.bind(py);
        let space = |name: &str| read_space(&bridge.getattr("describe")?.call1((env.getattr(name)?,))?);
        let (observation_space, action_space) = (space("observation_space")?, space("action_space")?);
        let row = match action_space.dtype() {
            Dtype::F32 => "float32",
            Dtype::U8 => "uint8",
            Dtype::I32 => "int32",
        };
        type Leaf = (Py<PyAny>, Option<Py<PyAny>>);
        let leaves: Vec<Option<Leaf>> =
            bridge.getattr("leaves")?.call1((env.getattr("action_space")?, row))?.extract()?;
        let action_leaves = leaves.into_iter().map(|leaf| leaf.map(|(new, dtype)| Array { new, dtype })).collect();
        Ok(Self {
            id: id.to_owned(),
            reset: env.getattr("reset")?.unbind(),
            step: env.getattr("step")?.unbind(),
            env: env.clone().unbind(),
            last: Last::Row(Buffer::new(&observation_space, 1)),
            observation_space,
            action_space,
            action_leaves,
            draws_pictures,
            on_resume,
            seed: None,
            generator: None,
            interrupted: false,
            snapshot: OnceCell::new(),
            error: None,
        })
    }

    fn try_reset(&mut self, py: Python<'_>, seed: Option<u128>, obs: ObsMut<'_>) -> PyResult<()> {
        let result = match seed {
            None => self.reset.call0(py)?,
            Some(seed) => {
                let kwargs = PyDict::new(py);
                kwargs.set_item("seed", seed)?;
                self.reset.bind(py).call((), Some(&kwargs))?.unbind()
            }
        };
        let result = result.bind(py).cast::<PyTuple>()?;
        self.observe(result.get_item(0)?, obs)
    }

    fn try_step(&mut self, py: Python<'_>, action: ActionRef<'_>, obs: ObsMut<'_>) -> PyResult<StepOutcome> {
        let action = write_action(py, &self.action_space, &mut self.action_leaves.iter(), &mut { action }, &mut 0)?;
        let result = self.step.bind(py).call1((action,))?;
        let result = result.cast::<PyTuple>()?;
        if result.len() != 5 {
            return Err(PyValueError::new_err(format!("step returned {} values instead of 5", result.len())));
        }
        self.observe(result.get_item(0)?, obs)?;
        let reward: f64 = result.get_item(1)?.extract()?;
        if !reward.is_finite() {
            return Err(PyValueError::new_err(format!("step returned the reward {reward}")));
        }
        Ok(StepOutcome {
            reward,
            terminated: result.get_item(2)?.is_truthy()?,
            truncated: result.get_item(3)?.is_truthy()?,
        })
    }

    fn observe(&mut self, observation: Bound<'_, PyAny>, obs: ObsMut<'_>) -> PyResult<()> {
        read_observation(&self.observation_space, &observation, obs)?;
        self.last = Last::Value(observation.unbind());
        Ok(())
    }

    /// Keeps the error for [`Foreign::take_error`].
    fn fail(&mut self, error: PyErr, obs: ObsMut<'_>) {
        self.error = Some(foreign(&self.id, error));
        match obs {
            ObsMut::F32(row) => row.fill(0.0),
            ObsMut::U8(row) => row.fill(0),
            ObsMut::I32(row) => row.fill(0),
        }
    }

    /// A row with the last observation, for a saved state.
    fn last_row(&self) -> Buffer {
        match &self.last {
            Last::Row(row) => row.clone(),
            Last::Value(value) => {
                let mut row = Buffer::new(&self.observation_space, 1);
                // It was read before, so that it can be read again.
                let _ = Python::attach(|py| read_observation(&self.observation_space, value.bind(py), row.as_mut()));
                row
            }
        }
    }

    fn pickle(&self) -> Result<Vec<u8>, String> {
        Python::attach(|py| {
            let bytes = bridge(py)?.getattr("snapshot")?.call1((&self.env,))?;
            Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
        })
        .map_err(|error: PyErr| error.to_string())
    }

    fn restore(&mut self, pickled: &[u8]) -> PyResult<()> {
        Python::attach(|py| {
            let env = bridge(py)?.getattr("restore")?.call1((PyBytes::new(py, pickled),))?;
            self.reset = env.getattr("reset")?.unbind();
            self.step = env.getattr("step")?.unbind();
            self.env = env.unbind();
            Ok(())
        })
    }
}

impl Foreign for GymEnv {
    fn seed(&mut self, seed: u128) {
        self.seed = Some(seed);
    }

    fn take_error(&mut self) -> Option<EnvError> {
        self.error.take()
    }
}

impl Env for GymEnv {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, mut obs: ObsMut<'_>) {
        let seed = self.seed.take().or_else(|| {
            let is_new = self.generator.as_ref() != Some(&*rng);
            is_new.then(|| u128::from(rng.next_u32()))
        });
        self.generator = Some(rng.clone());
        self.snapshot.take();
        self.interrupted = false;
        let len = obs.len();
        if let Err(error) = Python::attach(|py| self.try_reset(py, seed, obs.slice(0..len))) {
            self.fail(error, obs);
        }
    }

    fn step(&mut self, action: ActionRef<'_>, _rng: &mut NpRng, mut obs: ObsMut<'_>) -> StepOutcome {
        const CUT_OFF: StepOutcome = StepOutcome { reward: 0.0, terminated: false, truncated: true };
        self.snapshot.take();
        if std::mem::take(&mut self.interrupted) {
            copy_row(self.last_row().as_row(), obs);
            return CUT_OFF;
        }
        let len = obs.len();
        match Python::attach(|py| self.try_step(py, action, obs.slice(0..len))) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.fail(error, obs);
                CUT_OFF
            }
        }
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.bool(self.generator.is_some());
        self.generator.clone().unwrap_or_else(|| NpRng::seed(0)).save_state(to);
        self.last_row().save_state(to);
        let (pickled, bytes) = match self.snapshot.get_or_init(|| self.pickle()) {
            Ok(bytes) => (true, bytes.as_slice()),
            Err(reason) => (false, reason.as_bytes()),
        };
        to.bool(pickled);
        to.u64(bytes.len() as u64);
        bytes.iter().for_each(|byte| to.u8(*byte));
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let has_generator = from.bool()?;
        let mut generator = NpRng::seed(0);
        generator.load_state(from)?;
        let mut last = Buffer::new(&self.observation_space, 1);
        last.load_state(from)?;
        let pickled = from.bool()?;
        let len = from.u64()?;
        if len > from.remaining() as u64 {
            return Err(EnvError::State {
                expected: format!("{len} bytes of a pickled environment"),
                found: format!("{} bytes", from.remaining()),
            });
        }
        let bytes = (0..len).map(|_| from.u8()).collect::<Result<Vec<_>, _>>()?;
        (self.seed, self.error) = (None, None);
        self.generator = has_generator.then_some(generator);
        self.last = Last::Row(last);
        self.interrupted = !pickled;
        if pickled {
            self.restore(&bytes).map_err(|error| foreign(&self.id, error))?;
            self.snapshot = OnceCell::from(Ok(bytes));
            return Ok(());
        }
        if self.on_resume == OnResume::Refuse {
            return Err(EnvError::Foreign {
                env: self.id.clone(),
                problem: format!(
                    "its state could not be saved ({}), so that nothing can go on from it; with the option \
                     `on_resume = \"truncate\"` the interrupted episode is truncated instead",
                    String::from_utf8_lossy(&bytes)
                ),
            });
        }
        self.snapshot = OnceCell::from(Err(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        if !self.draws_pictures {
            return None;
        }
        Python::attach(|py| {
            let picture = PyBuffer::<u8>::get(&self.env.bind(py).call_method0("render")?)?;
            let &[height, width, 3] = picture.shape() else {
                return Err(PyValueError::new_err("a picture has the shape [height, width, 3]"));
            };
            Ok(Frame { width: width as u32, height: height as u32, rgb: picture.to_vec(py)? })
        })
        .ok()
    }

    fn foreign(&mut self) -> Option<&mut dyn Foreign> {
        Some(self)
    }
}

fn copy_row(from: ActionRef<'_>, to: ObsMut<'_>) {
    match (from, to) {
        (ActionRef::F32(from), ObsMut::F32(to)) => to.copy_from_slice(from),
        (ActionRef::U8(from), ObsMut::U8(to)) => to.copy_from_slice(from),
        (ActionRef::I32(from), ObsMut::I32(to)) => to.copy_from_slice(from),
        _ => unreachable!("rows of one space"),
    }
}

/// The space that `describe` has described.
fn read_space(described: &Bound<'_, PyAny>) -> PyResult<Space> {
    let part = |i: usize| described.get_item(i);
    let kind: String = part(0)?.extract()?;
    let space = match kind.as_str() {
        "box" => {
            let dtype = match part(1)?.extract::<String>()?.as_str() {
                "f32" => Dtype::F32,
                "u8" => Dtype::U8,
                _ => Dtype::I32,
            };
            let (low, high): (Vec<f32>, Vec<f32>) = (part(3)?.extract()?, part(4)?.extract()?);
            if !low.iter().zip(&high).all(|(low, high)| low <= high) {
                return Err(PyTypeError::new_err("a Box with a lower bound above the upper one, or NaN"));
            }
            Space::boxed(low, high, part(2)?.extract()?, dtype)
        }
        "discrete" => Space::Discrete { n: part(1)?.extract()?, start: part(2)?.extract()? },
        "multi_discrete" => Space::MultiDiscrete { nvec: part(1)?.extract()? },
        "multi_binary" => Space::MultiBinary { shape: part(1)?.extract()? },
        "tuple" => {
            let parts = part(1)?;
            Space::Tuple(parts.try_iter()?.map(|part| read_space(&part?)).collect::<PyResult<_>>()?)
        }
        _ => {
            let named = |entry: PyResult<Bound<'_, PyAny>>| {
                let entry = entry?;
                Ok((entry.get_item(0)?.extract()?, read_space(&entry.get_item(1)?)?))
            };
            let parts = part(1)?;
            Space::Dict(parts.try_iter()?.map(named).collect::<PyResult<_>>()?)
        }
    };
    if space.len() == 0 {
        return Err(PyTypeError::new_err("a space without elements"));
    }
    Ok(space)
}

fn read_observation(space: &Space, value: &Bound<'_, PyAny>, mut row: ObsMut<'_>) -> PyResult<()> {
    let mut at = 0;
    read_value(space, value, &mut row, &mut at)?;
    match row {
        ObsMut::F32(row) if row.iter().any(|x| x.is_nan()) => Err(PyValueError::new_err("the observation holds NaN")),
        _ => Ok(()),
    }
}

/// Writes a value of `space` to the row from element `at` on, and moves `at` behind it.
fn read_value(space: &Space, value: &Bound<'_, PyAny>, row: &mut ObsMut<'_>, at: &mut usize) -> PyResult<()> {
    match space {
        Space::Tuple(parts) => {
            for (i, part) in parts.iter().enumerate() {
                read_value(part, &value.get_item(i)?, row, at)?;
            }
        }
        Space::Dict(parts) => {
            for (key, part) in parts {
                read_value(part, &value.get_item(key)?, row, at)?;
            }
        }
        Space::Discrete { .. } => {
            row.put(*at, f64::from(value.extract::<i32>()?));
            *at += 1;
        }
        array => {
            let range = *at..*at + array.len();
            *at = range.end;
            read_array(value, row.slice(range))?;
        }
    }
    Ok(())
}

/// Copies an array's elements in row-major order.
fn read_array(value: &Bound<'_, PyAny>, row: ObsMut<'_>) -> PyResult<()> {
    let py = value.py();
    let Ok(buffer) = PyUntypedBuffer::get(value) else {
        // A list or a Python number, where the space promises an array.
        let array = py.import("numpy")?.getattr("asarray")?.call1((value,))?;
        return if array.is(value) {
            Err(PyTypeError::new_err("an observation that is no array"))
        } else {
            read_array(&array, row)
        };
    };
    if buffer.item_count() != row.len() {
        return Err(PyValueError::new_err(format!(
            "the observation has {} elements, its space {}",
            buffer.item_count(),
            row.len()
        )));
    }
    let (name, row) = match row {
        ObsMut::F32(row) => match buffer.as_typed::<f32>() {
            Ok(same) => return same.copy_to_slice(py, row),
            Err(_) => ("float32", ObsMut::F32(row)),
        },
        ObsMut::U8(row) => match buffer.as_typed::<u8>() {
            Ok(same) => return same.copy_to_slice(py, row),
            Err(_) => ("uint8", ObsMut::U8(row)),
        },
        ObsMut::I32(row) => match buffer.as_typed::<i32>() {
            Ok(same) => return same.copy_to_slice(py, row),
            Err(_) => ("int32", ObsMut::I32(row)),
        },
    };
    read_array(&value.call_method1("astype", (name,))?, row)
}

/// The Python value of an action's elements from `at` on, which moves behind them.
fn write_action<'py, 'a>(
    py: Python<'py>,
    space: &Space,
    leaves: &mut impl Iterator<Item = &'a Option<Array>>,
    action: &mut ActionRef<'_>,
    at: &mut usize,
) -> PyResult<Bound<'py, PyAny>> {
    match space {
        Space::Tuple(parts) => {
            let parts = parts.iter().map(|part| write_action(py, part, leaves, action, at));
            Ok(PyTuple::new(py, parts.collect::<PyResult<Vec<_>>>()?)?.into_any())
        }
        Space::Dict(parts) => {
            let dict = PyDict::new(py);
            for (key, part) in parts {
                dict.set_item(key, write_action(py, part, leaves, action, at)?)?;
            }
            Ok(dict.into_any())
        }
        leaf => {
            let range = *at..*at + leaf.len();
            *at = range.end;
            let Some(Array { new, dtype }) = leaves.next().and_then(Option::as_ref) else {
                return Ok((action.get(range.start) as i64).into_pyobject(py)?.into_any());
            };
            // A new array each time: environments keep actions.
            let array = new.bind(py).call0()?;
            match action {
                ActionRef::F32(row) => PyBuffer::get(&array)?.copy_from_slice(py, &row[range])?,
                ActionRef::U8(row) => PyBuffer::get(&array)?.copy_from_slice(py, &row[range])?,
                ActionRef::I32(row) => PyBuffer::get(&array)?.copy_from_slice(py, &row[range])?,
            }
            match dtype {
                None => Ok(array),
                Some(dtype) => array.call_method1("astype", (dtype,)),
            }
        }
    }
}
