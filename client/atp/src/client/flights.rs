//! One request for each host at a time. Who waited for one that failed shares its failure, instead of making one more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use obol_atp::Host;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::error::AtpError;

/// When the last flight failed, and why.
type Last = Option<(Instant, Arc<AtpError>)>;

#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Host, Arc<tokio::sync::Mutex<Last>>>>);

/// The only flight to a host until it is dropped.
pub(super) struct Flight {
    asked: Instant,
    last: OwnedMutexGuard<Last>,
}

impl Flights {
    pub(super) async fn enter(&self, host: &Host) -> Flight {
        let asked = Instant::now();
        let flight = Arc::clone(self.0.lock().entry(host.clone()).or_default());
        Flight { asked, last: flight.lock_owned().await }
    }
}

impl Flight {
    /// Why one failed that began before this one and ended after it was asked for.
    pub(super) fn failed_meanwhile(&self) -> Option<Arc<AtpError>> {
        self.last.as_ref().filter(|(when, _)| *when >= self.asked).map(|(_, error)| Arc::clone(error))
    }

    /// Tells those who wait.
    pub(super) fn fails(mut self, error: AtpError) -> AtpError {
        let error = Arc::new(error);
        *self.last = Some((Instant::now(), Arc::clone(&error)));
        AtpError::Shared(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waited_for_a_failure_shares_it_and_who_comes_later_does_not() {
        let flights = Arc::new(Flights::default());
        let host: Host = "a.example".parse().unwrap();
        let first = flights.enter(&host).await;
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let (flights, host) = (Arc::clone(&flights), host.clone());
                tokio::spawn(async move { flights.enter(&host).await.failed_meanwhile().is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        let _error = first.fails(AtpError::NotOffered);
        for one in waiting {
            assert!(one.await.unwrap());
        }
        assert!(flights.enter(&host).await.failed_meanwhile().is_none());
        let other = "b.example".parse().unwrap();
        assert!(flights.enter(&other).await.failed_meanwhile().is_none());
    }
}
