//! Plain bytes for saved environment states: little-endian, no framing, read back in the order written.

use crate::EnvError;

/// Collects the bytes of a state.
#[derive(Clone, Debug, Default)]
pub struct StateWriter {
    bytes: Vec<u8>,
}

impl StateWriter {
    /// The bytes written so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads back what a [`StateWriter`] wrote.
#[derive(Clone, Debug)]
pub struct StateReader<'a> {
    bytes: &'a [u8],
}

impl<'a> StateReader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Number of bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn take<const K: usize>(&mut self) -> Result<[u8; K], EnvError> {
        let (head, tail) = self.bytes.split_first_chunk::<K>().ok_or_else(|| EnvError::State {
            expected: format!("{K} more bytes"),
            found: format!("{} bytes", self.bytes.len()),
        })?;
        self.bytes = tail;
        Ok(*head)
    }
}

macro_rules! numbers {
    ($($name:ident: $ty:ty),*) => {
        impl StateWriter {$(
            #[doc = concat!("Writes one `", stringify!($ty), "`.")]
            pub fn $name(&mut self, value: $ty) {
                self.bytes.extend_from_slice(&value.to_le_bytes());
            }
        )*}
        impl StateReader<'_> {$(
            #[doc = concat!("Reads one `", stringify!($ty), "`.")]
            ///
            /// # Errors
            /// [`EnvError::State`] if too few bytes are left.
            pub fn $name(&mut self) -> Result<$ty, EnvError> {
                self.take().map(<$ty>::from_le_bytes)
            }
        )*}
    };
}
numbers!(u8: u8, u32: u32, i32: i32, u64: u64, u128: u128, f32: f32, f64: f64);

impl StateWriter {
    /// Writes one truth value.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
}

impl StateReader<'_> {
    /// Reads one truth value.
    ///
    /// # Errors
    /// [`EnvError::State`] if no byte is left or it is neither 0 nor 1.
    pub fn bool(&mut self) -> Result<bool, EnvError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(EnvError::State { expected: "0 or 1".into(), found: other.to_string() }),
        }
    }
}
