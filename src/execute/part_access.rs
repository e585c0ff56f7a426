//! Which record the parts of a call go into, as far as one is kept.

use crate::array::AccessSet;
use smallvec::SmallVec;
use std::sync::Arc;

/// The records of a call: one for the whole call, or one for each of its parts on a GPU.
#[derive(Debug, Default)]
pub(crate) struct PartAccess(SmallVec<[(Option<usize>, Arc<AccessSet>); 1]>);

impl PartAccess {
    /// A record of everything that the call does.
    pub(crate) fn of_call(accesses: Arc<AccessSet>) -> Self {
        Self([(None, accesses)].into_iter().collect())
    }

    /// Adds a record of what part number `part` of the plan does.
    pub(crate) fn add_part(&mut self, part: usize, accesses: Arc<AccessSet>) {
        self.0.push((Some(part), accesses));
    }

    /// The record of part number `part` of the plan, or of what is no part.
    pub(super) fn of_part(&self, part: Option<usize>) -> Option<&Arc<AccessSet>> {
        let mut records = self.0.iter();
        let own = records.find(|(of, _)| of.is_none() || *of == part);
        own.map(|(_, accesses)| accesses)
    }

    /// The record of what the CPU does: none if its items need not be computed again with the others.
    pub(super) fn of_cpu(&self) -> Option<&Arc<AccessSet>> {
        let mut records = self.0.iter();
        let whole = records.find(|(of, _)| of.is_none());
        whole.map(|(_, accesses)| accesses)
    }
}
