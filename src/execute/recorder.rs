//! Which record the parts of a call go into, as far as one is kept.

use crate::array::Uses;
use smallvec::SmallVec;
use std::sync::Arc;

/// The records of a call: one for the whole call, or one for each of its parts on a GPU.
#[derive(Debug, Default)]
pub(crate) struct PartUses(SmallVec<[(Option<usize>, Arc<Uses>); 1]>);

impl PartUses {
    /// A record of everything that the call does.
    pub(crate) fn of_call(uses: Arc<Uses>) -> Self {
        Self([(None, uses)].into_iter().collect())
    }

    /// Adds a record of what part number `part` of the plan does.
    pub(crate) fn add_part(&mut self, part: usize, uses: Arc<Uses>) {
        self.0.push((Some(part), uses));
    }

    /// The record of part number `part` of the plan, or of what is no part.
    pub(super) fn of_part(&self, part: Option<usize>) -> Option<&Arc<Uses>> {
        let mut records = self.0.iter();
        let own = records.find(|(of, _)| of.is_none() || *of == part);
        own.map(|(_, uses)| uses)
    }

    /// The record of what the CPU does: none if its items need not be computed again with the others.
    pub(super) fn of_cpu(&self) -> Option<&Arc<Uses>> {
        let mut records = self.0.iter();
        let whole = records.find(|(of, _)| of.is_none());
        whole.map(|(_, uses)| uses)
    }
}
