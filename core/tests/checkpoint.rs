//! A checkpoint is whole or refused: damage anywhere in it is noticed before anything is used.

use std::fs;
use std::path::{Path, PathBuf};

use hotfire_core::checkpoint::{self, CheckpointReader, CheckpointWriter};
use proptest::prelude::*;

fn write(checkpoints: &Path, step: u64) -> PathBuf {
    let mut writer = CheckpointWriter::create(checkpoints, step).unwrap();
    writer.bytes("replay.bin", &[7; 1000]).unwrap();
    writer.json("state.json", &vec![0.1f64, 1e300, -0.0]).unwrap();
    writer.arrays("moments.safetensors", &[("first", &[0.1, f32::NAN]), ("second", &[2.0])]).unwrap();
    writer.commit().unwrap()
}

fn problem(path: &Path) -> String {
    let error = CheckpointReader::open(path).expect_err("the checkpoint is damaged");
    assert_eq!(error.exit_code(), 1);
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message:?} is more than a line");
    message.replace(&path.display().to_string(), "CHECKPOINT")
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), 1234);
    assert_eq!(path, dir.path().join("1234"));
    let reader = CheckpointReader::open(&path).unwrap();
    assert_eq!(reader.step(), 1234);
    assert_eq!(reader.bytes("replay.bin").unwrap(), [7; 1000]);
    let state: Vec<f64> = reader.json("state.json").unwrap();
    assert_eq!(state.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), [0.1f64, 1e300, -0.0].map(f64::to_bits));
    let arrays = reader.arrays("moments.safetensors").unwrap();
    assert_eq!(arrays["first"][0], 0.1);
    assert!(arrays["first"][1].is_nan());
    let error = reader.bytes("absent").unwrap_err().to_string();
    assert_eq!(error, format!("{}: is not a part of this checkpoint", path.join("absent").display()));
    assert!(reader.json::<u32>("state.json").is_err());
}

#[test]
fn equal_content_gives_equal_bytes() {
    let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (left, right) = (write(left.path(), 5), write(right.path(), 5));
    for entry in fs::read_dir(&left).unwrap() {
        let name = entry.unwrap().file_name();
        assert_eq!(fs::read(left.join(&name)).unwrap(), fs::read(right.join(&name)).unwrap(), "{name:?}");
    }
}

#[test]
fn truncation_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), 1);
    let file = path.join("replay.bin");
    fs::write(&file, &fs::read(&file).unwrap()[..999]).unwrap();
    assert_eq!(problem(&path), "CHECKPOINT/replay.bin: truncated: expected 1000 bytes, found 999");
    fs::write(&file, [7; 1001]).unwrap();
    assert_eq!(problem(&path), "CHECKPOINT/replay.bin: too long: expected 1000 bytes, found 1001");
    fs::remove_file(&file).unwrap();
    assert_eq!(problem(&path), "CHECKPOINT/replay.bin: missing");
}

#[test]
fn every_flipped_bit_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), 1);
    for name in ["replay.bin", "state.json", "moments.safetensors", "meta.json"] {
        let file = path.join(name);
        let sound = fs::read(&file).unwrap();
        for at in 0..sound.len() {
            let mut flipped = sound.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&file, flipped).unwrap();
            let problem = problem(&path);
            assert!(problem.starts_with(&format!("CHECKPOINT/{name}: ")), "byte {at} of {name}: {problem}");
        }
        for length in [0, 1, sound.len() / 2, sound.len() - 1] {
            fs::write(&file, &sound[..length]).unwrap();
            problem(&path);
        }
        fs::write(&file, sound).unwrap();
        CheckpointReader::open(&path).unwrap();
    }
}

#[test]
fn a_bad_meta_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), 1);
    let meta = path.join("meta.json");
    let sound = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, "{").unwrap();
    assert!(problem(&path).starts_with("CHECKPOINT/meta.json: malformed: EOF"), "{}", problem(&path));
    fs::write(&meta, sound.replace("\"format_version\": 1", "\"format_version\": 99")).unwrap();
    assert_eq!(problem(&path), "CHECKPOINT/meta.json: format version 99 is not supported, expected 1");
    fs::write(&meta, sound.replace("\"step\": 1", "\"step\": 2")).unwrap();
    assert_eq!(problem(&path), "CHECKPOINT/meta.json: checksum mismatch: the file was changed after it was written");
    fs::remove_file(&meta).unwrap();
    assert_eq!(problem(&path), "CHECKPOINT/meta.json: missing");
    fs::write(&meta, sound).unwrap();
    let moved = dir.path().join("2");
    fs::rename(&path, &moved).unwrap();
    assert_eq!(problem(&moved), "CHECKPOINT/meta.json: is of step 1, not of the step that its directory names");
    assert_eq!(CheckpointReader::open(dir.path().join("3")).unwrap_err().exit_code(), 2);
}

#[test]
fn meta_holds_no_clock_and_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let meta = fs::read_to_string(write(dir.path(), 1).join("meta.json")).unwrap();
    let meta: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&meta).unwrap();
    let keys: Vec<&str> = meta.keys().map(String::as_str).collect();
    assert_eq!(keys, ["format_version", "hotfire_version", "step", "files", "crc32c"]);
}

#[test]
fn an_unfinished_write_is_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1);
    let mut writer = CheckpointWriter::create(dir.path(), 2).unwrap();
    writer.bytes("replay.bin", b"half").unwrap();
    drop(writer);
    assert_eq!(checkpoint::list(dir.path()).unwrap(), [1]);
    checkpoint::clean(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // The same step can be written again after a crash.
    drop(CheckpointWriter::create(dir.path(), 2).unwrap());
    write(dir.path(), 2);
    assert!(CheckpointWriter::create(dir.path(), 2).unwrap_err().to_string().ends_with("/2: exists already"));
}

#[test]
fn pruning_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    for step in [900, 1000, 99, 10_000] {
        write(dir.path(), step);
    }
    fs::create_dir(dir.path().join("007")).unwrap();
    checkpoint::prune(dir.path(), 2).unwrap();
    assert_eq!(checkpoint::list(dir.path()).unwrap(), [1000, 10_000]);
    assert_eq!(checkpoint::open_latest(dir.path()).unwrap().unwrap().step(), 10_000);
    assert!(checkpoint::open_latest(&dir.path().join("absent")).unwrap().is_none());
}

#[test]
fn a_damaged_newest_checkpoint_names_the_sound_one_before() {
    let dir = tempfile::tempdir().unwrap();
    for step in [1, 2, 3] {
        write(dir.path(), step);
    }
    assert_eq!(checkpoint::open_latest(dir.path()).unwrap().unwrap().step(), 3);
    for step in ["2", "3"] {
        fs::remove_file(dir.path().join(step).join("replay.bin")).unwrap();
    }
    let dir_name = dir.path().display();
    assert_eq!(
        checkpoint::open_latest(dir.path()).unwrap_err().to_string(),
        format!("{dir_name}/3/replay.bin: missing; {dir_name}/1 is sound; remove {dir_name}/3 to go on from there")
    );
    fs::remove_file(dir.path().join("1/meta.json")).unwrap();
    let error = checkpoint::open_latest(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("missing; no older checkpoint is sound"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_content_survives(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        arrays in proptest::collection::btree_map("[a-z]{1,8}", proptest::collection::vec(any::<f32>(), 0..50), 0..5),
        step in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = CheckpointWriter::create(dir.path(), step).unwrap();
        writer.bytes("bytes", &bytes).unwrap();
        let views: Vec<(&str, &[f32])> = arrays.iter().map(|(name, values)| (name.as_str(), values.as_slice())).collect();
        writer.arrays("arrays", &views).unwrap();
        let reader = CheckpointReader::open(writer.commit().unwrap()).unwrap();
        prop_assert_eq!(reader.step(), step);
        prop_assert_eq!(reader.bytes("bytes").unwrap(), bytes);
        let bits = |arrays: &std::collections::BTreeMap<String, Vec<f32>>| -> Vec<(String, Vec<u32>)> {
            arrays.iter().map(|(name, values)| (name.clone(), values.iter().map(|x| x.to_bits()).collect())).collect()
        };
        prop_assert_eq!(bits(&reader.arrays("arrays").unwrap()), bits(&arrays));
    }
}
