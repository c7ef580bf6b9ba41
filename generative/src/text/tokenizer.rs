//! Tokenizers: characters, words, byte-level BPE and WordPiece.
//!
//! Characters and words are ours. Byte-level BPE (Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>; Radford et
//! al. 2019) and WordPiece (Schuster & Nakajima 2012, as in BERT) come from the `tokenizers` crate, so that a
//! `tokenizer.json` works here and in Python alike.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Trainer,
};

use super::dictionary::Dictionary;
use crate::GenerativeError;

/// The token of a word that is not in the dictionary.
pub const UNKNOWN: &str = "<unk>";

/// The special tokens of WordPiece, in BERT's order.
pub const BERT_SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// How a text is cut into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// One token a character.
    #[default]
    Char,
    /// Words, punctuation marks and line breaks.
    Word,
    /// Byte-level byte-pair encoding.
    Bpe,
    /// WordPiece, with BERT's normalisation to lower case.
    Wordpiece,
}

/// How a tokenizer is made from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenizerSetting {
    /// The scheme.
    pub kind: TokenizerKind,
    /// Number of tokens that BPE and WordPiece aim at.
    pub vocab_size: usize,
    /// Words that are rarer stand as [`UNKNOWN`].
    pub min_count: u64,
    /// Whether words are brought to lower case.
    pub lowercase: bool,
}

/// A tokenizer with its dictionary.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// One token a character.
    Char(Dictionary),
    /// Words, punctuation marks and line breaks.
    Word {
        /// The words.
        dictionary: Dictionary,
        /// Whether text is brought to lower case first.
        lowercase: bool,
    },
    /// Byte-level BPE, WordPiece, or whatever a `tokenizer.json` describes.
    Subword {
        /// The tokenizer of the `tokenizers` crate, without padding and truncation.
        tokenizer: Box<tokenizers::Tokenizer>,
        /// The longest sequence that its file asks for, with special tokens.
        max_length: Option<usize>,
    },
}

/// Our own schemes as they are saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    #[serde(rename = "type")]
    kind: TokenizerKind,
    lowercase: bool,
    special: usize,
    tokens: Vec<String>,
    counts: Vec<u64>,
}

impl Tokenizer {
    /// Makes the dictionary of a text.
    ///
    /// # Errors
    /// A message, if the text is empty or the vocabulary can't be learned from it.
    pub fn train(setting: &TokenizerSetting, text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("expected a text to learn a dictionary from, found an empty one".into());
        }
        Ok(match setting.kind {
            TokenizerKind::Char => {
                let mut buffer = [0; 4];
                let characters: Vec<String> = text.chars().map(|c| c.encode_utf8(&mut buffer).to_owned()).collect();
                Self::Char(Dictionary::build(characters.iter().map(String::as_str), &[], 1))
            }
            TokenizerKind::Word => {
                let text = if setting.lowercase { text.to_lowercase() } else { text.to_owned() };
                let dictionary = Dictionary::build(words(&text), &[UNKNOWN], setting.min_count);
                Self::Word { dictionary, lowercase: setting.lowercase }
            }
            TokenizerKind::Bpe => subword(train_bpe(setting.vocab_size, text).map_err(text_of)?),
            TokenizerKind::Wordpiece => subword(train_wordpiece(setting.vocab_size, text).map_err(text_of)?),
        })
    }

    /// Reads a `tokenizer.json`, of ours or of Hugging Face, or BERT's `vocab.txt`.
    ///
    /// # Errors
    /// If it can't be read or isn't one.
    pub fn load(path: &Path) -> Result<Self, GenerativeError> {
        let bytes = std::fs::read(path).map_err(GenerativeError::io(path, "read"))?;
        let result = if path.extension().is_some_and(|extension| extension == "txt") {
            bert_vocabulary(&bytes)
        } else {
            Self::from_json(&bytes)
        };
        result.map_err(|problem| GenerativeError::unusable(path, problem))
    }

    /// The tokenizer that [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| format!("malformed JSON: {e}"))?;
        if value.get("type").is_none() {
            return Ok(subword(tokenizers::Tokenizer::from_bytes(bytes).map_err(text_of)?));
        }
        let saved: Saved = serde_json::from_value(value).map_err(|e| format!("not a tokenizer: {e}"))?;
        let dictionary = Dictionary::from_parts(saved.tokens, saved.counts, saved.special)?;
        match saved.kind {
            TokenizerKind::Char => Ok(Self::Char(dictionary)),
            TokenizerKind::Word => Ok(Self::Word { dictionary, lowercase: saved.lowercase }),
            other => Err(format!("expected type \"char\" or \"word\", found {other:?}")),
        }
    }

    /// The whole tokenizer as JSON.
    pub fn to_json(&self) -> String {
        let (kind, dictionary, lowercase) = match self {
            Self::Subword { tokenizer, .. } => {
                return tokenizer.to_string(true).expect("a tokenizer always serializes");
            }
            Self::Char(dictionary) => (TokenizerKind::Char, dictionary, false),
            Self::Word { dictionary, lowercase } => (TokenizerKind::Word, dictionary, *lowercase),
        };
        let saved = Saved {
            kind,
            lowercase,
            special: dictionary.special(),
            tokens: dictionary.tokens().to_vec(),
            counts: dictionary.counts().to_vec(),
        };
        serde_json::to_string_pretty(&saved).expect("strings and integers always serialize") + "\n"
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Char(dictionary) | Self::Word { dictionary, .. } => dictionary.len(),
            Self::Subword { tokenizer, .. } => tokenizer.get_vocab_size(true),
        }
    }

    /// The numbers of a text's tokens; a word that is not in the dictionary has [`UNKNOWN`]'s.
    ///
    /// # Errors
    /// If a character is not in the dictionary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        match self {
            Self::Char(dictionary) => {
                let mut buffer = [0; 4];
                let number = |(offset, c): (usize, char)| {
                    dictionary.id(c.encode_utf8(&mut buffer)).ok_or_else(|| {
                        format!("byte {offset}: the character {c:?} is not in the dictionary of {}", dictionary.len())
                    })
                };
                text.char_indices().map(number).collect()
            }
            Self::Word { dictionary, lowercase } => {
                let text = if *lowercase { text.to_lowercase() } else { text.to_owned() };
                let unknown = dictionary.id(UNKNOWN);
                words(&text)
                    .map(|word| {
                        dictionary.id(word).or(unknown).ok_or_else(|| not_in_dictionary(word, dictionary.len()))
                    })
                    .collect()
            }
            Self::Subword { tokenizer, .. } => {
                Ok(tokenizer.encode_fast(text, false).map_err(text_of)?.get_ids().to_vec())
            }
        }
    }

    /// Like [`encode`](Self::encode), but a word that is not in the dictionary is an error: for what a person types.
    ///
    /// # Errors
    /// If a token is not in the dictionary; the message names it.
    pub fn encode_known(&self, text: &str) -> Result<Vec<u32>, String> {
        if let Self::Word { dictionary, lowercase } = self {
            let text = if *lowercase { text.to_lowercase() } else { text.to_owned() };
            if let Some(word) = words(&text).find(|word| dictionary.id(word).is_none()) {
                return Err(not_in_dictionary(word, dictionary.len()));
            }
        }
        self.encode(text)
    }

    /// The text of tokens. Numbers beyond the dictionary are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        match self {
            Self::Char(dictionary) => ids.iter().filter_map(|id| dictionary.token(*id)).collect(),
            Self::Word { dictionary, .. } => join_words(ids.iter().filter_map(|id| dictionary.token(*id))),
            Self::Subword { tokenizer, .. } => tokenizer.decode(ids, true).unwrap_or_default(),
        }
    }

    /// The longest sequence that the tokenizer's file asks for, with special tokens.
    pub fn max_length(&self) -> Option<usize> {
        match self {
            Self::Subword { max_length, .. } => *max_length,
            _ => None,
        }
    }

    /// The number of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Char(dictionary) | Self::Word { dictionary, .. } => dictionary.id(token),
            Self::Subword { tokenizer, .. } => tokenizer.token_to_id(token),
        }
    }

    /// The token of a number, as people read it.
    pub fn token(&self, id: u32) -> Option<String> {
        match self {
            Self::Char(dictionary) | Self::Word { dictionary, .. } => dictionary.token(id).map(str::to_owned),
            Self::Subword { tokenizer, .. } => {
                let token = tokenizer.id_to_token(id)?;
                // Byte-level BPE writes bytes as printable stand-ins; a token of whole characters is shown as those.
                let is_byte_level = matches!(tokenizer.get_model(), tokenizers::ModelWrapper::BPE(_));
                let shown = is_byte_level.then(|| tokenizer.decode(&[id], false).ok()).flatten();
                Some(shown.filter(|shown| !shown.is_empty() && !shown.contains('\u{FFFD}')).unwrap_or(token))
            }
        }
    }

    /// The dictionary of the schemes that count their tokens.
    pub fn dictionary(&self) -> Option<&Dictionary> {
        match self {
            Self::Char(dictionary) | Self::Word { dictionary, .. } => Some(dictionary),
            Self::Subword { .. } => None,
        }
    }
}

fn not_in_dictionary(word: &str, len: usize) -> String {
    format!("the word {word:?} is not in the dictionary of {len} words")
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Words (letters and digits, with apostrophes and hyphens inside), single other characters, and line breaks; other
/// blanks only separate.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() && c != '\n');
        let first = rest.chars().next()?;
        let mut end = first.len_utf8();
        if first.is_alphanumeric() {
            loop {
                let mut after = rest[end..].chars();
                match (after.next(), after.next()) {
                    (Some(c), _) if c.is_alphanumeric() => end += c.len_utf8(),
                    (Some(c @ ('\'' | '-' | '\u{2019}')), Some(next)) if next.is_alphanumeric() => end += c.len_utf8(),
                    _ => break,
                }
            }
        }
        let (word, left) = rest.split_at(end);
        rest = left;
        Some(word)
    })
}

/// Words with the spaces that English puts between them.
fn join_words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    let mut glue = true;
    for word in words {
        let closes = matches!(word, "," | "." | ";" | ":" | "!" | "?" | ")" | "]" | "}" | "\n" | "'" | "\u{2019}");
        if !glue && !closes {
            text.push(' ');
        }
        text.push_str(word);
        glue = matches!(word, "\n" | "(" | "[" | "{");
    }
    text
}

/// Batches pad their sequences themselves, and a corpus is longer than any sentence.
fn subword(mut tokenizer: tokenizers::Tokenizer) -> Tokenizer {
    let max_length = tokenizer.get_truncation().map(|truncation| truncation.max_length);
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).expect("no truncation is always possible");
    Tokenizer::Subword { tokenizer: Box::new(tokenizer), max_length }
}

fn special(tokens: &[&str]) -> Vec<AddedToken> {
    tokens.iter().map(|token| AddedToken::from(*token, true)).collect()
}

fn train_bpe(vocab_size: usize, text: &str) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
    tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), text.split_inclusive('\n'))?;
    Ok(tokenizer)
}

fn train_wordpiece(vocab_size: usize, text: &str) -> tokenizers::Result<tokenizers::Tokenizer> {
    let cut = |line: &str| -> tokenizers::Result<Vec<String>> {
        let mut normalized = NormalizedString::from(line);
        bert_normalizer().normalize(&mut normalized)?;
        let mut pieces = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut pieces)?;
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
    };
    // The crate's trainer numbers the letters inside words in the order of a hash table with a random seed, which
    // decides ties between pairs. Numbered beforehand, in their own order, they make it repeat.
    let mut inner = BTreeSet::new();
    for line in text.split_inclusive('\n') {
        for word in cut(line)? {
            inner.extend(word.chars().skip(1));
        }
    }
    let inner: Vec<String> = inner.into_iter().map(|letter| format!("##{letter}")).collect();
    let first: Vec<&str> = BERT_SPECIAL.into_iter().chain(inner.iter().map(String::as_str)).collect();
    let mut trainer =
        WordPieceTrainer::builder().vocab_size(vocab_size).show_progress(false).special_tokens(special(&first)).build();
    trainer.feed(text.split_inclusive('\n'), cut)?;
    let mut model = WordPiece::builder().unk_token("[UNK]".into()).build()?;
    trainer.train(&mut model)?;
    let mut tokenizer = bert_tokenizer(model)?;
    tokenizer.add_special_tokens(special(&BERT_SPECIAL))?;
    with_bert_processing(tokenizer)
}

fn bert_normalizer() -> BertNormalizer {
    BertNormalizer::new(true, true, None, true)
}

/// BERT's normalisation and decoding around a WordPiece model, in lower case.
fn bert_tokenizer(model: WordPiece) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(NormalizerWrapper::BertNormalizer(bert_normalizer())))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    Ok(tokenizer)
}

fn with_bert_processing(mut tokenizer: tokenizers::Tokenizer) -> tokenizers::Result<tokenizers::Tokenizer> {
    let id = |token: &str| {
        tokenizer.token_to_id(token).map(|id| (token.to_owned(), id)).ok_or_else(|| format!("no token {token}"))
    };
    let processing = BertProcessing::new(id("[SEP]")?, id("[CLS]")?);
    tokenizer.with_post_processor(Some(processing));
    Ok(tokenizer)
}

/// The tokenizer of BERT's `vocab.txt`: one token a line, its number being the line's.
fn bert_vocabulary(bytes: &[u8]) -> Result<Tokenizer, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("invalid UTF-8 at byte {}", e.valid_up_to()))?;
    for token in BERT_SPECIAL {
        if !text.lines().any(|line| line == token) {
            return Err(format!("expected a BERT vocabulary, found no line {token}"));
        }
    }
    let build = || -> tokenizers::Result<tokenizers::Tokenizer> {
        let vocabulary = WordPiece::read_bytes(bytes)?;
        let model = WordPiece::builder().vocab(vocabulary).unk_token("[UNK]".into()).build()?;
        let mut tokenizer = bert_tokenizer(model)?;
        tokenizer.add_special_tokens(special(&BERT_SPECIAL))?;
        with_bert_processing(tokenizer)
    };
    build().map(subword).map_err(text_of)
}
