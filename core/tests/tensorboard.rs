//! TensorBoard's own reader sees what was recorded. Runs where `python3` has the `tensorboard` package.

use std::path::Path;
use std::process::Command;

use hotfire_core::metrics::Metrics;
use hotfire_core::run_dir::RunDir;
use hotfire_core::tracker::Tracker;

const READER: &str = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'images': 0})
events.Reload()
for tag in sorted(events.Tags()['scalars']):
    print(tag, [(event.step, event.value) for event in events.Scalars(tag)])
for tag in events.Tags()['images']:
    print(tag, [(image.step, image.width, image.height, len(image.encoded_image_string)) for image in events.Images(tag)])
";

fn record(run_dir: &RunDir, picture: &Path) {
    let metrics = |loss: f64| {
        let mut metrics = Metrics::new();
        metrics.push("loss", loss);
        metrics.push("eval/return_mean", loss * 2.0);
        metrics
    };
    let mut tracker = Tracker::create(run_dir).unwrap();
    for step in [100, 200, 300, 400] {
        tracker.log(step, 1.0, &metrics(step as f64 / 4.0)).unwrap();
    }
    let (mut tracker, _) = Tracker::resume(run_dir, 200, false).unwrap();
    tracker.log(300, 2.0, &metrics(-1.5)).unwrap();
    tracker.image(300, "agent", picture).unwrap();
}

#[test]
fn event_accumulator_reads_the_event_files() {
    let python = std::env::var("HOTFIRE_PYTHON").unwrap_or("python3".into());
    let probe = Command::new(&python).args(["-c", "import tensorboard"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no tensorboard package");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run_dir = RunDir::create(dir.path().join("run")).unwrap();
    let picture = dir.path().join("picture.png");
    hotfire_core::media::save_png(&picture, 3, 2, &[128; 18]).unwrap();
    record(&run_dir, &picture);

    let output = Command::new(&python).args(["-c", READER]).arg(run_dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let length = std::fs::metadata(&picture).unwrap().len();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!(
            "eval/return_mean [(100, 50.0), (200, 100.0), (300, -3.0)]\n\
             loss [(100, 25.0), (200, 50.0), (300, -1.5)]\n\
             agent [(300, 3, 2, {length})]\n"
        )
    );
}
