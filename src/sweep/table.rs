//! What a sweep shows while it runs: a live table in a terminal, a line for each ended trial elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossterm::cursor::MoveToPreviousLine;
use crossterm::queue;
use crossterm::terminal::{self, Clear, ClearType};
use hotfire_core::metrics::short;
use toml::Value;

use super::Direction;
use super::file::{Assignment, SweepFile};
use super::history;
use super::store::{State, Trial};

const REDRAW_EVERY: Duration = Duration::from_millis(250);
const BEST_SHOWN: usize = 5;
/// Lines of the live table besides the running trials and the best configurations.
const OTHER_LINES: usize = 5;

/// How far a running trial is.
pub struct Progress {
    pub id: String,
    /// Why it has not begun yet.
    pub waits: Option<String>,
    pub time: Duration,
    /// Its last evaluation.
    pub last: Option<f64>,
}

/// The sweep as a person sees it.
pub struct Table {
    dir: PathBuf,
    objective: String,
    direction: Direction,
    configurations: usize,
    seeds: usize,
    quiet: bool,
    live: bool,
    lines: u16,
    started: Instant,
    last_drawn: Option<Instant>,
}

impl Table {
    pub fn new(file: &SweepFile, dir: &Path, quiet: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            objective: file.objective.clone(),
            direction: file.direction,
            configurations: file.configurations(),
            seeds: file.seeds.len(),
            quiet,
            live: !quiet && stderr().is_terminal(),
            lines: 0,
            started: Instant::now(),
            last_drawn: None,
        }
    }

    /// Tells how a trial ended; [`State::Open`] means that it is tried again.
    pub fn note(&mut self, trial: &Trial, state: State, objective: Option<f64>, error: Option<&str>) {
        if self.quiet || (self.live && error.is_none()) {
            return;
        }
        self.erase();
        let name = trial.name();
        let how = if state == State::Open { "failed, tried again" } else { state.name() };
        let objective = objective.map_or(String::new(), |value| format!(", {} {}", self.objective, short(value)));
        let error = error.map_or(String::new(), |error| format!(": {error}"));
        eprintln!("{name} {how}{objective} ({}){error}", describe(&trial.assignment));
    }

    /// Whether there is a terminal, and the table on it is old.
    pub fn due(&self) -> bool {
        self.live && self.last_drawn.is_none_or(|last| last.elapsed() >= REDRAW_EVERY)
    }

    /// Draws the table anew.
    pub fn show(&mut self, trials: &[Trial], running: &[Progress]) {
        self.last_drawn = Some(Instant::now());
        let (width, height) = terminal::size().map_or((80, 24), |(w, h)| (usize::from(w), usize::from(h)));
        // What has left the screen could not be drawn over: a line is kept for the cursor.
        let room = height.saturating_sub(OTHER_LINES + BEST_SHOWN + 1).max(1);
        let text = self.text(trials, running, room);
        self.erase();
        let mut out = stderr().lock();
        for line in text.lines().take(height.saturating_sub(1)) {
            let line: String = line.chars().take(width.saturating_sub(1)).collect();
            let _ = writeln!(out, "{line}");
            self.lines += 1;
        }
    }

    fn erase(&mut self) {
        if self.lines > 0 {
            let _ = queue!(stderr(), MoveToPreviousLine(self.lines), Clear(ClearType::FromCursorDown));
            self.lines = 0;
        }
    }

    /// `room` is the number of lines for running trials.
    fn text(&self, trials: &[Trial], running: &[Progress], room: usize) -> String {
        let mut text = String::new();
        let count = |state| trials.iter().filter(|trial| trial.state == state).count();
        // There may have been more before the sweep was made smaller.
        let total = (self.configurations * self.seeds).max(trials.len());
        let _ = write!(text, "{} of {total} trials finished", count(State::Finished));
        for state in [State::Pruned, State::Failed, State::Running] {
            if count(state) > 0 {
                let _ = write!(text, ", {} {}", count(state), state.name());
            }
        }
        let _ = writeln!(text, "; {}", clock(self.started.elapsed()));
        let (waiting, working): (Vec<&Progress>, Vec<&Progress>) =
            running.iter().partition(|progress| progress.waits.is_some());
        if let Some(reason) = waiting.first().and_then(|progress| progress.waits.as_deref()) {
            let reason = if matches!(reason, "" | "None") { String::new() } else { format!(" ({reason})") };
            let _ = writeln!(text, "  {} of them wait in the queue{reason}", waiting.len());
        }
        if !working.is_empty() {
            let _ = writeln!(text, "  {:<10} {:>7}  {:>10}  configuration", "trial", "time", self.objective);
        }
        for Progress { id, time, last, .. } in working.iter().take(room) {
            if let Some(trial) = trials.iter().find(|trial| trial.id == *id) {
                let (name, last) = (trial.name(), last.map_or("-".into(), short));
                let _ = writeln!(text, "  {name:<10} {:>7}  {last:>10}  {}", clock(*time), describe(&trial.assignment));
            }
        }
        if working.len() > room {
            let _ = writeln!(text, "  and {} more", working.len() - room);
        }
        let best = best(self.direction, trials);
        if !best.is_empty() {
            let seeds = if self.seeds > 1 { format!(", mean over {} seeds", self.seeds) } else { String::new() };
            let _ = writeln!(text, "best {} so far{seeds}", self.objective);
            for (assignment, value) in best.iter().take(BEST_SHOWN) {
                let _ = writeln!(text, "  {:>10}  {}", short(*value), describe(assignment));
            }
        }
        text
    }

    /// The last word: what was found, or how to go on.
    pub fn finish(&mut self, trials: &[Trial], complete: bool, runs_on: bool) {
        self.erase();
        if self.quiet {
            return;
        }
        print!("{}", self.text(trials, &[], 0));
        for trial in trials.iter().filter(|trial| trial.state == State::Failed) {
            println!("{} failed: {}", trial.name(), trial.error.as_deref().unwrap_or("nobody knows why"));
        }
        match (complete, runs_on) {
            (true, _) => println!("done; see hotfire report {}", self.dir.display()),
            (false, true) => println!("the jobs run on; the same command picks them up"),
            (false, false) => println!("not complete; the same command goes on"),
        }
    }
}

/// The measured configurations with their mean objective, best first.
pub fn best(direction: Direction, trials: &[Trial]) -> Vec<(Assignment, f64)> {
    let mut found = history(direction, trials);
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found.into_iter().map(|(assignment, score)| (assignment, direction.signed(score))).collect()
}

/// `key=value` pairs, the sections of the keys left out where that leaves them different.
pub fn describe(assignment: &Assignment) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let unique = assignment.keys().map(|key| last(key)).collect::<BTreeSet<_>>().len() == assignment.len();
    let pair = |(key, value): (&String, &Value)| {
        let key = if unique { last(key) } else { key.clone() };
        format!("{key}={}", value.as_float().map_or_else(|| value.to_string(), short))
    };
    assignment.iter().map(pair).collect::<Vec<_>>().join(" ")
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}
