//! Batches of pictures, put together on a thread of their own while the model trains on the one before.
//!
//! What a batch holds is a function of `(seed, step)` alone: epoch `e` runs through the set in the order that the
//! stream `(seed, "batches", e)` shuffles, and every draw of augmentation comes from `(seed, "augmentation", step)`.
//! Neither the thread's timing nor a resume changes a bit.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::{StreamRng, stream};
use serde::{Deserialize, Serialize};

use super::Images;

/// Batches that may be ready before they are asked for.
const AHEAD: usize = 3;

/// Random changes of training pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Whether half of the pictures are mirrored left to right.
    pub flip: bool,
    /// The largest shift in pixels, along each axis; what moves in is black.
    pub shift: usize,
}

/// Some pictures of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[channels, height, width]` of a picture.
    pub shape: [usize; 3],
    /// `[N, channels, height, width]`, from 0 to 1.
    pub pixels: Vec<f32>,
    /// A second version of the pictures that a [`Prepare`] function made, such as noisy ones; else empty.
    pub corrupted: Vec<f32>,
    /// `[N]`; empty for a set without labels.
    pub labels: Vec<u32>,
}

impl Batch {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.shape.iter().product::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// The pictures as `[N, channels, height, width]`, taken out of the batch.
    pub fn take_images(&mut self, device: &Device) -> Tensor<4> {
        let [c, h, w] = self.shape;
        let n = self.len();
        Tensor::from_data(TensorData::new(std::mem::take(&mut self.pixels), [n, c, h, w]), device)
    }

    /// The corrupted pictures as `[N, channels, height, width]`, taken out of the batch.
    pub fn take_corrupted(&mut self, device: &Device) -> Tensor<4> {
        let [c, h, w] = self.shape;
        let n = self.corrupted.len() / (c * h * w);
        Tensor::from_data(TensorData::new(std::mem::take(&mut self.corrupted), [n, c, h, w]), device)
    }
}

/// What a model does to each training batch on the loading thread, such as adding noise or binarising.
pub type Prepare = Arc<dyn Fn(&mut Batch, &mut StreamRng) + Send + Sync>;

/// An endless sequence of batches.
pub struct Batches {
    source: Source,
    step: u64,
    worker: Option<Worker>,
}

struct Worker {
    receiver: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// A thread that makes the batches from `first` on; `None` if the system starts none.
    fn start(mut source: Source, first: u64) -> Option<Self> {
        let (sender, receiver) = sync_channel(AHEAD);
        let work = move || {
            for step in first.. {
                if sender.send(source.batch(step)).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("batches".into()).spawn(work).ok()?;
        Some(Self { receiver: Some(receiver), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Batches {
    /// Batches of `batch_size` pictures; an epoch's last one has what is left.
    ///
    /// # Panics
    /// If the set is empty or `batch_size` is zero.
    pub fn new(images: Arc<Images>, batch_size: usize, augment: Augment, seed: u64, prepare: Option<Prepare>) -> Self {
        assert!(!images.is_empty() && batch_size > 0, "batches need pictures and a size");
        let source = Source { images, batch_size, augment, seed, prepare, order: Vec::new(), epoch: u64::MAX };
        Self { source, step: 0, worker: None }
    }

    /// Batches of one pass over the set.
    pub fn per_epoch(&self) -> u64 {
        self.source.per_epoch()
    }

    /// Goes to the batch of a step.
    pub fn seek(&mut self, step: u64) {
        if step != self.step {
            self.worker = None;
            self.step = step;
        }
    }

    /// The batch of the current step; the next call gives that of the next step.
    pub fn next_batch(&mut self) -> Batch {
        if self.worker.is_none() {
            self.worker = Worker::start(self.source.clone(), self.step);
        }
        let ahead = self.worker.as_ref().and_then(|worker| worker.receiver.as_ref()?.recv().ok());
        // Without a thread it is made here: the same batch, but later.
        let batch = ahead.unwrap_or_else(|| self.source.batch(self.step));
        self.step += 1;
        batch
    }
}

/// Makes the batch of any step.
#[derive(Clone)]
struct Source {
    images: Arc<Images>,
    batch_size: usize,
    augment: Augment,
    seed: u64,
    prepare: Option<Prepare>,
    /// The order of `epoch`.
    order: Vec<u32>,
    epoch: u64,
}

impl Source {
    fn per_epoch(&self) -> u64 {
        self.images.len().div_ceil(self.batch_size) as u64
    }

    fn batch(&mut self, step: u64) -> Batch {
        let (epoch, at) = (step / self.per_epoch(), (step % self.per_epoch()) as usize);
        if epoch != self.epoch {
            self.order = (0..self.images.len() as u32).collect();
            stream(self.seed, "batches", epoch).shuffle(&mut self.order);
            self.epoch = epoch;
        }
        let rows = &self.order[at * self.batch_size..];
        let rows = &rows[..rows.len().min(self.batch_size)];
        let images = &self.images;
        let mut pixels = vec![0.0f32; rows.len() * images.image_len()];
        let mut rng = stream(self.seed, "augmentation", step);
        for (row, out) in rows.iter().zip(pixels.chunks_exact_mut(images.image_len())) {
            place(images.image(*row as usize), images.shape(), self.augment, &mut rng, out);
        }
        let labels = images.labels.as_ref().map_or(Vec::new(), |l| rows.iter().map(|row| l[*row as usize]).collect());
        let mut batch = Batch { shape: images.shape(), pixels, corrupted: Vec::new(), labels };
        if let Some(prepare) = &self.prepare {
            prepare(&mut batch, &mut rng);
        }
        batch
    }
}

/// Writes a picture as numbers from 0 to 1, mirrored and shifted by chance.
fn place(bytes: &[u8], [channels, height, width]: [usize; 3], augment: Augment, rng: &mut StreamRng, out: &mut [f32]) {
    if augment == Augment::default() {
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = f32::from(*byte) / 255.0);
        return;
    }
    let mirrored = augment.flip && rng.below(2) == 1;
    let mut shift = || rng.below(2 * augment.shift as u32 + 1) as isize - augment.shift as isize;
    let (dx, dy) = (shift(), shift());
    for c in 0..channels {
        for y in 0..height {
            let Some(from_y) = y.checked_add_signed(-dy).filter(|y| *y < height) else { continue };
            for x in 0..width {
                let Some(from_x) = x.checked_add_signed(-dx).filter(|x| *x < width) else { continue };
                let from_x = if mirrored { width - 1 - from_x } else { from_x };
                out[(c * height + y) * width + x] = f32::from(bytes[(c * height + from_y) * width + from_x]) / 255.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten pictures of 2 x 3 pixels; picture `i` is `[6 i, .., 6 i + 5]`, its label `i`.
    fn images() -> Arc<Images> {
        let labels = Some((0..10).collect());
        Arc::new(Images { channels: 1, height: 2, width: 3, pixels: (0..60).collect(), labels, classes: 10 })
    }

    fn batches(augment: Augment) -> Batches {
        Batches::new(images(), 4, augment, 7, None)
    }

    #[test]
    fn an_epoch_shows_every_picture_once_in_an_order_of_its_own() {
        let mut batches = batches(Augment::default());
        assert_eq!(batches.per_epoch(), 3);
        let mut epochs = Vec::new();
        for _ in 0..2 {
            let epoch: Vec<Batch> = (0..3).map(|_| batches.next_batch()).collect();
            assert_eq!(epoch.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 2]);
            for batch in &epoch {
                for (picture, label) in batch.pixels.chunks(6).zip(&batch.labels) {
                    assert_eq!(picture[5], (6 * label + 5) as f32 / 255.0);
                }
            }
            epochs.push(epoch.into_iter().flat_map(|batch| batch.labels).collect::<Vec<u32>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        for mut epoch in epochs {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_depends_on_its_step_alone() {
        let augment = Augment { flip: true, shift: 1 };
        let prepare: Prepare = Arc::new(|batch, rng| batch.corrupted = vec![rng.uniform()]);
        let make = || Batches::new(images(), 4, augment, 7, Some(Arc::clone(&prepare)));
        let mut all = make();
        let whole: Vec<Batch> = (0..9).map(|_| all.next_batch()).collect();
        let mut late = make();
        late.seek(5);
        assert_eq!(late.next_batch(), whole[5]);
        assert_eq!(late.next_batch(), whole[6]);
        late.seek(1);
        assert_eq!(late.next_batch(), whole[1]);
        assert_ne!(whole[0].corrupted, whole[1].corrupted);
    }

    #[test]
    fn augmentation_moves_and_mirrors() {
        let mut seen = std::collections::BTreeSet::new();
        let bytes = [255, 0, 0, 0, 0, 0];
        for step in 0..200 {
            let mut out = [0.0; 6];
            place(&bytes, [1, 2, 3], Augment { flip: true, shift: 1 }, &mut stream(1, "test", step), &mut out);
            seen.insert(out.iter().position(|v| *v == 1.0));
        }
        // The bright corner, mirrored or not, reaches every pixel or leaves the picture.
        assert_eq!(seen.len(), 7, "{seen:?}");
    }
}
