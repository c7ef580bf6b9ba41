//! Diffusion models and rectified flow: noise that a network learns to turn into data, step by step.
//!
//! One model for three processes ([`schedule`]), five targets ([`targets`]) and four samplers ([`samplers`]), on pictures
//! with a U-Net or on points with an MLP. Training (Ho et al. 2020, arXiv:2006.11239, algorithm 1) draws a noise level for
//! each picture, adds noise and regresses the network's output on its target; samples are drawn with an exponential
//! moving average of the weights. For the chain and the straight line, noise levels of a batch are spread evenly over their
//! range by one common shift (Kingma et al. 2021, arXiv:2107.00630), which lowers the variance of the loss; EDM draws each
//! by itself.

mod config;
mod model;
mod network;
mod pictures;
pub mod samplers;
mod sampling;
pub mod schedule;
pub mod targets;
mod unet;

pub use config::{DiffusionConfig, ProcessName};
pub use model::{Diffusion, SPEC};
pub use network::{MlpDenoiser, Network};
pub use sampling::{SamplerName, Sampling};
pub use unet::{UNet, UNetConfig};
