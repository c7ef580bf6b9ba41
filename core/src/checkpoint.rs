//! Checkpoints: directories that are complete or not there, and whose every bit is checked before use.
//!
//! A checkpoint is written to `checkpoints/.tmp-STEP`; each file is synced, `meta.json` comes last with the length and
//! CRC-32C of each file, and a rename makes it `checkpoints/STEP`. Nothing in it depends on the clock, the process or
//! the machine: equal runs give equal bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::module::Module;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::CoreError;
use crate::run_dir::{sync_dir, write_synced};
use crate::tensors;

/// The version of the checkpoint format, checked when a checkpoint is opened.
pub const FORMAT_VERSION: u32 = 1;

const META: &str = "meta.json";
const TEMPORARY: &str = ".tmp-";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Meta {
    format_version: u32,
    hotfire_version: String,
    step: u64,
    files: Vec<FileEntry>,
    /// CRC-32C of this object's text with this field empty.
    crc32c: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FileEntry {
    name: String,
    bytes: u64,
    crc32c: String,
}

impl Meta {
    fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and integers always serialize") + "\n"
    }

    fn sealed(mut self) -> Self {
        self.crc32c = String::new();
        self.crc32c = hex(crc32c::crc32c(self.to_text().as_bytes()));
        self
    }
}

fn hex(checksum: u32) -> String {
    format!("{checksum:08x}")
}

fn damaged(path: &Path, problem: impl Into<String>) -> CoreError {
    CoreError::Checkpoint { path: path.to_path_buf(), problem: problem.into() }
}

/// Writes a checkpoint; dropped before [`commit`](Self::commit), it leaves nothing that counts as one.
#[derive(Debug)]
pub struct CheckpointWriter {
    temporary: PathBuf,
    target: PathBuf,
    step: u64,
    files: Vec<FileEntry>,
}

impl CheckpointWriter {
    /// Starts the checkpoint of `step` below `checkpoints`.
    pub fn create(checkpoints: &Path, step: u64) -> Result<Self, CoreError> {
        let target = checkpoints.join(step.to_string());
        if target.exists() {
            return Err(damaged(&target, "exists already"));
        }
        let temporary = checkpoints.join(format!("{TEMPORARY}{step}"));
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(CoreError::io(&temporary, "remove"))?;
        }
        fs::create_dir_all(&temporary).map_err(CoreError::io(&temporary, "make"))?;
        Ok(Self { temporary, target, step, files: Vec::new() })
    }

    /// The training step that the checkpoint is of.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Adds a file.
    ///
    /// # Panics
    ///
    /// If the name is not a plain file name, or was used before.
    pub fn bytes(&mut self, name: &str, content: &[u8]) -> Result<(), CoreError> {
        assert!(is_plain(name), "{name:?} is not a plain file name");
        assert!(self.files.iter().all(|file| file.name != name), "{name} is in the checkpoint already");
        write_synced(&self.temporary.join(name), content)?;
        self.files.push(FileEntry {
            name: name.into(),
            bytes: content.len() as u64,
            crc32c: hex(crc32c::crc32c(content)),
        });
        Ok(())
    }

    /// Adds a value as JSON. JSON has no NaN and no infinities: keep arrays of floats in [`bytes`](Self::bytes).
    pub fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), CoreError> {
        let mut text =
            serde_json::to_string_pretty(value).map_err(|error| damaged(&self.target.join(name), error.to_string()))?;
        text.push('\n');
        self.bytes(name, text.as_bytes())
    }

    /// Adds named arrays as safetensors.
    pub fn arrays(&mut self, name: &str, arrays: &[(&str, &[f32])]) -> Result<(), CoreError> {
        let bytes = tensors::arrays_to_bytes(arrays).map_err(|problem| damaged(&self.target.join(name), problem))?;
        self.bytes(name, &bytes)
    }

    /// Adds a module's parameters as safetensors, named by their paths in the module.
    pub fn module(&mut self, name: &str, module: &impl Module) -> Result<(), CoreError> {
        let bytes = tensors::module_to_bytes(module).map_err(|problem| damaged(&self.target.join(name), problem))?;
        self.bytes(name, &bytes)
    }

    /// Completes the checkpoint and returns its directory.
    pub fn commit(mut self) -> Result<PathBuf, CoreError> {
        let meta = Meta {
            format_version: FORMAT_VERSION,
            hotfire_version: env!("CARGO_PKG_VERSION").into(),
            step: self.step,
            files: std::mem::take(&mut self.files),
            crc32c: String::new(),
        };
        write_synced(&self.temporary.join(META), meta.sealed().to_text().as_bytes())?;
        sync_dir(&self.temporary)?;
        fs::rename(&self.temporary, &self.target).map_err(CoreError::io(&self.target, "write"))?;
        sync_dir(self.target.parent().unwrap_or(Path::new(".")))?;
        Ok(self.target)
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != META && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}

/// A checkpoint whose files were all there and unchanged when it was opened.
#[derive(Debug)]
pub struct CheckpointReader {
    path: PathBuf,
    meta: Meta,
}

impl CheckpointReader {
    /// Opens a checkpoint and verifies the length and the checksum of each of its files.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CoreError> {
        let path = path.into();
        let meta = read_meta(&path)?;
        for entry in &meta.files {
            verify(&path.join(&entry.name), entry)?;
        }
        Ok(Self { path, meta })
    }

    /// The checkpoint's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The training step that the checkpoint is of.
    pub fn step(&self) -> u64 {
        self.meta.step
    }

    /// Whether the checkpoint has the file.
    pub fn contains(&self, name: &str) -> bool {
        self.meta.files.iter().any(|file| file.name == name)
    }

    /// The content of a file.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, CoreError> {
        let path = self.path.join(name);
        if !self.contains(name) {
            return Err(damaged(&path, "is not a part of this checkpoint"));
        }
        fs::read(&path).map_err(CoreError::io(&path, "read"))
    }

    /// The value that [`CheckpointWriter::json`] wrote.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, CoreError> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|error| damaged(&self.path.join(name), error.to_string()))
    }

    /// The arrays that [`CheckpointWriter::arrays`] wrote.
    pub fn arrays(&self, name: &str) -> Result<BTreeMap<String, Vec<f32>>, CoreError> {
        tensors::arrays_from_bytes(&self.bytes(name)?).map_err(|problem| damaged(&self.path.join(name), problem))
    }

    /// Loads the parameters that [`CheckpointWriter::module`] wrote into a module of the same shape.
    pub fn module<M: Module>(&self, name: &str, module: M) -> Result<M, CoreError> {
        tensors::module_from_bytes(module, &self.bytes(name)?)
            .map_err(|problem| damaged(&self.path.join(name), problem))
    }
}

fn read_meta(path: &Path) -> Result<Meta, CoreError> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let file = path.join(META);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_dir() => {
            return Err(damaged(&file, "missing"));
        }
        Err(error) => return Err(CoreError::io(&file, "read")(error)),
    };
    let version: Version =
        serde_json::from_slice(&text).map_err(|error| damaged(&file, format!("malformed: {error}")))?;
    if version.format_version != FORMAT_VERSION {
        return Err(damaged(
            &file,
            format!("format version {} is not supported, expected {FORMAT_VERSION}", version.format_version),
        ));
    }
    let meta: Meta = serde_json::from_slice(&text).map_err(|error| damaged(&file, format!("malformed: {error}")))?;
    // Comparing the text covers what the parser forgives, such as a changed blank or an unknown field.
    if meta.clone().sealed().to_text().as_bytes() != text {
        return Err(damaged(&file, "checksum mismatch: the file was changed after it was written"));
    }
    if path.file_name().is_some_and(|name| name.to_string_lossy() != meta.step.to_string()) {
        return Err(damaged(&file, format!("is of step {}, not of the step that its directory names", meta.step)));
    }
    if let Some(entry) = meta.files.iter().find(|entry| !is_plain(&entry.name)) {
        return Err(damaged(&file, format!("malformed: {:?} is not a plain file name", entry.name)));
    }
    Ok(meta)
}

fn verify(path: &Path, entry: &FileEntry) -> Result<(), CoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged(path, "missing")),
        Err(error) => return Err(CoreError::io(path, "read")(error)),
    };
    let mut buffer = vec![0; 1 << 18];
    let (mut length, mut checksum) = (0u64, 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                checksum = crc32c::crc32c_append(checksum, &buffer[..count]);
                length += count as u64;
            }
            Err(error) => return Err(CoreError::io(path, "read")(error)),
        }
    }
    if length != entry.bytes {
        let how = if length < entry.bytes { "truncated" } else { "too long" };
        return Err(damaged(path, format!("{how}: expected {} bytes, found {length}", entry.bytes)));
    }
    if hex(checksum) != entry.crc32c {
        return Err(damaged(
            path,
            format!("checksum mismatch: expected crc32c {}, found {}", entry.crc32c, hex(checksum)),
        ));
    }
    Ok(())
}

/// The steps of the checkpoints below `checkpoints`, oldest first.
pub fn list(checkpoints: &Path) -> Result<Vec<u64>, CoreError> {
    let entries = match fs::read_dir(checkpoints) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CoreError::io(checkpoints, "read")(error)),
    };
    let mut steps = Vec::new();
    for entry in entries {
        let name = entry.map_err(CoreError::io(checkpoints, "read"))?.file_name();
        // "007" is no name that a checkpoint has.
        steps.extend(name.to_str().and_then(|name| name.parse::<u64>().ok().filter(|step| step.to_string() == name)));
    }
    steps.sort_unstable();
    Ok(steps)
}

/// Opens the newest checkpoint. If it is damaged, the error names the newest older one that is sound.
pub fn open_latest(checkpoints: &Path) -> Result<Option<CheckpointReader>, CoreError> {
    let steps = list(checkpoints)?;
    let Some((newest, older)) = steps.split_last() else { return Ok(None) };
    let newest = checkpoints.join(newest.to_string());
    match CheckpointReader::open(&newest) {
        Ok(reader) => Ok(Some(reader)),
        Err(CoreError::Checkpoint { path, problem }) => {
            let sound = older
                .iter()
                .rev()
                .map(|step| checkpoints.join(step.to_string()))
                .find(|path| CheckpointReader::open(path).is_ok());
            let advice = match sound {
                Some(sound) => {
                    format!("{} is sound; remove {} to go on from there", sound.display(), newest.display())
                }
                None => "no older checkpoint is sound".into(),
            };
            Err(CoreError::Checkpoint { path, problem: format!("{problem}; {advice}") })
        }
        Err(error) => Err(error),
    }
}

/// Removes all but the newest `keep` checkpoints, and what unfinished writes left behind.
pub fn prune(checkpoints: &Path, keep: usize) -> Result<(), CoreError> {
    let steps = list(checkpoints)?;
    for step in &steps[..steps.len().saturating_sub(keep)] {
        remove(checkpoints, step)?;
    }
    clean(checkpoints)
}

/// Removes the checkpoints of later steps than `step`: a run that goes on from there writes them again.
pub fn remove_after(checkpoints: &Path, step: u64) -> Result<(), CoreError> {
    list(checkpoints)?.iter().filter(|later| **later > step).try_for_each(|later| remove(checkpoints, later))
}

/// Removes a checkpoint such that a crash leaves it whole or not there.
fn remove(checkpoints: &Path, step: &u64) -> Result<(), CoreError> {
    let path = checkpoints.join(step.to_string());
    let doomed = checkpoints.join(format!("{TEMPORARY}{step}"));
    fs::rename(&path, &doomed).map_err(CoreError::io(&path, "remove"))?;
    fs::remove_dir_all(&doomed).map_err(CoreError::io(&doomed, "remove"))
}

/// Removes what unfinished writes left behind.
pub fn clean(checkpoints: &Path) -> Result<(), CoreError> {
    let Ok(entries) = fs::read_dir(checkpoints) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_dir_all(entry.path()).map_err(CoreError::io(entry.path(), "remove"))?;
        }
    }
    Ok(())
}
