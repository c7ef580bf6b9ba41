//! A set of pictures in memory.

/// Pictures of one size, as bytes, with or without labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// 1 for grey, 3 for colour.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Pixels a row.
    pub width: usize,
    /// `[N, channels, height, width]` bytes.
    pub pixels: Vec<u8>,
    /// The class of each picture: `[N]`.
    pub labels: Option<Vec<u32>>,
    /// Number of classes; 0 without labels.
    pub classes: usize,
}

impl Images {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.image_len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Numbers of one picture.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// The bytes of a picture.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.image_len()..][..self.image_len()]
    }

    /// Pictures `rows` as numbers from 0 to 1: `[rows, channels * height * width]`.
    pub fn floats(&self, rows: std::ops::Range<usize>) -> Vec<f32> {
        let bytes = &self.pixels[rows.start * self.image_len()..rows.end * self.image_len()];
        bytes.iter().map(|byte| f32::from(*byte) / 255.0).collect()
    }

    /// The first `count` pictures, or all if there are fewer or `count` is 0.
    pub fn truncated(mut self, count: usize) -> Self {
        if count > 0 && count < self.len() {
            self.pixels.truncate(count * self.image_len());
            if let Some(labels) = &mut self.labels {
                labels.truncate(count);
            }
        }
        self
    }

    /// The pictures `rows`, in that order.
    pub fn picked(&self, rows: &[usize]) -> Self {
        Self {
            pixels: rows.iter().flat_map(|row| self.image(*row)).copied().collect(),
            labels: self.labels.as_ref().map(|labels| rows.iter().map(|row| labels[*row]).collect()),
            ..*self
        }
    }

    /// The pictures whose label `keep` accepts; none without labels.
    pub fn filtered(&self, keep: impl Fn(u32) -> bool) -> Self {
        let labels = self.labels.as_deref().unwrap_or_default();
        let rows: Vec<usize> = (0..labels.len()).filter(|row| keep(labels[*row])).collect();
        self.picked(&rows)
    }
}
