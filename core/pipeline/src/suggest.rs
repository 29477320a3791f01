//! "Did you mean": the known word that is nearest to what was written. Called wherever a name is looked up.

/// Bytes. A longer word is nobody's slip of the finger, and to count its differences takes time and memory of its length times that of each candidate.
const LONGEST: usize = 400;

/// The candidate that differs from `name` in the fewest letters, if that is about a third of them at most, or that is the same word with more behind it
/// (`last`, `last_value`). Case does not count.
pub(crate) fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase();
    let length = name.chars().count();
    let rank = |candidate: &'a str| {
        let other = candidate.to_lowercase();
        if is_word_of(&name, &other, &['_', '.', '-']) || is_word_of(&other, &name, &['.']) {
            return Some((1, candidate));
        }
        // Never all letters: x is no y.
        let allowed = (length / 3).max(1).min(length.max(other.chars().count()).saturating_sub(1));
        if other.len() > LONGEST {
            return None;
        }
        let distance = strsim::damerau_levenshtein(&name, &other);
        (distance <= allowed).then_some((distance, candidate))
    };
    candidates.into_iter().filter_map(rank).min().map(|(_, best)| best)
}

fn is_word_of(word: &str, text: &str, separators: &[char]) -> bool {
    word.len() >= 3 && text.strip_prefix(word).is_some_and(|rest| rest.starts_with(separators))
}

/// The end of a message about an unknown word: the nearest one, or else all of them.
pub(crate) fn or_list<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> String {
    match closest(name, candidates.clone()) {
        Some(best) => format!(", did you mean {best:?}?"),
        None => {
            let all: Vec<&str> = candidates.into_iter().collect();
            if all.is_empty() { format!("; there are no other {what}") } else { format!("; {what}: {}", all.join(", ")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant_unless_it_is_too_far() {
        for (name, candidates, meant) in [
            ("pth", &["path", "format"][..], Some("path")),
            ("Path", &["path", "format"], Some("path")),
            ("fromat", &["path", "format"], Some("format")),
            ("usr", &["user", "other"], Some("user")),
            ("x", &["path", "y"], None),
            ("ts", &["n", "at"], None),
            ("path", &["with"], None),
            ("last", &["least", "last_value"], Some("last_value")),
            ("first", &["first_value_of_all", "first_value"], Some("first_value")),
            ("bootstrap.servers", &["bootstrap", "topic"], Some("bootstrap")),
            ("row_number", &["row"], None),
            ("", &["a"], None),
        ] {
            assert_eq!(closest(name, candidates.iter().copied()), meant, "{name}");
        }
    }

    #[test]
    fn without_a_near_word_all_are_listed() {
        assert_eq!(or_list("pth", ["path"], "keys"), ", did you mean \"path\"?");
        assert_eq!(or_list("zzzz", ["path", "ids"], "keys"), "; keys: path, ids");
        assert_eq!(or_list("zzzz", [], "columns"), "; there are no other columns");
    }
}
