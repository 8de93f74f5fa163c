//! The error of a command line that can't be used.

use std::ffi::OsString;
use std::fmt;

/// A flag, variable or value that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError {
    /// The flag or variable, as the user wrote it.
    pub(super) culprit: String,
    /// The value it had, if that is what is wrong.
    pub(super) value: Option<OsString>,
    /// What is accepted.
    pub(super) accepted: &'static str,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.culprit)?;
        if let Some(value) = &self.value {
            write!(f, "\"{}\": ", value.to_string_lossy())?;
        }
        f.write_str(self.accepted)
    }
}

impl std::error::Error for UsageError {}

const UNEXPECTED: &str = "unexpected argument; a command goes after --; see --help";

pub(super) fn wrong(culprit: String, value: OsString, accepted: &'static str) -> UsageError {
    UsageError {
        culprit,
        value: Some(value),
        accepted,
    }
}

pub(super) fn unexpected(culprit: String) -> UsageError {
    UsageError {
        culprit,
        value: None,
        accepted: UNEXPECTED,
    }
}

pub(super) fn from_lexopt(error: lexopt::Error) -> UsageError {
    match error {
        lexopt::Error::MissingValue { option } => UsageError {
            culprit: option.unwrap_or_default(),
            value: None,
            accepted: "needs a value; see --help",
        },
        lexopt::Error::UnexpectedValue { option, value } => {
            wrong(option, value, "takes no value; see --help")
        }
        lexopt::Error::UnexpectedOption(option) => unexpected(option),
        // Nothing here has it parse a value, or asks for UTF-8.
        _ => unexpected("argument".to_string()),
    }
}

pub(super) fn unexpected_end(command: &str, accepted: &'static str) -> UsageError {
    UsageError {
        culprit: command.to_string(),
        value: None,
        accepted,
    }
}
