//! Gymnasium's `RecordVideo`. Of a batch only the first environment records. A recording is not a part of the saved
//! state: after loading, the next one starts with its episode.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{WrapperSpec, forward, required};
use crate::{ActionRef, Env, EnvError, Foreign, Frame, NpRng, ObsMut, Options, StateReader, StateWriter, StepOutcome};

/// A video file that is being written.
pub trait VideoSink: Send {
    /// Adds a picture of the size that the file was opened with.
    ///
    /// # Errors
    /// If it can't be written; the message names the file.
    fn push(&mut self, frame: &Frame) -> io::Result<()>;

    /// Writes what is left.
    ///
    /// # Errors
    /// If it can't be written; the message names the file.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Opens a video file for pictures of a width and height, with a number of frames a second.
pub type OpenVideo = fn(path: &Path, width: u32, height: u32, fps: u32) -> io::Result<Box<dyn VideoSink>>;

/// Opens a video that the program `ffmpeg` writes, in the format of the file's ending.
///
/// # Errors
/// If there is no such program; the message names it and the file.
pub fn open_with_ffmpeg(path: &Path, width: u32, height: u32, fps: u32) -> io::Result<Box<dyn VideoSink>> {
    let (size, fps) = (format!("{width}x{height}"), fps.to_string());
    let mut command = Command::new("ffmpeg");
    command.args([
        "-y",
        "-loglevel",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        &size,
        "-r",
        &fps,
        "-i",
        "-",
    ]);
    if path.extension().is_some_and(|ending| ending == "mp4") {
        // Players want 4:2:0, which needs even sizes.
        command.args(["-pix_fmt", "yuv420p", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"]);
    }
    let child = command.arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child =
        child.map_err(|e| named(path, format!("the program `ffmpeg`, which writes it, does not start: {e}")))?;
    Ok(Box::new(Ffmpeg { path: path.to_owned(), child }))
}

fn named(path: &Path, problem: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {problem}", path.display()))
}

struct Ffmpeg {
    path: PathBuf,
    child: Child,
}

impl VideoSink for Ffmpeg {
    fn push(&mut self, frame: &Frame) -> io::Result<()> {
        let Some(pipe) = self.child.stdin.as_mut() else { return Ok(()) };
        pipe.write_all(&frame.rgb).map_err(|e| named(&self.path, format!("`ffmpeg` takes no more pictures: {e}")))
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().map_err(|e| named(&self.path, e))?;
        if status.success() { Ok(()) } else { Err(named(&self.path, format!("`ffmpeg` failed: {status}"))) }
    }
}

/// Writes a video of some episodes: before the first step and after each.
struct RecordVideo {
    env: Box<dyn Env>,
    id: String,
    open: OpenVideo,
    folder: PathBuf,
    name_prefix: String,
    format: String,
    fps: u32,
    /// Records each of so many episodes; `None` follows [`cubes`].
    every: Option<u32>,
    /// Pictures of a video; `None` for whole episodes.
    video_length: Option<u32>,
    episode: u64,
    sink: Option<Box<dyn VideoSink>>,
    pictures: u32,
    error: Option<EnvError>,
}

/// Gymnasium's `capped_cubic_video_schedule`: cubes below 1000, then every thousandth.
fn cubes(episode: u64) -> bool {
    if episode < 1000 { (0..10).any(|root: u64| root.pow(3) == episode) } else { episode.is_multiple_of(1000) }
}

impl RecordVideo {
    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.sink = None;
            self.error = Some(EnvError::Foreign { env: self.id.clone(), problem: error.to_string() });
        }
    }

    fn start(&mut self) {
        let due = self.every.map_or(cubes(self.episode), |every| self.episode.is_multiple_of(every.into()));
        if !due || self.sink.is_some() {
            return;
        }
        let Some(frame) = self.env.render() else { return };
        let path = self.folder.join(format!("{}-episode-{}.{}", self.name_prefix, self.episode, self.format));
        let opened = std::fs::create_dir_all(&self.folder)
            .map_err(|e| named(&self.folder, e))
            .and_then(|()| (self.open)(&path, frame.width, frame.height, self.fps));
        self.pictures = 0;
        match opened {
            Ok(sink) => self.sink = Some(sink),
            Err(error) => self.check(Err(error)),
        }
    }

    fn film(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        let Some(frame) = self.env.render() else { return };
        let pushed = sink.push(&frame);
        self.check(pushed);
        self.pictures += 1;
        if self.video_length.is_some_and(|length| self.pictures >= length) {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(sink) = self.sink.take() {
            let finished = sink.finish();
            self.check(finished);
        }
    }
}

impl Drop for RecordVideo {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Env for RecordVideo {
    forward!(observation_space action_space action_mask render episode_statistics);

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.env.reset(rng, obs);
        if self.video_length.is_none() {
            self.finish();
        }
        self.start();
        self.film();
        self.episode += 1;
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let outcome = self.env.step(action, rng, obs);
        self.film();
        if (outcome.terminated || outcome.truncated) && self.video_length.is_none() {
            self.finish();
        }
        outcome
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.env.save_state(to);
        to.u64(self.episode);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.env.load_state(from)?;
        self.episode = from.u64()?;
        Ok(())
    }

    /// Files are outside of this program: this is how a step reports that one can't be written.
    fn foreign(&mut self) -> Option<&mut dyn Foreign> {
        Some(self)
    }
}

impl Foreign for RecordVideo {
    fn seed(&mut self, seed: u128) {
        if let Some(env) = self.env.foreign() {
            env.seed(seed);
        }
    }

    fn take_error(&mut self) -> Option<EnvError> {
        self.env.foreign().and_then(|env| env.take_error()).or_else(|| self.error.take())
    }
}

fn plain_text(options: &mut Options, option: &'static str, default: &str) -> Result<String, EnvError> {
    Ok(options.text(option)?.unwrap_or_else(|| default.to_owned()))
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "record_video",
    gymnasium: "RecordVideo",
    summary: "writes videos of episodes, of the first environment of a batch",
    options: &[
        ("video_folder", "where they go; must be given"),
        ("format", "gif (default), or mp4, which needs the program `ffmpeg`"),
        ("every", "records each of so many episodes; default: cubes below 1000, then every thousandth"),
        ("video_length", "pictures of a video; default 0, whole episodes"),
        ("name_prefix", "start of the files' names; default `rl-video`"),
    ],
    wrap: |mut env, options, site| {
        let folder = required(options.text("video_folder")?, options, "video_folder")?;
        let format = plain_text(options, "format", "gif")?;
        if !["gif", "mp4"].contains(&format.as_str()) {
            return Err(options.bad("format", "gif or mp4", format));
        }
        let every = options.u32("every", 1..=u32::MAX)?;
        let video_length = options.u32("video_length", 0..=u32::MAX)?.filter(|length| *length > 0);
        let name_prefix = plain_text(options, "name_prefix", "rl-video")?;
        env.reset(&mut NpRng::seed(0), crate::Buffer::new(&env.observation_space().clone(), 1).as_mut());
        if env.render().is_none() {
            return Err(site.needs("an environment with pictures", "none"));
        }
        if site.index > 0 {
            return Ok(env);
        }
        Ok(Box::new(RecordVideo {
            env,
            id: site.env.clone(),
            open: site.open_video,
            folder: folder.into(),
            name_prefix,
            format,
            fps: site.render_fps,
            every,
            video_length,
            episode: 0,
            sink: None,
            pictures: 0,
            error: None,
        }))
    },
};
