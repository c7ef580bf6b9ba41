//! Toy text: small problems with a finite number of states, with Gymnasium's numbers.

pub mod blackjack;
pub mod cliff_walking;
pub mod frozen_lake;
mod tabular;
pub mod taxi;

pub use tabular::{Transition, TransitionModel};

use crate::{ActionRef, EnvError, ObsMut, StateReader};

/// Writes an observation of integers.
fn write<const D: usize>(values: [i32; D], obs: ObsMut<'_>) {
    let ObsMut::I32(row) = obs else { unreachable!("the observation space is one of integers") };
    row.copy_from_slice(&values);
}

/// The action of a `Discrete` space.
fn discrete(action: ActionRef<'_>) -> i32 {
    let ActionRef::I32(&[action]) = action else { unreachable!("the action space is discrete") };
    action
}

/// Reads a number in `low..high` of a saved state.
fn load(from: &mut StateReader<'_>, low: i32, high: i32, what: &str) -> Result<i32, EnvError> {
    let value = from.i32()?;
    if (low..high).contains(&value) {
        Ok(value)
    } else {
        Err(EnvError::State { expected: format!("{what} in {low}..{high}"), found: value.to_string() })
    }
}
