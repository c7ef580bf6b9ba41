//! Texts on disk, split into training and validation, as token numbers.

use std::path::{Path, PathBuf};

use hotfire_core::config::{ConfigDocument, ConfigError};
use serde::{Deserialize, Serialize};

use super::tokenizer::{Tokenizer, TokenizerKind, TokenizerSetting};
use crate::GenerativeError;

/// The `[data]` section of models of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// Text files in UTF-8, one after another.
    pub files: Vec<PathBuf>,
    /// How the text is cut into tokens: `char`, `word`, `bpe` or `wordpiece`.
    pub tokenizer: TokenizerKind,
    /// A `tokenizer.json` or `vocab.txt` to use instead of learning one from the training text.
    pub tokenizer_file: Option<PathBuf>,
    /// Number of tokens that `bpe` and `wordpiece` learn.
    pub vocab_size: usize,
    /// Words of a `word` dictionary that are rarer stand as unknown.
    pub min_count: u64,
    /// Whether `word` brings words to lower case.
    pub lowercase: bool,
    /// Share of the text, at its end, that is kept for validation; 0 for none.
    pub validation: f64,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            tokenizer: TokenizerKind::Char,
            tokenizer_file: None,
            vocab_size: 2048,
            min_count: 1,
            lowercase: false,
            validation: 0.1,
        }
    }
}

impl TextConfig {
    /// Reads and checks the `[data]` section.
    ///
    /// # Errors
    /// For values out of range.
    pub fn from_document(document: &mut ConfigDocument) -> Result<Self, ConfigError> {
        Self::over(Self::default(), document)
    }

    /// Reads and checks the `[data]` section of a model whose tokens are word pieces, also without being told.
    ///
    /// # Errors
    /// As [`from_document`](Self::from_document), and for another tokenizer.
    pub fn of_word_pieces(document: &mut ConfigDocument) -> Result<Self, ConfigError> {
        let config = Self::over(Self { tokenizer: TokenizerKind::Wordpiece, ..Self::default() }, document)?;
        if config.tokenizer != TokenizerKind::Wordpiece {
            return Err(document.out_of_range("data.tokenizer", "\"wordpiece\"", format!("{:?}", config.tokenizer)));
        }
        Ok(config)
    }

    fn over(preset: Self, document: &mut ConfigDocument) -> Result<Self, ConfigError> {
        let config: Self = document.section_over("data", &preset)?;
        if config.files.is_empty() {
            return Err(document.out_of_range("data.files", "one text file or more", "none"));
        }
        if !(0.0..1.0).contains(&config.validation) {
            return Err(document.out_of_range("data.validation", "a share from 0 to below 1", config.validation));
        }
        if config.vocab_size < 8 {
            return Err(document.out_of_range("data.vocab_size", "at least 8", config.vocab_size));
        }
        if config.min_count == 0 {
            return Err(document.out_of_range("data.min_count", "at least 1", config.min_count));
        }
        Ok(config)
    }

    /// How the tokenizer is learned.
    pub fn setting(&self) -> TokenizerSetting {
        TokenizerSetting {
            kind: self.tokenizer,
            vocab_size: self.vocab_size,
            min_count: self.min_count,
            lowercase: self.lowercase,
        }
    }
}

/// One part of a corpus.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
}

/// A text with its tokenizer, split into a part to train on and one to validate on.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The beginning of the text.
    pub train: Split,
    /// The rest; empty where nothing is kept for validation.
    pub validation: Split,
}

impl Corpus {
    /// Reads the files and makes or loads the tokenizer.
    ///
    /// # Errors
    /// If a file can't be read, is empty or is not UTF-8, or the tokenizer can't be had.
    pub fn read(config: &TextConfig) -> Result<Self, GenerativeError> {
        let texts: Vec<String> = config.files.iter().map(|path| read_text(path)).collect::<Result<_, _>>()?;
        // Each file gives its share to the validation text.
        let parts: Vec<(&str, &str)> =
            texts.iter().map(|text| split(text, config.validation, config.tokenizer)).collect();
        let train = parts.iter().map(|part| part.0).collect::<Vec<_>>().join("\n");
        let validation = parts.iter().map(|part| part.1).collect::<Vec<_>>().join("\n");
        let validation = if config.validation == 0.0 { String::new() } else { validation };
        let tokenizer = match &config.tokenizer_file {
            Some(path) => Tokenizer::load(path)?,
            None => {
                // A dictionary of characters has no unknown one, so it takes in those of the validation text too.
                let source = if config.tokenizer == TokenizerKind::Char { &texts.join("\n") } else { &train };
                Tokenizer::train(&config.setting(), source)
                    .map_err(|problem| GenerativeError::unusable(&config.files[0], problem))?
            }
        };
        Self::new(tokenizer, &train, &validation)
            .map_err(|problem| GenerativeError::unusable(&config.files[0], problem))
    }

    fn new(tokenizer: Tokenizer, train: &str, validation: &str) -> Result<Self, String> {
        let part = |text: &str| Ok::<_, String>(Split { ids: tokenizer.encode(text)?, text: text.to_owned() });
        Ok(Self { train: part(train)?, validation: part(validation)?, tokenizer })
    }

    /// The same text with another tokenizer.
    ///
    /// # Errors
    /// If the text has characters that the tokenizer doesn't know.
    pub fn retokenized(&self, tokenizer: Tokenizer) -> Result<Self, String> {
        Self::new(tokenizer, &self.train.text, &self.validation.text)
    }

    /// The part that a model is measured on, and the prefix of its metrics.
    pub fn measured(&self) -> (&'static str, &Split) {
        if self.validation.ids.is_empty() { ("train", &self.train) } else { ("val", &self.validation) }
    }
}

/// The beginning of the text and the rest, cut between lines unless the tokens are characters.
fn split(text: &str, validation: f64, kind: TokenizerKind) -> (&str, &str) {
    if validation == 0.0 {
        return (text, "");
    }
    let characters = text.chars().count();
    let first = (characters as f64 * (1.0 - validation)) as usize;
    let mut cut = text.char_indices().nth(first).map_or(text.len(), |(at, _)| at);
    if kind != TokenizerKind::Char {
        cut = text[cut..].find('\n').map_or(cut, |line| cut + line + 1);
    }
    text.split_at(cut)
}

/// A text file.
///
/// # Errors
/// If it can't be read, is empty, or is not UTF-8; the message has the offset.
pub fn read_text(path: &Path) -> Result<String, GenerativeError> {
    let bytes = std::fs::read(path).map_err(GenerativeError::io(path, "read"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        GenerativeError::Malformed {
            path: path.to_path_buf(),
            offset,
            expected: "text in UTF-8".into(),
            found: format!("byte 0x{:02x}", error.as_bytes()[offset]),
        }
    })?;
    if text.trim().is_empty() {
        return Err(GenerativeError::unusable(path, "expected a text, found an empty file"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_files_are_named_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let problem = |path: &Path| read_text(path).unwrap_err().to_string();
        assert!(problem(&file("empty.txt", b" \n")).ends_with("empty.txt: expected a text, found an empty file"));
        assert!(
            problem(&file("latin1.txt", b"caf\xe9 au lait"))
                .ends_with("latin1.txt: byte 3: expected text in UTF-8, found byte 0xe9")
        );
        assert!(problem(&dir.path().join("none.txt")).contains("none.txt: cannot read"));
    }

    #[test]
    fn the_usual_split_of_tiny_shakespeare() {
        let config = TextConfig { files: vec!["../data/text/tinyshakespeare.txt".into()], ..TextConfig::default() };
        let corpus = Corpus::read(&config).unwrap();
        assert_eq!(corpus.tokenizer.vocab_size(), 65);
        assert_eq!((corpus.train.ids.len(), corpus.validation.ids.len()), (1_003_854, 111_540));
    }

    #[test]
    fn words_are_split_between_lines() {
        let text = "one two\nthree four\nfive six\n";
        assert_eq!(split(text, 0.5, TokenizerKind::Word), ("one two\nthree four\n", "five six\n"));
        assert_eq!(split(text, 0.0, TokenizerKind::Word), (text, ""));
    }
}
