//! Action distributions: on tensors for learning, on host rows for acting.

pub mod categorical;
pub mod gaussian;
pub mod squashed;
