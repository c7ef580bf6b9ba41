//! `hotfire env play`: an environment played with the keyboard, in the terminal.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use hotfire_agents::EnvConfig;
use hotfire_core::CoreError;
use hotfire_envs::{ActionRef, Key, Keymap, VecEnv};

use crate::cli::PlayArgs;
use crate::film::{env_config, one_env};
use crate::interrupt::stop_on_interrupt;
use crate::terminal::Screen;

/// How long a key counts as held where the terminal does not say when it is released: longer than the time between
/// repetitions of a held key, and about as long as a keyboard waits before it repeats.
const HELD: Duration = Duration::from_millis(300);
/// How long to wait for a key at most before looking whether the program is to end.
const PATIENCE: Duration = Duration::from_millis(100);

pub fn play(args: &PlayArgs) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CoreError::Usage(format!(
            "hotfire env play needs a terminal for its picture and its keys, and this is none; `hotfire env render {} \
             --gif FILE` makes a film",
            args.id
        ))
        .into());
    }
    let config = env_config(&args.id, &args.overrides)?;
    let tick = Duration::from_secs_f64(1.0 / f64::from(args.fps.unwrap_or(config.spec.render_fps).max(1)));
    let mut game = Game::new(args.id.clone(), &config, args.seed.unwrap_or_else(seed_of_the_clock), tick)?;
    let stop = stop_on_interrupt()?;
    let mut screen = Screen::open()?;
    let played = game.run(&mut screen, &stop);
    drop(screen);
    played?;
    if let Some(best) = game.returns.iter().copied().reduce(f64::max) {
        let count = game.returns.len();
        let s = if count == 1 { "" } else { "s" };
        println!("{}: {count} episode{s}, best return {}", game.title, number(best));
    }
    Ok(())
}

fn seed_of_the_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |time| time.as_millis() as u64)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Waits for the first key of an episode.
    Ready,
    Playing,
    Over {
        terminated: bool,
        truncated: bool,
    },
}

struct Game {
    title: String,
    tick: Duration,
    envs: VecEnv,
    keymap: Keymap,
    /// The keys that are held, the newest last, with the time when each was last pressed.
    held: Vec<(Key, Instant)>,
    phase: Phase,
    steps: u32,
    total: f64,
    reward: f64,
    returns: Vec<f64>,
}

impl Game {
    /// A game that has been reset and waits for its first key.
    fn new(title: String, config: &EnvConfig, seed: u64, tick: Duration) -> anyhow::Result<Self> {
        let mut envs = one_env(config)?;
        let usage = |error: hotfire_envs::EnvError| CoreError::Usage(error.to_string());
        let keymap = Keymap::new(config.spec, envs.action_space()).map_err(usage)?;
        envs.reset(seed);
        Ok(Self {
            title,
            tick,
            envs,
            keymap,
            held: Vec::new(),
            phase: Phase::Ready,
            steps: 0,
            total: 0.0,
            reward: 0.0,
            returns: Vec::new(),
        })
    }

    fn run(&mut self, screen: &mut Screen, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let frame = self.envs.env(0).render();
            screen.draw(frame.as_ref(), &self.lines(screen.columns(), frame.is_none()))?;
            let runs = self.phase == Phase::Playing && !self.keymap.waits();
            let until = if runs { next } else { Instant::now() + PATIENCE };
            while event::poll(until.saturating_duration_since(Instant::now()))? {
                match event::read()? {
                    Event::Key(key) if quits(&key) => return Ok(()),
                    Event::Key(key) => self.key(&key, screen.reports_releases())?,
                    Event::Resize(columns, rows) => screen.resize(columns, rows),
                    _ => continue,
                }
                if !runs {
                    break;
                }
            }
            if !screen.reports_releases() {
                self.held.retain(|(_, pressed)| pressed.elapsed() < HELD);
            }
            if !runs {
                next = Instant::now();
            } else if self.phase == Phase::Playing && Instant::now() >= next {
                self.step()?;
                // A machine that is too slow plays slower; it does not hurry afterwards.
                next = (next + self.tick).max(Instant::now());
            }
        }
        Ok(())
    }

    fn key(&mut self, event: &KeyEvent, reports_releases: bool) -> anyhow::Result<()> {
        if matches!(event.code, KeyCode::Char('r' | 'R')) {
            if event.kind == KeyEventKind::Press {
                self.restart()?;
            }
            return Ok(());
        }
        let Some(key) = key_of(event.code).filter(|key| self.keymap.contains(*key)) else { return Ok(()) };
        if event.kind == KeyEventKind::Release {
            self.held.retain(|(held, _)| *held != key);
            return Ok(());
        }
        if event.kind == KeyEventKind::Repeat && reports_releases && !self.keymap.waits() {
            return Ok(());
        }
        self.held.retain(|(held, _)| !self.keymap.conflict(*held, key));
        self.held.push((key, Instant::now()));
        if self.phase == Phase::Ready {
            self.phase = Phase::Playing;
        }
        if self.phase == Phase::Playing && self.keymap.waits() {
            self.step()?;
            self.held.clear();
        }
        Ok(())
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.envs.reset_masked(&[true])?;
        self.held.clear();
        (self.phase, self.steps, self.total, self.reward) = (Phase::Ready, 0, 0.0, 0.0);
        Ok(())
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let held: Vec<_> = self.held.iter().map(|(key, _)| *key).collect();
        let Some(action) = self.keymap.action(&held) else { return Ok(()) };
        self.envs.step(action.as_actions())?;
        self.steps += 1;
        self.reward = self.envs.rewards()[0].into();
        self.total += self.reward;
        let (terminated, truncated) = (self.envs.terminated()[0], self.envs.truncated()[0]);
        if let Some(episode) = self.envs.ended_episodes().next() {
            self.total = episode.episode_return;
            self.returns.push(self.total);
            self.phase = Phase::Over { terminated, truncated };
        }
        Ok(())
    }

    /// The text below the picture; where there is no picture, with the observation.
    fn lines(&self, columns: usize, with_observation: bool) -> Vec<String> {
        let mut lines = vec![format!(
            "{}   episode {}   step {}   reward {}   return {}",
            self.title,
            self.returns.len() + usize::from(!matches!(self.phase, Phase::Over { .. })),
            self.steps,
            number(self.reward),
            number(self.total)
        )];
        if with_observation {
            let observation = match self.envs.observations().as_row() {
                ActionRef::F32(x) => format!("{x:?}"),
                ActionRef::U8(x) => format!("{x:?}"),
                ActionRef::I32(x) => format!("{x:?}"),
            };
            lines.push(format!("observation {observation}"));
        }
        lines.push(match self.phase {
            Phase::Ready => "Press a key to start.".to_owned(),
            Phase::Playing => String::new(),
            Phase::Over { terminated, truncated } => {
                let how = match (terminated, truncated) {
                    (true, true) => "Terminated, and truncated by a limit from outside",
                    (true, false) => "Terminated, the task's own end",
                    _ => "Truncated by a limit from outside",
                };
                format!("{how}. Press r for another episode.")
            }
        });
        let own = self.keymap.keys().map(|(key, what)| format!("{key} {what}"));
        wrap(own.chain(["r new episode".to_owned(), "q quit".to_owned()]), columns, &mut lines);
        lines
    }
}

/// Adds the items to `lines`, as many to a line as fit.
fn wrap(items: impl Iterator<Item = String>, columns: usize, lines: &mut Vec<String>) {
    let mut line = String::new();
    for item in items {
        if !line.is_empty() && line.chars().count() + 3 + item.chars().count() > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line += "   ";
        }
        line += &item;
    }
    lines.push(line);
}

/// A number with at most three decimals.
fn number(x: f64) -> String {
    let text = format!("{x:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn quits(event: &KeyEvent) -> bool {
    let interrupt = event.modifiers.contains(KeyModifiers::CONTROL) && event.code == KeyCode::Char('c');
    interrupt || matches!(event.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc)
}

fn key_of(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Char(' ') => Key::Space,
        KeyCode::Char(char) => Key::Char(char.to_ascii_lowercase()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn game(id: &str) -> Game {
        Game::new(id.to_owned(), &env_config(id, &[]).unwrap(), 3, Duration::ZERO).unwrap()
    }

    fn press(game: &mut Game, code: KeyCode, kind: KeyEventKind) {
        game.key(&KeyEvent::new_with_kind(code, KeyModifiers::NONE, kind), true).unwrap();
    }

    #[test]
    fn a_key_is_a_step_where_time_waits() {
        let mut game = game("CartPole-v1");
        for _ in 0..200 {
            press(&mut game, KeyCode::Left, KeyEventKind::Press);
        }
        let Phase::Over { terminated: true, truncated: false } = game.phase else { panic!("{:?}", game.phase) };
        assert!((8..12).contains(&game.steps), "{} steps to the left", game.steps);
        assert_eq!((game.total, game.returns.as_slice()), (game.steps.into(), &[game.steps.into()][..]));
        let lines = game.lines(200, false);
        assert!(lines[1].contains("Terminated") && lines[2].contains("← push left"), "{lines:?}");
        press(&mut game, KeyCode::Char('x'), KeyEventKind::Press);
        press(&mut game, KeyCode::Char('r'), KeyEventKind::Press);
        assert_eq!((game.phase, game.steps, game.total), (Phase::Ready, 0, 0.0));
        assert!(game.lines(200, false)[0].contains("episode 2   step 0"));
    }

    #[test]
    fn newer_keys_take_the_place_of_those_that_they_oppose() {
        let mut game = game("Rocket-v0");
        let action = |game: &Game| {
            let held: Vec<_> = game.held.iter().map(|(key, _)| *key).collect();
            game.keymap.action(&held).unwrap().as_f32().unwrap().to_vec()
        };
        assert_eq!(action(&game), [-1.0, 0.0]);
        press(&mut game, KeyCode::Up, KeyEventKind::Press);
        press(&mut game, KeyCode::Left, KeyEventKind::Press);
        assert_eq!((game.phase, action(&game)), (Phase::Playing, vec![1.0, -1.0]));
        press(&mut game, KeyCode::Right, KeyEventKind::Press);
        assert_eq!(action(&game), [1.0, 1.0]);
        press(&mut game, KeyCode::Up, KeyEventKind::Release);
        assert_eq!(action(&game), [-1.0, 1.0]);
        game.step().unwrap();
        assert_eq!(game.steps, 1);
    }

    #[test]
    fn lines_break_where_the_window_ends() {
        let lines = game("Taxi-v4").lines(40, true);
        assert!(lines[1].starts_with("observation ["));
        assert!(lines[3..].iter().all(|line| line.chars().count() <= 40) && lines.len() > 4, "{lines:?}");
        assert_eq!([1.0, -0.0001, 0.12345, -2.5].map(number), ["1", "0", "0.123", "-2.5"]);
    }
}
