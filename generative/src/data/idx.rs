//! The IDX format of MNIST and its relatives, gzip-compressed or not.
//!
//! Big-endian: two zero bytes, the element type (8: unsigned byte), the number of dimensions, one 32-bit size a
//! dimension, then the elements. Images have three dimensions (magic 2051), labels one (magic 2049).
//! Source: <http://yann.lecun.com/exdb/mnist/>.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::Images;
use crate::GenerativeError;

/// Classes of MNIST and of the sets that are made to replace it.
const CLASSES: u32 = 10;

/// Decompressed length and SHA-256 of a file with known content.
pub(super) struct Known {
    /// Length in bytes.
    pub bytes: u64,
    /// Lower-case hexadecimal digits.
    pub sha256: &'static str,
}

/// The bytes of a file, decompressed if it begins with gzip's magic.
fn read(path: &Path) -> Result<Vec<u8>, GenerativeError> {
    let raw = fs::read(path).map_err(GenerativeError::io(path, "read"))?;
    if !raw.starts_with(&[0x1f, 0x8b]) {
        return Ok(raw);
    }
    let mut content = Vec::with_capacity(8 * raw.len());
    match GzDecoder::new(raw.as_slice()).read_to_end(&mut content) {
        Ok(_) => Ok(content),
        Err(error) => Err(GenerativeError::Malformed {
            path: path.to_path_buf(),
            offset: content.len(),
            expected: "more compressed data".into(),
            found: error.to_string(),
        }),
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sizes of an IDX file of unsigned bytes with `dimensions` dimensions, and its elements.
fn parse<'a>(path: &Path, content: &'a [u8], dimensions: usize) -> Result<(Vec<usize>, &'a [u8]), GenerativeError> {
    let malformed = |offset: usize, expected: String, found: String| GenerativeError::Malformed {
        path: path.to_path_buf(),
        offset,
        expected,
        found,
    };
    let word = |index: usize| -> Result<u32, GenerativeError> {
        match content.get(4 * index..4 * index + 4) {
            Some(bytes) => Ok(u32::from_be_bytes(bytes.try_into().expect("four bytes"))),
            None => Err(malformed(
                4 * index,
                format!("a header of {} bytes", 4 * (1 + dimensions)),
                format!("the end of the file after {} bytes", content.len()),
            )),
        }
    };
    let (magic, wanted) = (word(0)?, 0x0800 + dimensions as u32);
    if magic != wanted {
        return Err(malformed(0, format!("the magic number {wanted}"), magic.to_string()));
    }
    let sizes: Vec<usize> = (1..=dimensions).map(|i| word(i).map(|size| size as usize)).collect::<Result<_, _>>()?;
    if let Some(zero) = sizes.iter().position(|size| *size == 0) {
        return Err(malformed(4 + 4 * zero, "a size above 0".into(), "0".into()));
    }
    let header = 4 * (1 + dimensions);
    let elements = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let body = &content[header..];
    match elements {
        Some(count) if count == body.len() => Ok((sizes, body)),
        _ => {
            let product = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            let how = if elements.is_some_and(|count| count < body.len()) { "more" } else { "the end of the file" };
            Err(malformed(
                header + body.len().min(elements.unwrap_or(usize::MAX)),
                format!("{product} bytes after the header"),
                format!("{how}: {} bytes", body.len()),
            ))
        }
    }
}

/// Reads an image file and a label file that belong together.
///
/// # Errors
/// [`GenerativeError`] with the file and the offset of what is wrong.
pub(super) fn load(images: &Path, labels: &Path, known: &[Known]) -> Result<Images, GenerativeError> {
    let (image_bytes, label_bytes) = (read(images)?, read(labels)?);
    let (sizes, pixels) = parse(images, &image_bytes, 3)?;
    let (count, classes) = parse(labels, &label_bytes, 1)?;
    if count[0] != sizes[0] {
        return Err(GenerativeError::Malformed {
            path: labels.to_path_buf(),
            offset: 4,
            expected: format!("{} labels, as many as there are images", sizes[0]),
            found: count[0].to_string(),
        });
    }
    if let Some(at) = classes.iter().position(|label| u32::from(*label) >= CLASSES) {
        return Err(GenerativeError::Malformed {
            path: labels.to_path_buf(),
            offset: 8 + at,
            expected: format!("a label from 0 to {}", CLASSES - 1),
            found: classes[at].to_string(),
        });
    }
    for (path, content) in [(images, &image_bytes), (labels, &label_bytes)] {
        verify(path, content, known)?;
    }
    Ok(Images {
        channels: 1,
        height: sizes[1],
        width: sizes[2],
        pixels: pixels.to_vec(),
        labels: Some(classes.iter().map(|label| u32::from(*label)).collect()),
        classes: CLASSES as usize,
    })
}

/// A file as long as one with known content must have that content.
fn verify(path: &Path, content: &[u8], known: &[Known]) -> Result<(), GenerativeError> {
    let expected: Vec<_> = known.iter().filter(|known| known.bytes == content.len() as u64).collect();
    if expected.is_empty() {
        return Ok(());
    }
    let found = sha256(content);
    if expected.iter().any(|known| known.sha256 == found) {
        return Ok(());
    }
    let expected = expected.iter().map(|known| known.sha256).collect::<Vec<_>>().join(" or ");
    Err(GenerativeError::unusable(
        path,
        format!("the content is damaged, or that of another data set: expected SHA-256 {expected}, found {found}"),
    ))
}

/// The image and label file of a split in a folder: the standard names or those of a subset, such as
/// `train-10k-images-idx3-ubyte.gz`. The whole set goes before a subset, a plain file before a compressed one.
pub(super) fn find(dir: &Path, prefixes: &[&str]) -> Result<(PathBuf, PathBuf), GenerativeError> {
    let entries = fs::read_dir(dir).map_err(GenerativeError::io(dir, "read"))?;
    let mut names: Vec<String> = entries
        .map(|entry| Ok(entry.map_err(GenerativeError::io(dir, "read"))?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, GenerativeError>>()?;
    names.sort_by_key(|name| (name.len() - name.trim_end_matches(".gz").len(), name.clone()));
    let stem = |name: &str| name.trim_end_matches(".gz").replace(".idx", "-idx");
    let pick = |kind: &str| {
        let whole = names.iter().find(|name| prefixes.iter().any(|p| stem(name) == format!("{p}-{kind}")));
        whole.or_else(|| {
            names.iter().find(|name| {
                let stem = stem(name);
                prefixes.iter().any(|p| stem.starts_with(&format!("{p}-"))) && stem.ends_with(&format!("-{kind}"))
            })
        })
    };
    let wanted = |kind: &str| match pick(kind) {
        Some(name) => Ok(dir.join(name)),
        None => {
            Err(GenerativeError::unusable(dir, format!("holds no file like {}-{kind} or {0}-{kind}.gz", prefixes[0])))
        }
    };
    let images = wanted("images-idx3-ubyte")?;
    // Labels of the same part as the images, compressed or not.
    let own = |name: &str| name.replace("images", "labels").replace("idx3", "idx1");
    let name = images.file_name().map(|name| own(&name.to_string_lossy())).unwrap_or_default();
    let partner = names.iter().find(|other| stem(other) == stem(&name));
    match partner {
        Some(partner) => Ok((images, dir.join(partner))),
        None => Err(GenerativeError::unusable(dir, format!("{} is missing beside its images", stem(&name)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three images of 2 x 2 pixels.
    fn images() -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2];
        bytes.extend(0..12);
        bytes
    }

    fn labels() -> Vec<u8> {
        vec![0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9]
    }

    fn load_bytes(images: &[u8], labels: &[u8]) -> Result<Images, String> {
        let dir = tempfile::tempdir().unwrap();
        let (image_file, label_file) = (dir.path().join("images"), dir.path().join("labels"));
        fs::write(&image_file, images).unwrap();
        fs::write(&label_file, labels).unwrap();
        load(&image_file, &label_file, &[])
            .map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "DIR"))
    }

    #[test]
    fn reads_images_and_labels() {
        let loaded = load_bytes(&images(), &labels()).unwrap();
        assert_eq!((loaded.len(), loaded.height, loaded.width, loaded.channels), (3, 2, 2, 1));
        assert_eq!(loaded.image(1), [4, 5, 6, 7]);
        assert_eq!(loaded.labels.unwrap(), [7, 0, 9]);
    }

    #[test]
    fn malformed_files_are_refused_with_file_and_offset() {
        let edit = |mut bytes: Vec<u8>, at: usize, value: u8| {
            bytes[at] = value;
            bytes
        };
        let more = |mut bytes: Vec<u8>| {
            bytes.push(0);
            bytes
        };
        let cases: Vec<(Vec<u8>, Vec<u8>, &[&str])> = vec![
            (images()[..27].to_vec(), labels(), &["DIR/images", "byte 27", "3 x 2 x 2 bytes", "11 bytes"]),
            (more(images()), labels(), &["DIR/images", "byte 28", "13 bytes"]),
            (edit(images(), 3, 1), labels(), &["DIR/images", "byte 0", "magic number 2051", "2049"]),
            (images()[..9].to_vec(), labels(), &["DIR/images", "byte 8", "header of 16 bytes", "9 bytes"]),
            (Vec::new(), labels(), &["DIR/images", "byte 0", "0 bytes"]),
            (edit(images(), 11, 0), labels(), &["DIR/images", "byte 8", "above 0"]),
            (edit(images(), 8, 255), labels(), &["DIR/images", "byte 28", "the end of the file"]),
            (images(), edit(labels(), 9, 10), &["DIR/labels", "byte 9", "label from 0 to 9", "found 10"]),
            (images(), [&labels()[..7], &[2, 7, 0]].concat(), &["DIR/labels", "byte 4", "3 labels", "found 2"]),
            (images(), labels()[..10].to_vec(), &["DIR/labels", "byte 10", "2 bytes"]),
        ];
        for (images, labels, words) in cases {
            let message = load_bytes(&images, &labels).unwrap_err();
            for word in words {
                assert!(message.contains(word), "{message:?} should name {word:?}");
            }
        }
    }

    #[test]
    fn a_cut_gzip_stream_is_refused() {
        let whole = fs::read("../data/mnist/test-2500-images-idx3-ubyte.gz").unwrap();
        let labels = fs::read("../data/mnist/test-2500-labels-idx1-ubyte.gz").unwrap();
        assert_eq!(load_bytes(&whole, &labels).unwrap().len(), 2500);
        let message = load_bytes(&whole[..whole.len() / 2], &labels).unwrap_err();
        assert!(message.contains("DIR/images") && message.contains("compressed"), "{message}");
    }

    #[test]
    fn known_content_is_verified() {
        let content = images();
        let path = Path::new("x");
        let good = Known { bytes: 28, sha256: "b01f0f4b4b1c1f0d9c3c2a9ad0b4e2b9a2b2a0b9b9f1b2b1a1b2c3d4e5f60718" };
        assert!(verify(path, &content, &[good]).unwrap_err().to_string().contains("damaged"));
        assert!(verify(path, &content, &[Known { bytes: 27, sha256: "" }]).is_ok());
        let digest: &'static str = Box::leak(sha256(&content).into_boxed_str());
        assert!(verify(path, &content, &[Known { bytes: 28, sha256: digest }]).is_ok());
    }

    #[test]
    fn files_of_a_folder_are_found_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str| fs::write(dir.path().join(name), "").unwrap();
        let found = || {
            let (images, labels) = find(dir.path(), &["train"]).map_err(|error| error.to_string())?;
            let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            Ok::<_, String>((name(images), name(labels)))
        };
        let pair = |images: &str, labels: &str| Ok((images.to_owned(), labels.to_owned()));
        assert!(found().unwrap_err().contains("train-images-idx3-ubyte"));
        touch("train-10k-images-idx3-ubyte.gz");
        assert!(found().unwrap_err().contains("train-10k-labels-idx1-ubyte"));
        touch("train-10k-labels-idx1-ubyte.gz");
        assert_eq!(found(), pair("train-10k-images-idx3-ubyte.gz", "train-10k-labels-idx1-ubyte.gz"));
        touch("train-images.idx3-ubyte.gz");
        touch("train-labels-idx1-ubyte");
        assert_eq!(found(), pair("train-images.idx3-ubyte.gz", "train-labels-idx1-ubyte"));
        touch("train-images-idx3-ubyte");
        assert_eq!(found(), pair("train-images-idx3-ubyte", "train-labels-idx1-ubyte"));
    }
}
