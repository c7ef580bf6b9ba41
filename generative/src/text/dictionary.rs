//! A dictionary: tokens and their numbers, in a fixed order.

use std::collections::{BTreeMap, HashMap};

/// Tokens in order: first the special ones, then the others sorted by their characters. A token's number is its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    tokens: Vec<String>,
    /// How often each token was met; zero for special ones.
    counts: Vec<u64>,
    special: usize,
    ids: HashMap<String, u32>,
}

impl Dictionary {
    /// The tokens of a text that occur `min_count` times or more, after the special ones.
    pub fn build<'a>(words: impl IntoIterator<Item = &'a str>, special: &[&str], min_count: u64) -> Self {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for word in words {
            *counts.entry(word).or_default() += 1;
        }
        let frequent = counts.into_iter().filter(|(word, count)| *count >= min_count && !special.contains(word));
        let frequent = frequent.map(|(word, count)| (word.to_owned(), count));
        let all = special.iter().map(|token| ((*token).to_owned(), 0)).chain(frequent);
        let (tokens, counts) = all.unzip();
        Self::from_parts(tokens, counts, special.len()).expect("a map has each token once")
    }

    /// A dictionary from its parts, as they were saved.
    ///
    /// # Errors
    /// If a token is there twice, or the numbers of tokens and counts differ.
    pub fn from_parts(tokens: Vec<String>, counts: Vec<u64>, special: usize) -> Result<Self, String> {
        if counts.len() != tokens.len() || special > tokens.len() {
            return Err(format!("expected a count for each of {} tokens, found {}", tokens.len(), counts.len()));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if ids.insert(token.clone(), id as u32).is_some() {
                return Err(format!("expected each token once, found {token:?} twice"));
            }
        }
        Ok(Self { tokens, counts, special, ids })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The number of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The token of a number.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// All tokens in order.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// How often each token was met.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Number of special tokens, which come first.
    pub fn special(&self) -> usize {
        self.special
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_come_first_and_rare_words_are_left_out() {
        let words = ["the", "cat", "the", "dog", "cat", "the"];
        let dictionary = Dictionary::build(words, &["<unk>"], 2);
        assert_eq!(dictionary.tokens(), ["<unk>", "cat", "the"]);
        assert_eq!(dictionary.counts(), [0, 2, 3]);
        assert_eq!((dictionary.id("the"), dictionary.id("dog")), (Some(2), None));
        assert_eq!((dictionary.token(1), dictionary.token(3)), (Some("cat"), None));
        assert!(Dictionary::from_parts(vec!["a".into(), "a".into()], vec![1, 1], 0).unwrap_err().contains("twice"));
    }
}
