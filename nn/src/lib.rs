//! Network blocks shared by agents and generative models: initialisation, dense networks, distributions, optimizers and
//! the fused CPU ops they run on.

pub mod attention;
mod conv;
pub mod distributions;
mod ema;
pub mod export;
mod gru;
pub mod init;
mod mlp;
mod noisy;
pub mod ops;
mod optim;
mod torso;
pub mod transformer;

pub use conv::{Conv2d, ConvTranspose2d, GroupNorm, Linear};
pub use ema::{ema, warmed_up};
pub use gru::{CompiledGru, Gru};
pub use init::{orthogonal, uniform};
pub use mlp::{CompiledMlp, Mlp};
pub use noisy::{Noise, NoisyMlp};
pub use ops::Activation;
pub use optim::{Adam, AdamConfig};
pub use torso::{CompiledTorso, InputShape, Network, Torso};
