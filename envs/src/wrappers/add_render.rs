//! Gymnasium's `AddRenderObservation`. Drawing a picture allocates it.

use super::WrapperSpec;
use super::observation::{Observation, Observe};
use crate::{ActionRef, Buffer, Env, NpRng, ObsMut, Space};

/// Gives the environment's picture `[H, W, 3]`, alone or beside the observation.
struct AddRender {
    /// Where the picture and the observation go; no place for an observation that is left out.
    pixels_at: usize,
    pixels_len: usize,
    obs_at: Option<usize>,
}

impl Observe for AddRender {
    fn observe(&mut self, env: &dyn Env, from: ActionRef<'_>, mut to: ObsMut<'_>) {
        // Only an environment outside of this program can fail to draw, or change its size: the observation is stale then.
        let Some(picture) = env.render().filter(|picture| picture.rgb.len() == self.pixels_len) else { return };
        to.copy_from(self.pixels_at, ActionRef::U8(&picture.rgb));
        if let Some(at) = self.obs_at {
            to.copy_from(at, from);
        }
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "add_render_observation",
    gymnasium: "AddRenderObservation",
    summary: "gives the environment's picture, alone or beside the observation",
    options: &[
        ("render_only", "whether the picture replaces the observation; default true"),
        ("render_key", "name of the picture in a `Dict`; default `pixels`"),
        ("obs_key", "name of an observation that is no `Dict`; default `state`"),
    ],
    wrap: |mut env, options, site| {
        let render_only = options.bool("render_only", true)?;
        let render_key = options.text("render_key")?.unwrap_or_else(|| "pixels".to_owned());
        let obs_key = options.text("obs_key")?.unwrap_or_else(|| "state".to_owned());
        let mut row = Buffer::new(env.observation_space(), 1);
        env.reset(&mut NpRng::seed(0), row.as_mut());
        let Some(picture) = env.render() else {
            return Err(site.needs("an environment with pictures", "none"));
        };
        let pixels = Space::image([picture.height as usize, picture.width as usize, 3]);
        let pixels_len = pixels.len();
        if render_only {
            return Ok(Observation::boxed(env, pixels, AddRender { pixels_at: 0, pixels_len, obs_at: None }));
        }
        let observation = env.observation_space();
        let (parts, pixels_at, obs_at) = match observation {
            Space::Dict(parts) if parts.iter().any(|(name, _)| *name == render_key) => {
                return Err(options.bad("render_key", "a name that the `Dict` does not have", render_key));
            }
            // The picture comes first, as `pixels` and `state` do in Gymnasium, which sorts by name.
            Space::Dict(parts) => ([(render_key, pixels)].into_iter().chain(parts.clone()).collect(), 0, pixels_len),
            other if render_key > obs_key => (vec![(obs_key, other.clone()), (render_key, pixels)], other.len(), 0),
            other if render_key < obs_key => (vec![(render_key, pixels), (obs_key, other.clone())], 0, pixels_len),
            _ => return Err(options.bad("render_key", "another name than `obs_key`", render_key)),
        };
        Ok(Observation::boxed(env, Space::Dict(parts), AddRender { pixels_at, pixels_len, obs_at: Some(obs_at) }))
    },
};
