//! A writer of TensorBoard event files: scalars and PNG images.
//!
//! An event file is a sequence of TFRecords, each a length and a payload with masked CRC-32C checksums (TensorFlow,
//! `core/lib/io/record_writer.h`). A payload is an `Event` message (`core/util/event.proto`,
//! `core/framework/summary.proto`), of which the few fields used here are encoded by hand.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::CoreError;
use crate::metrics::Metrics;

const FILE_PREFIX: &str = "events.out.tfevents.";

/// Appends events to one event file.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl EventWriter {
    /// Starts a new event file in `dir`.
    ///
    /// With `resumed_at`, readers drop the events of earlier files that are of later steps.
    pub fn create(dir: &Path, resumed_at: Option<u64>) -> Result<Self, CoreError> {
        let now = unix_seconds();
        // Readers take the files in the order of their names; the number keeps it within one second.
        let entries = fs::read_dir(dir).map_err(CoreError::io(dir, "read"))?;
        let number =
            entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(FILE_PREFIX)).count();
        let path = dir.join(format!("{FILE_PREFIX}{:010}.{number:04}.hotfire", now as u64));
        let file = File::create_new(&path).map_err(CoreError::io(&path, "make"))?;
        let mut writer = Self { file, path, buffer: Vec::new() };
        writer.append(&version_event(now));
        if let Some(step) = resumed_at {
            writer.append(&session_start_event(now, step + 1));
        }
        writer.write()?;
        Ok(writer)
    }

    /// Adds one scalar for each entry.
    pub fn scalars(&mut self, step: u64, metrics: &Metrics) -> Result<(), CoreError> {
        self.append(&scalars_event(unix_seconds(), step, metrics));
        self.write()
    }

    /// Adds a picture from the bytes of a PNG file.
    pub fn image(&mut self, step: u64, tag: &str, png: &[u8]) -> Result<(), CoreError> {
        let event = image_event(unix_seconds(), step, tag, png)
            .ok_or_else(|| CoreError::Failed(format!("{tag}: the picture is not a PNG")))?;
        self.append(&event);
        self.write()
    }

    fn append(&mut self, event: &[u8]) {
        append_record(&mut self.buffer, event);
    }

    fn write(&mut self) -> Result<(), CoreError> {
        self.file.write_all(&self.buffer).map_err(CoreError::io(&self.path, "write"))?;
        self.buffer.clear();
        Ok(())
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn append_record(out: &mut Vec<u8>, payload: &[u8]) {
    let length = (payload.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(payload);
    out.extend(masked_crc(payload).to_le_bytes());
}

/// The mask keeps the checksum of data that holds checksums from being trivial.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn version_event(time: f64) -> Vec<u8> {
    let mut event = event_start(time, 0);
    put_bytes(&mut event, 3, b"brain.Event:2");
    event
}

fn session_start_event(time: f64, step: u64) -> Vec<u8> {
    let mut event = event_start(time, step);
    let mut session_log = Vec::new();
    put_integer(&mut session_log, 1, 1);
    put_bytes(&mut event, 7, &session_log);
    event
}

fn scalars_event(time: f64, step: u64, metrics: &Metrics) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, number) in metrics.iter() {
        let mut value = Vec::new();
        put_bytes(&mut value, 1, tag.as_bytes());
        put_float(&mut value, 2, number as f32);
        put_bytes(&mut summary, 1, &value);
    }
    let mut event = event_start(time, step);
    put_bytes(&mut event, 5, &summary);
    event
}

fn image_event(time: f64, step: u64, tag: &str, png: &[u8]) -> Option<Vec<u8>> {
    let (width, height, channels) = png_header(png)?;
    let mut image = Vec::new();
    put_integer(&mut image, 1, height.into());
    put_integer(&mut image, 2, width.into());
    put_integer(&mut image, 3, channels);
    put_bytes(&mut image, 4, png);
    let mut value = Vec::new();
    put_bytes(&mut value, 1, tag.as_bytes());
    put_bytes(&mut value, 4, &image);
    let mut summary = Vec::new();
    put_bytes(&mut summary, 1, &value);
    let mut event = event_start(time, step);
    put_bytes(&mut event, 5, &summary);
    Some(event)
}

/// Width, height and the number of channels, from the header chunk that starts every PNG file.
fn png_header(png: &[u8]) -> Option<(u32, u32, u64)> {
    if !png.starts_with(b"\x89PNG\r\n\x1a\n") || png.get(12..16)? != b"IHDR" {
        return None;
    }
    let number = |at: usize| Some(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?));
    let channels = match png.get(25)? {
        0 => 1,
        2 | 3 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    Some((number(16)?, number(20)?, channels))
}

fn event_start(time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    event.push(1 << 3 | 1);
    event.extend(time.to_le_bytes());
    // Protocol buffers leave out a field that has its default value.
    if step != 0 {
        put_integer(&mut event, 2, step);
    }
    event
}

fn put_integer(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    put_varint(out, value);
}

fn put_float(out: &mut Vec<u8>, field: u8, value: f32) {
    out.push(field << 3 | 5);
    out.extend(value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    // The golden bytes were written by TensorBoard's own RecordWriter and protobuf classes.

    fn record(event: &[u8]) -> String {
        let mut out = Vec::new();
        append_record(&mut out, event);
        out.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn version_record() {
        assert_eq!(
            record(&version_event(1.5)),
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
        );
    }

    #[test]
    fn session_record() {
        assert_eq!(
            record(&session_start_event(1.5, 300)),
            "100000000000000095fbfe1809000000000000f83f10ac023a020801713b788a"
        );
    }

    #[test]
    fn scalar_record() {
        let mut metrics = Metrics::new();
        metrics.push("loss", 0.25);
        metrics.push("train/return", -3.0);
        assert_eq!(
            record(&scalars_event(1.5, 300, &metrics)),
            "300000000000000095f5d05f09000000000000f83f10ac022a220a0b0a046c6f7373150000803e0a130a0c747261696e2f72657475726e\
             15000040c004c47768"
        );
    }

    #[test]
    fn image_record() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0";
        assert_eq!(
            record(&image_event(1.5, 7, "p", png).unwrap()),
            "39000000000000008b0737f109000000000000f83f10072a2c0a2a0a01702225080310021803221d89504e470d0a1a0a0000000d494844\
             5200000002000000030802000000cf61ca06"
        );
        assert_eq!(image_event(1.5, 7, "p", &png[..20]), None);
        assert_eq!(image_event(1.5, 7, "p", b"GIF89a"), None);
    }

    #[test]
    fn varints() {
        let encode = |value| {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            out
        };
        assert_eq!(encode(0), [0]);
        assert_eq!(encode(127), [127]);
        assert_eq!(encode(128), [0x80, 1]);
        assert_eq!(encode(u64::MAX), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    }

    #[test]
    fn files_sort_in_the_order_in_which_they_were_started() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            EventWriter::create(dir.path(), None).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let numbers: Vec<_> =
            names.iter().map(|name| name.to_string_lossy().split('.').nth(4).unwrap().to_string()).collect();
        assert_eq!(numbers, ["0000", "0001", "0002"]);
    }
}
