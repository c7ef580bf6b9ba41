//! Gymnasium's `StickyAction` (Machado et al. 2018, "Revisiting the Arcade Learning Environment", section 5.2), with
//! its draws from the environment's own generator.

use super::WrapperSpec;
use super::action::{Act, Action};
use crate::{ActionRef, Buffer, EnvError, NpRng, ObsMut, StateReader, StateWriter};

/// With a probability, gives the environment the action before instead, for a number of steps.
struct StickyAction {
    probability: f64,
    duration: (i64, i64),
    last: Buffer,
    started: bool,
    /// Steps that the present series takes, and has taken; none outside of a series.
    series: Option<(u32, u32)>,
}

impl Act for StickyAction {
    const KEEPS_MASK: bool = true;

    fn start(&mut self) {
        (self.started, self.series) = (false, None);
    }

    fn act(&mut self, from: ActionRef<'_>, rng: &mut NpRng, mut to: ObsMut<'_>) {
        if self.series.is_some() || (self.started && rng.random() < self.probability) {
            let draw = |rng: &mut NpRng| (rng.integers(self.duration.0, self.duration.1 + 1) as u32, 0);
            let (steps, taken) = self.series.unwrap_or_else(|| draw(rng));
            self.series = (taken + 1 < steps).then_some((steps, taken + 1));
        } else {
            self.last.as_mut().copy_from(0, from);
            self.started = true;
        }
        to.copy_from(0, self.last.as_row());
    }

    fn save(&self, to: &mut StateWriter) {
        self.last.save_state(to);
        to.bool(self.started);
        let (steps, taken) = self.series.unwrap_or((0, 0));
        to.u32(steps);
        to.u32(taken);
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.last.load_state(from)?;
        self.started = from.bool()?;
        let (steps, taken) = (from.u32()?, from.u32()?);
        self.series = (taken < steps).then_some((steps, taken));
        Ok(())
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "sticky_action",
    gymnasium: "StickyAction",
    summary: "repeats the action before with a probability",
    options: &[
        ("repeat_action_probability", "0 to below 1; default 0.25"),
        ("repeat_action_duration", "steps of a repetition, or their least and greatest number; default 1"),
    ],
    wrap: |env, options, _| {
        let probability = options.f64_in("repeat_action_probability", 0.0..=1.0)?.unwrap_or(0.25);
        if probability == 1.0 {
            return Err(options.bad("repeat_action_probability", "below 1", probability));
        }
        let duration = options.one_or_more_u32("repeat_action_duration", 1..=1 << 30)?.unwrap_or_else(|| vec![1]);
        let duration = match duration[..] {
            [steps] => (steps, steps),
            [low, high] if low <= high => (low, high),
            _ => {
                let expected = "a number, or a least and a greatest one";
                return Err(options.bad("repeat_action_duration", expected, format!("{duration:?}")));
            }
        };
        let (space, last) = (env.action_space().clone(), Buffer::new(env.action_space(), 1));
        let duration = (duration.0.into(), duration.1.into());
        Ok(Action::boxed(env, space, StickyAction { probability, duration, last, started: false, series: None }))
    },
};
