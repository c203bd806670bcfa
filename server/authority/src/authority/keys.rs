//! The keys with which the service signs for others. They are made when they are first needed, and kept in the directory.

use std::sync::Arc;

use super::Authority;
use crate::jws::SigningKeys;
use crate::refused::Refused;

impl Authority {
    /// Name and algorithm of each key that there is. None is made for it.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    #[cfg_attr(not(feature = "people"), expect(dead_code, reason = "the console shows it"))]
    pub(crate) fn known_signing_keys(&self) -> Result<Vec<(String, String)>, Refused> {
        let Some(kept) = self.directory.signing_keys(None)? else { return Ok(Vec::new()) };
        let keys = SigningKeys::read(&kept).map_err(|error| Refused::Unavailable(error.to_string()))?;
        Ok(keys.names())
    }

    /// The keys; made now where there are none.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub(crate) fn signing_keys(&self) -> Result<Arc<SigningKeys>, Refused> {
        let mut known = self.signing_keys.lock();
        if let Some(keys) = &*known {
            return Ok(Arc::clone(keys));
        }
        let no_keys = |error: &dyn core::fmt::Display| Refused::Unavailable(error.to_string());
        let kept = match self.directory.signing_keys(None)? {
            Some(kept) => Some(kept),
            None => {
                tracing::info!("the keys are made with which security events are signed");
                let fresh = SigningKeys::make().map_err(|error| no_keys(&error))?;
                self.directory.signing_keys(Some(fresh))?
            }
        };
        let kept = kept.ok_or_else(|| no_keys(&"the keys were not kept"))?;
        let keys = Arc::new(SigningKeys::read(&kept).map_err(|error| no_keys(&error))?);
        *known = Some(Arc::clone(&keys));
        Ok(keys)
    }
}
