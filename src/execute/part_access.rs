//! The access sets in which the parts of a recorded call are recorded.

use crate::array::AccessSet;
use smallvec::SmallVec;
use std::sync::Arc;

/// The access sets of a call: one for the whole call, or one for each of its parts on a GPU.
#[derive(Debug, Default)]
pub(crate) struct PartAccess(SmallVec<[(Option<usize>, Arc<AccessSet>); 1]>);

impl PartAccess {
    /// One access set for the whole call.
    pub(crate) fn of_call(accesses: Arc<AccessSet>) -> Self {
        Self([(None, accesses)].into_iter().collect())
    }

    /// Adds the access set of part number `part` of the plan.
    pub(crate) fn add_part(&mut self, part: usize, accesses: Arc<AccessSet>) {
        self.0.push((Some(part), accesses));
    }

    /// The access set of part number `part` of the plan, or of work that belongs to no part.
    pub(super) fn of_part(&self, part: Option<usize>) -> Option<&Arc<AccessSet>> {
        let mut sets = self.0.iter();
        let own = sets.find(|(of, _)| of.is_none() || *of == part);
        own.map(|(_, accesses)| accesses)
    }

    /// The access set of work on the CPU: none if the CPU's items can be left out when the others are computed again.
    pub(super) fn of_cpu(&self) -> Option<&Arc<AccessSet>> {
        let mut sets = self.0.iter();
        let whole = sets.find(|(of, _)| of.is_none());
        whole.map(|(_, accesses)| accesses)
    }
}
