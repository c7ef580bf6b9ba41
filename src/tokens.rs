//! `hotfire tokens`: a text as tokens and numbers.

use std::path::Path;

use anyhow::Context;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::open_latest;
use hotfire_core::run_dir::RunDir;
use hotfire_generative::text::{Tokenizer, TokenizerKind, TokenizerSetting, read_text};
use serde_json::json;

use crate::cli::TokensArgs;

/// Tokens of a dictionary that are shown without `--json`.
const SHOWN: usize = 40;

pub fn tokens(args: &TokensArgs) -> anyhow::Result<()> {
    let tokenizer = tokenizer(args)?;
    let ids = tokenizer.encode(&args.text).map_err(CoreError::Usage)?;
    let name = |id: u32| tokenizer.token(id).unwrap_or_default();
    let decoded = tokenizer.decode(&ids);
    if let Some(path) = &args.save {
        std::fs::write(path, tokenizer.to_json()).map_err(CoreError::io(path, "write"))?;
    }
    if args.json {
        let tokens: Vec<String> = ids.iter().map(|id| name(*id)).collect();
        println!(
            "{}",
            json!({"text": args.text, "tokens": tokens, "ids": ids, "decoded": decoded,
                "vocab_size": tokenizer.vocab_size()})
        );
        return Ok(());
    }
    let shown = |token: String| token.replace('\n', "\\n").replace(' ', "\u{2423}");
    let cells: Vec<(String, String)> = ids.iter().map(|id| (shown(name(*id)), id.to_string())).collect();
    for row in rows(&cells, 100) {
        let line = |pick: fn(&(String, String)) -> &String| {
            let padded = row.iter().map(|cell| {
                let width = cell.0.chars().count().max(cell.1.len());
                format!("{:>width$}", pick(cell))
            });
            padded.collect::<Vec<_>>().join("  ")
        };
        println!("{}\n{}\n", line(|cell| &cell.0), line(|cell| &cell.1));
    }
    println!("{} tokens; decoded: {decoded}", ids.len());
    println!("dictionary of {} tokens:", tokenizer.vocab_size());
    for id in 0..tokenizer.vocab_size().min(SHOWN) as u32 {
        let count = tokenizer.dictionary().and_then(|d| d.counts().get(id as usize)).filter(|count| **count > 0);
        println!("{id:>6}  {}{}", shown(name(id)), count.map_or(String::new(), |count| format!("  ({count}x)")));
    }
    if tokenizer.vocab_size() > SHOWN {
        println!("   ... and {} more", tokenizer.vocab_size() - SHOWN);
    }
    if let Some(path) = &args.save {
        println!("saved as {}", path.display());
    }
    Ok(())
}

/// Cells side by side in rows of at most `width` characters.
fn rows(cells: &[(String, String)], width: usize) -> Vec<&[(String, String)]> {
    let mut rows = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (i, cell) in cells.iter().enumerate() {
        let cell = cell.0.chars().count().max(cell.1.len()) + 2;
        if used + cell > width && i > start {
            rows.push(&cells[start..i]);
            (start, used) = (i, 0);
        }
        used += cell;
    }
    if start < cells.len() {
        rows.push(&cells[start..]);
    }
    rows
}

/// A scheme learned from the training files (or the text itself), or the tokenizer of a file, folder or run.
fn tokenizer(args: &TokensArgs) -> anyhow::Result<Tokenizer> {
    let kind = match args.tokenizer.as_str() {
        "char" => TokenizerKind::Char,
        "word" => TokenizerKind::Word,
        "bpe" => TokenizerKind::Bpe,
        "wordpiece" => TokenizerKind::Wordpiece,
        path => return saved(Path::new(path)),
    };
    let text = if args.train.is_empty() {
        args.text.clone()
    } else {
        args.train.iter().map(|path| read_text(path)).collect::<Result<Vec<_>, _>>()?.join("\n")
    };
    let setting =
        TokenizerSetting { kind, vocab_size: args.vocab_size, min_count: args.min_count, lowercase: args.lowercase };
    Ok(Tokenizer::train(&setting, &text).map_err(CoreError::Usage)?)
}

fn saved(path: &Path) -> anyhow::Result<Tokenizer> {
    if path.join("config.toml").exists() {
        let checkpoint = open_latest(&RunDir::open(path)?.checkpoints())?
            .ok_or_else(|| CoreError::Usage(format!("{}: has no checkpoint yet", path.display())))?;
        if !checkpoint.contains("tokenizer.json") {
            return Err(CoreError::Usage(format!("{}: is not the run of a model of text", path.display())).into());
        }
        return Ok(Tokenizer::load(&checkpoint.path().join("tokenizer.json"))?);
    }
    let found = [path.to_path_buf(), path.join("tokenizer.json"), path.join("vocab.txt")]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            let expected = "char, word, bpe, wordpiece, a tokenizer.json, or a folder or run with one";
            CoreError::Usage(format!("--tokenizer: expected {expected}, found {}", path.display()))
        })?;
    Tokenizer::load(&found).context("--tokenizer")
}
