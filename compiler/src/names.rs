//! Names that were nearly right.

/// The candidate that `word` was most likely meant to be; none where nothing is near.
/// Ties go to the earlier candidate.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 1 + word.chars().count() / 4;
    let distance = |c: &str| strsim::osa_distance(&word.to_lowercase(), &c.to_lowercase());
    let near = candidates.into_iter().map(|c| (distance(c), c)).filter(|(d, _)| *d <= allowed);
    near.min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_the_nearest_name_and_leaves_strangers_alone() {
        let names = ["sequence", "batch", "tokens"];
        assert_eq!(nearest("sequnce", names), Some("sequence"));
        assert_eq!(nearest("Token", names), Some("tokens"));
        assert_eq!(nearest("hidden_size", names), None);
    }
}
