//! Writes a picture of every registered environment, some random steps into an episode, to a folder, and one sheet
//! of them all.
//!
//! ```text
//! cargo run -p hotfire-envs --example gallery -- docs/gallery
//! ```

use std::error::Error;
use std::path::PathBuf;

use hotfire_envs::{Buffer, ENVS, Frame, NpRng, make};
use image::RgbImage;
use image::imageops::{FilterType, replace, resize};

/// Pixels of the sheet: height of a picture, room between pictures, most for a row.
const HEIGHT: u32 = 300;
const GAP: u32 = 12;
const WIDTH: u32 = 1260;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: gallery FOLDER")?);
    std::fs::create_dir_all(&folder)?;
    let mut pictures = Vec::new();
    for spec in ENVS {
        if let Some(Frame { width, height, rgb }) = play(spec.id, 25)? {
            let picture = RgbImage::from_raw(width, height, rgb).ok_or("a frame holds all of its pixels")?;
            picture.save(folder.join(format!("{}.png", spec.id.replace('/', "-"))))?;
            pictures.push(picture);
        }
    }
    let mut rows: Vec<Vec<RgbImage>> = vec![Vec::new()];
    for picture in &pictures {
        let small = resize(picture, picture.width() * HEIGHT / picture.height(), HEIGHT, FilterType::Lanczos3);
        if row_width(&rows[rows.len() - 1]) + small.width() > WIDTH {
            rows.push(Vec::new());
        }
        let last = rows.len() - 1;
        rows[last].push(small);
    }
    let width = rows.iter().map(|row| row_width(row)).max().unwrap_or(0);
    let height = rows.len() as u32 * (HEIGHT + GAP) + GAP;
    let mut sheet = RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
    for (i, row) in rows.iter().enumerate() {
        let mut x = GAP;
        for picture in row {
            replace(&mut sheet, picture, x.into(), (GAP + i as u32 * (HEIGHT + GAP)).into());
            x += picture.width() + GAP;
        }
    }
    sheet.save(folder.join("sheet.png"))?;
    Ok(())
}

fn row_width(row: &[RgbImage]) -> u32 {
    row.iter().map(|picture| picture.width() + GAP).sum::<u32>() + GAP
}

/// The picture after some random steps, fewer if the episode ends before.
fn play(id: &str, steps: u32) -> Result<Option<Frame>, Box<dyn Error>> {
    let mut env = make(id, &[])?;
    let mut rng = NpRng::seed(8);
    let mut obs = Buffer::new(env.observation_space(), 1);
    let mut action = Buffer::new(env.action_space(), 1);
    env.reset(&mut rng, obs.as_mut());
    for _ in 0..steps {
        env.action_space().sample_into(&mut rng, action.as_mut())?;
        let outcome = env.step(action.as_row(), &mut rng, obs.as_mut());
        if outcome.terminated || outcome.truncated {
            break;
        }
    }
    Ok(env.render())
}
