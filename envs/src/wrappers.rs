//! Wrappers: environments around an environment.

mod time_limit;

pub use time_limit::TimeLimit;
