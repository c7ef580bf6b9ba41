//! Rows of bytes of one length, in memory or in a memory-mapped file.

// Mapping a file is unsafe because another process may change it: ours has no name that one could open it by.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;

/// `count` rows of `len` bytes, zero at the start.
#[derive(Debug)]
pub struct Rows {
    len: usize,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Memory(Vec<u8>),
    Mapped(MmapMut),
}

impl Rows {
    /// Rows in memory, or in an unnamed file below `directory`, which the system may page out.
    ///
    /// # Errors
    /// If the file can't be made, or so much memory or disk is not free.
    pub fn new(count: usize, len: usize, directory: Option<&Path>) -> io::Result<Self> {
        let bytes = match directory {
            None => {
                // An allocation that fails ends the process, so that it is asked for first.
                let bytes = count.checked_mul(len).ok_or(io::ErrorKind::OutOfMemory)?;
                Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| too_large(bytes))?;
                Bytes::Memory(vec![0; bytes])
            }
            Some(directory) => {
                let file = unnamed_file(directory)?;
                reserve(&file, count.checked_mul(len).ok_or(io::ErrorKind::StorageFull)?.max(1))?;
                // SAFETY: the file has no name, so nothing else changes or truncates it while it is mapped.
                Bytes::Mapped(unsafe { MmapMut::map_mut(&file)? })
            }
        };
        Ok(Self { len, bytes })
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &[u8] {
        &self.all()[index * self.len..][..self.len]
    }

    /// Row `index`, to write.
    pub fn row_mut(&mut self, index: usize) -> &mut [u8] {
        let len = self.len;
        &mut self.all_mut()[index * len..][..len]
    }

    /// All rows one after another.
    pub fn all(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Memory(bytes) => bytes,
            Bytes::Mapped(bytes) => bytes.deref(),
        }
    }

    /// All rows one after another, to write.
    pub fn all_mut(&mut self) -> &mut [u8] {
        match &mut self.bytes {
            Bytes::Memory(bytes) => bytes,
            Bytes::Mapped(bytes) => bytes.deref_mut(),
        }
    }
}

fn too_large(bytes: usize) -> io::Error {
    let gigabytes = bytes as f64 / 1e9;
    let mend = "keep fewer transitions, or name a replay_directory for a mapped file";
    io::Error::new(io::ErrorKind::OutOfMemory, format!("{gigabytes:.1} GB are not free; {mend}"))
}

/// Makes the file so long, with blocks behind it all: a write to a mapped page that the disk has none left for would end
/// the process.
fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    match fs4::FileExt::allocate(file, bytes as u64) {
        // Some network file systems can't.
        Err(error) if error.kind() != io::ErrorKind::Unsupported => {
            Err(io::Error::new(error.kind(), format!("{:.1} GB are not free: {error}", bytes as f64 / 1e9)))
        }
        _ => file.set_len(bytes as u64),
    }
}

/// A new file whose name is removed at once, so that it goes with its last user, however the process ends.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".hotfire-replay-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = directory.join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let error = Rows::new(1 << 40, 1 << 20, None).unwrap_err().to_string();
        assert!(error.contains("1152921504.6 GB are not free; keep fewer transitions"), "{error}");
        assert!(Rows::new(usize::MAX, 2, None).is_err(), "the size itself is out of range");
    }

    #[test]
    fn a_disk_that_is_too_small_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = Rows::new(15 << 20, 1 << 20, Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("16492.7 GB are not free: "), "{error}");
        assert!(Rows::new(usize::MAX, 2, Some(dir.path())).is_err(), "the size itself is out of range");
    }
}
