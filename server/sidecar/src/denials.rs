//! Denials for each tool that was asked for, also one that nobody granted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use obol_ipc::value::Tool;

/// The most names that are kept apart: an agent may ask for what it likes, and all of it must fit into one answer.
const MAX_NAMES: usize = 64;
/// Names longer than this are not kept.
const MAX_NAME_BYTES: usize = 128;

/// Counts denials.
#[derive(Debug, Default)]
pub(crate) struct Denials(Mutex<BTreeMap<Tool, u64>>);

impl Denials {
    pub(crate) fn count(&self, tool: &Tool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(tool) {
            *count += 1;
        } else if counts.len() < MAX_NAMES && tool.as_str().len() <= MAX_NAME_BYTES {
            counts.insert(tool.clone(), 1);
        }
    }

    pub(crate) fn counts(&self) -> BTreeMap<Tool, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_makes_up_names_does_not_make_the_list_longer() {
        let denials = Denials::default();
        for n in 0..1_000 {
            denials.count(&Tool::new(format!("tool{n}")).unwrap());
            denials.count(&Tool::new("tool0").unwrap());
        }
        let counts = denials.counts();
        assert_eq!(counts.len(), MAX_NAMES);
        assert_eq!(counts[&Tool::new("tool0").unwrap()], 1_001);
    }
}
