//! Classic control: small textbook problems with Gymnasium's numbers.

pub mod acrobot;
pub mod cartpole;
pub mod mountain_car;
pub mod mountain_car_continuous;
pub mod pendulum;

use crate::{ActionRef, ObsMut};

/// Writes an observation of numbers in double precision, rounded to single precision.
fn write<const D: usize>(values: [f64; D], obs: ObsMut<'_>) {
    let ObsMut::F32(row) = obs else { unreachable!("the observation space is a box of real numbers") };
    for (to, from) in row.iter_mut().zip(values) {
        *to = from as f32;
    }
}

/// The action of a `Discrete` space.
fn discrete(action: ActionRef<'_>) -> i32 {
    let ActionRef::I32(&[action]) = action else { unreachable!("the action space is discrete") };
    action
}

/// The action of a box with one dimension.
fn continuous(action: ActionRef<'_>) -> f32 {
    let ActionRef::F32(&[action]) = action else { unreachable!("the action space is a box with one dimension") };
    action
}
