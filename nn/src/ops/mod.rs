//! Fused CPU ops with their own backward, behind plain functions: on any other device the stock Burn ops run.
//!
//! Burn's `flex` backend evaluates `tanh` and its relatives in a scalar loop and pays for every small op and its graph
//! node; one op over a whole network with vectorised activations takes a fraction of the time. Both paths compute the
//! same function; the tests compare values and gradients.

mod host_op;
pub(crate) mod kernel;
mod mlp;

pub(crate) use host_op::host;
pub use kernel::Activation;
pub use mlp::{Layer, linear_act, mlp};
