//! `hotfire embed` and `hotfire similar`: sentences as vectors.

use std::path::Path;
use std::time::Instant;

use hotfire_core::CoreError;
use hotfire_core::device::select_device;
use hotfire_generative::embedder::{Embedder, rank};
use hotfire_generative::huggingface::Pretrained;
use hotfire_generative::text::read_text;
use serde_json::json;

use crate::cli::{EmbedArgs, SimilarArgs};
use crate::train::{RunTask, load_run};

/// Sentences that are computed together.
const BATCH: usize = 32;

pub fn embed(args: &EmbedArgs) -> anyhow::Result<()> {
    let embedder = embedder(&args.model, args.device.as_deref())?;
    let lines = lines(&args.input)?;
    let started = Instant::now();
    let embeddings = embedder.embed(&lines, BATCH).map_err(CoreError::Usage)?;
    if args.time {
        let rate = lines.len() as f64 / started.elapsed().as_secs_f64().max(1e-9);
        println!("sentences_per_second={rate:.1}");
        return Ok(());
    }
    for (text, embedding) in lines.iter().zip(&embeddings) {
        if args.json {
            println!("{}", json!({"text": text, "ids": embedding.ids, "embedding": embedding.vector}));
        } else {
            let first: Vec<String> = embedding.vector.iter().take(4).map(|v| format!("{v:+.4}")).collect();
            println!("{text}\n  {:?}\n  {} ... ({} numbers)", embedding.ids, first.join(" "), embedding.vector.len());
        }
    }
    Ok(())
}

pub fn similar(args: &SimilarArgs) -> anyhow::Result<()> {
    let embedder = embedder(&args.model, args.device.as_deref())?;
    let lines = lines(&args.file)?;
    if args.query.trim().is_empty() {
        return Err(CoreError::Usage("expected what to look for, found an empty query".into()).into());
    }
    let query = embedder.embed(&[&args.query], 1).map_err(CoreError::Usage)?.remove(0);
    let embeddings = embedder.embed(&lines, BATCH).map_err(CoreError::Usage)?;
    for (line, cosine) in rank(&query.vector, &embeddings).into_iter().take(args.count) {
        if args.json {
            println!("{}", json!({"text": lines[line], "line": line + 1, "cosine": cosine}));
        } else {
            println!("{cosine:.4}  {}", lines[line]);
        }
    }
    Ok(())
}

/// The lines of a file that are not blank.
fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    Ok(read_text(path)?.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The encoder of a run, or of a folder in Hugging Face's form.
fn embedder(path: &Path, device: Option<&str>) -> anyhow::Result<Embedder> {
    if path.join("config.toml").exists() {
        let on = device.map(|device| format!("run.device={device}"));
        let prepared = load_run(path, on.as_slice(), false)?;
        return match prepared.task {
            RunTask::Model(task) => Ok(task.model.embedder()?),
            RunTask::Agent(_) => Err(CoreError::Usage(format!("{}: holds an agent", path.display())).into()),
        };
    }
    if !path.join("config.json").exists() {
        let expected = "a run, or a folder with config.json, model.safetensors and tokenizer.json";
        return Err(CoreError::Usage(format!("--model: expected {expected}, found {}", path.display())).into());
    }
    let device = select_device(device.unwrap_or("auto"))?.device;
    Ok(Pretrained::load(path, &device)?.into_embedder(device))
}
