//! Near misses of names. Pure.

/// Names by which other programs have what an option does, and the option.
const SYNONYMS: [(&str, &str); 5] = [
    ("address", "listen"),
    ("bind", "listen"),
    ("g", "group"),
    ("port", "listen"),
    ("readiness", "ready"),
];

/// Returns the option that was probably meant by `word`: a synonym, a misspelt name, or one name that contains the other.
pub(super) fn option<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let word = &word.to_ascii_lowercase();
    let synonym = SYNONYMS.iter().find(|(other, _)| other == word);
    let named = names
        .iter()
        .find(|&&name| synonym.is_some_and(|&(_, option)| option == name));
    let contains = |name: &&&str| word.len() > 2 && (name.contains(word) || word.contains(**name));
    named
        .copied()
        .or_else(|| misspelt(word, names))
        .or_else(|| names.iter().find(contains).copied())
}

/// Returns the name that is at most two edits away from `word`, or one edit if `word` is short.
pub(super) fn misspelt<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let most = if word.len() < 5 { 1 } else { 2 };
    let distances = names.iter().map(|name| (distance(word, name), *name));
    let (least, name) = distances.min_by_key(|&(distance, _)| distance)?;
    (least <= most && word.len() > 1).then_some(name)
}

/// Returns the least number of bytes to insert, delete or replace (Levenshtein distance).
fn distance(one: &str, two: &str) -> usize {
    // Distances of the beginning of `one` to each beginning of `two` but the empty one.
    let mut row: Vec<usize> = (1..=two.len()).collect();
    for (index, byte) in one.bytes().enumerate() {
        let (mut diagonal, mut left) = (index, index + 1);
        for (cell, other) in row.iter_mut().zip(two.bytes()) {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(one.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (one, two, expected) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("takover", "takeover", 1),
            ("kitten", "sitting", 3),
            ("listne", "listen", 2),
        ] {
            assert_eq!(distance(one, two), expected, "{one} {two}");
        }
    }

    #[test]
    fn the_option_that_was_meant_is_found() {
        let names = [
            "listen",
            "live",
            "path",
            "group",
            "check-timeout",
            "takeover",
        ];
        for (word, expected) in [
            ("takover", Some("takeover")),
            ("Listen", Some("listen")),
            ("port", Some("listen")),
            ("timeout", Some("check-timeout")),
            ("liveness", Some("live")),
            ("g", Some("group")),
            ("nope", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(option(word, &names), expected, "{word}");
        }
    }
}
