//! Handwritten digits of 8x8 pixels: 1,797 of them, in a text file.
//!
//! Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI machine learning repository; the file is
//! that of scikit-learn. A row has 64 pixels from 0 to 16 and the label. The last fifth is held out.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;
use hotfire_core::config::{ConfigDocument, ConfigError};
use serde::{Deserialize, Serialize};

use super::{Augment, DataSpec, ImageSets, Images, Load, unusable};
use crate::GenerativeError;

const SIDE: usize = 8;
const LARGEST: u32 = 16;
const CLASSES: u32 = 10;

/// The registry's entry.
pub(super) const SPEC: DataSpec = DataSpec {
    name: "digits8x8",
    summary: "1,797 handwritten digits, 8x8; they come along",
    source: "Alpaydin and Kaynak 1998, UCI",
    load: Load::Images(load),
};

/// The rest of `[data]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// The folder of `digits.csv.gz`.
    dir: PathBuf,
    augment: Augment,
}

impl Default for Section {
    fn default() -> Self {
        Self { dir: "data/digits8x8".into(), augment: Augment::default() }
    }
}

fn load(document: &mut ConfigDocument, _: u64) -> Result<ImageSets, ConfigError> {
    let Section { dir, augment } = document.section("data")?;
    let all = read(&dir.join("digits.csv.gz")).map_err(|error| unusable(document, "data.dir", error))?;
    let rows: Vec<usize> = (0..all.len()).collect();
    let (train, test) = rows.split_at(all.len() - all.len() / 5);
    let (train, test) = (Arc::new(all.picked(train)), Arc::new(all.picked(test)));
    Ok(ImageSets { name: "digits8x8".into(), train, test, augment })
}

fn read(path: &Path) -> Result<Images, GenerativeError> {
    let raw = fs::read(path).map_err(GenerativeError::io(path, "read"))?;
    let mut text = String::new();
    GzDecoder::new(raw.as_slice())
        .read_to_string(&mut text)
        .map_err(|error| GenerativeError::unusable(path, format!("not readable as compressed text: {error}")))?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Images, GenerativeError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let malformed = |field: &str, expected: String| GenerativeError::Malformed {
            path: path.to_path_buf(),
            offset: field.as_ptr() as usize - text.as_ptr() as usize,
            expected,
            found: if field.is_empty() { "nothing".into() } else { field.to_owned() },
        };
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        if fields.len() != SIDE * SIDE + 1 {
            let found = format!("{} fields", fields.len());
            let expected = format!("{} pixels and a label", SIDE * SIDE);
            return Err(GenerativeError::Malformed {
                path: path.to_path_buf(),
                offset: line.as_ptr() as usize - text.as_ptr() as usize,
                expected,
                found,
            });
        }
        let number = |field: &str, bound: u32, what: &str| {
            // The file writes whole numbers as `5.000000000000000000e+00` in some versions.
            let value = field.parse::<f64>().ok().filter(|v| v.fract() == 0.0 && (0.0..=f64::from(bound)).contains(v));
            value.map(|v| v as u32).ok_or_else(|| malformed(field, format!("{what} from 0 to {bound}")))
        };
        for field in &fields[..SIDE * SIDE] {
            let level = number(field, LARGEST, "a pixel")?;
            pixels.push(((level * 255 + LARGEST / 2) / LARGEST) as u8);
        }
        labels.push(number(fields[SIDE * SIDE], CLASSES - 1, "a label")?);
    }
    if labels.is_empty() {
        return Err(GenerativeError::unusable(path, "holds no pictures"));
    }
    Ok(Images { channels: 1, height: SIDE, width: SIDE, pixels, labels: Some(labels), classes: CLASSES as usize })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_file_that_comes_along() {
        let images = read(Path::new("../data/digits8x8/digits.csv.gz")).unwrap();
        assert_eq!((images.len(), images.shape()), (1797, [1, 8, 8]));
        assert_eq!(images.labels.as_ref().unwrap()[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(images.pixels.contains(&255) && images.pixels.contains(&0));
    }

    #[test]
    fn malformed_rows_are_refused_with_their_place() {
        let row = format!("{}3", "16,".repeat(64));
        assert_eq!(parse(Path::new("f"), &row).unwrap().pixels, [255; 64]);
        for (text, words) in [
            (row.replacen("16", "17", 1), &["f: byte 0", "pixel from 0 to 16", "17"][..]),
            (format!("{row}\n{}10", "0,".repeat(64)), &["byte 322", "label from 0 to 9", "10"]),
            (row[3..].to_string(), &["byte 0", "64 pixels", "64 fields"]),
            (String::new(), &["no pictures"]),
        ] {
            let message = parse(Path::new("f"), &text).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{message:?} should name {word:?}");
            }
        }
    }
}
