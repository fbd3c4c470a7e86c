//! How large a value may become: its bytes as JSON, counted without writing them anywhere.
//!
//! Values are made of parts that lie in the scope of a run and may be large. Each part is counted
//! before it is copied, so that a short expression cannot fill the memory.

use std::io;

use super::{EvalError, Value};
use crate::pipeline::limits::VALUE_BYTES_MAX;
use crate::pipeline::source::Span;

/// What a value may still take.
pub(crate) struct Room {
    left: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: VALUE_BYTES_MAX }
    }
}

impl Room {
    /// Takes room for some bytes; fails where there are fewer left.
    pub(crate) fn take_bytes(&mut self, bytes: usize, span: Span) -> Result<(), EvalError> {
        self.left = self.left.checked_sub(bytes).ok_or(EvalError::Large { span })?;
        Ok(())
    }

    /// Takes room for a value.
    pub(crate) fn take(&mut self, value: &Value, span: Span) -> Result<(), EvalError> {
        // Writing fails only where there is no room.
        serde_json::to_writer(self, value).map_err(|_| EvalError::Large { span })
    }
}

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
