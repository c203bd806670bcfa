//! Where providers' endpoints are, as their documents say, for as long as these are good.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use http::Method;
use obol_atp::Host;
use obol_atp::discovery::{Discovered, WELL_KNOWN};
use parking_lot::Mutex;

use super::Client;
use crate::connect::{Answer, Outgoing};
use crate::error::AtpError;

/// Bounds of the time that a document is good for, and what holds where it says nothing, in seconds.
const LIFE_SECS: core::ops::RangeInclusive<u64> = 60..=3_600;
const USUAL_LIFE_SECS: u64 = 300;
/// How long a host is not asked again that had no document of use.
const FAILURE_LIFE: Duration = Duration::from_secs(30);

type Found = Result<Discovered, Arc<AtpError>>;

/// What was found, or why nothing was, and until when that stands.
#[derive(Debug, Default)]
pub(super) struct Documents(Mutex<HashMap<Host, (Found, Instant)>>);

impl Documents {
    pub(super) fn forget(&self, host: &Host) {
        self.0.lock().remove(host);
    }

    fn get(&self, host: &Host) -> Option<Found> {
        let documents = self.0.lock();
        documents.get(host).filter(|(_, until)| Instant::now() < *until).map(|(found, _)| found.clone())
    }

    fn put(&self, host: &Host, found: Found, life: Duration) {
        self.0.lock().insert(host.clone(), (found, Instant::now() + life));
    }
}

impl Client {
    pub(super) async fn discover(&self, host: &Host) -> Result<Discovered, AtpError> {
        if let Some(found) = self.0.documents.get(host) {
            return found.map_err(AtpError::Shared);
        }
        match self.fetch_document(host).await {
            Ok((found, life)) => {
                self.0.documents.put(host, Ok(found.clone()), life);
                Ok(found)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.0.documents.put(host, Err(Arc::clone(&error)), FAILURE_LIFE);
                Err(AtpError::Shared(error))
            }
        }
    }

    async fn fetch_document(&self, host: &Host) -> Result<(Discovered, Duration), AtpError> {
        let outgoing =
            Outgoing { method: Method::GET, path: WELL_KNOWN, headers: Vec::new(), body: Vec::new() };
        let answer = self.send(host, outgoing).await?;
        if answer.status.is_server_error() {
            return Err(super::refused(&answer));
        }
        if answer.status != 200 {
            return Err(AtpError::NotOffered);
        }
        Ok((Discovered::read(&answer.body, host, &self.0.options.endpoints)?, life(&answer)))
    }
}

fn life(answer: &Answer) -> Duration {
    let control =
        answer.headers.get("cache-control").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = control.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok());
    let (least, most) = (*LIFE_SECS.start(), *LIFE_SECS.end());
    Duration::from_secs(seconds.unwrap_or(USUAL_LIFE_SECS).clamp(least, most))
}
