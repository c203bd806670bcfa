//! The keys with which the service signs for others. They are made when they are first needed, replaced before they are old, and
//! kept in the directory.

use std::sync::Arc;

use super::Authority;
use crate::authority::Now;
use crate::jws::{KeyRing, KeyUse};
use crate::refused::Refused;

fn no_keys(error: &dyn core::fmt::Display) -> Refused {
    Refused::Unavailable(error.to_string())
}

impl Authority {
    /// Name and algorithm of each key that there is, and how it stands with it. None is made for it.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub(crate) fn known_signing_keys(&self, now: Now) -> Result<Vec<(String, String, KeyUse)>, Refused> {
        let Some(kept) = self.directory.signing_keys(None)? else { return Ok(Vec::new()) };
        let keys = KeyRing::read(&kept).map_err(|error| no_keys(&error))?;
        Ok(keys.names(now.secs()))
    }

    /// The keys; made now where there are none.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub(crate) fn signing_keys(&self, now: Now) -> Result<Arc<KeyRing>, Refused> {
        let mut known = self.signing_keys.lock();
        if let Some(keys) = &*known {
            return Ok(Arc::clone(keys));
        }
        let kept = match self.directory.signing_keys(None)? {
            Some(kept) => Some(kept),
            None => {
                tracing::info!("the keys are made with which security events are signed");
                let fresh = KeyRing::make(now.secs()).map_err(|error| no_keys(&error))?;
                self.directory.signing_keys(Some(fresh))?
            }
        };
        let kept = kept.ok_or_else(|| no_keys(&"the keys were not kept"))?;
        let keys = Arc::new(KeyRing::read(&kept).map_err(|error| no_keys(&error))?);
        *known = Some(Arc::clone(&keys));
        Ok(keys)
    }

    /// Makes the next keys where it is time for them, and forgets those that nobody needs any more. It may take a moment; whoever
    /// signs does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub(crate) fn tend_signing_keys(&self, now: Now) -> Result<(), Refused> {
        let Some(kept) = self.directory.signing_keys(None)? else { return Ok(()) };
        let tended = KeyRing::tended(&kept, now.secs()).map_err(|error| no_keys(&error))?;
        let Some(tended) = tended else { return Ok(()) };
        let kept = self.directory.replace_signing_keys(kept, tended)?;
        let keys = Arc::new(KeyRing::read(&kept).map_err(|error| no_keys(&error))?);
        let published = keys.names(now.secs()).len();
        tracing::info!(published, "the keys were replaced with which security events are signed");
        *self.signing_keys.lock() = Some(keys);
        Ok(())
    }
}
