//! The contract that every environment keeps, as a function that tests, the command line and authors of environments
//! call. It follows `gymnasium.utils.env_checker` and adds what this crate promises: bit-exact repeats and resumes.

use crate::{Buffer, Env, EnvError, NpRng, StateReader, StateWriter, StepOutcome};

/// Episodes are followed for at most this many steps.
const STEPS: usize = 200;

/// One moment of an episode, as bits: NaN would not equal itself.
#[derive(PartialEq)]
struct Moment {
    observation: Vec<u32>,
    outcome: Option<(u64, bool, bool)>,
}

/// Checks an environment, which is left in some state of an episode; `id` names it in messages.
///
/// With random actions of its space: `reset` and `step` fill the observation with finite values of the observation
/// space; rewards are finite; the same seed gives the same episodes; an episode that ended can be started anew; saving,
/// then loading, goes on bit for bit, and takes exactly the bytes that were saved; bytes that are cut off are refused
/// without a panic; pictures are not empty and do not change the state; an
/// action mask is written whole and in every state, or never.
///
/// # Errors
/// [`EnvError::Contract`] with the first promise that does not hold.
pub fn check_env(env: &mut dyn Env, id: &str) -> Result<(), EnvError> {
    let broken = |problem: String| EnvError::Contract { env: id.to_owned(), problem };
    let mut run = Run::new(env, id);
    if run.row.as_row().is_empty() || run.action.as_row().is_empty() {
        return Err(broken("observations and actions need at least one element".into()));
    }
    for seed in 0..3 {
        let mut first = Vec::new();
        run.reset(seed, &mut first)?;
        run.go(STEPS, &mut first)?;

        let mut second = Vec::new();
        run.reset(seed, &mut second)?;
        run.go(STEPS / 2, &mut second)?;
        let saved = run.save();
        run.check_picture()?;
        if run.save() != saved {
            return Err(broken("rendering changes the state".into()));
        }
        let middle = second.len();
        run.go(STEPS - STEPS / 2, &mut second)?;
        if let Some(at) = first.iter().zip(&second).position(|(a, b)| a != b) {
            return Err(broken(format!("two runs with seed {seed} differ at step {at}")));
        }

        run.load(&saved)?;
        if run.save() != saved {
            return Err(broken("a state that is loaded is not saved as the same bytes".into()));
        }
        let mut third = Vec::new();
        run.go(STEPS - STEPS / 2, &mut third)?;
        if let Some(at) = second[middle..].iter().zip(&third).position(|(a, b)| a != b) {
            return Err(broken(format!("a loaded state goes on differently, {at} steps later (seed {seed})")));
        }
        let cut = &saved.env[..saved.env.len().saturating_sub(1)];
        if !saved.env.is_empty() && run.env.load_state(&mut StateReader::new(cut)).is_ok() {
            return Err(broken("a state that is cut off loads without an error".into()));
        }
    }
    run.reset(0, &mut Vec::new())
}

/// A state of everything that decides how a [`Run`] goes on.
#[derive(PartialEq)]
struct Saved {
    env: Vec<u8>,
    rng: NpRng,
    actions: NpRng,
    ended: bool,
}

struct Run<'a> {
    env: &'a mut dyn Env,
    id: &'a str,
    rng: NpRng,
    actions: NpRng,
    row: Buffer,
    action: Buffer,
    ended: bool,
    number: u8,
    masked: bool,
}

impl<'a> Run<'a> {
    fn new(env: &'a mut dyn Env, id: &'a str) -> Self {
        let (row, action) = (Buffer::new(env.observation_space(), 1), Buffer::new(env.action_space(), 1));
        let masked = env.action_mask(&mut vec![false; env.action_space().flat_len()]);
        Self { env, id, rng: NpRng::seed(0), actions: NpRng::seed(0), row, action, ended: false, number: 0, masked }
    }

    fn broken(&self, problem: String) -> EnvError {
        EnvError::Contract { env: self.id.to_owned(), problem }
    }

    fn reset(&mut self, seed: u64, moments: &mut Vec<Moment>) -> Result<(), EnvError> {
        self.rng = NpRng::seed(seed);
        self.actions = NpRng::seed(!seed);
        self.number = self.number.wrapping_add(1);
        self.start(moments)
    }

    fn start(&mut self, moments: &mut Vec<Moment>) -> Result<(), EnvError> {
        self.ended = false;
        poison(&mut self.row, self.number);
        self.env.reset(&mut self.rng, self.row.as_mut());
        self.record(None, moments)
    }

    /// Takes random steps, starting anew after each end.
    fn go(&mut self, steps: usize, moments: &mut Vec<Moment>) -> Result<(), EnvError> {
        for _ in 0..steps {
            if self.ended {
                self.start(moments)?;
            }
            let space = self.env.action_space();
            space.sample_into(&mut self.actions, self.action.as_mut())?;
            if !space.contains_action(self.action.as_row()) {
                return Err(self.broken(format!("{space} does not contain its own sample {:?}", self.action)));
            }
            poison(&mut self.row, self.number);
            let outcome = self.env.step(self.action.as_row(), &mut self.rng, self.row.as_mut());
            self.ended = outcome.terminated || outcome.truncated;
            self.record(Some(outcome), moments)?;
        }
        Ok(())
    }

    fn record(&self, outcome: Option<StepOutcome>, moments: &mut Vec<Moment>) -> Result<(), EnvError> {
        let after = if outcome.is_some() { "step" } else { "reset" };
        let space = self.env.observation_space();
        if !space.contains_action(self.row.as_row()) {
            return Err(self.broken(format!("{after} gives the observation {:?}, not in {space}", self.row)));
        }
        if let Some(row) = self.row.as_f32().filter(|row| !row.iter().all(|x| x.is_finite())) {
            return Err(self.broken(format!("{after} gives the observation {row:?}, which is not finite")));
        }
        if let Some(outcome) = outcome.filter(|o| !o.reward.is_finite()) {
            return Err(self.broken(format!("a step gives the reward {}", outcome.reward)));
        }
        let [mut first, mut second] = [false, true].map(|x| vec![x; self.env.action_space().flat_len()]);
        let masked = (self.env.action_mask(&mut first), self.env.action_mask(&mut second));
        let same = if masked == (true, true) { first == second } else { !first.contains(&true) };
        if !same || masked != (self.masked, self.masked) {
            return Err(self.broken(format!("{after} leaves an action mask that is not written always or never")));
        }
        moments.push(Moment {
            observation: bits(&self.row),
            outcome: outcome.map(|o| (o.reward.to_bits(), o.terminated, o.truncated)),
        });
        Ok(())
    }

    fn save(&self) -> Saved {
        let mut to = StateWriter::default();
        self.env.save_state(&mut to);
        Saved { env: to.into_bytes(), rng: self.rng.clone(), actions: self.actions.clone(), ended: self.ended }
    }

    fn load(&mut self, saved: &Saved) -> Result<(), EnvError> {
        let mut from = StateReader::new(&saved.env);
        self.env.load_state(&mut from)?;
        if from.remaining() > 0 {
            return Err(self.broken(format!("loading a state leaves {} bytes of it", from.remaining())));
        }
        (self.rng, self.actions, self.ended) = (saved.rng.clone(), saved.actions.clone(), saved.ended);
        Ok(())
    }

    fn check_picture(&self) -> Result<(), EnvError> {
        let Some(frame) = self.env.render() else { return Ok(()) };
        let (width, height, bytes) = (frame.width as usize, frame.height as usize, frame.rgb.len());
        if bytes == 0 || bytes != 3 * width * height {
            return Err(self.broken(format!("a picture of {width} x {height} pixels has {bytes} bytes")));
        }
        if frame.rgb.chunks_exact(3).all(|pixel| pixel == &frame.rgb[..3]) {
            return Err(self.broken("the picture is of one colour".into()));
        }
        Ok(())
    }
}

/// Fills a row with what no environment should leave there. Bytes have no such value: they get another one in every
/// run, so that one that was not written makes the runs differ.
fn poison(row: &mut Buffer, run: u8) {
    match row {
        Buffer::F32(row) => row.fill(f32::NAN),
        Buffer::U8(row) => row.fill(run),
        Buffer::I32(row) => row.fill(i32::MIN + i32::from(run)),
    }
}

fn bits(row: &Buffer) -> Vec<u32> {
    match row {
        Buffer::F32(row) => row.iter().map(|x| x.to_bits()).collect(),
        Buffer::U8(row) => row.iter().map(|x| u32::from(*x)).collect(),
        Buffer::I32(row) => row.iter().map(|x| *x as u32).collect(),
    }
}
