//! Every model of text resumes bit for bit, learns a little, and refuses what it can't use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::prelude::Device;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_generative::{ModelSetting, ModelTask, SampleRequest};

const SONG: &str = "../data/text/major_generals_song.txt";
const PRIDE: &str = "../data/text/pride_and_prejudice.txt";

/// A small model: its `[model]` and `[data]` sections.
fn config(model: &str, data: &str) -> String {
    format!("[model]\n{model}\n[data]\n{data}\n")
}

/// Sequences of a batch of a small model.
const SMALL: u64 = 3;

fn make(text: &str, total_steps: u64, batch_size: u64) -> Result<ModelTask, ConfigError> {
    let mut document = ConfigDocument::parse("test.toml", text, &[])?;
    let setting = ModelSetting { seed: 3, device: &Device::flex(), total_steps, epochs: 0, batch_size };
    let task = ModelTask::from_config(&mut document, &setting)?;
    document.finish()?;
    Ok(task)
}

fn song(tokenizer: &str) -> String {
    format!("files = [\"{SONG}\"]\ntokenizer = \"{tokenizer}\"\nvocab_size = 400\nvalidation = 0.2")
}

fn small_models() -> Vec<(&'static str, String)> {
    let transformer = "layers = 2\nheads = 2\nwidth = 16\ndropout = 0.1\nwarmup = 2";
    let recurrent = "layers = 2\nwidth = 12\nunroll = 5\ndropout = 0.1\nwarmup = 2";
    vec![
        ("gpt over characters", config(&format!("name = \"gpt\"\nblock = 8\n{transformer}"), &song("char"))),
        (
            "rotary gpt over words",
            config(
                &format!("name = \"gpt\"\nblock = 8\npositions = \"rotary\"\nbias = true\n{transformer}"),
                &song("word"),
            ),
        ),
        ("gpt over byte pairs", config(&format!("name = \"gpt\"\nblock = 8\n{transformer}"), &song("bpe"))),
        ("rnn", config(&format!("name = \"rnn\"\ncell = \"rnn\"\n{recurrent}"), &song("char"))),
        ("lstm", config(&format!("name = \"rnn\"\ncell = \"lstm\"\n{recurrent}"), &song("char"))),
        ("gru", config(&format!("name = \"rnn\"\ncell = \"gru\"\n{recurrent}"), &song("char"))),
        (
            "bert",
            config(
                &format!("name = \"bert\"\nblock = 32\neval_batches = 2\n{transformer}"),
                &song("wordpiece").replace("0.2", "0.4"),
            ),
        ),
        (
            "classifier",
            config(
                "name = \"bert-classifier\"\nmax_tokens = 16\nwarmup = 2",
                &format!("files = [\"{SONG}\", \"{SONG}\"]\nvocab_size = 400\nvalidation = 0.2"),
            ),
        ),
    ]
}

/// The files of a checkpoint.
fn save(task: &ModelTask, dir: &Path) -> (PathBuf, BTreeMap<String, Vec<u8>>) {
    let mut writer = CheckpointWriter::create(dir, task.model.step()).unwrap();
    task.model.save(&mut writer).unwrap();
    let path = writer.commit().unwrap();
    let files = std::fs::read_dir(&path).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    let files = files.collect();
    (path, files)
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    for (name, config) in small_models() {
        let dir = tempfile::tempdir().unwrap();
        let mut straight = make(&config, 6, SMALL).unwrap();
        let mut first = make(&config, 6, SMALL).unwrap();
        for _ in 0..3 {
            straight.model.iterate().unwrap();
            first.model.iterate().unwrap();
        }
        // Measuring leaves the training as it was.
        first.model.evaluate(1).unwrap();
        let (path, _) = save(&first, &dir.path().join("half"));
        let mut resumed = make(&config, 6, SMALL).unwrap();
        resumed.model.load(&CheckpointReader::open(path).unwrap()).unwrap();
        assert_eq!(resumed.model.step(), 3, "{name}");
        for _ in 0..3 {
            let (a, b) = (straight.model.iterate().unwrap(), resumed.model.iterate().unwrap());
            assert_eq!(a, b, "{name}");
        }
        let (a, b) = (straight.model.evaluate(1).unwrap(), resumed.model.evaluate(1).unwrap());
        assert_eq!(a, b, "{name}");
        assert!(a.metrics.first_non_finite().is_none() && !a.metrics.is_empty(), "{name}");
        let (a, b) = (save(&straight, &dir.path().join("a")).1, save(&resumed, &dir.path().join("b")).1);
        assert!(a == b, "{name}: checkpoints differ");
        assert!(a.contains_key("tokenizer.json"), "{name}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    // Large enough that every op is cut into blocks.
    let config = config(
        "name = \"gpt\"\nlayers = 2\nheads = 4\nwidth = 128\nblock = 64\nwarmup = 2",
        &format!("files = [\"{PRIDE}\"]\ntokenizer = \"char\""),
    );
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut task = make(&config, 4, 12).unwrap();
            (0..3).map(|_| task.model.iterate().unwrap()).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(1), run(4));
}

fn sample(task: &mut ModelTask, prompt: &str, options: &[(&str, &str)]) -> Result<String, CoreError> {
    let mut text = String::new();
    let mut take = |more: &str| text.push_str(more);
    task.model.sample(&mut SampleRequest {
        count: None,
        out: None,
        seed: 5,
        prompt: Some(prompt.into()),
        options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        text: &mut take,
    })?;
    Ok(text)
}

#[test]
fn a_song_is_learned_by_heart() {
    let config = config(
        "name = \"gpt\"\nlayers = 2\nheads = 2\nwidth = 64\nblock = 24\npositions = \"rotary\"\n\
         learning_rate = 5e-3\nmin_learning_rate = 5e-4\nwarmup = 10",
        &format!("files = [\"{SONG}\"]\ntokenizer = \"word\"\nvalidation = 0.0"),
    );
    let mut task = make(&config, 120, 16).unwrap();
    for _ in 0..120 {
        task.model.iterate().unwrap();
    }
    let metrics = task.model.evaluate(1).unwrap().metrics;
    assert!(metrics.get("train_loss").unwrap() < 1.0, "{metrics}");
    assert!(metrics.get("val_loss").is_none(), "nothing was kept for validation");
    let text = sample(&mut task, "I am the very model of a modern", &[("temperature", "0"), ("tokens", "6")]).unwrap();
    assert!(text.starts_with("I am the very model of a modern Major-General"), "{text}");
    let maps = task.model.attention("I understand equations, both the simple and quadratical").unwrap();
    assert_eq!((maps.layers.len(), maps.layers[0].len(), maps.layers[0][0].len()), (2, 2, 81));
    assert_eq!(maps.tokens[2], "equations");
    // A word that it never read is looked at as the unknown one.
    let maps = task.model.attention("I understand equations both the simple and quadratic").unwrap();
    assert_eq!(maps.tokens[7], "quadratic");
}

#[test]
fn samples_repeat_with_their_seed_and_follow_their_options() {
    for (name, config) in small_models().into_iter().take(6) {
        let mut task = make(&config, 6, SMALL).unwrap();
        let mut text = |options| sample(&mut task, "modern", options).unwrap();
        let first = text(&[("tokens", "30")]);
        assert_eq!(first, text(&[("tokens", "30")]), "{name}");
        assert!(first.starts_with("modern"), "{name}: {first}");
        assert_ne!(first, text(&[("tokens", "30"), ("temperature", "0")]), "{name}");
    }
}

#[test]
fn a_mask_is_filled_in() {
    let (_, config) = small_models().into_iter().find(|(name, _)| *name == "bert").unwrap();
    let mut task = make(&config, 6, SMALL).unwrap();
    let text = sample(&mut task, "I am the very [MASK] of a modern [MASK]", &[("best", "3")]).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "a line for each mask and the text: {text}");
    assert_eq!(lines[0].split(", ").count(), 3);
    assert!(lines[2].starts_with("i am the very"), "{text}");
    assert!(sample(&mut task, "I am", &[]).unwrap_err().to_string().contains("[MASK]"));
    let embeddings = task.model.embedder().unwrap().embed(&["a modern model", "the king"], 2).unwrap();
    assert_eq!(embeddings[0].vector.len(), 16);
}

#[test]
fn mistakes_are_named() {
    let problem = |model: &str, data: &str| make(&config(model, data), 5, SMALL).err().unwrap().to_string();
    let gpt = "name = \"gpt\"";
    assert!(problem(gpt, "").contains("data.files: expected one text file or more, found none"));
    assert!(problem(gpt, "files = [\"nowhere.txt\"]").contains("nowhere.txt: cannot read"));
    let message = problem(gpt, "file = [\"a.txt\"]");
    assert!(message.contains("data.file: unknown key; did you mean data.files?"), "{message}");
    let message = problem("name = \"gpt\"\nheads = 3", &song("char"));
    assert!(message.contains("model.width: expected a multiple of 3 for 3 heads, found 128"), "{message}");
    let message = problem("name = \"gpt\"\nblock = 5000", &song("word"));
    assert!(message.contains("more than 5000 tokens (model.block) of training text"), "{message}");
    let message = problem("name = \"bert\"", &song("char"));
    assert!(message.contains("data.tokenizer: expected \"wordpiece\""), "{message}");
    let message = problem("name = \"bert-classifier\"", &song("wordpiece"));
    assert!(message.contains("two files or more"), "{message}");
    let message = problem("name = \"bert-classifier\"", &song("bpe"));
    assert!(message.contains("data.tokenizer: expected \"wordpiece\", found Bpe"), "{message}");
    let two = format!("files = [\"{SONG}\", \"{SONG}\"]\ntokenizer_file = \"nowhere.json\"");
    let message = problem("name = \"bert-classifier\"", &two);
    assert!(message.contains("data.tokenizer_file") && message.contains("nowhere.json: cannot read"), "{message}");
    let message = problem("name = \"bert-classifier\"\npretrained = \"runs/bert\"", &two);
    assert!(message.contains("data.tokenizer_file: stands beside model.pretrained"), "{message}");

    let mut task = make(&small_models()[0].1, 6, SMALL).unwrap();
    let message = sample(&mut task, "modern model", &[]).unwrap_err().to_string();
    assert_eq!(message, "--prompt: expected at most 8 tokens (the model's block), found 12");
    assert!(sample(&mut task, "aßa", &[]).unwrap_err().to_string().contains("'ß' is not in the dictionary"));
}

/// The words of a checkpoint keep their numbers, whatever became of the text that they were learned from.
#[test]
fn a_classifier_keeps_its_tokenizer_when_its_text_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let changing = dir.path().join("pride.txt");
    let config = config(
        "name = \"bert-classifier\"\nmax_tokens = 16\nwarmup = 2",
        &format!("files = [{changing:?}, \"{SONG}\"]\nvocab_size = 100\nvalidation = 0.2"),
    );
    let text = std::fs::read_to_string(PRIDE).unwrap();
    let piece = |i: usize| text.chars().skip(20_000 * i).take(20_000).collect::<String>();
    std::fs::write(&changing, piece(0)).unwrap();
    let mut task = make(&config, 6, SMALL).unwrap();
    task.model.iterate().unwrap();
    let (path, files) = save(&task, &dir.path().join("checkpoints"));
    std::fs::write(&changing, piece(1)).unwrap();
    let mut resumed = make(&config, 6, SMALL).unwrap();
    let (_, others) = save(&resumed, &dir.path().join("others"));
    assert_ne!(files["tokenizer.json"], others["tokenizer.json"], "the text makes another dictionary");
    resumed.model.load(&CheckpointReader::open(path).unwrap()).unwrap();
    let prompt = "I am the very model of a modern Major-General.";
    assert_eq!(sample(&mut task, prompt, &[]).unwrap(), sample(&mut resumed, prompt, &[]).unwrap());
    let (_, again) = save(&resumed, &dir.path().join("again"));
    assert_eq!(files["tokenizer.json"], again["tokenizer.json"]);
    resumed.model.iterate().unwrap();
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let models = small_models();
    let dir = tempfile::tempdir().unwrap();
    let mut task = make(&models[0].1, 6, SMALL).unwrap();
    task.model.iterate().unwrap();
    let (path, _) = save(&task, dir.path());
    let mut wide = make(&models[0].1.replace("width = 16", "width = 32"), 6, SMALL).unwrap();
    let error = wide.model.load(&CheckpointReader::open(&path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("network.safetensors"), "{error}");
    assert_eq!(wide.model.step(), 0, "a refused checkpoint leaves the model as it was");
    let mut words = make(&models[1].1, 6, SMALL).unwrap();
    assert!(words.model.load(&CheckpointReader::open(&path).unwrap()).is_err());
}
