//! Cutting a text into tokens, characters of the text a second.

use std::hint::black_box;

use hotfire_generative::text::{Tokenizer, TokenizerKind, TokenizerSetting};

use crate::models::sentences;
use crate::{Prepared, Workload};

/// Encoding and decoding with every kind.
pub fn workloads() -> Vec<Workload> {
    let kinds = [
        ("char", TokenizerKind::Char),
        ("word", TokenizerKind::Word),
        ("bpe", TokenizerKind::Bpe),
        ("wordpiece", TokenizerKind::Wordpiece),
    ];
    let both = |(name, kind)| {
        let made = move || {
            let text = sentences(0, 500);
            let setting = TokenizerSetting { kind, vocab_size: 1000, min_count: 1, lowercase: false };
            Tokenizer::train(&setting, &text).map(|tokenizer| (tokenizer, text))
        };
        let encode = move || {
            let (tokenizer, text) = made()?;
            tokenizer.encode(&text)?;
            Ok(Prepared::new(text.len(), move || {
                black_box(tokenizer.encode(&text).expect("it was encoded before"));
            }))
        };
        let decode = move || {
            let (tokenizer, text) = made()?;
            let ids = tokenizer.encode(&text)?;
            Ok(Prepared::new(text.len(), move || _ = black_box(tokenizer.decode(&ids))))
        };
        [
            Workload::new("tokenizer", format!("{name}, encode"), "characters", encode),
            Workload::new("tokenizer", format!("{name}, decode"), "characters", decode),
        ]
        .map(Workload::serial)
    };
    kinds.into_iter().flat_map(both).collect()
}
