//! Pictures and animations as files: PNG and GIF from row-major RGB8 bytes.
//!
//! A GIF has at most 256 colours and a clock of 1/100 s. [`GifWriter`] therefore chooses one palette for the whole
//! animation (exact where 255 colours are enough; otherwise variance-based median cut, Heckbert 1982 and Wu 1991,
//! polished by k-means), writes of each frame only what changed, and drops frames until the rate is one that viewers
//! play. There is no dithering: flat areas stay flat, still ones stay still, and both compress.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use gif::{DisposalMethod, Encoder, Frame, Repeat};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::error::CoreError;

/// Frames a second above which frames are dropped; several viewers slow down GIFs that are faster.
const MAX_FPS: u32 = 33;
/// Palette entries for colours; one more stands for "unchanged".
const COLORS: usize = 255;
const UNCHANGED: u8 = 255;
/// Distinct colours from which nearby ones are joined before the palette is chosen.
const MANY_COLORS: usize = 1 << 16;

/// A colour's weight is its count to this power: at 1/2 large gradients show bands, at 1 small things lose shades.
const WEIGHT: f32 = 0.75;

/// Writes a picture of `[height, width, 3]` bytes as PNG.
///
/// # Errors
/// If `rgb` has another length or the file can't be written; the message names the file.
pub fn save_png(path: &Path, width: u32, height: u32, rgb: &[u8]) -> io::Result<()> {
    check_size(path, width, height, rgb)?;
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
        .write_image(rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|e| named(path, e))?;
    std::fs::write(path, bytes).map_err(|e| named(path, e))
}

/// Refuses a file for a picture whose ending says another format than one of `endings`; `option` is what gave it.
///
/// # Errors
/// [`CoreError::Usage`], naming the file.
pub fn expect_ending(option: &str, path: &Path, endings: &[&str]) -> Result<(), CoreError> {
    let found = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if endings.contains(&found.as_str()) {
        return Ok(());
    }
    let expected = endings.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(" or ");
    Err(CoreError::Usage(format!("{option} {}: expected a file that ends in {expected}", path.display())))
}

/// Pictures of one size side by side: the width, height and bytes of a sheet with `columns` pictures a row and `gap`
/// white pixels between them and around.
///
/// # Panics
/// If a picture is not `[height, width, 3]` bytes.
pub fn grid(width: u32, height: u32, pictures: &[impl AsRef<[u8]>], columns: u32, gap: u32) -> (u32, u32, Vec<u8>) {
    let columns = columns.min(pictures.len() as u32).max(1);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let (sheet_width, sheet_height) = (columns * (width + gap) + gap, rows * (height + gap) + gap);
    let mut sheet = vec![255; 3 * sheet_width as usize * sheet_height as usize];
    for (i, picture) in pictures.iter().map(AsRef::as_ref).enumerate() {
        assert_eq!(picture.len(), 3 * width as usize * height as usize, "bytes of picture {i}");
        let (column, row) = (i as u32 % columns, i as u32 / columns);
        let (x, y) = (gap + column * (width + gap), gap + row * (height + gap));
        for (line, source) in picture.chunks_exact(3 * width as usize).enumerate() {
            let at = 3 * ((y as usize + line) * sheet_width as usize + x as usize);
            sheet[at..at + source.len()].copy_from_slice(source);
        }
    }
    (sheet_width, sheet_height, sheet)
}

/// Collects the frames of an animation and writes them as an endless GIF.
///
/// Frames are kept as their changed rectangles, so that a long episode takes little memory. Above 33 frames a second
/// every second (third, ...) frame is left out; the animation keeps its length in seconds to 1/100 s.
#[derive(Debug)]
pub struct GifWriter {
    path: PathBuf,
    width: u32,
    height: u32,
    fps: u32,
    pushed: u32,
    last: Vec<u8>,
    changes: Vec<Change>,
}

/// The rectangle in which frame `frame` differs from the one kept before it.
#[derive(Debug)]
struct Change {
    frame: u32,
    left: u32,
    top: u32,
    width: u32,
    rgb: Vec<u8>,
}

impl GifWriter {
    /// Starts an animation of `width` x `height` pixels with `fps` frames a second; nothing is written yet.
    ///
    /// # Errors
    /// If the size or the rate is zero, or the size is more than a GIF can have.
    pub fn new(path: &Path, width: u32, height: u32, fps: u32) -> io::Result<Self> {
        let sizes = 1..=u32::from(u16::MAX);
        if !sizes.contains(&width) || !sizes.contains(&height) || fps == 0 {
            let problem =
                format!("expected a size of 1 to 65535 pixels and a rate above 0, found {width}x{height} at {fps}/s");
            return Err(named(path, problem));
        }
        Ok(Self { path: path.to_owned(), width, height, fps, pushed: 0, last: Vec::new(), changes: Vec::new() })
    }

    /// Adds a frame of `[height, width, 3]` bytes.
    ///
    /// # Errors
    /// If it has another length.
    pub fn push(&mut self, rgb: &[u8]) -> io::Result<()> {
        check_size(&self.path, self.width, self.height, rgb)?;
        let frame = self.pushed;
        self.pushed += 1;
        if !frame.is_multiple_of(self.fps.div_ceil(MAX_FPS)) {
            return Ok(());
        }
        let (width, height) = (self.width as usize, self.height as usize);
        let Some([left, top, right, bottom]) = changed(&self.last, rgb, width, height) else { return Ok(()) };
        let mut part = Vec::with_capacity(3 * (right - left) * (bottom - top));
        for row in rgb.chunks_exact(3 * width).take(bottom).skip(top) {
            part.extend_from_slice(&row[3 * left..3 * right]);
        }
        let (left, top, width) = (left as u32, top as u32, (right - left) as u32);
        self.changes.push(Change { frame, left, top, width, rgb: part });
        self.last.clear();
        self.last.extend_from_slice(rgb);
        Ok(())
    }

    /// Writes the file. A still stretch becomes one frame with a long delay.
    ///
    /// # Errors
    /// If no frame was added or the file can't be written; the message names the file.
    pub fn finish(self) -> io::Result<()> {
        if self.changes.is_empty() {
            return Err(named(&self.path, "an animation needs at least one frame"));
        }
        let bytes = self.encode().map_err(|e| named(&self.path, e))?;
        std::fs::write(&self.path, bytes).map_err(|e| named(&self.path, e))
    }

    fn encode(&self) -> Result<Vec<u8>, gif::EncodingError> {
        let mut histogram = HashMap::<[u8; 3], u32>::new();
        for (i, change) in self.changes.iter().enumerate() {
            // Most of the first picture stays: it counts as often as it is seen.
            let weight = if i == 0 { self.changes.len() as u32 } else { 1 };
            for &color in change.rgb.as_chunks().0 {
                let count = histogram.entry(color).or_default();
                *count = count.saturating_add(weight);
            }
        }
        let mut colors: Vec<_> = histogram.into_iter().collect();
        // A hash map's order differs from run to run; the file must not.
        colors.sort_unstable();
        let palette = palette(&colors);
        let index: HashMap<[u8; 3], u8> = colors.iter().map(|&(rgb, _)| (rgb, nearest(&palette, rgb))).collect();

        let mut encoder = Encoder::new(Vec::new(), self.width as u16, self.height as u16, palette.as_flattened())?;
        encoder.set_repeat(Repeat::Infinite)?;
        let mut canvas = vec![UNCHANGED; self.width as usize * self.height as usize];
        for (i, change) in self.changes.iter().enumerate() {
            let mut pixels: Vec<u8> = change.rgb.as_chunks().0.iter().map(|rgb| index[rgb]).collect();
            for (y, row) in pixels.chunks_exact_mut(change.width as usize).enumerate() {
                let at = (change.top as usize + y) * self.width as usize + change.left as usize;
                for (pixel, shown) in row.iter_mut().zip(&mut canvas[at..]) {
                    if *pixel == *shown {
                        *pixel = UNCHANGED;
                    } else {
                        *shown = *pixel;
                    }
                }
            }
            // Delays are differences of rounded times, so that rounding does not add up.
            let clock = |frame: u32| (100 * u64::from(frame) + u64::from(self.fps) / 2) / u64::from(self.fps);
            let next = self.changes.get(i + 1).map_or(self.pushed, |c| c.frame);
            let frame = Frame {
                delay: (clock(next) - clock(change.frame)).clamp(1, u64::from(u16::MAX)) as u16,
                dispose: DisposalMethod::Keep,
                transparent: (i > 0).then_some(UNCHANGED),
                left: change.left as u16,
                top: change.top as u16,
                width: change.width as u16,
                height: (pixels.len() / change.width as usize) as u16,
                buffer: pixels.into(),
                ..Frame::default()
            };
            encoder.write_frame(&frame)?;
        }
        encoder.into_inner()
    }
}

/// The smallest `[left, top, right, bottom]` outside of which two pictures are equal; all of it without a first one.
fn changed(old: &[u8], new: &[u8], width: usize, height: usize) -> Option<[usize; 4]> {
    if old.is_empty() {
        return Some([0, 0, width, height]);
    }
    let mut bounds: Option<[usize; 4]> = None;
    for (y, (a, b)) in old.chunks_exact(3 * width).zip(new.chunks_exact(3 * width)).enumerate() {
        if a == b {
            continue;
        }
        let mut differs = a.iter().zip(b).map(|(a, b)| a != b);
        let first = differs.position(|d| d).map_or(0, |i| i / 3);
        let last = a.iter().zip(b).rposition(|(a, b)| a != b).map_or(0, |i| i / 3);
        let [left, top, right, _] = bounds.unwrap_or([first, y, last + 1, y + 1]);
        bounds = Some([left.min(first), top, right.max(last + 1), y + 1]);
    }
    bounds
}

/// A colour as numbers, with its weight.
type Weighted = ([f32; 3], f32);

/// At most 255 colours that stand for `colors` (sorted, with counts) with a small squared error.
fn palette(colors: &[([u8; 3], u32)]) -> Vec<[u8; 3]> {
    if colors.len() <= COLORS {
        return colors.iter().map(|c| c.0).collect();
    }
    let mut points = weighted(colors);
    // Each part is cut at its mean along its widest axis, the part with the largest squared error first.
    let mut parts = vec![(worst_axis(&points), 0..points.len())];
    while parts.len() < COLORS {
        let Some(at) = (0..parts.len()).max_by(|&a, &b| parts[a].0.0.total_cmp(&parts[b].0.0)) else { break };
        let ((error, axis), range) = parts.swap_remove(at);
        if error <= 0.0 {
            break;
        }
        let part = &mut points[range.clone()];
        let mean = centroid(part)[axis];
        part.sort_unstable_by(|a, b| a.0[axis].total_cmp(&b.0[axis]));
        let cut = part.partition_point(|p| p.0[axis] <= mean).clamp(1, part.len() - 1);
        for half in [range.start..range.start + cut, range.start + cut..range.end] {
            parts.push((worst_axis(&points[half.clone()]), half));
        }
    }
    let mut centers: Vec<[f32; 3]> = parts.into_iter().map(|(_, range)| centroid(&points[range])).collect();
    for _ in 0..3 {
        let mut sums = vec![([0.0f32; 3], 0.0f32); centers.len()];
        for (color, weight) in &points {
            let (sum, total) = &mut sums[nearest_center(&centers, color)];
            (0..3).for_each(|k| sum[k] += weight * color[k]);
            *total += weight;
        }
        for (center, (sum, total)) in centers.iter_mut().zip(sums) {
            if total > 0.0 {
                *center = sum.map(|s| s / total);
            }
        }
    }
    centers.into_iter().map(|c| c.map(|x| x.round() as u8)).collect()
}

/// Colours weighted by a power of their count, so that large flat areas leave room for small bright things.
fn weighted(colors: &[([u8; 3], u32)]) -> Vec<Weighted> {
    let point = |(rgb, count): &([u8; 3], u32)| (rgb.map(f32::from), (*count as f32).powf(WEIGHT));
    if colors.len() <= MANY_COLORS {
        return colors.iter().map(point).collect();
    }
    let mut cells = vec![([0.0f32; 3], 0.0f32); 1 << 15];
    for ([r, g, b], count) in colors {
        let (sum, total) = &mut cells[usize::from(r >> 3) << 10 | usize::from(g >> 3) << 5 | usize::from(b >> 3)];
        for (s, x) in sum.iter_mut().zip([r, g, b]) {
            *s += f32::from(*x) * *count as f32;
        }
        *total += *count as f32;
    }
    cells.into_iter().filter(|c| c.1 > 0.0).map(|(sum, total)| (sum.map(|s| s / total), total.powf(WEIGHT))).collect()
}

fn centroid(points: &[Weighted]) -> [f32; 3] {
    let total: f32 = points.iter().map(|p| p.1).sum();
    [0, 1, 2].map(|k| points.iter().map(|p| p.0[k] * p.1).sum::<f32>() / total)
}

/// The largest weighted squared error of the three axes, and that axis; zero for a single colour.
fn worst_axis(points: &[Weighted]) -> (f32, usize) {
    if points.len() < 2 {
        return (0.0, 0);
    }
    let mean = centroid(points);
    let error = |k: usize| points.iter().map(|p| p.1 * (p.0[k] - mean[k]).powi(2)).sum::<f32>();
    [0, 1, 2].map(|k| (error(k), k)).into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, 0))
}

fn nearest_center(centers: &[[f32; 3]], color: &[f32; 3]) -> usize {
    let distance = |c: &[f32; 3]| (0..3).map(|k| (c[k] - color[k]).powi(2)).sum::<f32>();
    (0..centers.len()).min_by(|&a, &b| distance(&centers[a]).total_cmp(&distance(&centers[b]))).unwrap_or(0)
}

fn nearest(palette: &[[u8; 3]], color: [u8; 3]) -> u8 {
    let distance = |c: &[u8; 3]| (0..3).map(|k| (i32::from(c[k]) - i32::from(color[k])).pow(2)).sum::<i32>();
    (0..palette.len()).min_by_key(|&i| distance(&palette[i])).unwrap_or(0) as u8
}

fn check_size(path: &Path, width: u32, height: u32, rgb: &[u8]) -> io::Result<()> {
    let expected = 3 * width as usize * height as usize;
    if rgb.len() == expected {
        return Ok(());
    }
    Err(named(path, format!("expected {expected} bytes for {width}x{height} pixels, found {}", rgb.len())))
}

/// An error that names the file.
pub(crate) fn named(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A red square of 8 pixels on a vertical grey gradient, at column `x`.
    fn scene(x: u32) -> Vec<u8> {
        let pixel = |i: u32| {
            let (column, row) = (i % 64, i / 64);
            let red = (x..x + 8).contains(&column) && (20..28).contains(&row);
            if red { [220, 30, 40] } else { [100 + row as u8; 3] }
        };
        (0..64 * 48).flat_map(pixel).collect()
    }

    fn save_gif(path: &Path, width: u32, height: u32, frames: &[impl AsRef<[u8]>], fps: u32) -> io::Result<()> {
        let mut gif = GifWriter::new(path, width, height, fps)?;
        for frame in frames {
            gif.push(frame.as_ref())?;
        }
        gif.finish()
    }

    struct Decoded {
        size: (u16, u16),
        delays: Vec<u16>,
        frames: Vec<Vec<u8>>,
    }

    fn decode(path: &Path) -> Decoded {
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::Indexed);
        let mut decoder = options.read_info(std::fs::File::open(path).unwrap()).unwrap();
        let size = (decoder.width(), decoder.height());
        let palette = decoder.global_palette().unwrap().to_vec();
        let mut canvas = vec![0; 3 * usize::from(size.0) * usize::from(size.1)];
        let (mut delays, mut frames) = (Vec::new(), Vec::new());
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            delays.push(frame.delay);
            for (i, &index) in frame.buffer.iter().enumerate().filter(|(_, index)| Some(**index) != frame.transparent) {
                let (x, y) = (i % usize::from(frame.width), i / usize::from(frame.width));
                let at = 3 * ((usize::from(frame.top) + y) * usize::from(size.0) + usize::from(frame.left) + x);
                canvas[at..at + 3].copy_from_slice(&palette[3 * usize::from(index)..][..3]);
            }
            frames.push(canvas.clone());
        }
        Decoded { size, delays, frames }
    }

    #[test]
    fn gif_with_few_colours_decodes_to_the_same_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gif");
        let frames: Vec<_> = (0..30).map(scene).collect();
        save_gif(&path, 64, 48, &frames, 25).unwrap();
        let gif = decode(&path);
        assert_eq!(gif.size, (64, 48));
        assert_eq!(gif.delays, [4; 30]);
        assert!(gif.frames == frames);
        let one = dir.path().join("one.gif");
        save_gif(&one, 64, 48, &frames[..1], 25).unwrap();
        let sizes = [&path, &one].map(|p| std::fs::metadata(p).unwrap().len());
        assert!(sizes[0] < 3 * sizes[1] + 30 * 60, "only what moved is stored: {sizes:?}");
    }

    #[test]
    fn the_clock_is_right_at_every_rate() {
        let dir = tempfile::tempdir().unwrap();
        // Rate, frames, frames that are kept.
        for (fps, pushed, kept) in [(50, 50, 25), (30, 45, 45), (60, 120, 60), (15, 7, 7), (100, 50, 13), (1, 3, 3)] {
            let path = dir.path().join(format!("{fps}.gif"));
            let frames: Vec<_> = (0..pushed).map(|i| scene(i % 50)).collect();
            save_gif(&path, 64, 48, &frames, fps).unwrap();
            let gif = decode(&path);
            assert_eq!(gif.frames.len(), kept, "{fps}");
            assert!(gif.frames.iter().enumerate().all(|(i, f)| f == &frames[i * fps.div_ceil(33) as usize]), "{fps}");
            assert!(gif.delays.iter().all(|&d| d >= 3 || d == gif.delays[kept - 1]), "{fps}: {:?}", gif.delays);
            let total: u32 = gif.delays.iter().map(|&d| u32::from(d)).sum();
            assert_eq!(total, (100 * pushed + fps / 2) / fps, "{fps}");
        }
    }

    #[test]
    fn a_still_stretch_becomes_a_long_delay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gif");
        save_gif(&path, 64, 48, &[scene(0), scene(0), scene(0), scene(9), scene(9)], 10).unwrap();
        assert_eq!(decode(&path).delays, [30, 20]);
    }

    #[test]
    fn many_colours_are_approximated_and_small_bright_things_keep_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gif");
        let mut picture: Vec<u8> =
            (0..128 * 128).flat_map(|i| [(i % 128) as u8, (i / 128) as u8, ((i % 128 + i / 128) / 2) as u8]).collect();
        picture[..6].copy_from_slice(&[255, 20, 255, 255, 20, 255]);
        save_gif(&path, 128, 128, &[&picture], 10).unwrap();
        let gif = decode(&path);
        let error: f64 = picture.iter().zip(&gif.frames[0]).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        let rms = (error / picture.len() as f64).sqrt();
        assert!(rms > 0.0 && rms < 4.0, "{rms}");
        assert_eq!(gif.frames[0][..6], picture[..6]);
        save_gif(&dir.path().join("b.gif"), 128, 128, &[&picture], 10).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(dir.path().join("b.gif")).unwrap());
    }

    #[test]
    fn more_colours_than_cells_still_make_a_palette() {
        let colors: Vec<_> =
            (0..70_000u32).map(|i| ([(i >> 11) as u8 * 7, (i >> 5) as u8, (i * 8) as u8], 1 + i % 3)).collect();
        let palette = palette(&colors);
        assert_eq!(palette.len(), COLORS);
        let far = |c: &[u8; 3]| {
            let p = palette[usize::from(nearest(&palette, *c))];
            (0..3).map(|k| c[k].abs_diff(p[k])).max().unwrap()
        };
        assert!(colors.iter().map(|c| far(&c.0)).max().unwrap() < 64);
    }

    #[test]
    fn png_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        save_png(&path, 64, 48, &scene(5)).unwrap();
        let back = image::open(&path).unwrap().into_rgb8();
        assert_eq!((back.width(), back.height()), (64, 48));
        assert!(back.into_raw() == scene(5));
    }

    #[test]
    fn grid_places_pictures_row_by_row() {
        let pictures: Vec<_> = (0..3u8).map(|i| vec![i; 3 * 2]).collect();
        let (width, height, rgb) = grid(2, 1, &pictures, 2, 1);
        assert_eq!((width, height), (7, 5));
        let rows: Vec<Vec<u8>> = rgb.chunks(21).map(|row| row.iter().step_by(3).copied().collect()).collect();
        assert_eq!(rows[1], [255, 0, 0, 255, 1, 1, 255]);
        assert_eq!(rows[3], [255, 2, 2, 255, 255, 255, 255]);
        assert!([0, 2, 4].iter().all(|&y| rows[y] == [255; 7]));
    }

    #[test]
    fn errors_name_the_file() {
        let path = Path::new("/nowhere/a.gif");
        let frame = scene(0);
        for error in [
            save_png(path, 64, 48, &frame),
            save_png(path, 64, 47, &frame),
            save_gif(path, 64, 48, &[&frame], 10),
            save_gif(path, 64, 48, &[&frame], 0),
            save_gif(path, 64, 48, &[] as &[&[u8]], 10),
            save_gif(path, 63, 48, &[&frame], 10),
            save_gif(path, 70_000, 48, &[&frame], 10),
        ] {
            let message = error.unwrap_err().to_string();
            assert!(message.starts_with("/nowhere/a.gif: "), "{message}");
        }
    }
}
