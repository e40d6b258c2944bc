//! Which token stands at which position of which sequence, for each row of a pass.

use crate::gpu::{Buffer, Device};
use crate::ops::cache::RowState;
use crate::{Error, Result};

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token id.
    pub token: u32,
    /// Sequence.
    pub slot: u32,
    /// Position in the sequence, from 0.
    pub position: u32,
}

/// The rows' state on a device, written before a prepared list runs. Where tokens are chosen on the device, the choice
/// moves it on.
pub struct Batch {
    tokens: Buffer,
    state: RowState,
    rows: usize,
}

/// Position of a row that is not in use.
const UNUSED: u32 = u32::MAX;

impl Batch {
    /// Room for `rows` rows.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, rows: usize) -> Result<Self> {
        let unused = vec![UNUSED; rows];
        let state = RowState {
            positions: device.upload("positions", &unused)?,
            slots: device.alloc("slots", 4 * rows as u64)?,
        };
        Ok(Self { tokens: device.alloc("tokens", 4 * rows as u64)?, state, rows })
    }

    /// Sets the first rows; up to `bucket`, the rest is marked as not in use.
    ///
    /// # Errors
    /// [`Error::Argument`] when a token is not below `vocabulary` or a position not below `context` or a slot not
    /// below `slots`; [`Error::Shape`] when there are more rows than room.
    pub fn set(
        &self,
        rows: &[Row],
        bucket: usize,
        vocabulary: usize,
        slots: usize,
        context: usize,
    ) -> Result<()> {
        if rows.len() > bucket || bucket > self.rows {
            return Err(Error::shape("batch", format!("{} rows in {bucket} of {}", rows.len(), self.rows)));
        }
        for row in rows {
            if row.token as usize >= vocabulary {
                let message = format!("token id {} where the vocabulary has {vocabulary}", row.token);
                return Err(Error::argument("tokens", message));
            }
            if row.position as usize >= context || row.slot as usize >= slots {
                let message = format!(
                    "position {} of sequence {} in a cache for {slots} sequences of {context} tokens; use a longer context",
                    row.position, row.slot
                );
                return Err(Error::argument("--context", message));
            }
        }
        let column = |value: fn(&Row) -> u32, rest: u32| -> Vec<u32> {
            rows.iter().map(value).chain(std::iter::repeat_n(rest, bucket - rows.len())).collect()
        };
        let device = self.tokens.device();
        device.write(&self.tokens, 0, &column(|row| row.token, 0))?;
        device.write(&self.state.positions, 0, &column(|row| row.position, UNUSED))?;
        device.write(&self.state.slots, 0, &column(|row| row.slot, 0))
    }

    /// Marks a row as not in use from what is submitted next on.
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn retire(&self, row: usize) -> Result<()> {
        self.tokens.device().write(&self.state.positions, 4 * row as u64, &[UNUSED])
    }

    /// Token ids, one u32 a row.
    pub fn tokens(&self) -> &Buffer {
        &self.tokens
    }

    /// Positions and slots.
    pub fn state(&self) -> &RowState {
        &self.state
    }
}
