//! The commands of livelet beside serving.

pub mod install;
pub mod probe;
