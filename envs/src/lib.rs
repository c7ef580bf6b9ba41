//! Reinforcement-learning environments with Gymnasium's ids, numbers and seeds.
//!
//! This crate knows nothing of tensors or learning: it builds in seconds and is useful alone. An [`Env`] is one
//! simulator; a [`VecEnv`] steps many of them into contiguous `[N, ...]` buffers; a [`BatchEnv`] is a
//! structure-of-arrays stepper for simulators with simple dynamics.
//!
//! ```
//! use hotfire_envs::{Actions, AutoresetMode, VecEnv};
//! let mut envs = VecEnv::make("CartPole-v1", 4, AutoresetMode::SameStep)?;
//! envs.reset(7);
//! envs.step(Actions::I32(&[0, 1, 0, 1]))?;
//! assert_eq!(envs.rewards(), &[1.0; 4]);
//! # Ok::<(), hotfire_envs::EnvError>(())
//! ```

mod batch;
mod box2d;
mod buffer;
mod check;
mod classic;
mod controls;
mod env;
mod error;
pub mod minatar;
mod options;
#[cfg(feature = "python")]
mod python;
mod registry;
mod render;
mod rng;
pub mod rocket;
mod space;
mod state;
mod toy_text;
mod trace;
mod vec_env;
mod wrappers;

pub use batch::{BatchEnv, Column, Simd};
pub use box2d::{bipedal_walker, car_racing, lunar_lander};
pub use buffer::Buffer;
pub use check::check_env;
pub use classic::{acrobot, cartpole, mountain_car, mountain_car_continuous, pendulum};
pub use controls::{Binding, Controls, Key, Keymap};
pub use env::{ActionRef, Actions, Env, Foreign, ObsMut, StepOutcome};
pub use error::EnvError;
pub use options::{OptionValue, Options};
pub use registry::{ENVS, EnvSpec, MakeBatch, make, make_batch, spec};
pub use render::Frame;
pub use rng::NpRng;
pub use space::{Dtype, Sampler, Space, Value};
pub use state::{StateReader, StateWriter};
pub use toy_text::{Transition, TransitionModel, blackjack, cliff_walking, frozen_lake, taxi};
pub use trace::{TraceReport, check_trace};
pub use vec_env::{AutoresetMode, EndedEpisode, VecEnv};
pub use wrappers::{
    OpenVideo, TimeLimit, VideoSink, WRAPPERS, Wrap, WrapSite, WrapperConfig, WrapperSpec, make_wrapped,
    open_with_ffmpeg, wrap, wrapper_spec,
};

/// The book's page on this crate, whose code is tested here.
#[cfg(doctest)]
#[doc = include_str!("../../docs/use/rust.md")]
struct Book;
