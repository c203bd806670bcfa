//! One request for each host at a time. Who waited for one that failed shares its failure, instead of making one more: a passing
//! one, or that of the same request. What a provider refuses to one request says nothing of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use obol_atp::Host;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::TokenRequest;
use crate::error::AtpError;

/// The last flight that failed.
#[derive(Debug)]
struct Failed {
    at: Instant,
    request: TokenRequest,
    why: Arc<AtpError>,
}

type Last = Option<Failed>;

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
    /// Why one failed that began before this one and ended after it was asked for, if it speaks of this request too.
    pub(super) fn failed_meanwhile(&self, request: &TokenRequest) -> Option<Arc<AtpError>> {
        let last = self.last.as_ref().filter(|last| last.at >= self.asked);
        last.filter(|last| last.why.is_passing() || last.request == *request)
            .map(|last| Arc::clone(&last.why))
    }

    /// Tells those who wait.
    pub(super) fn fails(mut self, request: &TokenRequest, error: AtpError) -> AtpError {
        let why = Arc::new(error);
        let request = request.clone();
        *self.last = Some(Failed { at: Instant::now(), request, why: Arc::clone(&why) });
        AtpError::Shared(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(scope: &str) -> TokenRequest {
        TokenRequest::new([scope]).unwrap()
    }

    /// What eight who waited for one that failed so hear of it, and one who comes later, each of whom asks for this.
    async fn heard(failed: AtpError, scope: &'static str) -> Vec<bool> {
        let flights = Arc::new(Flights::default());
        let host: Host = "a.example".parse().unwrap();
        let first = flights.enter(&host).await;
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let (flights, host) = (Arc::clone(&flights), host.clone());
                tokio::spawn(
                    async move { flights.enter(&host).await.failed_meanwhile(&asking(scope)).is_some() },
                )
            })
            .collect();
        tokio::task::yield_now().await;
        let _error = first.fails(&asking("read"), failed);
        let mut heard = Vec::new();
        for one in waiting {
            heard.push(one.await.unwrap());
        }
        for host in [host, "b.example".parse().unwrap()] {
            assert!(
                flights.enter(&host).await.failed_meanwhile(&asking(scope)).is_none(),
                "later, or elsewhere"
            );
        }
        heard
    }

    fn refused() -> AtpError {
        AtpError::Refused { status: 403, code: "invalid_scope".to_owned(), retry_after: None }
    }

    #[tokio::test]
    async fn who_waited_for_a_failure_shares_it_and_who_comes_later_does_not() {
        assert_eq!(heard(refused(), "read").await, [true; 8]);
        assert_eq!(heard(AtpError::Unavailable("away".to_owned()), "write").await, [true; 8]);
    }

    #[tokio::test]
    async fn a_refusal_of_one_request_is_none_of_another() {
        assert_eq!(heard(refused(), "write").await, [false; 8]);
        assert_eq!(heard(refused(), "read").await, [true; 8], "control");
    }
}
