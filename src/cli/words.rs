//! Splits the words of a command line into options and values (POSIX utility syntax, with long
//! options).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::vec::IntoIter;

use super::error::UsageError;

const NO_VALUE: &str = "takes no value";

/// Words of a command line that are not parsed yet.
#[derive(Debug)]
pub(super) struct Words {
    words: IntoIter<OsString>,
    /// Rest of the word that contains the last parsed option. After a long option the rest is `=`
    /// and a value. After the letter of a short option the rest is more letters or a value. `None`
    /// if the word has no unparsed rest.
    attached: Option<Vec<u8>>,
}

/// Option or value on a command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Option with its dashes: `--listen` or `-l`.
    Option(String),
    /// Word that is not an option.
    Value(OsString),
}

impl Words {
    /// Creates a parser of `words`.
    pub(super) fn new(words: Vec<OsString>) -> Words {
        Words {
            words: words.into_iter(),
            attached: None,
        }
    }

    /// Removes the next word and returns it, even if it looks like an option. Returns `None` if no
    /// word is left.
    pub(super) fn next_word(&mut self) -> Option<OsString> {
        self.words.next()
    }

    /// Returns the next word without removing it. Returns an empty word if no word is left, or if a
    /// part of the previous word is not parsed yet.
    pub(super) fn peek(&self) -> &OsStr {
        let next = self.words.as_slice().first();
        next.filter(|_| self.attached.is_none())
            .map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// Removes all remaining words and returns them.
    pub(super) fn remaining(&mut self) -> Vec<OsString> {
        self.words.by_ref().collect()
    }

    /// Removes the next option or value and returns it. Returns `None` if no word is left.
    pub(super) fn next_part(&mut self) -> Option<Part> {
        if let Some(letters) = self.attached.take() {
            return Some(self.letter(&letters));
        }
        let word = self.words.next()?;
        Some(match word.as_bytes() {
            [b'-', b'-', _, ..] => {
                let bytes = word.as_bytes();
                let end = bytes.iter().position(|&b| b == b'=');
                let (name, attached) = bytes.split_at(end.unwrap_or(bytes.len()));
                self.attached = end.map(|_| attached.to_vec());
                Part::Option(String::from_utf8_lossy(name).into_owned())
            }
            [b'-', letters @ ..] if !letters.is_empty() && word != "--" => self.letter(letters),
            _ => Part::Value(word),
        })
    }

    /// Returns the first of `letters`, the bytes that follow one dash in a word, as a short option.
    /// Keeps the other letters as further options or as a value. If the first byte is not ASCII,
    /// all of `letters` are one option.
    fn letter(&mut self, letters: &[u8]) -> Part {
        let ascii = letters.first().is_some_and(u8::is_ascii);
        let (letter, rest) = letters.split_at(if ascii { 1 } else { letters.len() });
        self.attached = Some(rest.to_vec()).filter(|rest| !rest.is_empty());
        Part::Option(["-", &*String::from_utf8_lossy(letter)].concat())
    }

    /// Removes the value of the last parsed option and returns it. Returns an empty value if the
    /// value is missing. A word that looks like an option is not taken as a value.
    pub(super) fn value(&mut self) -> OsString {
        if let Some(mut value) = self.attached.take() {
            if value.first() == Some(&b'=') {
                value.remove(0);
            }
            return OsString::from_vec(value);
        }
        match self.peek().as_bytes() {
            [b'-', b'-' | b'a'..=b'z' | b'A'..=b'Z', ..] => OsString::new(),
            _ => self.words.next().unwrap_or_default(),
        }
    }

    /// Checks that the last parsed option, which takes no value, is not followed by `=` and a
    /// value. `option` is the name of that option, for the error message.
    ///
    /// # Errors
    /// Returns an error if `=` and a value follow the option.
    pub(super) fn no_value(&mut self, option: &str) -> Result<(), UsageError> {
        match &self.attached {
            Some(value) if value.first() == Some(&b'=') => {
                let value = self.value();
                Err(UsageError::of_value(option, &value, NO_VALUE))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words::new(text.split(' ').map(OsString::from).collect())
    }

    fn option(name: &str) -> Option<Part> {
        Some(Part::Option(name.to_string()))
    }

    #[test]
    fn values_are_attached_or_the_next_word() {
        for text in [
            "--listen 9090",
            "--listen=9090",
            "-l 9090",
            "-l9090",
            "-l=9090",
        ] {
            let mut words = words(text);
            let expected = if text.starts_with("--") {
                "--listen"
            } else {
                "-l"
            };
            assert_eq!(words.next_part(), option(expected), "{text}");
            assert_eq!(words.value(), "9090", "{text}");
            assert_eq!(words.next_part(), None, "{text}");
        }
        for text in ["--listen", "--listen=", "--listen --", "--listen -v", "-l"] {
            let mut words = words(text);
            assert!(words.next_part().is_some());
            assert_eq!(words.value(), "", "{text}");
        }
        let mut words = words("--max -1");
        assert_eq!(words.next_part(), option("--max"));
        assert_eq!(words.value(), "-1");
    }

    #[test]
    fn parses_several_letters_in_one_word() {
        let mut words = words("-qvl9090 - -- x");
        assert_eq!(words.next_part(), option("-q"));
        assert!(words.no_value("-q").is_ok());
        assert_eq!(words.peek(), "");
        assert_eq!(words.next_part(), option("-v"));
        assert_eq!(words.next_part(), option("-l"));
        assert_eq!(words.value(), "9090");
        assert_eq!(words.next_part(), Some(Part::Value("-".into())));
        assert_eq!(words.peek(), "--");
        assert_eq!(words.next_part(), Some(Part::Value("--".into())));
        assert_eq!(words.remaining(), ["x"]);
    }

    #[test]
    fn refuses_a_value_after_a_switch() {
        let mut words = words("--quiet=1 -q=");
        assert_eq!(words.next_part(), option("--quiet"));
        assert!(words.no_value("--quiet").is_err());
        assert_eq!(words.next_part(), option("-q"));
        assert!(words.no_value("-q").is_err());
        assert_eq!(words.next_part(), None);
    }
}
