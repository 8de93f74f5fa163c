//! livelet's commands other than serving.

pub mod install;
pub mod probe;
