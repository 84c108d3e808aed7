//! Did you mean?

/// The candidate that `word` was most likely meant to be: at most a third of its letters differ (two swapped letters
/// count once), whatever the case; else one that it begins with, or that begins with it. Of equals, the first.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let all: Vec<&str> = candidates.into_iter().collect();
    let mut best = None;
    for candidate in all.iter().copied() {
        let distance = strsim::osa_distance(&word, &candidate.to_lowercase());
        let allowed = (word.chars().count().max(candidate.chars().count()) / 3).max(1);
        // One-letter words are all alike.
        let alike = distance == 0 || (distance <= allowed && word.chars().count() > 1);
        if alike && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate).or_else(|| {
        let begins = |a: &str, b: &str| b.len() > 2 && a.starts_with(b);
        all.into_iter().find(|candidate| begins(&word, candidate) || begins(candidate, &word))
    })
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_misspelled_words_and_leaves_others_alone() {
        let words = ["hidden_size", "ffn_hidden_size", "num_layers", "by", "K"];
        assert_eq!(nearest("hiden_size", words), Some("hidden_size"));
        assert_eq!(nearest("ffn_hidden", words), Some("ffn_hidden_size"));
        assert_eq!(nearest("yb", words), Some("by"));
        assert_eq!(nearest("k", words), Some("K"));
        assert_eq!(nearest("hidden", words), Some("hidden_size"));
        assert_eq!(nearest("num_layers_kept", words), Some("num_layers"));
        assert_eq!(nearest("mamba_num_heads", words), None);
        assert_eq!(nearest("x", words), None);
        assert_eq!(nearest("", words), None);
    }
}
