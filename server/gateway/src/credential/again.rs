//! A secret that is got again where it came from: after a while, and when the API refuses it.

use core::fmt;
use core::pin::Pin;
use core::time::Duration;
use std::sync::Arc;

use obol_secret::wipe::Wiped;
use tokio::time::{Instant, sleep_until, timeout};

use super::Credential;

/// The least time between two tries, however often the API refuses what there is, and the time after a failure.
const LEAST_PAUSE: Duration = Duration::from_secs(60);

/// Where a secret comes from.
pub trait Origin: fmt::Debug + Send + Sync {
    /// The secret as it is now, or why there is none, in words that do not repeat it. Has bounds of its own.
    fn secret(&self) -> Pin<Box<dyn Future<Output = Result<Wiped, String>> + Send + '_>>;
}

/// What gets a secret again.
#[derive(Debug)]
pub(crate) struct Again {
    origin: Arc<dyn Origin>,
    every: Duration,
}

impl Again {
    pub(crate) fn new(origin: Arc<dyn Origin>, every: Duration) -> Self {
        Self { origin, every }
    }

    /// Keeps the secret as it is where it comes from, for ever. One that cannot be got, or used, changes nothing.
    pub(crate) async fn keep(&self, api: &str, credential: &Credential) {
        let mut last = Instant::now();
        let mut due = last + self.every;
        loop {
            tokio::select! {
                () = sleep_until(due) => {}
                () = credential.refused.notified() => sleep_until(due.min(last + LEAST_PAUSE)).await,
            }
            last = Instant::now();
            let got = self.origin.secret().await;
            let outcome =
                got.and_then(|secret| credential.replace(&secret).map_err(|unfit| unfit.to_string()));
            let pause = match outcome {
                Ok(()) => {
                    tracing::info!(api, "the API's credential was renewed");
                    // Whoever was refused until now had the old one.
                    let _over = timeout(Duration::ZERO, credential.refused.notified()).await;
                    self.every
                }
                Err(error) => {
                    tracing::error!(
                        api,
                        error,
                        "the API's credential cannot be renewed, and stays as it was"
                    );
                    self.every.min(LEAST_PAUSE)
                }
            };
            due = Instant::now() + pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::super::Placement;
    use super::*;

    /// Says what is next, and when it was asked, in seconds.
    #[derive(Debug)]
    struct List(Mutex<Vec<Result<&'static str, &'static str>>>, Mutex<Vec<u64>>, Instant);

    impl Origin for List {
        fn secret(&self) -> Pin<Box<dyn Future<Output = Result<Wiped, String>> + Send + '_>> {
            self.1.lock().push(self.2.elapsed().as_secs());
            let next = self.0.lock().pop().unwrap_or(Err("nothing more"));
            let next = next.map(|text| Wiped::new(text.as_bytes().to_vec())).map_err(str::to_owned);
            Box::pin(async { next })
        }
    }

    fn now(credential: &Credential) -> Vec<u8> {
        credential.looked_for()[0].to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_got_when_it_is_due_and_when_it_is_refused_and_at_most_once_a_minute() {
        let answers = vec![Ok("third-secret"), Ok(""), Err("away"), Ok("second-secret")];
        let list = Arc::new(List(Mutex::new(answers), Mutex::default(), Instant::now()));
        let credential = Arc::new(Credential::new(Placement::bearer(), b"first-secret").unwrap());
        let (again, kept) = (Again::new(list.clone(), Duration::from_secs(1_000)), Arc::clone(&credential));
        let keeping = tokio::spawn(async move { again.keep("saas", &kept).await });
        let until = |second| sleep_until(list.2 + Duration::from_secs(second));
        for _ in 0..9 {
            until(10).await;
            credential.was_refused(&credential.ready().unwrap());
        }
        until(59).await;
        assert_eq!(now(&credential), b"first-secret");
        until(61).await;
        assert_eq!((now(&credential), list.1.lock().clone()), (b"second-secret".to_vec(), vec![60]));
        // One that was taken away meanwhile says nothing of the new one.
        let old = credential.ready().unwrap();
        until(1_061).await;
        assert_eq!((now(&credential), list.1.lock().clone()), (b"second-secret".to_vec(), vec![60, 1_060]));
        until(1_121).await;
        assert_eq!(now(&credential), b"second-secret", "what is no secret changes nothing");
        until(1_181).await;
        assert_eq!(
            (now(&credential), list.1.lock().clone()),
            (b"third-secret".to_vec(), vec![60, 1_060, 1_120, 1_180])
        );
        credential.was_refused(&old);
        until(1_300).await;
        assert_eq!(list.1.lock().len(), 4, "it was of another secret");
        keeping.abort();
    }
}
