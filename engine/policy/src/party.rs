//! Whoever takes part in a question.

use std::collections::HashSet;

use cedar_policy::EntityUid;

/// Who asks, or what is asked about, and all that it is in, also by way of others.
#[derive(Debug)]
pub(crate) struct Party {
    pub(crate) uid: EntityUid,
    pub(crate) groups: HashSet<EntityUid>,
}

impl Party {
    /// One that is in nothing.
    pub(crate) fn alone(uid: EntityUid) -> Self {
        Self { uid, groups: HashSet::new() }
    }
}
