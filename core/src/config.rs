//! Typed configuration: a TOML file, overrides from the command line, and errors that say where to look.
//!
//! A configuration is read section by section into plain structs, whose `serde` defaults are the only home of the
//! default values. What was read is written back by [`ConfigDocument::resolved`], so that the run can be repeated from
//! its own directory.
//!
//! ```
//! # use hotfire_core::config::ConfigDocument;
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Agent { gamma: f32 }
//! # impl Default for Agent { fn default() -> Self { Self { gamma: 0.99 } } }
//!
//! let mut document = ConfigDocument::parse("a.toml", "[agent]\ngama = 0.9", &[])?;
//! let error = document.section::<Agent>("agent").err().unwrap();
//! assert_eq!(error.to_string(), "a.toml:2: agent.gama: unknown key; did you mean agent.gamma?");
//! # Ok::<(), hotfire_core::config::ConfigError>(())
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::config_value::{ErrorKind, ValueDeserializer, ValueError, join};
use crate::error::nearest;

/// A mistake in a configuration. `place` is `FILE:LINE` or `override KEY=VALUE`.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: not valid TOML: {problem}")]
    Syntax {
        /// Where.
        place: String,
        /// What the parser says.
        problem: String,
    },
    /// An override that is not `section.key=value`.
    #[error("override {text}: expected section.key=value, {problem}")]
    Override {
        /// The override.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A section that means nothing here.
    #[error("{place}: [{section}]: unknown section{}", suggestion(nearest, known))]
    UnknownSection {
        /// Where.
        place: String,
        /// The section's name.
        section: String,
        /// The nearest section that would mean something.
        nearest: Option<String>,
        /// All sections that would mean something.
        known: String,
    },
    /// A key that means nothing here.
    #[error("{place}: {key}: unknown key{}", suggestion(nearest, known))]
    UnknownKey {
        /// Where.
        place: String,
        /// The dotted key.
        key: String,
        /// The nearest dotted key that would mean something.
        nearest: Option<String>,
        /// The names of all keys that would mean something beside it.
        known: String,
    },
    /// A name that is not among the known ones.
    #[error("{place}: {key}: {found:?} is not known{}", suggestion(nearest, known))]
    UnknownValue {
        /// Where.
        place: String,
        /// The dotted key.
        key: String,
        /// The name found.
        found: String,
        /// The nearest known name.
        nearest: Option<String>,
        /// All known names.
        known: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{place}: {key}: expected {expected}, found {found}")]
    WrongValue {
        /// Where.
        place: String,
        /// The dotted key.
        key: String,
        /// The values that would be right.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A key without a default that is not there.
    #[error("{place}: {key}: missing")]
    Missing {
        /// Where.
        place: String,
        /// The dotted key.
        key: String,
    },
    /// Another mistake, such as values that contradict each other.
    #[error("{place}: {key}: {problem}")]
    Invalid {
        /// Where.
        place: String,
        /// The dotted key.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// The nearest name, or all of them where none is near.
fn suggestion(nearest: &Option<String>, known: &str) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name}?"),
        None if known.is_empty() => String::new(),
        None => format!("; known: {known}"),
    }
}

/// A configuration being read.
#[derive(Debug, Clone)]
pub struct ConfigDocument {
    file: String,
    root: Table,
    /// The line of each dotted key of the file.
    lines: HashMap<String, usize>,
    /// The dotted key and the text of each override, in order.
    overrides: Vec<(String, String)>,
    /// Tags and free-form tables that were taken out of sections.
    taken: Table,
    /// The sections that were read, as they will be saved.
    resolved: Table,
}

impl ConfigDocument {
    /// Reads a file and applies `section.key=value` overrides to it, in order.
    pub fn load(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&path.display().to_string(), &text, overrides)
    }

    /// Like [`load`](Self::load), of a text; `file` is its name in messages.
    pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            place: error.span().map_or(file.to_string(), |span| format!("{file}:{}", line_of(text, span.start))),
            problem: error.message().replace('\n', " "),
        };
        let mut lines = HashMap::new();
        record_lines(DeTable::parse(text).map_err(syntax)?.get_ref(), text, "", &mut lines);
        let root = toml::from_str(text).map_err(syntax)?;
        let mut document = Self {
            file: file.to_string(),
            root,
            lines,
            overrides: Vec::new(),
            taken: Table::new(),
            resolved: Table::new(),
        };
        for text in overrides {
            document.apply_override(text)?;
        }
        Ok(document)
    }

    fn apply_override(&mut self, text: &str) -> Result<(), ConfigError> {
        let refuse = |problem: String| ConfigError::Override { text: text.to_string(), problem };
        let (key, value) = text.split_once('=').ok_or_else(|| refuse("found no =".into()))?;
        let parts: Vec<&str> = key.trim().split('.').collect();
        let is_bare =
            |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if parts.len() < 2 || !parts.iter().all(|part| is_bare(part)) {
            return Err(refuse(format!("found the key {:?}", key.trim())));
        }
        let (last, parents) = parts.split_last().expect("a key has two parts or more");
        let mut table = &mut self.root;
        for parent in parents {
            let entry = table.entry(parent.to_string()).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().ok_or_else(|| refuse(format!("but {parent} is not a table")))?;
        }
        table.insert(last.to_string(), override_value(value.trim()));
        let key = parts.join(".");
        // What was in the table that the override replaces was not written on any line.
        self.lines.retain(|path, _| !path.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.')));
        self.overrides.push((key, text.to_string()));
        Ok(())
    }

    /// Whether the document has the section.
    pub fn has_section(&self, name: &str) -> bool {
        self.root.contains_key(name)
    }

    /// Whether the section gives the key.
    pub fn has_key(&self, section: &str, key: &str) -> bool {
        self.root.get(section).and_then(Value::as_table).is_some_and(|table| table.contains_key(key))
    }

    /// Reads a section. An absent one is read as an empty one, so that the type's defaults hold.
    pub fn section<T: DeserializeOwned + Serialize>(&mut self, name: &str) -> Result<T, ConfigError> {
        let value = self.root.remove(name).unwrap_or_else(|| Value::Table(Table::new()));
        let deserializer = ValueDeserializer { value, path: name.to_string() };
        let section = T::deserialize(deserializer).map_err(|error| self.explain(error, name))?;
        let mut resolved = match self.taken.remove(name) {
            Some(Value::Table(taken)) => taken,
            _ => Table::new(),
        };
        let text = serde_json::to_string(&section).map_err(|error| self.invalid(name, error))?;
        let json = serde_json::from_str(&text).map_err(|error| self.invalid(name, error))?;
        if let Some(Value::Table(table)) = from_json(json) {
            resolved.extend(table);
        }
        self.resolved.insert(name.to_string(), Value::Table(resolved));
        Ok(section)
    }

    /// Like [`section`](Self::section), with defaults of the caller's in place of the type's: keys that the section
    /// does not give are as in `defaults`.
    pub fn section_over<T: DeserializeOwned + Serialize>(
        &mut self,
        name: &str,
        defaults: &T,
    ) -> Result<T, ConfigError> {
        let json = serde_json::to_value(defaults).map_err(|error| self.invalid(name, error))?;
        let entry = self.root.entry(name.to_string()).or_insert_with(|| Value::Table(Table::new()));
        if let (Some(Value::Table(defaults)), Value::Table(given)) = (from_json(json), entry) {
            for (key, value) in defaults {
                given.entry(key).or_insert(value);
            }
        }
        self.section(name)
    }

    /// Takes a name out of a section before the rest of it is read, such as `algorithm` out of `[agent]`.
    pub fn take_tag(&mut self, section: &str, key: &str) -> Result<String, ConfigError> {
        let dotted = join(section, key);
        match self.take(section, key)? {
            Some(Value::String(tag)) => {
                self.keep(section, key, Value::String(tag.clone()));
                Ok(tag)
            }
            Some(other) => Err(self.out_of_range(&dotted, "a string", other)),
            None => {
                let table = self.root.get(section).and_then(Value::as_table);
                let slip = table.and_then(|table| nearest(key, table.keys().map(String::as_str)));
                Err(match slip {
                    Some(slip) => self.unknown_key(&join(section, slip), &[key]),
                    None => ConfigError::Missing { place: self.place(&dotted), key: dotted },
                })
            }
        }
    }

    /// Takes a free-form table out of a section before the rest of it is read, such as `options` out of `[env]`.
    ///
    /// An absent one is empty.
    pub fn table(&mut self, section: &str, key: &str) -> Result<Table, ConfigError> {
        match self.take(section, key)? {
            Some(Value::Table(table)) => {
                self.keep(section, key, Value::Table(table.clone()));
                Ok(table)
            }
            Some(other) => Err(self.out_of_range(&join(section, key), "a table", other)),
            None => Ok(Table::new()),
        }
    }

    fn take(&mut self, section: &str, key: &str) -> Result<Option<Value>, ConfigError> {
        match self.root.get_mut(section) {
            Some(Value::Table(table)) => Ok(table.remove(key)),
            Some(other) => {
                let other = other.clone();
                Err(self.out_of_range(section, "a section", other))
            }
            None => Ok(None),
        }
    }

    fn keep(&mut self, section: &str, key: &str, value: Value) {
        let taken = self.taken.entry(section.to_string()).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(taken) = taken {
            taken.insert(key.to_string(), value);
        }
    }

    /// Refuses sections that were not read. Call it after the last section.
    pub fn finish(&self) -> Result<(), ConfigError> {
        match self.root.keys().next() {
            Some(section) => Err(ConfigError::UnknownSection {
                place: self.place(section),
                section: section.clone(),
                nearest: nearest(section, self.resolved.keys().map(String::as_str)).map(|name| format!("[{name}]")),
                known: self.resolved.keys().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", "),
            }),
            None => Ok(()),
        }
    }

    /// All sections that were read, with every value, as TOML. Loading it gives the same values.
    pub fn resolved(&self) -> String {
        toml::to_string(&self.resolved).expect("a table of tables always serializes")
    }

    /// The error of a value out of range. `expected` completes "expected ...".
    pub fn out_of_range(&self, key: &str, expected: impl Display, found: impl Display) -> ConfigError {
        ConfigError::WrongValue {
            place: self.place(key),
            key: key.to_string(),
            expected: expected.to_string(),
            found: found.to_string().replace('\n', " "),
        }
    }

    /// The error of a name that is not among `known`.
    pub fn unknown_value(&self, key: &str, found: &str, known: &[&str]) -> ConfigError {
        ConfigError::UnknownValue {
            place: self.place(key),
            key: key.to_string(),
            found: found.to_string(),
            nearest: nearest(found, known.iter().copied()).map(str::to_string),
            known: known.join(", "),
        }
    }

    /// The error of a dotted key that means nothing; `known` are the names that its table may have.
    pub fn unknown_key(&self, key: &str, known: &[&str]) -> ConfigError {
        let (parent, name) = key.rsplit_once('.').unwrap_or(("", key));
        ConfigError::UnknownKey {
            place: self.place(key),
            key: key.to_string(),
            nearest: nearest(name, known.iter().copied()).map(|name| join(parent, name)),
            known: known.join(", "),
        }
    }

    /// The error of another mistake.
    pub fn invalid(&self, key: &str, problem: impl Display) -> ConfigError {
        let problem = problem.to_string().replace('\n', " ");
        ConfigError::Invalid { place: self.place(key), key: key.to_string(), problem }
    }

    /// Where the value of a dotted key, or of the nearest table around it, was written.
    fn place(&self, key: &str) -> String {
        let mut key = key;
        loop {
            let within = |path: &str| path == key || path.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
            let touched = self.overrides.iter().rev().find(|(path, _)| path == key);
            // A table that only overrides wrote has no line.
            let touched = touched.or_else(|| {
                self.overrides.iter().rev().find(|(path, _)| !self.lines.contains_key(key) && within(path))
            });
            if let Some((_, text)) = touched {
                return format!("override {text}");
            }
            if let Some(line) = self.lines.get(key) {
                return format!("{}:{line}", self.file);
            }
            match key.rfind(['.', '[']) {
                Some(at) => key = &key[..at],
                None => return self.file.clone(),
            }
        }
    }

    fn explain(&self, error: ValueError, section: &str) -> ConfigError {
        let key = error.key.unwrap_or_else(|| section.to_string());
        match error.kind {
            ErrorKind::UnknownKey { valid } => self.unknown_key(&key, valid),
            ErrorKind::UnknownValue { found, valid } => self.unknown_value(&key, &found, valid),
            ErrorKind::WrongType { expected, found } => self.out_of_range(&key, expected, found),
            ErrorKind::Missing => ConfigError::Missing { place: self.place(&key), key },
            ErrorKind::Other(problem) => self.invalid(&key, problem),
        }
    }
}

/// The value of an override: a TOML value, or else the bare text as a string.
fn override_value(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(Value::Datetime(_)) | Err(_) => Value::String(text.to_string()),
        Ok(value) => value,
    }
}

/// The values of a table of tables by their dotted keys.
pub fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    flatten("", table, &mut |key, value| {
        let is_leaf = !value.is_table();
        if is_leaf {
            found.insert(key.to_owned(), value.clone());
        }
        is_leaf
    });
    found
}

/// Calls `leaf` with each dotted key below `parent`; it says whether the value was one, or a table to look into.
pub fn flatten(parent: &str, table: &Table, leaf: &mut impl FnMut(&str, &Value) -> bool) {
    for (key, value) in table {
        let dotted = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
        if !leaf(&dotted, value)
            && let Value::Table(inner) = value
        {
            flatten(&dotted, inner, leaf);
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn record_lines(table: &DeTable<'_>, text: &str, parent: &str, lines: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let dotted = if parent.is_empty() { key.get_ref().to_string() } else { join(parent, key.get_ref()) };
        lines.insert(dotted.clone(), line_of(text, key.span().start));
        if let DeValue::Table(table) = value.get_ref() {
            record_lines(table, text, &dotted, lines);
        }
    }
}

/// A JSON value as TOML. It goes through JSON's text because that prints an `f32` with its own shortest digits, where
/// a direct conversion would print those of the `f64` next to it. TOML has no null: such keys are left out.
fn from_json(json: serde_json::Value) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => Value::Boolean(value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(value) => Value::String(value),
        Json::Array(values) => Value::Array(values.into_iter().filter_map(from_json).collect()),
        Json::Object(entries) => {
            Value::Table(entries.into_iter().filter_map(|(key, value)| Some((key, from_json(value)?))).collect())
        }
    })
}
