//! Tokenizers keep the text, whatever is in it, and survive being saved.

use hotfire_generative::text::{Tokenizer, TokenizerKind, TokenizerSetting, UNKNOWN, words};
use proptest::prelude::*;

fn train(kind: TokenizerKind, text: &str) -> Tokenizer {
    Tokenizer::train(&TokenizerSetting { kind, vocab_size: 400, min_count: 1, lowercase: false }, text).unwrap()
}

const TEXT: &str = "I am the very model of a modern Major-General,\nI've information vegetable, animal, and mineral,\n";

#[test]
fn a_word_dictionary_is_sorted_and_knows_its_counts() {
    let tokenizer = train(TokenizerKind::Word, TEXT);
    let dictionary = tokenizer.dictionary().unwrap();
    assert_eq!(&dictionary.tokens()[..4], [UNKNOWN, "\n", ",", "I"]);
    assert_eq!(dictionary.counts()[2], 4);
    let ids = tokenizer.encode("I am a modern vegetable, General!").unwrap();
    assert_eq!(tokenizer.decode(&ids), "I am a modern vegetable, <unk> <unk>");
    let error = tokenizer.encode_known("I am General").unwrap_err();
    assert_eq!(error, "the word \"General\" is not in the dictionary of 18 words");
    assert_eq!(tokenizer.decode(&tokenizer.encode(TEXT).unwrap()), TEXT);
}

#[test]
fn words_keep_apostrophes_and_hyphens_inside() {
    let found: Vec<&str> = words("Don't--\"Major-General's\" o' 3rd\n").collect();
    assert_eq!(found, ["Don't", "-", "-", "\"", "Major-General's", "\"", "o", "'", "3rd", "\n"]);
}

#[test]
fn wordpiece_splits_words_it_does_not_know() {
    let tokenizer = train(TokenizerKind::Wordpiece, &TEXT.repeat(3));
    let ids = tokenizer.encode("modern animalia").unwrap();
    let tokens: Vec<String> = ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect();
    assert_eq!(tokens[0], "modern");
    assert!(tokens.len() > 2 && tokens[2..].iter().all(|token| token.starts_with("##")), "{tokens:?}");
    assert_eq!(tokenizer.decode(&ids), "modern animalia");
    assert_eq!((tokenizer.id("[PAD]"), tokenizer.id("[MASK]")), (Some(0), Some(4)));
}

#[test]
fn every_scheme_can_be_saved() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [TokenizerKind::Char, TokenizerKind::Word, TokenizerKind::Bpe, TokenizerKind::Wordpiece] {
        let tokenizer = train(kind, TEXT);
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, tokenizer.to_json()).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!(loaded.encode(TEXT).unwrap(), tokenizer.encode(TEXT).unwrap(), "{kind:?}");
        assert_eq!((loaded.vocab_size(), loaded.to_json()), (tokenizer.vocab_size(), tokenizer.to_json()));
        // The same text gives the same tokenizer.
        assert_eq!(train(kind, TEXT).to_json(), tokenizer.to_json(), "{kind:?}");
    }
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let problem = |json: &str| Tokenizer::from_json(json.as_bytes()).unwrap_err();
    assert!(problem("{").starts_with("malformed JSON"));
    assert!(problem(r#"{"type": "char"}"#).starts_with("not a tokenizer: missing field"));
    let twice = r#"{"type": "char", "lowercase": false, "special": 0, "tokens": ["a", "a"], "counts": [1, 1]}"#;
    assert!(problem(twice).contains("twice"));
    let empty = TokenizerSetting { kind: TokenizerKind::Bpe, vocab_size: 300, min_count: 1, lowercase: false };
    assert!(Tokenizer::train(&empty, " \n").unwrap_err().contains("empty"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn characters_come_back(text in "\\PC{1,40}\n?") {
        prop_assume!(!text.trim().is_empty());
        let tokenizer = train(TokenizerKind::Char, &text);
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(ids.len(), text.chars().count());
        prop_assert_eq!(tokenizer.decode(&ids), text);
    }

    #[test]
    fn byte_pairs_bring_any_text_back(text in any::<String>()) {
        // One tokenizer, learned from English, for texts of all scripts.
        thread_local!(static BPE: Tokenizer = train(TokenizerKind::Bpe, TEXT));
        let decoded = BPE.with(|bpe| bpe.decode(&bpe.encode(&text).unwrap()));
        prop_assert_eq!(decoded, text);
    }

    #[test]
    fn single_spaced_words_come_back(list in prop::collection::vec("[\\p{L}\\p{Nd}]{1,8}([-'][\\p{L}\\p{Nd}]{1,4})?", 1..12)) {
        let text = list.join(" ");
        let tokenizer = train(TokenizerKind::Word, &text);
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(ids.len(), list.len());
        prop_assert_eq!(tokenizer.decode(&ids), text);
    }

    /// What a word tokenizer writes, it reads as the same tokens.
    #[test]
    fn decoded_words_are_read_as_they_were(text in "([a-z]{1,5}|[,.!?()]|\n| ){1,30}") {
        prop_assume!(!text.trim().is_empty());
        let tokenizer = train(TokenizerKind::Word, &text);
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.encode(&tokenizer.decode(&ids)).unwrap(), ids);
    }
}
