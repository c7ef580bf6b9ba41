//! Downloads of whole data sets, from mirrors, checked against known SHA-256 sums of their decompressed content.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use flate2::read::GzDecoder;

use super::idx::{Known, sha256};
use super::mnist::{FASHION_FILES, MNIST_FILES};
use crate::GenerativeError;

/// A set that can be downloaded.
pub struct Download {
    /// The set's name.
    pub name: &'static str,
    /// Addresses of folders that hold the files, tried in this order.
    pub mirrors: &'static [&'static str],
    known: &'static [Known],
}

/// Every set that can be downloaded.
pub const DOWNLOADS: &[Download] = &[
    Download {
        name: "mnist",
        mirrors: &[
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ],
        known: MNIST_FILES,
    },
    Download {
        name: "fashion-mnist",
        mirrors: &[
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ],
        known: FASHION_FILES,
    },
];

/// The standard files, with their place in the list of known contents.
const FILES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// A server that neither answers nor ends is given up.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Fetches the four files of a set into `dir`, compressed; files that are there and sound are kept.
///
/// `mirrors` replaces the set's own. `note` hears what happens.
///
/// # Errors
/// If no mirror gives a file with the known content; nothing half-written is left.
pub fn fetch(
    download: &Download,
    mirrors: &[&str],
    dir: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<(), GenerativeError> {
    fs::create_dir_all(dir).map_err(GenerativeError::io(dir, "make"))?;
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
    for (file, known) in FILES.iter().zip(download.known) {
        let path = dir.join(format!("{file}.gz"));
        if let Ok(content) = fs::read(&path)
            && check(&content, known).is_ok()
        {
            note(&format!("{}: is there already", path.display()));
            continue;
        }
        let mut problems = Vec::new();
        let content = mirrors.iter().find_map(|mirror| {
            let address = format!("{}/{file}.gz", mirror.trim_end_matches('/'));
            let got = get(&agent, &address, known.bytes).and_then(|content| check(&content, known).map(|()| content));
            got.map_err(|problem| problems.push(format!("{address}: {problem}"))).ok()
        });
        let Some(content) = content else {
            return Err(GenerativeError::Unavailable(problems.join("; ")));
        };
        let temporary = dir.join(format!(".{file}.tmp"));
        fs::write(&temporary, &content).map_err(GenerativeError::io(&temporary, "write"))?;
        fs::rename(&temporary, &path).map_err(GenerativeError::io(&path, "write"))?;
        note(&format!("{}: {} bytes, SHA-256 as it should be", path.display(), content.len()));
    }
    Ok(())
}

fn get(agent: &ureq::Agent, address: &str, largest: u64) -> Result<Vec<u8>, String> {
    let mut response = agent.get(address).call().map_err(|error| error.to_string())?;
    // No compression makes it longer than this.
    response.body_mut().with_config().limit(largest + 4096).read_to_vec().map_err(|error| error.to_string())
}

/// Whether compressed bytes hold the known content.
fn check(compressed: &[u8], known: &Known) -> Result<(), String> {
    let mut content = Vec::new();
    let decoder = GzDecoder::new(compressed);
    decoder.take(known.bytes + 1).read_to_end(&mut content).map_err(|error| format!("not a gzip file: {error}"))?;
    let found = sha256(&content);
    if found == known.sha256 {
        return Ok(());
    }
    Err(format!("expected {} bytes with SHA-256 {}, found {} with {found}", known.bytes, known.sha256, content.len()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A local server that answers `answers` requests: each file's content is `content` and the file's name.
    fn serve(content: &'static str, answers: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/sets", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().take(answers) {
                let mut stream = stream.unwrap();
                let mut request = String::new();
                BufReader::new(&stream).read_line(&mut request).unwrap();
                let name = request.split(['/', ' ']).find(|part| part.ends_with(".gz")).unwrap().to_owned();
                let body = gzip(format!("{content} {name}").as_bytes());
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
            }
        });
        address
    }

    fn known(content: &str) -> &'static [Known] {
        let entries = FILES.map(|file| {
            let content = format!("{content} {file}.gz");
            Known { bytes: content.len() as u64, sha256: Box::leak(sha256(content.as_bytes()).into_boxed_str()) }
        });
        Box::leak(Box::new(entries))
    }

    #[test]
    fn the_next_mirror_serves_where_one_is_damaged() {
        let download = Download { name: "x", mirrors: &[], known: known("good") };
        let (bad, good) = (serve("bad", 4), serve("good", 4));
        let dir = tempfile::tempdir().unwrap();
        let mut notes = Vec::new();
        fetch(&download, &[&bad, &good], dir.path(), &mut |note| notes.push(note.to_owned())).unwrap();
        assert_eq!((notes.len(), fs::read_dir(dir.path()).unwrap().count()), (4, 4));
        // All is there: no mirror is asked.
        fetch(&download, &[], dir.path(), &mut |note| notes.push(note.to_owned())).unwrap();
        assert!(notes[7].contains("already"), "{notes:?}");
    }

    #[test]
    fn wrong_content_is_refused_and_leaves_nothing() {
        let download = Download { name: "x", mirrors: &[], known: known("good") };
        let bad = serve("bad", 1);
        let dir = tempfile::tempdir().unwrap();
        let message = fetch(&download, &[&bad, "http://127.0.0.1:1/"], dir.path(), &mut |_| {}).unwrap_err();
        let message = message.to_string();
        assert!(message.contains("SHA-256") && message.contains("127.0.0.1:1/train-images"), "{message}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
