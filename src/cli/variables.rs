//! Environment variables: each sets an option that the command line does not give.

use std::ffi::{OsStr, OsString};

use super::error::UsageError;
use super::near::misspelt;
use super::options::{FLAGS, Id, LOG_VARIABLE};
use super::values::set;
use crate::config::Config;
use crate::log::Level;

const LOG: &str = "not a log level; accepted: quiet or verbose";
const WORDS: &str = "a quote that is not closed; accepted: words as in a shell";
const UNKNOWN: &str = "unknown variable, which has no effect; see livelet --help";

/// Function that takes the name of an environment variable and returns its value. The function
/// returns `None` if the variable is not set.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Stores the values of livelet's environment variables in `config`. Ignores the variables of the
/// options in `given`, because the command line has set these options. `variable` returns the value
/// of an environment variable. An empty variable counts as unset.
///
/// # Errors
/// Returns an error about the first variable that can't be used. If the variable has several
/// values, the error names the wrong value.
pub(super) fn apply(
    config: &mut Config,
    given: &[Id],
    variable: Variable<'_>,
) -> Result<(), UsageError> {
    let get = |name: &str| variable(name).filter(|value| !value.is_empty());
    for flag in FLAGS.iter().filter(|flag| !given.contains(&flag.id)) {
        let Some((name, value)) = flag.variable.and_then(|name| Some((name, get(name)?))) else {
            continue;
        };
        let text = value.to_str().filter(|_| flag.is_repeatable());
        let refused = |value: &OsStr, reason| UsageError::of_value(name, value, reason);
        let words: Vec<OsString> = match text.map(shlex::split) {
            Some(Some(words)) => words.into_iter().map(OsString::from).collect(),
            Some(None) => return Err(refused(&value, WORDS)),
            None => vec![value],
        };
        for (index, word) in words.iter().enumerate() {
            set(config, flag.id, word, index == 0, variable)
                .map_err(|reason| refused(word, reason))?;
        }
    }
    if !given.contains(&Id::Quiet) && !given.contains(&Id::Verbose) {
        if let Some(value) = get(LOG_VARIABLE) {
            config.log = match value.to_str() {
                Some("quiet") => Level::Quiet,
                Some("verbose") => Level::Verbose,
                _ => return Err(UsageError::of_value(LOG_VARIABLE, &value, LOG)),
            };
        }
    }
    Ok(())
}

/// Returns a warning if the environment variable `name` begins with `LIVELET_` but is unknown to
/// livelet. Returns `None` if livelet knows the variable, or if Kubernetes sets it for a Service
/// whose name begins with `livelet`.
#[must_use]
pub fn unknown(name: &OsStr) -> Option<UsageError> {
    let name = name.to_str().filter(|name| name.starts_with("LIVELET_"))?;
    let variables = FLAGS.iter().filter_map(|flag| flag.variable);
    let known: Vec<&str> = variables.chain([LOG_VARIABLE]).collect();
    let mut parts = name.split('_');
    let is_of_a_service = parts.any(|part| ["SERVICE", "PORT"].contains(&part));
    if known.contains(&name) || is_of_a_service {
        return None;
    }
    let near = misspelt(name, &known).map(String::from);
    Some(UsageError::unknown(name, near, UNKNOWN))
}
