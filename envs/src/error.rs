//! What can go wrong with an environment.

/// An error of this crate; each message names the environment or option, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// No environment has this id.
    #[error("unknown environment `{id}`{}", did_you_mean(.nearest, &ids()))]
    UnknownEnv {
        /// The id that was asked for.
        id: String,
        /// The registered id that looks most like it.
        nearest: Option<String>,
    },
    /// The environment has no such option.
    #[error("{env} has no option `{option}`{}", did_you_mean(.nearest, .known))]
    UnknownOption {
        /// The environment.
        env: String,
        /// The option that was given.
        option: String,
        /// The option of this environment that looks most like it.
        nearest: Option<String>,
        /// All options of this environment.
        known: String,
    },
    /// An option's value has the wrong type or lies out of range.
    #[error("{env}: option `{option}` must be {expected}, found {found}")]
    BadOption {
        /// The environment.
        env: String,
        /// The option.
        option: String,
        /// What it must be.
        expected: String,
        /// What was given.
        found: String,
    },
    /// No wrapper has this name.
    #[error("{env}: unknown wrapper `{wrapper}`{}", did_you_mean(.nearest, &wrappers()))]
    UnknownWrapper {
        /// The environment's id.
        env: String,
        /// The name that was asked for.
        wrapper: String,
        /// The registered name that looks most like it.
        nearest: Option<String>,
    },
    /// A wrapper can't serve the environment that it is put around.
    #[error("{env}: wrapper `{wrapper}` needs {expected}, found {found}")]
    BadWrapper {
        /// The environment's id.
        env: String,
        /// The wrapper.
        wrapper: String,
        /// What it needs.
        expected: String,
        /// What the environment has.
        found: String,
    },
    /// An action lies outside the action space.
    #[error("{env}: action {action} of environment {index} is not in {space}")]
    BadAction {
        /// The environment's id.
        env: String,
        /// Which environment of the batch.
        index: usize,
        /// The action as text.
        action: String,
        /// The action space as text.
        space: String,
    },
    /// A batch has the wrong element type or length.
    #[error("{env}: expected {expected}, found {found}")]
    BadBatch {
        /// The environment's id.
        env: String,
        /// Type and length that were expected.
        expected: String,
        /// Type and length that were found.
        found: String,
    },
    /// `step` before the first `reset`, or past an episode's end with autoreset disabled.
    #[error("{env}: environment {index} must be reset before it is stepped")]
    NeedsReset {
        /// The environment's id.
        env: String,
        /// Which environment of the batch.
        index: usize,
    },
    /// An environment that runs outside of this program can't be made, or has failed.
    #[error("{env}: {problem}")]
    Foreign {
        /// The environment's id.
        env: String,
        /// What happened.
        problem: String,
    },
    /// The keyboard can't give actions of this space.
    #[error("{env}: the keyboard plays {expected}, found {space}")]
    Keys {
        /// The environment's id.
        env: String,
        /// What it can play.
        expected: String,
        /// The action space as text.
        space: String,
    },
    /// A value, row or flat vector does not fit a space.
    #[error("{space}: expected {expected}, found {found}")]
    Space {
        /// The space as text.
        space: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Saved state bytes do not fit.
    #[error("saved environment state: expected {expected}, found {found}")]
    State {
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A recorded trace can't be read or does not fit the environment.
    #[error("{env}: line {line} of the trace: expected {expected}, found {found}")]
    Trace {
        /// The environment's id.
        env: String,
        /// The line, from 1.
        line: usize,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The environment breaks its contract.
    #[error("{env} breaks the environment contract: {problem}")]
    Contract {
        /// The environment's id.
        env: String,
        /// What is wrong.
        problem: String,
    },
}

fn ids() -> String {
    crate::ENVS.iter().map(|spec| spec.id).collect::<Vec<_>>().join(", ")
}

fn wrappers() -> String {
    crate::WRAPPERS.iter().map(|wrapper| wrapper.name).collect::<Vec<_>>().join(", ")
}

/// The nearest name, or all there are.
fn did_you_mean(nearest: &Option<String>, known: &str) -> String {
    match (nearest, known) {
        (Some(name), _) => format!("; did you mean `{name}`?"),
        (None, "") => String::new(),
        (None, known) => format!("; expected one of {known}"),
    }
}
