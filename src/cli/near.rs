//! Finds the known name that a user probably meant with an unknown one. Pure.

/// Pairs of an option's name in other programs and the name of the corresponding option of livelet.
const SYNONYMS: [(&str, &str); 5] = [
    ("address", "listen"),
    ("bind", "listen"),
    ("g", "group"),
    ("port", "listen"),
    ("readiness", "ready"),
];

/// Returns the option in `names` that the user probably meant with `word`. All names are without
/// dashes. Tries synonyms from other programs first, then misspelt names, then names that contain
/// `word` or are contained in it. Returns `None` if no option fits.
pub(super) fn option<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == word);
    let word = synonym.map_or(word, |&(_, option)| option);
    let contains = |name: &&str| word.len() > 2 && (holds(name, word) || holds(word, name));
    misspelt(word, names).or_else(|| names.iter().copied().find(contains))
}

/// Returns `true` if `text` contains `part`. The search in std would add 3 KB to the executable.
fn holds(text: &str, part: &str) -> bool {
    let mut windows = text.as_bytes().windows(part.len().max(1));
    windows.any(|window| window == part.as_bytes())
}

/// Returns the name in `names` that is nearest to `word`: at most two edits away, or one edit if
/// `word` is shorter than 5 bytes. An edit inserts, deletes or replaces one byte. Returns `None` if
/// no name is so near.
pub(super) fn misspelt<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let most = if word.len() < 5 { 1 } else { 2 };
    let near = |edits| move |name: &&str| is_within(edits, word.as_bytes(), name.as_bytes());
    (0..=most).find_map(|edits| names.iter().copied().find(near(edits)))
}

/// Returns `true` if at most `edits` insertions, deletions and replacements of a byte turn `one`
/// into `two` (Levenshtein distance).
fn is_within(edits: usize, one: &[u8], two: &[u8]) -> bool {
    match (one, two) {
        ([a, one @ ..], [b, two @ ..]) if a == b => is_within(edits, one, two),
        ([], tail) | (tail, []) => tail.len() <= edits,
        ([_, shorter @ ..], [_, other @ ..]) => {
            edits > 0
                && (is_within(edits - 1, shorter, two)
                    || is_within(edits - 1, one, other)
                    || is_within(edits - 1, shorter, other))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (one, two, distance) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("takover", "takeover", 1),
            ("kitten", "sitting", 3),
            ("listne", "listen", 2),
            ("abab", "baba", 2),
        ] {
            for edits in 0..5 {
                let is_near = is_within(edits, one.as_bytes(), two.as_bytes());
                assert_eq!(is_near, edits >= distance, "{one} {two} {edits}");
            }
        }
    }

    #[test]
    fn finds_the_option_that_a_wrong_name_means() {
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
