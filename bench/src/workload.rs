use std::error::Error;
use std::fmt;

use crate::BenchError;

/// Why a workload can't be set up.
pub(crate) type Problem = Box<dyn Error + Send + Sync>;

/// A repeatable piece of work.
pub struct Workload {
    /// What it belongs to: the part of its name before the slash, and a table of its own in reports.
    pub group: &'static str,
    /// Its name in the group, for most the name of a registry's entry.
    pub name: String,
    /// Its size, where it comes in several.
    pub size: Option<usize>,
    /// What is counted, in the plural: steps, pictures, tokens.
    pub unit: &'static str,
    /// Whether more threads can make it faster.
    pub parallel: bool,
    set_up: Box<dyn Fn() -> Result<Prepared, Problem>>,
}

/// A workload that is ready to run.
pub struct Prepared {
    /// Units of one run.
    pub units: u64,
    /// Runs it once.
    pub run: Box<dyn FnMut() + Send>,
}

impl Prepared {
    /// `units` of work in each call of `run`.
    pub fn new(units: usize, run: impl FnMut() + Send + 'static) -> Self {
        Self { units: units as u64, run: Box::new(run) }
    }
}

impl Workload {
    pub(crate) fn new(
        group: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        set_up: impl Fn() -> Result<Prepared, Problem> + 'static,
    ) -> Self {
        Self { group, name: name.into(), size: None, unit, parallel: true, set_up: Box::new(set_up) }
    }

    pub(crate) fn sized(self, size: usize) -> Self {
        Self { size: Some(size), ..self }
    }

    /// One that runs on one thread, however many there are.
    pub(crate) fn serial(self) -> Self {
        Self { parallel: false, ..self }
    }

    /// `GROUP/NAME` or `GROUP/NAME/SIZE`.
    pub fn id(&self) -> String {
        let Self { group, name, size, .. } = self;
        size.map_or_else(|| format!("{group}/{name}"), |size| format!("{group}/{name}/{size}"))
    }

    /// Makes it ready to run, warmed up where learning starts late.
    ///
    /// # Errors
    /// [`BenchError::SetUp`] if something that it needs is missing.
    pub fn set_up(&self) -> Result<Prepared, BenchError> {
        (self.set_up)().map_err(|problem| BenchError::SetUp { id: self.id(), problem: problem.to_string() })
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload").field("id", &self.id()).field("unit", &self.unit).finish_non_exhaustive()
    }
}
