//! How products are shared out among workgroups, by shape, as it was measured on a device. Nothing here changes a result.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Slices of the inner dimension that a workgroup makes, by [k, columns]; cloning shares the table. A shape keeps what it has
/// when lists of it are recorded: it is set before.
#[derive(Clone, Default)]
pub struct Geometry(Arc<RwLock<BTreeMap<[usize; 2], usize>>>);

impl Geometry {
    /// What was measured for a shape.
    pub fn of_workgroup(&self, shape: [usize; 2]) -> Option<usize> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&shape).copied()
    }

    /// Sets a shape's, or with `None` forgets it.
    pub fn set(&self, shape: [usize; 2], of_workgroup: Option<usize>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match of_workgroup {
            Some(of_workgroup) => drop(table.insert(shape, of_workgroup)),
            None => drop(table.remove(&shape)),
        }
    }

    /// All of it.
    pub fn entries(&self) -> BTreeMap<[usize; 2], usize> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
