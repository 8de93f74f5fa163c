//! Error type for a command line or a variable that can't be used.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// Error about a flag, an environment variable or a value that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError {
    /// Flag, environment variable or other word that the error message begins with, because the
    /// error is about it.
    culprit: String,
    /// Wrong value of the flag, variable or subcommand `culprit`. `None` if `culprit` itself is
    /// wrong, or if its value is missing.
    value: Option<OsString>,
    /// Description of the problem, then the values that are accepted.
    reason: Cow<'static, str>,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.culprit)?;
        if let Some(value) = &self.value {
            write!(f, "\"{}\": ", value.to_string_lossy())?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for UsageError {}

impl UsageError {
    /// Creates an error about `culprit`, a flag, variable or word that can't be used whatever its
    /// value is. `reason` describes the problem, then what is accepted.
    pub(super) fn new(culprit: &str, reason: &'static str) -> UsageError {
        UsageError {
            culprit: culprit.to_string(),
            value: None,
            reason: Cow::Borrowed(reason),
        }
    }

    /// Creates an error about `value`, which the flag, variable or subcommand `culprit` does not
    /// accept. An empty value counts as missing. `reason` describes the problem; after its
    /// semicolon it says what is accepted.
    pub(super) fn of_value(culprit: &str, value: &OsStr, reason: &'static str) -> UsageError {
        let mut error = UsageError::new(culprit, reason);
        if !value.is_empty() {
            error.value = Some(value.to_os_string());
        } else if let Some((_, accepted)) = reason.split_once(';') {
            error.reason = Cow::Owned(["needs a value;", accepted].concat());
        }
        error
    }

    /// Creates an error about `culprit`, a word or name that livelet does not know. `reason`
    /// describes the problem; after its semicolon it gives advice. If `near` is the known name that
    /// the user probably meant, the message suggests `near` in place of that advice.
    pub(super) fn unknown(culprit: &str, near: Option<String>, reason: &'static str) -> UsageError {
        let mut error = UsageError::new(culprit, reason);
        if let Some(near) = near {
            let kind = reason.split(';').next().unwrap_or_default();
            error.reason = Cow::Owned([kind, "; did you mean ", &near, "?"].concat());
        }
        error
    }
}
