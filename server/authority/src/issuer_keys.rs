//! The public keys of one whose signed tokens are taken. A task fetches them now and then, and sooner when a token names a key
//! that is not there: no request fetches anything, and whoever sends junk causes one fetch in a while at the most.
//!
//! It must not know: what the tokens say.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::jws::KeySet;
use crate::outbound::{Outbound, Target};

/// How often keys are fetched: also how long one that was withdrawn is still taken.
const EVERY: Duration = Duration::from_secs(600);
/// How long nothing is fetched after a fetch, whoever asks.
const LEAST_PAUSE: Duration = Duration::from_secs(5);
/// The first and the longest pause after a fetch that failed.
const AFTER_FAILURE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));
/// How long a token waits for keys to be fetched.
const PATIENCE: Duration = Duration::from_secs(4);

/// Where an issuer's keys are.
#[derive(Clone, Debug)]
pub(crate) enum KeySource {
    /// In a document that names the issuer and says where its keys are.
    Configuration(Target),
    /// In this set itself.
    Set(Target),
}

/// What an issuer says of itself.
#[derive(Clone, Debug, Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    set: RwLock<Arc<KeySet>>,
    state: Mutex<State>,
    wanted: Notify,
    /// How many fetches have come to an end.
    fetches: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    last_try: Option<Instant>,
    is_fetching: bool,
    fetched_at: Option<u64>,
    error: Option<String>,
}

impl Keys {
    /// Keys that are never fetched.
    pub(crate) fn of(set: KeySet) -> Self {
        Self { set: RwLock::new(Arc::new(set)), ..Self::default() }
    }

    pub(crate) fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.set.read())
    }

    /// When they were fetched last, in Unix seconds, and what went wrong since.
    pub(crate) fn standing(&self) -> (Option<u64>, Option<String>) {
        let state = self.state.lock();
        (state.fetched_at, state.error.clone())
    }

    /// How many fetches have come to an end.
    pub(crate) fn fetches(&self) -> u64 {
        *self.fetches.borrow()
    }

    /// Waits, not for long, for the end of a fetch after the `seen` first, and asks for one. How long until there can be one,
    /// where there can be none yet.
    pub(crate) async fn refresh(&self, seen: u64) -> Result<(), Duration> {
        let mut fetches = self.fetches.subscribe();
        if *fetches.borrow_and_update() != seen {
            return Ok(());
        }
        let is_fetching = self.state.lock().is_fetching;
        if !is_fetching {
            // It is fetched as soon as may be; whoever sends the token again finds it.
            self.wanted.notify_one();
            let pause = self.least_pause();
            if pause > PATIENCE {
                return Err(pause);
            }
        }
        match timeout(PATIENCE, fetches.changed()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(LEAST_PAUSE),
        }
    }

    /// Fetches them from now on, until it is dropped.
    pub(crate) async fn keep(
        &self,
        source: &KeySource,
        issuer: &str,
        outbound: &Outbound,
        now: impl Fn() -> u64,
    ) {
        let mut pause = AFTER_FAILURE.0;
        loop {
            {
                let mut state = self.state.lock();
                (state.last_try, state.is_fetching) = (Some(Instant::now()), true);
            }
            let fetched = fetch(source, issuer, outbound).await;
            let wait = match &fetched {
                Ok(_) => {
                    pause = AFTER_FAILURE.0;
                    EVERY
                }
                Err(_) => {
                    let wait = pause;
                    pause = (pause * 2).min(AFTER_FAILURE.1);
                    wait
                }
            };
            self.note(issuer, fetched, now());
            tokio::select! {
                () = sleep(wait) => {}
                () = async { self.wanted.notified().await; sleep(self.least_pause()).await; } => {}
            }
        }
    }

    /// Asks for a fetch because of a key that is not there, and waits for nothing. Whether one is under way or about to begin: then
    /// the key may be there in a moment, else it was not there a moment ago.
    pub(crate) fn ask(&self) -> bool {
        let is_fetching = self.state.lock().is_fetching;
        let may_begin = self.least_pause() == Duration::ZERO;
        self.wanted.notify_one();
        is_fetching || may_begin
    }

    fn least_pause(&self) -> Duration {
        let last = self.state.lock().last_try;
        last.map_or(Duration::ZERO, |last| LEAST_PAUSE.saturating_sub(last.elapsed()))
    }

    fn note(&self, issuer: &str, fetched: Result<KeySet, String>, now: u64) {
        let mut state = self.state.lock();
        state.is_fetching = false;
        match fetched {
            Ok(set) => {
                tracing::debug!(issuer, keys = set.len(), "the keys of an issuer of tokens were fetched");
                *self.set.write() = Arc::new(set);
                (state.fetched_at, state.error) = (Some(now), None);
            }
            Err(error) => {
                // What is known is still good: whoever issues tokens withdraws a key long after it stopped signing with it.
                tracing::warn!(issuer, error, "the keys of an issuer of tokens could not be fetched");
                state.error = Some(error);
            }
        }
        drop(state);
        self.fetches.send_modify(|fetches| *fetches += 1);
    }
}

async fn fetch(source: &KeySource, issuer: &str, outbound: &Outbound) -> Result<KeySet, String> {
    let place = match source {
        KeySource::Configuration(configuration) => place_of_keys(configuration, issuer, outbound).await?,
        KeySource::Set(place) => place.clone(),
    };
    let set = KeySet::read(&document(&place, outbound).await?)?;
    if set.len() == 0 {
        return Err("its set has no key of RS256, ES256 or EdDSA".to_owned());
    }
    Ok(set)
}

async fn place_of_keys(configuration: &Target, issuer: &str, outbound: &Outbound) -> Result<Target, String> {
    let document = document(configuration, outbound).await?;
    let found: Configuration = obol_secret::json::parse(&document).map_err(|error| error.to_string())?;
    if found.issuer != issuer {
        return Err(format!("{} is of another issuer", configuration.as_str()));
    }
    let place = Target::parse(&found.jwks_uri).map_err(|error| format!("its jwks_uri: {error}"))?;
    // Whoever is somewhere else must not make this service ask services of its own machine.
    if place.is_here() && !configuration.is_here() {
        return Err("its jwks_uri is on this machine".to_owned());
    }
    Ok(place)
}

async fn document(place: &Target, outbound: &Outbound) -> Result<Vec<u8>, String> {
    let answer = outbound.get(place).await.map_err(|error| format!("{}: {error}", place.as_str()))?;
    match answer.status.is_success() {
        true => Ok(answer.body.to_vec()),
        // A redirect too: where keys are is said by whoever they belong to, and by nobody else.
        false => Err(format!("{}: {}", place.as_str(), answer.status)),
    }
}
