//! "Did you mean": the known word that is nearest to what was written. Called wherever a name is looked up.

/// The candidate that differs from `name` in the fewest letters, if that is about a third of them at most. Case does not count.
pub(crate) fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let allowed = name.chars().count().max(3) / 3 + 1;
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    let (distance, best) = candidates.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    (distance <= allowed).then_some(best)
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
        assert_eq!(closest("pth", ["path", "format"]), Some("path"));
        assert_eq!(closest("Path", ["path", "format"]), Some("path"));
        assert_eq!(closest("fromat", ["path", "format"]), Some("format"));
        assert_eq!(closest("x", ["path", "format"]), None);
    }

    #[test]
    fn without_a_near_word_all_are_listed() {
        assert_eq!(or_list("pth", ["path"], "keys"), ", did you mean \"path\"?");
        assert_eq!(or_list("zzzz", ["path", "ids"], "keys"), "; keys: path, ids");
        assert_eq!(or_list("zzzz", [], "columns"), "; there are no other columns");
    }
}
