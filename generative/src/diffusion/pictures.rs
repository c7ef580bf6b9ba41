//! Sample grids, denoising films and densities of points.

use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use hotfire_core::media::{GifWriter, grid, save_png};

use super::sampling::Film;

/// Screen pixels of a picture's pixel.
const ZOOM: usize = 2;
/// Frames of a film that show the finished samples.
const HOLD: usize = 20;
const FPS: u32 = 15;

fn failed(error: std::io::Error) -> CoreError {
    CoreError::Failed(error.to_string())
}

/// A picture `[C, H, W]` from -1 to 1 as enlarged RGB bytes.
fn to_rgb(picture: &[f32], [channels, height, width]: [usize; 3]) -> Vec<u8> {
    let byte = |c: usize, y: usize, x: usize| {
        let value = picture[(c * height + y) * width + x];
        ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
    };
    let mut rgb = Vec::with_capacity(3 * ZOOM * ZOOM * height * width);
    for y in 0..ZOOM * height {
        for x in 0..ZOOM * width {
            rgb.extend([0, 1, 2].map(|c| byte(c.min(channels - 1), y / ZOOM, x / ZOOM)));
        }
    }
    rgb
}

fn sheet(pictures: &[f32], shape: [usize; 3], columns: usize) -> (u32, u32, Vec<u8>) {
    let rgb: Vec<Vec<u8>> = pictures.chunks_exact(shape.iter().product()).map(|p| to_rgb(p, shape)).collect();
    grid((ZOOM * shape[2]) as u32, (ZOOM * shape[1]) as u32, &rgb, columns as u32, 2)
}

/// Pictures `[N, C, H, W]` in rows of `columns`.
pub(super) fn sample_grid(path: &Path, samples: &[f32], shape: [usize; 3], columns: usize) -> Result<(), CoreError> {
    let (width, height, rgb) = sheet(samples, shape, columns);
    save_png(path, width, height, &rgb).map_err(failed)
}

/// `film.png`, one sample a row from noise to picture, and `film.gif`, all samples at once.
pub(super) fn denoising_film(
    dir: &Path,
    film: &Film,
    shape: [usize; 3],
    columns: usize,
) -> Result<Vec<PathBuf>, CoreError> {
    const STAGES: usize = 10;
    let dim: usize = shape.iter().product();
    let rows = film.states[0].len() / dim;
    let last = film.states.len() - 1;
    let stage = |i: usize| &film.states[i * last / (STAGES - 1)];
    let strip: Vec<f32> =
        (0..rows.min(8)).flat_map(|row| (0..STAGES).flat_map(move |i| stage(i)[row * dim..][..dim].to_vec())).collect();
    let (png, gif) = (dir.join("film.png"), dir.join("film.gif"));
    sample_grid(&png, &strip, shape, STAGES)?;
    denoising_gif(&gif, film, shape, columns)?;
    Ok(vec![png, gif])
}

/// All samples from noise to picture.
pub(super) fn denoising_gif(path: &Path, film: &Film, shape: [usize; 3], columns: usize) -> Result<(), CoreError> {
    let mut writer = None;
    let last = film.states.len() - 1;
    for state in film.states.iter().chain(std::iter::repeat_n(&film.states[last], HOLD)) {
        let (width, height, rgb) = sheet(state, shape, columns);
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(GifWriter::new(path, width, height, FPS).map_err(failed)?),
        };
        writer.push(&rgb).map_err(failed)?;
    }
    writer.expect("a film has states").finish().map_err(failed)
}

/// Width and height of a density's picture, and the range of the plane that it shows.
const SIDE: usize = 240;
const RANGE: f32 = 2.4;

/// The density of points `[N, 2]`, counted in cells of 2 x 2 pixels.
fn density_rgb(points: &[f32]) -> Vec<u8> {
    const CELL: usize = 2;
    const CELLS: usize = SIDE / CELL;
    let mut counts = vec![0.0f32; CELLS * CELLS];
    let cell = |v: f32| {
        let at = ((v + RANGE) / (2.0 * RANGE) * CELLS as f32).floor();
        (0.0..CELLS as f32).contains(&at).then_some(at as usize)
    };
    for point in points.chunks_exact(2) {
        if let (Some(x), Some(y)) = (cell(point[0]), cell(-point[1])) {
            counts[y * CELLS + x] += 1.0;
        }
    }
    // The scale is that of the number of points alone, so that frames can be compared.
    let full = points.len() as f32 / 2.0 / 400.0;
    let mut rgb = Vec::with_capacity(3 * SIDE * SIDE);
    for y in 0..SIDE {
        for x in 0..SIDE {
            rgb.extend(color((counts[y / CELL * CELLS + x / CELL] / full).min(1.0).sqrt()));
        }
    }
    rgb
}

/// Dark blue over violet and orange to pale yellow.
fn color(value: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 5] =
        [[13.0, 15.0, 38.0], [87.0, 33.0, 120.0], [196.0, 60.0, 96.0], [247.0, 142.0, 60.0], [252.0, 242.0, 180.0]];
    let at = value.clamp(0.0, 1.0) * 4.0;
    let i = (at as usize).min(3);
    let part = at - i as f32;
    std::array::from_fn(|c| (STOPS[i][c] + (STOPS[i + 1][c] - STOPS[i][c]) * part).round() as u8)
}

/// The density of points as a picture.
pub(super) fn density(path: &Path, points: &[f32]) -> Result<(), CoreError> {
    save_png(path, SIDE as u32, SIDE as u32, &density_rgb(points)).map_err(failed)
}

/// The density of points from noise to data.
pub(super) fn density_gif(path: &Path, film: &Film) -> Result<(), CoreError> {
    let mut writer = GifWriter::new(path, SIDE as u32, SIDE as u32, FPS).map_err(failed)?;
    let last = film.states.len() - 1;
    for state in film.states.iter().chain(std::iter::repeat_n(&film.states[last], HOLD)) {
        writer.push(&density_rgb(state)).map_err(failed)?;
    }
    writer.finish().map_err(failed)
}

/// `density.png`, stages from noise to samples and at last the data, and `density.gif`.
pub(super) fn density_film(dir: &Path, film: &Film, real: &[f32]) -> Result<Vec<PathBuf>, CoreError> {
    const STAGES: usize = 5;
    let last = film.states.len() - 1;
    let mut panels: Vec<Vec<u8>> = (0..STAGES).map(|i| density_rgb(&film.states[i * last / (STAGES - 1)])).collect();
    panels.push(density_rgb(real));
    let (width, height, rgb) = grid(SIDE as u32, SIDE as u32, &panels, 3, 4);
    let (png, gif) = (dir.join("density.png"), dir.join("density.gif"));
    save_png(&png, width, height, &rgb).map_err(failed)?;
    density_gif(&gif, film)?;
    Ok(vec![png, gif])
}
