//! A serde deserializer over TOML values whose errors keep their parts: the dotted key, what was expected, what was
//! found. It takes an integer where a float is expected, and `1e6` where an integer is.

use std::fmt::{self, Display};

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use toml::{Table, Value};

/// What is wrong with a value, and the dotted key of it.
#[derive(Debug)]
pub(crate) struct ValueError {
    pub(crate) key: Option<String>,
    pub(crate) kind: ErrorKind,
}

#[derive(Debug)]
pub(crate) enum ErrorKind {
    UnknownKey { valid: &'static [&'static str] },
    UnknownValue { found: String, valid: &'static [&'static str] },
    WrongType { expected: String, found: String },
    Missing,
    Other(String),
}

impl ValueError {
    fn new(kind: ErrorKind) -> Self {
        Self { key: None, kind }
    }

    /// Adds the place where it was noticed, unless a value further in knew better.
    fn at(mut self, path: &str) -> Self {
        self.key = Some(match self.key {
            // A bare field name, from serde's field errors.
            Some(field) if !field.contains('.') => join(path, &field),
            Some(key) => key,
            None => path.to_string(),
        });
        self
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    format!("{path}.{key}")
}

impl Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for ValueError {}

impl de::Error for ValueError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(ErrorKind::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = describe_type(&expected.to_string());
        Self::new(ErrorKind::WrongType { expected, found: describe(found) })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = describe_range(&expected.to_string());
        Self::new(ErrorKind::WrongType { expected, found: describe(found) })
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        Self::new(ErrorKind::WrongType { expected: expected.to_string(), found: format!("{length} elements") })
    }

    fn unknown_field(field: &str, valid: &'static [&'static str]) -> Self {
        Self { key: Some(field.to_string()), kind: ErrorKind::UnknownKey { valid } }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { key: Some(field.to_string()), kind: ErrorKind::Missing }
    }

    fn unknown_variant(variant: &str, valid: &'static [&'static str]) -> Self {
        Self::new(ErrorKind::UnknownValue { found: variant.to_string(), valid })
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("the boolean {value}"),
        Unexpected::Signed(value) => format!("the integer {value}"),
        Unexpected::Unsigned(value) => format!("the integer {value}"),
        Unexpected::Float(value) => format!("the number {value:?}"),
        Unexpected::Str(value) => format!("the string {value:?}"),
        Unexpected::Seq => "an array".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

fn describe_type(expected: &str) -> String {
    match expected {
        "f32" | "f64" => "a number".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" | "u8" | "u16" | "u32" | "u64" | "usize" => "an integer".into(),
        "a sequence" => "an array".into(),
        "a map" => "a table".into(),
        other if other.starts_with("struct ") => "a table".into(),
        other if other.starts_with("a tuple") => other.replace("a tuple", "an array"),
        other => other.into(),
    }
}

fn describe_range(expected: &str) -> String {
    let (low, high): (i64, i64) = match expected {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" | "usize" => (0, i64::MAX),
        "i8" => (i8::MIN.into(), i8::MAX.into()),
        "i16" => (i16::MIN.into(), i16::MAX.into()),
        "i32" => (i64::from(i32::MIN), i64::from(i32::MAX)),
        other => return other.into(),
    };
    format!("an integer from {low} to {high}")
}

/// Deserializes a value whose dotted key is `path`.
pub(crate) struct ValueDeserializer {
    pub(crate) value: Value,
    pub(crate) path: String,
}

impl ValueDeserializer {
    fn deserialize_integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.value {
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => {
                visitor.visit_i64(value as i64).map_err(|error: ValueError| error.at(&self.path))
            }
            _ => self.deserialize_any(visitor),
        }
    }
}

macro_rules! integers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            self.deserialize_integer(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for ValueDeserializer {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let Self { value, path } = self;
        match value {
            Value::String(value) => visitor.visit_string(value),
            Value::Integer(value) => visitor.visit_i64(value),
            Value::Float(value) if !value.is_finite() => Err(ValueError::new(ErrorKind::WrongType {
                expected: "a finite number".into(),
                found: value.to_string(),
            })),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Boolean(value) => visitor.visit_bool(value),
            Value::Datetime(value) => visitor.visit_string(value.to_string()),
            Value::Array(values) => {
                visitor.visit_seq(Elements { values: values.into_iter().enumerate(), path: path.clone() })
            }
            Value::Table(table) => visitor.visit_map(Entries::new(table, path.clone())),
        }
        .map_err(|error| error.at(&path))
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let Self { value, path } = self;
        match value {
            Value::String(variant) => visitor.visit_enum::<StringDeserializer<ValueError>>(variant.into_deserializer()),
            Value::Table(table) => visitor.visit_enum(MapAccessDeserializer::new(Entries::new(table, path.clone()))),
            other => Err(de::Error::invalid_type(unexpected(&other), &"a string")),
        }
        .map_err(|error| error.at(&path))
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::String(value) => Unexpected::Str(value),
        Value::Integer(value) => Unexpected::Signed(*value),
        Value::Float(value) => Unexpected::Float(*value),
        Value::Boolean(value) => Unexpected::Bool(*value),
        Value::Datetime(_) => Unexpected::Other("a date"),
        Value::Array(_) => Unexpected::Seq,
        Value::Table(_) => Unexpected::Map,
    }
}

struct Elements {
    values: std::iter::Enumerate<std::vec::IntoIter<Value>>,
    path: String,
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ValueError> {
        let Some((index, value)) = self.values.next() else { return Ok(None) };
        seed.deserialize(ValueDeserializer { value, path: format!("{}[{index}]", self.path) }).map(Some)
    }
}

struct Entries {
    entries: toml::map::IntoIter<String, Value>,
    next: Option<(String, Value)>,
    path: String,
}

impl Entries {
    fn new(table: Table, path: String) -> Self {
        Self { entries: table.into_iter(), next: None, path }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ValueError> {
        self.next = self.entries.next();
        let Some((key, _)) = &self.next else { return Ok(None) };
        let key: StringDeserializer<ValueError> = key.clone().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ValueError> {
        let (key, value) = self.next.take().expect("serde asks for a key before its value");
        seed.deserialize(ValueDeserializer { value, path: join(&self.path, &key) })
    }
}
