//! Gymnasium's Box2D family: rigid bodies on fixed ground.

pub mod bipedal_walker;
mod car;
pub mod car_racing;
pub mod lunar_lander;
mod physics;
mod raster;

use crate::ObsMut;

/// Writes an observation of numbers in double precision, rounded to single precision.
fn write(values: &[f64], obs: ObsMut<'_>) {
    let ObsMut::F32(row) = obs else { unreachable!("the observation space is a box of real numbers") };
    for (to, from) in row.iter_mut().zip(values) {
        *to = *from as f32;
    }
}
