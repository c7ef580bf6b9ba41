//! Fused CPU ops with their own backward, behind plain functions: on any other device the stock Burn ops run.
//!
//! Burn's `flex` backend evaluates `tanh` and its relatives in a scalar loop and pays for every small op and its graph
//! node; one op over a whole network with vectorised activations takes a fraction of the time. Both paths compute the
//! same function; the tests compare values and gradients.

mod attention;
mod conv2d;
mod conv_transpose2d;
mod cross_entropy;
mod direct;
mod embedding;
mod gelu;
mod group_norm;
pub mod gru;
mod host_op;
pub(crate) mod kernel;
mod layer_norm;
mod linear;
mod losses;
mod mlp;
pub mod policy_loss;
mod rotary;
mod softmax;
mod spatial_attention;
#[cfg(test)]
mod testing;
mod upsample;
mod window;

pub use attention::{AttentionMask, attention, attention_weights};
pub use conv_transpose2d::conv_transpose2d;
pub use conv2d::conv2d;
pub use cross_entropy::{IGNORE, cross_entropy};
pub use embedding::embedding;
pub use gelu::gelu;
pub use group_norm::group_norm;
pub(crate) use host_op::host;
pub use kernel::Activation;
pub use layer_norm::layer_norm;
pub(crate) use layer_norm::layer_norm_rows;
pub use linear::linear;
pub use losses::{bernoulli_nll, squared_error};
pub(crate) use mlp::stock_activation;
pub use mlp::{Layer, linear_act, mlp};
pub use rotary::rotary;
pub use softmax::softmax;
pub use spatial_attention::spatial_attention;
pub use upsample::upsample_nearest;
