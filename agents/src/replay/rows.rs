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
    /// If the file can't be made.
    pub fn new(count: usize, len: usize, directory: Option<&Path>) -> io::Result<Self> {
        let bytes = match directory {
            None => Bytes::Memory(vec![0; count * len]),
            Some(directory) => {
                let file = unnamed_file(directory)?;
                file.set_len((count * len).max(1) as u64)?;
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

/// A new file whose name is removed at once, so that it goes with its last user, however the process ends.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".hotfire-replay-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = directory.join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    remove_file(&path)?;
    Ok(file)
}
