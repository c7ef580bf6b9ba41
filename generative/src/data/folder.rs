//! Pictures in a folder: PNG, GIF or JPEG files, in one folder or in one subfolder a class.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::seed::stream;
use image::imageops::FilterType;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Augment, DataSpec, ImageSets, Images, Load, unusable};
use crate::GenerativeError;

/// The registry's entry.
pub(super) const SPEC: DataSpec = DataSpec {
    name: "folder",
    summary: "PNG, GIF or JPEG files in the folder `dir`, with one subfolder a class or none",
    source: "your own",
    load: Load::Images(load),
};

/// The rest of `[data]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// The folder.
    dir: PathBuf,
    /// Height and width: pictures are cropped about their centre to this shape and resized. Without it, all must have
    /// one size already.
    size: Option<[usize; 2]>,
    /// Whether pictures are turned to grey.
    grey: bool,
    /// Share of the pictures that is held out, drawn by chance.
    test_share: f64,
    augment: Augment,
}

impl Default for Section {
    fn default() -> Self {
        Self { dir: PathBuf::new(), size: None, grey: false, test_share: 0.1, augment: Augment::default() }
    }
}

fn load(document: &mut ConfigDocument, _: u64) -> Result<ImageSets, ConfigError> {
    let Section { dir, size, grey, test_share, augment } = document.section("data")?;
    if dir.as_os_str().is_empty() {
        return Err(document.invalid("data.dir", "expected the folder of the pictures"));
    }
    if !(test_share > 0.0 && test_share < 1.0) {
        return Err(document.out_of_range("data.test_share", "a number between 0 and 1", test_share));
    }
    if size.is_some_and(|size| size.contains(&0)) {
        return Err(document.out_of_range("data.size", "a height and a width above 0", format!("{size:?}")));
    }
    let all = read(&dir, size, grey).map_err(|error| unusable(document, "data.dir", error))?;
    let mut order: Vec<usize> = (0..all.len()).collect();
    // The split belongs to the data, not to the run.
    stream(0, "folder split", 0).shuffle(&mut order);
    let held_out = ((all.len() as f64 * test_share).round() as usize).max(1);
    if held_out >= all.len() {
        let problem = format!("{}: {} pictures are too few for a training and a test part", dir.display(), all.len());
        return Err(document.invalid("data.dir", problem));
    }
    let (test, train) = order.split_at(held_out);
    Ok(ImageSets {
        name: dir.file_name().map_or("folder".into(), |name| name.to_string_lossy().into_owned()),
        train: Arc::new(all.picked(train)),
        test: Arc::new(all.picked(test)),
        augment,
    })
}

/// All pictures below `dir`, in the order of their paths.
fn read(dir: &Path, size: Option<[usize; 2]>, grey: bool) -> Result<Images, GenerativeError> {
    let mut files: Vec<(PathBuf, Option<u32>)> = Vec::new();
    let mut classes = 0;
    let (pictures, folders) = entries(dir)?;
    files.extend(pictures.into_iter().map(|path| (path, None)));
    for folder in folders {
        let (pictures, _) = entries(&folder)?;
        if pictures.is_empty() {
            continue;
        }
        if files.iter().any(|(_, class)| class.is_none()) {
            let problem = "holds pictures beside folders of pictures: expected one folder a class, or none".to_string();
            return Err(GenerativeError::unusable(dir, problem));
        }
        files.extend(pictures.into_iter().map(|path| (path, Some(classes))));
        classes += 1;
    }
    if files.is_empty() {
        return Err(GenerativeError::unusable(dir, "holds no PNG, GIF or JPEG files"));
    }
    let decoded: Vec<Decoded> =
        files.par_iter().map(|(path, _)| decode(path, size, grey)).collect::<Result<_, GenerativeError>>()?;
    let shape = decoded[0].0;
    for ((path, _), (found, _)) in files.iter().zip(&decoded) {
        if *found != shape {
            let text = |[c, h, w]: [usize; 3]| format!("{w}x{h} with {c} channels");
            let problem = format!(
                "is {} where {} is {}; data.size and data.grey bring all to one",
                text(*found),
                files[0].0.display(),
                text(shape)
            );
            return Err(GenerativeError::unusable(path, problem));
        }
    }
    let [channels, height, width] = shape;
    Ok(Images {
        channels,
        height,
        width,
        pixels: decoded.into_iter().flat_map(|(_, pixels)| pixels).collect(),
        labels: files.iter().map(|(_, class)| *class).collect(),
        classes: classes as usize,
    })
}

/// The pictures and the folders in `dir`, in the order of their names. Hidden ones don't count.
fn entries(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), GenerativeError> {
    let (mut pictures, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(GenerativeError::io(dir, "read"))? {
        let path = entry.map_err(GenerativeError::io(dir, "read"))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if path.is_dir() {
            folders.push(path);
        } else if ["png", "gif", "jpg", "jpeg"].contains(&extension.as_str()) {
            pictures.push(path);
        }
    }
    pictures.sort();
    folders.sort();
    Ok((pictures, folders))
}

/// Channels, height and width, and the bytes in that order.
type Decoded = ([usize; 3], Vec<u8>);

fn decode(path: &Path, size: Option<[usize; 2]>, grey: bool) -> Result<Decoded, GenerativeError> {
    let unreadable = |error: &dyn std::fmt::Display| GenerativeError::unusable(path, format!("not readable: {error}"));
    let reader = image::ImageReader::open(path).map_err(GenerativeError::io(path, "read"))?;
    let reader = reader.with_guessed_format().map_err(GenerativeError::io(path, "read"))?;
    let mut picture = reader.decode().map_err(|error| unreadable(&error))?;
    if let Some([height, width]) = size {
        picture = picture.resize_to_fill(width as u32, height as u32, FilterType::Triangle);
    }
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if grey || !picture.color().has_color() {
        return Ok(([1, height, width], picture.to_luma8().into_raw()));
    }
    let rgb = picture.to_rgb8().into_raw();
    Ok(([3, height, width], planes(&rgb)))
}

/// `[height, width, 3]` to `[3, height, width]`.
pub(super) fn planes(rgb: &[u8]) -> Vec<u8> {
    (0..3).flat_map(|channel| rgb.iter().skip(channel).step_by(3).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(dir: &Path, name: &str, width: u32, height: u32, rgb: [u8; 3]) {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(width, height, image::Rgb(rgb)).save(dir.join(name)).unwrap();
    }

    fn problem(dir: &Path) -> String {
        read(dir, None, false).unwrap_err().to_string()
    }

    #[test]
    fn subfolders_are_classes() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), "cat/b.png", 4, 2, [10, 20, 30]);
        save(dir.path(), "cat/a.png", 4, 2, [1, 2, 3]);
        save(dir.path(), "dog/a.png", 4, 2, [7, 8, 9]);
        fs::write(dir.path().join("cat/notes.txt"), "x").unwrap();
        let images = read(dir.path(), None, false).unwrap();
        assert_eq!((images.len(), images.shape(), images.classes), (3, [3, 2, 4], 2));
        assert_eq!(images.labels, Some(vec![0, 0, 1]));
        assert_eq!(images.image(1)[..9], [10, 10, 10, 10, 10, 10, 10, 10, 20]);
        let grey = read(dir.path(), Some([3, 3]), true).unwrap();
        assert_eq!(grey.shape(), [1, 3, 3]);
    }

    #[test]
    fn unusable_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(problem(dir.path()).contains("holds no PNG"));
        assert!(problem(&dir.path().join("none")).contains("cannot read"));
        save(dir.path(), "a.png", 4, 2, [0; 3]);
        save(dir.path(), "b.png", 5, 2, [0; 3]);
        let message = problem(dir.path());
        assert!(message.contains("b.png") && message.contains("5x2") && message.contains("4x2"), "{message}");
        assert_eq!(read(dir.path(), Some([2, 2]), false).unwrap().labels, None);
        save(dir.path(), "c/a.png", 4, 2, [0; 3]);
        assert!(problem(dir.path()).contains("one folder a class"));
        let broken = tempfile::tempdir().unwrap();
        fs::write(broken.path().join("x.png"), b"\x89PNG\r\n\x1a\nrubbish").unwrap();
        assert!(problem(broken.path()).contains("x.png: not readable"));
    }
}
