//! Sheets of pictures: samples in a grid, pictures beside their reconstructions, latent traversals.

use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use hotfire_core::media::save_png;

/// About how many screen pixels wide a picture is shown.
const SHOWN: usize = 64;
/// Screen pixels between two pictures.
const GAP: usize = 3;
/// Screen pixels around a sheet, and between its bands.
const MARGIN: usize = 12;
const PAGE: [u8; 3] = [0xFC, 0xFD, 0xFE];

/// Pictures that are shown beside their reconstructions.
pub(crate) const RECONSTRUCTED: usize = 30;

/// Rows of pictures on a page. Rows of a band lie close together, bands farther apart.
pub(crate) struct Sheet {
    shape: [usize; 3],
    bands: Vec<Vec<Vec<f32>>>,
}

impl Sheet {
    /// A sheet for pictures of `[channels, height, width]` numbers from 0 to 1.
    pub fn new(shape: [usize; 3]) -> Self {
        Self { shape, bands: Vec::new() }
    }

    /// Pictures `[N, channels, height, width]` in rows of `columns`.
    pub fn grid(shape: [usize; 3], pictures: &[f32], columns: usize) -> Self {
        let mut sheet = Self::new(shape);
        sheet.band(pictures.chunks(columns * sheet.picture_len()).map(<[f32]>::to_vec).collect());
        sheet
    }

    /// Pictures `[N, channels, height, width]` of several kinds in bands of ten columns, a row of each kind in a band.
    pub fn side_by_side(shape: [usize; 3], kinds: &[&[f32]]) -> Self {
        let mut sheet = Self::new(shape);
        let len = 10 * sheet.picture_len();
        for start in (0..kinds[0].len()).step_by(len) {
            sheet.band(kinds.iter().map(|kind| kind[start..kind.len().min(start + len)].to_vec()).collect());
        }
        sheet
    }

    /// Adds a band of rows, each `[columns, channels, height, width]`.
    pub fn band(&mut self, rows: Vec<Vec<f32>>) -> &mut Self {
        self.bands.push(rows);
        self
    }

    fn picture_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Writes the sheet as PNG.
    pub fn save(&self, path: &Path) -> Result<PathBuf, CoreError> {
        let [channels, height, width] = self.shape;
        let zoom = (SHOWN / width.max(height)).max(1);
        let (tile_width, tile_height) = (zoom * width, zoom * height);
        let rows = self.bands.iter().map(Vec::len).sum::<usize>();
        let columns = self.bands.iter().flatten().map(|row| row.len() / self.picture_len()).max().unwrap_or(0);
        let between = self.bands.len().saturating_sub(1) * (MARGIN - GAP);
        let extent = |tiles: usize, size: usize| 2 * MARGIN + tiles * (size + GAP) - GAP.min(tiles * GAP);
        let sheet_width = extent(columns, tile_width);
        let sheet_height = extent(rows, tile_height) + between;
        let mut rgb = PAGE.repeat(sheet_width * sheet_height);
        let mut top = MARGIN;
        for band in &self.bands {
            for row in band {
                for (column, picture) in row.chunks_exact(self.picture_len()).enumerate() {
                    let left = MARGIN + column * (tile_width + GAP);
                    for y in 0..tile_height {
                        for x in 0..tile_width {
                            let at = 3 * ((top + y) * sheet_width + left + x);
                            for c in 0..3 {
                                let plane = c.min(channels - 1);
                                let value = picture[(plane * height + y / zoom) * width + x / zoom];
                                rgb[at + c] = (255.0 * value).round().clamp(0.0, 255.0) as u8;
                            }
                        }
                    }
                }
                top += tile_height + GAP;
            }
            top += MARGIN - GAP;
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(CoreError::io(parent, "make"))?;
        }
        save_png(path, sheet_width as u32, sheet_height as u32, &rgb).map_err(CoreError::io(path, "write"))?;
        Ok(path.to_path_buf())
    }
}

/// Columns for a grid of `count` pictures that is about square.
pub(crate) fn columns(count: usize) -> usize {
    (1..=count).find(|columns| columns * columns >= count).unwrap_or(1)
}

/// The straight line from `from` to `to` in `steps` points, ends included: `[steps, width]`.
pub(crate) fn line(from: &[f32], to: &[f32], steps: usize) -> Vec<f32> {
    let at = |i: usize| i as f32 / (steps - 1).max(1) as f32;
    (0..steps).flat_map(|i| from.iter().zip(to).map(move |(a, b)| a + at(i) * (b - a))).collect()
}

/// The great-circle path between two vectors (Shoemake 1985), for codes that lie near a sphere as normal draws do.
pub(crate) fn arc(from: &[f32], to: &[f32], steps: usize) -> Vec<f32> {
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let dot: f32 = from.iter().zip(to).map(|(a, b)| a * b).sum();
    let angle = (dot / (norm(from) * norm(to)).max(1e-12)).clamp(-1.0, 1.0).acos();
    if angle.sin() < 1e-4 {
        return line(from, to, steps);
    }
    let weights = |i: usize| {
        let t = i as f32 / (steps - 1).max(1) as f32;
        (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
    };
    (0..steps)
        .flat_map(|i| {
            let (a, b) = weights(i);
            from.iter().zip(to).map(move |(from, to)| a * from + b * to)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_shows_each_picture_at_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/sheet.png");
        let shape = [1, 32, 32];
        let mut sheet = Sheet::new(shape);
        let row = |values: [f32; 2]| values.iter().flat_map(|v| vec![*v; 1024]).collect::<Vec<f32>>();
        sheet.band(vec![row([0.0, 0.2]), row([0.4, 0.6])]).band(vec![row([0.8, 1.0])]);
        sheet.save(&path).unwrap();
        let picture = image::open(&path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (2 * 12 + 2 * 64 + 3, 2 * 12 + 3 * 64 + 3 + 12));
        let at = |x, y| picture.get_pixel(x, y).0;
        assert_eq!(at(12, 12), [0; 3]);
        assert_eq!(at(12 + 67, 12), [51; 3]);
        assert_eq!(at(12, 12 + 67), [102; 3]);
        assert_eq!(at(12 + 67, 12 + 67 + 64 + 12), [255; 3]);
        assert_eq!(at(12 + 64, 12), PAGE);
    }

    #[test]
    fn paths_begin_and_end_where_they_should() {
        let (a, b) = ([1.0, 0.0], [0.0, 2.0]);
        let straight = line(&a, &b, 3);
        assert_eq!(straight, [1.0, 0.0, 0.5, 1.0, 0.0, 2.0]);
        let round = arc(&a, &[0.0, 1.0], 3);
        let half = 0.5f32.sqrt();
        for (got, want) in round.iter().zip([1.0, 0.0, half, half, 0.0, 1.0]) {
            assert!((got - want).abs() < 1e-6, "{round:?}");
        }
        assert_eq!(columns(64), 8);
        assert_eq!(columns(10), 4);
    }
}
