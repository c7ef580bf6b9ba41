//! Every model of the registry: train, save, load, go on equals going on without a stop, bit for bit.
//!
//! A model is trained for a few steps from a config of its own in `configs/`, on a little data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::prelude::Device;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::ConfigDocument;
use hotfire_core::task::Task;
use hotfire_generative::{MODELS, ModelSetting, ModelTask};

const STEPS: u64 = 4;
/// In the first half a VQ-VAE trains its autoencoder, in the second its prior.
const STOPS: [u64; 2] = [1, 3];

/// The configs of each model, by the model's name; the first one of models of text, whose kinds `text_models` goes through.
fn configs() -> BTreeMap<String, Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir("configs").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        if let Some(name) = table.get("model").and_then(|model| model.get("name")).and_then(|name| name.as_str()) {
            let of_text = table.get("data").is_some_and(|data| data.get("files").is_some());
            let paths = found.entry(name.to_owned()).or_default();
            if paths.is_empty() || !of_text {
                paths.push(path);
            }
        }
    }
    found
}

/// The config's model on a few pictures, in small batches.
fn make(config: &Path) -> ModelTask {
    let table: toml::Table = fs::read_to_string(config).unwrap().parse().unwrap();
    let data = table.get("data").and_then(|data| data.get("name")).and_then(|name| name.as_str()).unwrap_or("");
    let mut overrides = Vec::new();
    match data {
        "mnist" | "fashion-mnist" => overrides.extend(["data.train_limit=64", "data.test_limit=32"]),
        "shapes" => overrides.extend(["data.train_count=64", "data.test_count=32"]),
        _ => {}
    }
    let overrides: Vec<String> = overrides.into_iter().map(str::to_owned).collect();
    let mut document = ConfigDocument::load(config, &overrides).unwrap();
    let device = Device::flex();
    let setting = ModelSetting { seed: 3, device: &device, total_steps: STEPS, epochs: 0, batch_size: 8 };
    ModelTask::from_config(&mut document, &setting).unwrap_or_else(|error| panic!("{}: {error}", config.display()))
}

fn train(task: &mut dyn Task, steps: u64) {
    while task.step() < steps {
        let metrics = task.iterate().unwrap();
        assert_eq!(metrics.first_non_finite(), None);
    }
}

/// Saves and returns the files of the checkpoint with their bytes.
fn save(task: &dyn Task, dir: &Path) -> (PathBuf, Vec<(String, Vec<u8>)>) {
    let mut writer = CheckpointWriter::create(dir, task.step()).unwrap();
    task.save(&mut writer).unwrap();
    let path = writer.commit().unwrap();
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|file| (file.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&file).unwrap()))
        .collect();
    files.sort();
    (path, files)
}

#[test]
fn going_on_from_a_checkpoint_changes_no_bit() {
    // Configs name data relative to the project's folder.
    std::env::set_current_dir("..").unwrap();
    let configs = configs();
    for spec in MODELS {
        assert!(configs.contains_key(spec.name), "{}: no config in configs/ trains it", spec.name);
    }
    for config in configs.values().flatten() {
        let name = config.display();
        let dir = tempfile::tempdir().unwrap();
        let [whole_dir, resumed_dir] = ["whole", "resumed"].map(|name| dir.path().join(name));
        let mut whole = make(config);
        let checkpoints = STOPS.map(|stop| {
            train(whole.model.as_mut(), stop);
            save(whole.model.as_ref(), &whole_dir)
        });
        train(whole.model.as_mut(), STEPS);
        let (_, end) = save(whole.model.as_ref(), &whole_dir);
        for ((checkpoint, start), stop) in checkpoints.into_iter().zip(STOPS) {
            assert!(start != end, "{name}: training changes nothing");
            let mut resumed = make(config);
            resumed.model.load(&CheckpointReader::open(checkpoint).unwrap()).unwrap();
            assert_eq!(resumed.model.step(), stop, "{name}");
            train(resumed.model.as_mut(), STEPS);
            let (_, resumed_end) = save(resumed.model.as_ref(), &resumed_dir.join(stop.to_string()));
            for ((file, bytes), (other, other_bytes)) in end.iter().zip(&resumed_end) {
                assert_eq!(file, other, "{name}");
                assert!(bytes == other_bytes, "{name}: {file} differs after a resume at step {stop}");
            }
        }
    }
}
