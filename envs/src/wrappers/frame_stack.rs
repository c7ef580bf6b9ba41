//! Gymnasium's `FrameStackObservation`.

use super::observation::{Observation, Observe};
use super::{WrapperSpec, required};
use crate::{ActionRef, Buffer, Dtype, Env, EnvError, ObsMut, Space, StateReader, StateWriter};

/// Gives the last observations, the newest at the end.
struct FrameStack {
    rows: Buffer,
    /// What an episode starts with; `None` repeats the first observation.
    padding: Option<Buffer>,
    first: bool,
}

impl Observe for FrameStack {
    fn start(&mut self) {
        self.first = true;
    }

    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, mut to: ObsMut<'_>) {
        let (len, all) = (from.len(), self.rows.len());
        match &mut self.rows {
            Buffer::F32(rows) => rows.copy_within(len.., 0),
            Buffer::U8(rows) => rows.copy_within(len.., 0),
            Buffer::I32(rows) => rows.copy_within(len.., 0),
        }
        self.rows.as_mut().copy_from(all - len, from);
        if std::mem::take(&mut self.first) {
            let pad = self.padding.as_ref().map_or(from, Buffer::as_row);
            (0..all - len).step_by(len).for_each(|at| self.rows.as_mut().copy_from(at, pad));
        }
        to.copy_from(0, self.rows.as_row());
    }

    fn save(&self, to: &mut StateWriter) {
        self.rows.save_state(to);
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.first = false;
        self.rows.load_state(from)
    }
}

/// `gymnasium.vector.utils.batch_space` of a space that is one array.
fn stacked(space: &Space, size: usize) -> Option<Space> {
    let shape = || std::iter::once(size).chain(space.shape()).collect::<Vec<_>>();
    Some(match space {
        Space::Box { low, high, dtype, .. } => Space::boxed(low.repeat(size), high.repeat(size), shape(), *dtype),
        Space::Discrete { n, start: 0 } => Space::multi_discrete(vec![*n; size]),
        Space::MultiDiscrete { nvec } => {
            let high: Vec<_> = nvec.iter().map(|n| (n - 1) as f32).collect();
            Space::boxed(vec![0.0; size * nvec.len()], high.repeat(size), shape(), Dtype::I32)
        }
        Space::MultiBinary { .. } => Space::multi_binary(shape()),
        Space::Discrete { .. } | Space::Tuple(_) | Space::Dict(_) => return None,
    })
}

/// `gymnasium.wrappers.utils.create_zero_array`: the value of a space that is nearest to zero.
pub(super) fn zeros(space: &Space) -> Buffer {
    fn fill(space: &Space, row: &mut ObsMut<'_>, at: usize) -> usize {
        match space {
            Space::Box { low, high, .. } => {
                (0..low.len()).for_each(|i| row.put(at + i, f64::from(0.0_f32.clamp(low[i], high[i]))));
            }
            Space::Discrete { start, .. } => row.put(at, f64::from(*start)),
            Space::MultiDiscrete { .. } | Space::MultiBinary { .. } => {}
            Space::Tuple(_) | Space::Dict(_) => return space.parts().fold(at, |at, part| fill(part, row, at)),
        }
        at + space.len()
    }
    let mut row = Buffer::new(space, 1);
    fill(space, &mut row.as_mut(), 0);
    row
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "frame_stack",
    gymnasium: "FrameStackObservation",
    summary: "gives the last observations as one, the newest at the end",
    options: &[
        ("size", "how many; must be given"),
        ("padding", "what comes before an episode: `reset` (the first observation, default) or `zero`"),
    ],
    wrap: |env, options, site| {
        let size = required(options.u32("size", 1..=1 << 16)?, options, "size")? as usize;
        let inner = env.observation_space();
        let Some(space) = stacked(inner, size) else {
            return Err(site.needs("observations of one array (see flatten_observation)", inner));
        };
        let padding = match options.text("padding")?.as_deref() {
            None | Some("reset") => None,
            Some("zero") => Some(zeros(inner)),
            Some(other) => return Err(options.bad("padding", "reset or zero", other)),
        };
        let rows = Buffer::new(inner, size);
        Ok(Observation::boxed(env, space, FrameStack { rows, padding, first: true }))
    },
};
