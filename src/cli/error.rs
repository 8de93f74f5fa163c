//! The error of a command line that can't be used.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// A flag, variable or value that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError {
    /// The flag, variable or word, as the user wrote it.
    culprit: String,
    /// The value that is wrong, if the culprit has one.
    value: Option<OsString>,
    /// Problem, and the values that are accepted.
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
    /// Returns the error of a flag, variable or word that can't be used as such.
    pub(super) fn new(culprit: &str, reason: &'static str) -> UsageError {
        UsageError {
            culprit: culprit.to_string(),
            value: None,
            reason: Cow::Borrowed(reason),
        }
    }

    /// Returns the error of a value. An empty value counts as missing.
    pub(super) fn of_value(culprit: &str, value: &OsStr, reason: &'static str) -> UsageError {
        let mut error = UsageError::new(culprit, reason);
        if !value.is_empty() {
            error.value = Some(value.to_os_string());
        } else if let Some((_, accepted)) = reason.split_once(';') {
            error.reason = Cow::Owned(["needs a value;", accepted].concat());
        }
        error
    }

    /// Returns the error of a word that is misspelt or unknown.
    pub(super) fn unknown(culprit: &str, near: Option<String>, reason: &'static str) -> UsageError {
        let mut error = UsageError::new(culprit, reason);
        if let Some(near) = near {
            let kind = reason.split(';').next().unwrap_or_default();
            error.reason = Cow::Owned([kind, "; did you mean ", &near, "?"].concat());
        }
        error
    }
}
