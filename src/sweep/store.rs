//! The state of a sweep: an SQLite database in its directory, which several `hotfire sweep` processes may share.
//!
//! A trial's id is the hash of its resolved config and seed, so nothing is run twice. A process that works on trials
//! holds a file lock as long as it lives; trials of a worker whose lock is free are open again.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hotfire_core::run_config::RunConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use super::file::Assignment;

/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS sweep (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    definition TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS trials (
    id TEXT PRIMARY KEY,
    configuration INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    assignment TEXT NOT NULL,
    run_dir TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'running', 'finished', 'pruned', 'failed')),
    failures INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    objective REAL,
    error TEXT,
    started REAL,
    ended REAL
);
CREATE TABLE IF NOT EXISTS evaluations (
    trial TEXT NOT NULL REFERENCES trials (id),
    number INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (trial, number)
);
";

/// Where a trial stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    Running,
    Finished,
    Pruned,
    Failed,
}

impl State {
    /// As the database and the table have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Pruned => "pruned",
            Self::Failed => "failed",
        }
    }

    fn parse(name: &str) -> Self {
        match name {
            "running" => Self::Running,
            "finished" => Self::Finished,
            "pruned" => Self::Pruned,
            "failed" => Self::Failed,
            _ => Self::Open,
        }
    }
}

/// One run of one configuration.
#[derive(Debug, Clone)]
pub struct Trial {
    pub id: String,
    /// Which configuration of the search.
    pub configuration: usize,
    pub seed: u64,
    pub assignment: Assignment,
    pub run_dir: PathBuf,
    pub state: State,
    /// Who runs it.
    pub worker: Option<String>,
    pub objective: Option<f64>,
    pub error: Option<String>,
}

impl Trial {
    /// The name of its run.
    pub fn name(&self) -> String {
        self.run_dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The hash of a trial's resolved config, which holds its seed. What changes no result is left out.
pub fn trial_id(resolved: &str) -> anyhow::Result<String> {
    let mut table: toml::Table = resolved.parse()?;
    if let Some(toml::Value::Table(run)) = table.get_mut("run") {
        for key in RunConfig::KEYS_WITHOUT_EFFECT {
            run.remove(key);
        }
    }
    Ok(hash(&toml::to_string(&table)?))
}

/// The first half of a text's SHA-256, in hexadecimal digits.
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// An open database.
pub struct Store {
    connection: Connection,
    dir: PathBuf,
    /// This process.
    worker: String,
    /// Held until the process ends, however it ends.
    _lock: File,
}

impl Store {
    /// Opens or makes the database of the sweep in `dir`. `definition` is what every process must agree on.
    pub fn open(dir: &Path, definition: &str) -> anyhow::Result<Self> {
        let workers = dir.join("workers");
        fs::create_dir_all(&workers).with_context(|| format!("{}: cannot make the directory", workers.display()))?;
        let path = dir.join("sweep.sqlite");
        let connection = Connection::open(&path).with_context(|| format!("{}: cannot open", path.display()))?;
        connection.busy_timeout(BUSY)?;
        // SQLite does not wait by itself where another process changes the mode at the same moment.
        let patience = Instant::now();
        while let Err(error) = connection.pragma_update(None, "journal_mode", "wal") {
            if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || patience.elapsed() > BUSY {
                return Err(error).with_context(|| path.display().to_string());
            }
            sleep(Duration::from_millis(20));
        }
        connection.execute_batch(SCHEMA)?;
        connection.execute("INSERT OR IGNORE INTO sweep VALUES (1, ?1)", [definition])?;
        let stored: String = connection.query_row("SELECT definition FROM sweep", [], |row| row.get(0))?;
        if stored != definition && !correct_objective(&connection, &stored, definition)? {
            anyhow::bail!(
                "{}: belongs to another sweep (other base, space, search method, pruner, objective or search seed); \
                 choose another folder with --out",
                dir.display()
            );
        }
        let worker = format!("{}-{}", std::process::id(), now().to_bits());
        let lock = File::create(workers.join(&worker))?;
        lock.lock()?;
        Ok(Self { connection, dir: dir.to_owned(), worker, _lock: lock })
    }

    fn write<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// All trials, in the order they were made.
    pub fn trials(&self) -> anyhow::Result<Vec<Trial>> {
        all_trials(&self.connection, &self.dir)
    }

    /// Takes an open trial for this process. Where there is none, `make` may add the trials of the next configuration:
    /// it is given all trials and returns none when the search is over.
    pub fn claim(
        &mut self,
        make: impl FnOnce(&[Trial]) -> anyhow::Result<Vec<NewTrial>>,
    ) -> anyhow::Result<Option<Trial>> {
        let (dir, worker) = (self.dir.clone(), self.worker.clone());
        self.write(|transaction| {
            let mut trials = all_trials(transaction, &dir)?;
            if !trials.iter().any(|trial| trial.state == State::Open) {
                for new in make(&trials)? {
                    transaction.execute(
                        "INSERT OR IGNORE INTO trials (id, configuration, seed, assignment, run_dir, state)
                         VALUES (?1, ?2, ?3, ?4, ?5, 'open')",
                        params![
                            new.id,
                            new.configuration as i64,
                            new.seed as i64,
                            serde_json::to_string(&new.assignment)?,
                            new.run_dir
                        ],
                    )?;
                }
                trials = all_trials(transaction, &dir)?;
            }
            let Some(mut trial) = trials.into_iter().find(|trial| trial.state == State::Open) else { return Ok(None) };
            transaction.execute(
                "UPDATE trials SET state = 'running', worker = ?2, started = coalesce(started, ?3) WHERE id = ?1",
                params![trial.id, worker, now()],
            )?;
            trial.state = State::Running;
            trial.worker = Some(worker);
            Ok(Some(trial))
        })
    }

    /// Opens the trials of workers that are gone. Those of a cluster have workers that this does not know.
    pub fn recover(&mut self) -> anyhow::Result<()> {
        let workers = self.dir.join("workers");
        let mine = self.worker.clone();
        self.write(|transaction| {
            let mut statement = transaction
                .prepare("SELECT DISTINCT worker FROM trials WHERE state = 'running' AND worker IS NOT NULL")?;
            let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            for name in names.iter().filter(|name| **name != mine && !name.contains(':')) {
                if is_gone(&workers.join(name))? {
                    transaction.execute(
                        "UPDATE trials SET state = 'open', worker = NULL WHERE state = 'running' AND worker = ?1",
                        [name],
                    )?;
                }
            }
            Ok(())
        })
    }

    /// Notes who else runs a trial from now on, such as a cluster's job.
    pub fn assign(&mut self, id: &str, worker: &str) -> anyhow::Result<()> {
        self.write(|transaction| {
            transaction.execute("UPDATE trials SET worker = ?2 WHERE id = ?1", params![id, worker])?;
            Ok(())
        })
    }

    /// Gives a trial back, to be gone on with later.
    pub fn release(&mut self, trial: &Trial) -> anyhow::Result<()> {
        self.end(trial, &Outcome { state: State::Open, objective: None, error: None })?;
        Ok(())
    }

    /// Notes that a trial failed; with at most `retries` failures before this one it is open again. The state it has
    /// now, or `None` if it was ended by another process.
    pub fn fail(&mut self, trial: &Trial, error: &str, retries: u32) -> anyhow::Result<Option<State>> {
        self.write(|transaction| {
            let failures = transaction
                .query_row(
                    "UPDATE trials SET failures = failures + 1
                     WHERE id = ?1 AND state = 'running' AND worker IS ?2 RETURNING failures",
                    params![trial.id, trial.worker],
                    |row| row.get::<_, u32>(0),
                )
                .optional()?;
            let Some(failures) = failures else { return Ok(None) };
            let state = if failures <= retries { State::Open } else { State::Failed };
            end(transaction, trial, &Outcome { state, objective: None, error: Some(error) })?;
            Ok(Some(state))
        })
    }

    /// Opens failed trials that have not been tried as often as is asked now.
    pub fn retry(&mut self, retries: u32) -> anyhow::Result<()> {
        self.write(|transaction| {
            let query = "UPDATE trials SET state = 'open' WHERE state = 'failed' AND failures <= ?1";
            transaction.execute(query, [retries])?;
            Ok(())
        })
    }

    /// Notes how a trial ended; false if another process has done so, or has taken the trial since.
    pub fn end(&mut self, trial: &Trial, outcome: &Outcome<'_>) -> anyhow::Result<bool> {
        self.write(|transaction| end(transaction, trial, outcome))
    }

    /// Notes evaluations that a trial made while it trains; how many of them were known.
    pub fn note_evaluations(&mut self, id: &str, values: &[f64]) -> anyhow::Result<usize> {
        self.write(|transaction| {
            let query = "SELECT count(*) FROM evaluations WHERE trial = ?1";
            let known = transaction.query_row(query, [id], |row| row.get::<_, i64>(0))? as usize;
            for (number, value) in values.iter().enumerate().skip(known) {
                transaction
                    .execute("INSERT INTO evaluations VALUES (?1, ?2, ?3)", params![id, number as i64, value])?;
            }
            Ok(known)
        })
    }

    /// The evaluations of all other trials.
    pub fn other_evaluations(&self, id: &str) -> anyhow::Result<Vec<Vec<f64>>> {
        let mut statement =
            self.connection.prepare("SELECT trial, value FROM evaluations WHERE trial <> ?1 ORDER BY trial, number")?;
        let mut rows = statement.query([id])?;
        let mut curves: Vec<Vec<f64>> = Vec::new();
        let mut last = String::new();
        while let Some(row) = rows.next()? {
            let trial: String = row.get(0)?;
            if trial != last {
                curves.push(Vec::new());
                last = trial;
            }
            if let Some(curve) = curves.last_mut() {
                curve.push(row.get(1)?);
            }
        }
        Ok(curves)
    }
}

/// How a trial ended.
pub struct Outcome<'a> {
    pub state: State,
    pub objective: Option<f64>,
    pub error: Option<&'a str>,
}

/// Takes over a definition that differs in the objective alone, if no trial has been measured by the old one: its name
/// may have been a slip of the pen. Failed trials are open again, since one that was trained needs only be measured.
fn correct_objective(connection: &Connection, stored: &str, definition: &str) -> anyhow::Result<bool> {
    let rest = |text: &str| -> anyhow::Result<serde_json::Value> {
        let mut value: serde_json::Value = serde_json::from_str(text)?;
        if let Some(object) = value.as_object_mut() {
            object.retain(|key, _| key != "objective" && key != "direction");
        }
        Ok(value)
    };
    let measured = "SELECT count(*) FROM trials WHERE objective IS NOT NULL OR state = 'running'";
    let measured: i64 = connection.query_row(measured, [], |row| row.get(0))?;
    if measured > 0 || rest(stored)? != rest(definition)? {
        return Ok(false);
    }
    connection.execute("UPDATE sweep SET definition = ?1", [definition])?;
    connection.execute("UPDATE trials SET state = 'open', failures = 0 WHERE state = 'failed'", [])?;
    Ok(true)
}

fn end(connection: &Connection, trial: &Trial, outcome: &Outcome<'_>) -> anyhow::Result<bool> {
    let changed = connection.execute(
        "UPDATE trials SET state = ?3, objective = ?4, error = ?5, ended = ?6, worker = NULL
         WHERE id = ?1 AND state = 'running' AND worker IS ?2",
        params![trial.id, trial.worker, outcome.state.name(), outcome.objective, outcome.error, now()],
    )?;
    Ok(changed > 0)
}

/// A trial to be added.
pub struct NewTrial {
    pub id: String,
    pub configuration: usize,
    pub seed: u64,
    pub assignment: Assignment,
    /// Relative to the sweep's directory.
    pub run_dir: String,
}

/// The trials of a finished or running sweep, for reports.
pub fn read_trials(dir: &Path) -> anyhow::Result<Option<Vec<Trial>>> {
    let path = dir.join("sweep.sqlite");
    if !path.is_file() {
        return Ok(None);
    }
    let connection = Connection::open(&path).with_context(|| format!("{}: cannot open", path.display()))?;
    connection.busy_timeout(BUSY)?;
    all_trials(&connection, dir).with_context(|| path.display().to_string()).map(Some)
}

fn all_trials(connection: &Connection, dir: &Path) -> anyhow::Result<Vec<Trial>> {
    let mut statement = connection.prepare(
        "SELECT id, configuration, seed, assignment, run_dir, state, worker, objective, error
         FROM trials ORDER BY configuration, rowid",
    )?;
    let trials = statement.query_map([], |row| read_trial(row, dir))?.collect::<Result<_, _>>()?;
    Ok(trials)
}

fn read_trial(row: &Row<'_>, dir: &Path) -> rusqlite::Result<Trial> {
    let assignment: String = row.get(3)?;
    let assignment = serde_json::from_str(&assignment)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(error)))?;
    let state: String = row.get(5)?;
    Ok(Trial {
        id: row.get(0)?,
        configuration: row.get::<_, i64>(1)? as usize,
        seed: row.get::<_, i64>(2)? as u64,
        assignment,
        run_dir: dir.join(row.get::<_, String>(4)?),
        state: State::parse(&state),
        worker: row.get(6)?,
        objective: row.get(7)?,
        error: row.get(8)?,
    })
}

/// Whether the process that held this lock file has ended.
fn is_gone(lock: &Path) -> anyhow::Result<bool> {
    // A network file system gives an exclusive lock only to those who may write.
    match File::options().write(true).open(lock) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
        Ok(file) => match file.try_lock() {
            Ok(()) => {
                let _ = fs::remove_file(lock);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error.into()),
        },
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
