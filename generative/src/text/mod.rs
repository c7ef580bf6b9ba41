//! What models of text share: corpora, tokenizers, sampling, and the training of one network.

mod attention_map;
mod corpus;
mod dictionary;
mod learner;
mod sampling;
mod sentences;
mod tokenizer;

pub use attention_map::AttentionMaps;
pub use corpus::{Corpus, Split, TextConfig, read_text};
pub use dictionary::Dictionary;
pub use learner::{Learner, OptimizerSetting, check_vocabulary, describe};
pub use sampling::{NextToken, Sampling, generate, write_sample};
pub use sentences::sentences;
pub use tokenizer::{BERT_SPECIAL, Tokenizer, TokenizerKind, TokenizerSetting, UNKNOWN, words};
