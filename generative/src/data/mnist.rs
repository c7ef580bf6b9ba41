//! MNIST and the sets in its format, from a folder with the four files or parts of them.
//!
//! MNIST: LeCun and Cortes, derived from NIST. Fashion-MNIST: Xiao, Rasul and Vollgraf 2017,
//! <https://arxiv.org/abs/1708.07747>. `data/` of this project holds parts of both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotfire_core::config::{ConfigDocument, ConfigError};
use serde::{Deserialize, Serialize};

use super::idx::{self, Known};
use super::{Augment, DataSpec, ImageSets, Images, Load, same_size, unusable};
use crate::GenerativeError;

/// The registry's entry.
pub(super) const MNIST: DataSpec = DataSpec {
    name: "mnist",
    summary: "handwritten digits, 28x28; 10,000 + 2,500 come along, `dir` or `hotfire data fetch` gives all 70,000",
    source: "LeCun and Cortes 1998",
    load: Load::Images(|document, _| from_folder(document, "mnist", MNIST_FILES)),
};

/// The registry's entry.
pub(super) const FASHION_MNIST: DataSpec = DataSpec {
    name: "fashion-mnist",
    summary: "pieces of clothing, 28x28; 6,000 + 2,500 come along, `dir` or `hotfire data fetch` gives all 70,000",
    source: "Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
    load: Load::Images(|document, _| from_folder(document, "fashion-mnist", FASHION_FILES)),
};

/// The registry's entry.
pub(super) const IDX: DataSpec = DataSpec {
    name: "idx",
    summary: "any set in MNIST's format (KMNIST, EMNIST digits, your own) in the folder `dir`",
    source: "yann.lecun.com/exdb/mnist",
    load: Load::Images(|document, _| from_folder(document, "idx", &[])),
};

/// The whole set's files and the parts that come along, decompressed.
pub(super) const MNIST_FILES: &[Known] = &[
    Known { bytes: 47_040_016, sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db" },
    Known { bytes: 60_008, sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5" },
    Known { bytes: 7_840_016, sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7" },
    Known { bytes: 10_008, sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2" },
    Known { bytes: 7_840_016, sha256: "2889698e6bc3614913e76901316712919d1998fc2b44512451bfe65bc1e668b1" },
    Known { bytes: 10_008, sha256: "651e38e2ac0632f5113ec18f1df4977117f953197819034009971a6675a0df78" },
    Known { bytes: 1_960_016, sha256: "6c21342a6d6e9ab05f6050e369de2d551f8854a66b6705fb73f0e83f87e0ad5a" },
    Known { bytes: 2_508, sha256: "8386a9acb162170607c40c716770cbdf27d19b6129dbad1ead99df86b8f62ebf" },
];

/// As [`MNIST_FILES`].
pub(super) const FASHION_FILES: &[Known] = &[
    Known { bytes: 47_040_016, sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888" },
    Known { bytes: 60_008, sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9" },
    Known { bytes: 7_840_016, sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b" },
    Known { bytes: 10_008, sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34" },
    Known { bytes: 4_704_016, sha256: "6dded81672539b5d148c1a85358069d1808c316dc6f6c0abfd12ba3ced5dd394" },
    Known { bytes: 6_008, sha256: "d7c464914ae4b919728c5c99c3cdde5a0259febf1e99ddc6927a15768731d7dc" },
    Known { bytes: 1_960_016, sha256: "e62bfa2ef5f9e9cf5550b254c696f1fbab1ff26758a289897b7d60dd3cb4dc23" },
    Known { bytes: 2_508, sha256: "a83e6e72627580dbc0210b99473438b09f8a678b23d24ffb04afa85f48a687a2" },
];

/// What the names of test files begin with.
const TEST: &[&str] = &["t10k", "test"];

/// The rest of `[data]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// The folder; `data/NAME` without it.
    dir: Option<PathBuf>,
    /// The first so many training pictures; 0 for all.
    train_limit: usize,
    /// The first so many test pictures; 0 for all.
    test_limit: usize,
    augment: Augment,
}

fn from_folder(document: &mut ConfigDocument, name: &str, known: &[Known]) -> Result<ImageSets, ConfigError> {
    let section: Section = document.section("data")?;
    let dir = section.dir.unwrap_or_else(|| PathBuf::from("data").join(name));
    if !dir.is_dir() {
        let how = match name {
            "idx" => String::new(),
            _ => format!("; run from the project's folder, name one with data.dir, or hotfire data fetch {name}"),
        };
        return Err(document.invalid("data.dir", format!("{}: no such folder{how}", dir.display())));
    }
    let read = |prefixes: &[&str]| {
        let (images, labels) = idx::find(&dir, prefixes)?;
        idx::load(&images, &labels, known)
    };
    let fail = |error| unusable(document, "data.dir", error);
    let train = read(&["train"]).map_err(fail)?.truncated(section.train_limit);
    let test = read(TEST).map_err(fail)?.truncated(section.test_limit);
    same_size(document, &train, &test)?;
    Ok(ImageSets { name: name.into(), train: Arc::new(train), test: Arc::new(test), augment: section.augment })
}

/// The test pictures of a folder in MNIST's format.
///
/// # Errors
/// [`GenerativeError`] with the file and the offset of what is wrong.
pub fn idx_test_set(dir: &Path) -> Result<Images, GenerativeError> {
    let (images, labels) = idx::find(dir, TEST)?;
    idx::load(&images, &labels, &[])
}

#[cfg(test)]
mod tests {
    use crate::data;
    use hotfire_core::config::ConfigDocument;

    fn load(text: &str) -> Result<data::ImageSets, String> {
        let mut document = ConfigDocument::parse("a.toml", text, &[]).unwrap();
        data::load_images(&mut document, 1).map_err(|error| error.to_string())
    }

    /// The statistics of the whole training set are published; those of the first 10,000 are close to them.
    #[test]
    fn the_sets_that_come_along_are_what_they_should_be() {
        let mnist = load("[data]\nname = \"mnist\"\ndir = \"../data/mnist\"").unwrap();
        assert_eq!((mnist.train.len(), mnist.test.len()), (10_000, 2_500));
        assert_eq!(mnist.train.labels.as_ref().unwrap()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        let mean = mnist.train.pixels.iter().map(|p| f64::from(*p) / 255.0).sum::<f64>() / (10_000.0 * 784.0);
        assert!((mean - 0.1307).abs() < 0.002, "{mean}");
        let fashion =
            load("[data]\nname = \"fashion-mnist\"\ndir = \"../data/fashion-mnist\"\ntest_limit = 7").unwrap();
        assert_eq!((fashion.train.len(), fashion.test.len()), (6_000, 7));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("[data]\nname = \"mnist\"\ndir = \"nowhere\"", &["a.toml:3", "nowhere", "fetch mnist"][..]),
            ("[data]\nname = \"mnits\"", &["data.name", "mnits", "mnist"]),
            ("[data]\nname = \"mnist\"\ndri = \"x\"", &["data.dri", "data.dir"]),
            // The same format, but not MNIST.
            ("[data]\nname = \"mnist\"\ndir = \"../data/fashion-mnist\"", &["test-2500-images", "SHA-256"]),
        ] {
            let message = load(text).unwrap_err();
            for word in words {
                assert!(message.contains(word), "{message:?} should name {word:?}");
            }
        }
    }
}
