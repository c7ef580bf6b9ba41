//! Gymnasium's `GrayscaleObservation`.

use super::WrapperSpec;
use super::observation::{Observation, Observe};
use crate::{ActionRef, Dtype, Env, ObsMut, Space};

/// Gives the luminance of RGB pixels, rounded down.
struct GrayscaleObservation;

impl Observe for GrayscaleObservation {
    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, to: ObsMut<'_>) {
        if let (ActionRef::U8(from), ObsMut::U8(to)) = (from, to) {
            for (rgb, to) in from.chunks_exact(3).zip(to) {
                let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(f64::from);
                *to = (r * 0.2125 + g * 0.7154 + b * 0.0721) as u8;
            }
        }
    }
}

/// Height and width of a picture `[H, W]` or `[H, W, C]` of bytes from 0 to 255, and its channels.
pub(super) fn picture(space: &Space) -> Option<([usize; 2], Option<usize>)> {
    let Space::Box { low, high, shape, dtype: Dtype::U8 } = space else { return None };
    if !low.iter().all(|x| *x == 0.0) || !high.iter().all(|x| *x == 255.0) {
        return None;
    }
    match shape[..] {
        [height, width] => Some(([height, width], None)),
        [height, width, channels] => Some(([height, width], Some(channels))),
        _ => None,
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "grayscale_observation",
    gymnasium: "GrayscaleObservation",
    summary: "gives the luminance of RGB pictures",
    options: &[("keep_dim", "whether the shape stays `[H, W, 1]`; default false, `[H, W]`")],
    wrap: |env, options, site| {
        let Some((mut shape, Some(3))) = picture(env.observation_space()).map(|(size, c)| (size.to_vec(), c)) else {
            return Err(site.needs("pictures `[H, W, 3]` of bytes from 0 to 255", env.observation_space()));
        };
        if options.bool("keep_dim", false)? {
            shape.push(1);
        }
        Ok(Observation::boxed(env, Space::image(shape), GrayscaleObservation))
    },
};
