//! Those who are listened to, while the service runs. Settings can be replaced; what is known of who stays is kept.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use obol_probe::rate::{Limiter, Rate, Start};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::login::Login;
use super::poll::Poller;
use super::receive::{self, Signed};
use super::refusal::{Refusal, Wrong};
use super::settings::{EventSettings, TransmitterSettings};
use super::tell::{Desk, OutletStatus, Outlets, StreamError, Verb};
use super::transmitter::{Transmitter, TransmitterStatus};
use crate::authority::{Authority, Now};
use crate::directory::TakenSet;
use crate::issuer_keys::KeySource;
use crate::outbound::Outbound;

/// How many tokens of one issuer are carried out: a second, and at once.
const RATE: (u32, u32) = (100, 200);

/// How often it is looked whether it is time for other keys.
const TEND_EVERY: Duration = Duration::from_secs(600);

/// See the module's header.
#[derive(Debug)]
pub struct Events {
    live: watch::Sender<Arc<Live>>,
    issuers: Limiter<String>,
    start: Start,
}

#[derive(Debug)]
struct Live {
    transmitters: BTreeMap<String, Arc<Transmitter>>,
    outlets: Arc<Outlets>,
    outbound: Outbound,
}

impl Events {
    /// Listens to those whom the settings name, once it runs.
    pub fn new(settings: EventSettings, outbound: Outbound) -> Self {
        let live = Live::new(settings, outbound, None);
        Self {
            live: watch::Sender::new(Arc::new(live)),
            issuers: Limiter::new(Rate::new(RATE.0).map(|rate| rate.with_burst(RATE.1))),
            start: Start::now(),
        }
    }

    /// Listens to others from now on.
    pub fn replace(&self, settings: EventSettings) {
        self.live.send_modify(|live| {
            *live = Arc::new(Live::new(settings, live.outbound.clone(), Some(live)));
        });
    }

    /// Whether nobody is listened to.
    pub(crate) fn is_deaf(&self) -> bool {
        self.live.borrow().transmitters.is_empty()
    }

    /// How it stands with each.
    pub fn status(&self) -> Vec<TransmitterStatus> {
        let live = Arc::clone(&self.live.borrow());
        live.transmitters.values().map(|one| one.status()).collect()
    }

    /// How it stands with each who is told, of a service whose newest event has this number.
    pub fn outlets(&self, head: u64) -> Vec<OutletStatus> {
        self.live.borrow().outlets.status(head)
    }

    /// Does what a receiver of streams asks for: with a bearer token, about the stream of this name.
    pub(crate) fn act(
        &self,
        verb: Verb,
        asked: (Option<&str>, Option<&str>),
        body: &[u8],
        authority: &Authority,
        now: Now,
    ) -> Result<Value, StreamError> {
        let live = Arc::clone(&self.live.borrow());
        Desk { outlets: &live.outlets, authority }.act(verb, asked, body, now)
    }

    /// Fetches keys and tokens, and tells others, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, authority: Arc<Authority>, now: fn() -> Now) {
        let mut changes = self.live.subscribe();
        loop {
            let live = Arc::clone(&changes.borrow_and_update());
            let mut tasks = JoinSet::new();
            tasks.spawn(Arc::clone(&live.outlets).run(Arc::clone(&authority), now));
            tasks.spawn(tend_keys(Arc::clone(&authority), now));
            for one in live.transmitters.values() {
                let (keeper, outbound) = (Arc::clone(one), live.outbound.clone());
                tasks.spawn(async move {
                    let TransmitterSettings { configuration, issuer, .. } = &keeper.settings;
                    let source = KeySource::Configuration(configuration.clone());
                    keeper.keys.keep(&source, issuer, &outbound, || now().secs()).await;
                });
                if one.settings.poll.is_some() {
                    let (events, one, authority) =
                        (Arc::clone(&self), Arc::clone(one), Arc::clone(&authority));
                    let outbound = live.outbound.clone();
                    let (renewing, of_renewing) = (Arc::clone(&one), outbound.clone());
                    tasks.spawn(async move {
                        if let Some(login) = &renewing.login {
                            login.keep(&renewing.settings.issuer, &of_renewing).await;
                        }
                    });
                    tasks.spawn(async move {
                        let mut poller = Poller::default();
                        loop {
                            let next = poller.next(&one.settings, one.login.as_ref(), &outbound);
                            for (name, token) in next.await {
                                let taken = events.take_from(token, &one, &authority, now()).await;
                                poller.note(name, &taken);
                            }
                        }
                    });
                }
            }
            // Dropping the tasks ends them.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes a token that somebody sent. Once this is `Ok`, it is durable.
    pub(crate) async fn take(
        &self,
        token: Vec<u8>,
        authority: &Arc<Authority>,
        now: Now,
    ) -> Result<TakenSet, Refusal> {
        let issuer = receive::issuer(&token)?;
        let found = self.live.borrow().transmitters.get(&issuer).cloned();
        let by = found.ok_or_else(|| Wrong::Issuer.because("nobody listens to this issuer here"))?;
        self.take_from(token, &by, authority, now).await
    }

    /// Takes a token that must be of this issuer.
    pub(super) async fn take_from(
        &self,
        token: Vec<u8>,
        by: &Arc<Transmitter>,
        authority: &Arc<Authority>,
        now: Now,
    ) -> Result<TakenSet, Refusal> {
        let taken = self.decide(token, by, authority, now).await;
        by.counts.note(&taken, now.secs());
        if let Err(refusal @ Refusal::Wrong(..)) = &taken {
            authority.event_refused(&by.settings.issuer, &refusal.to_string(), now);
        }
        taken
    }

    async fn decide(
        &self,
        token: Vec<u8>,
        by: &Arc<Transmitter>,
        authority: &Arc<Authority>,
        now: Now,
    ) -> Result<TakenSet, Refusal> {
        let seen = by.keys.fetches();
        if let Signed::UnknownKey = receive::signed(&token, by)? {
            by.keys
                .refresh(seen)
                .await
                .map_err(|wait| Refusal::Later(wait, "its issuer's keys are being fetched"))?;
            if let Signed::UnknownKey = receive::signed(&token, by)? {
                return Err(Wrong::Key.because("no key of its issuer has the name in its header"));
            }
        }
        // After the signature: nobody uses up what another may send.
        let limited = self.issuers.take(by.settings.issuer.clone(), self.start.nanoseconds());
        limited.map_err(|wait| Refusal::Later(wait, "too many security events of this issuer"))?;
        let (by, authority) = (Arc::clone(by), Arc::clone(authority));
        let done =
            tokio::task::spawn_blocking(move || receive::carry_out(&token, &by, &authority, now)).await;
        done.unwrap_or(Err(Refusal::Later(Duration::from_secs(1), "internal error")))
    }
}

/// Replaces the keys that tokens are signed with, in time.
async fn tend_keys(authority: Arc<Authority>, now: fn() -> Now) {
    loop {
        let authority = Arc::clone(&authority);
        let tended = tokio::task::spawn_blocking(move || authority.tend_signing_keys(now())).await;
        if let Ok(Err(error)) = tended {
            tracing::error!(%error, "the keys could not be replaced with which security events are signed");
        }
        sleep(TEND_EVERY).await;
    }
}

impl Live {
    fn new(settings: EventSettings, outbound: Outbound, before: Option<&Self>) -> Self {
        let transmitter = |settings: TransmitterSettings| {
            let known = before.and_then(|before| before.transmitters.get(&settings.issuer));
            let (keys, counts) = known
                .map_or_else(Default::default, |known| (Arc::clone(&known.keys), Arc::clone(&known.counts)));
            let login = settings.poll.as_ref().and_then(Login::new);
            (settings.issuer.clone(), Arc::new(Transmitter { settings, keys, counts, login }))
        };
        let outlets = Arc::new(Outlets::new(settings.tell, outbound.clone()));
        Self { transmitters: settings.transmitters.into_iter().map(transmitter).collect(), outlets, outbound }
    }
}
