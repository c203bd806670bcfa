//! The word to stop, shared by a service, its handles and its connections.

use std::sync::Arc;

use tokio::sync::watch;

/// Says stop, or hears it. Clones share it; it is never taken back.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// Nobody has said it.
    #[expect(clippy::new_without_default, reason = "each is another one, which a default would hide")]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Says it.
    pub fn say(&self) {
        self.0.send_replace(true);
    }

    /// Whether somebody has said it.
    pub fn is_said(&self) -> bool {
        *self.0.borrow()
    }

    /// An ear of one's own, for who listens over and over.
    pub fn listen(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Resolves once somebody has said it.
    pub async fn said(&self) {
        let mut word = self.listen();
        // The sender lives as long as this does.
        let _said = word.wait_for(|said| *said).await;
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[tokio::test]
    async fn everybody_hears_it_also_who_comes_later_and_dropping_says_nothing() {
        let stop = Stop::new();
        drop(stop.clone());
        let listening = tokio::spawn({
            let stop = stop.clone();
            async move { stop.said().await }
        });
        let unsaid = tokio::time::timeout(Duration::from_millis(20), stop.said()).await;
        assert!(unsaid.is_err() && !stop.is_said());
        stop.clone().say();
        listening.await.unwrap();
        stop.said().await;
        assert!(stop.is_said());
    }
}
