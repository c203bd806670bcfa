//! Keeps tokens fresh in the background: each is replaced before it ends, at a time of its own, also after a restart; what could not be
//! revoked is revoked later. Nothing is asked for that nobody asked for before, and a provider that says no is not asked again.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};

use obol_atp::Host;
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::date::now_ms;
use crate::entry::Entry;
use crate::error::AtpError;
use crate::failures::why;
use crate::state::Watched;
use crate::token::TokenRequest;

/// How long the list of hosts is not looked at: another process may have added one.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The shortest sleep between two rounds.
const LEAST_SLEEP: Duration = Duration::from_millis(20);

/// How it stands with one host's token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HostStatus {
    /// When the kept token ends, in Unix milliseconds; `None` if there is none.
    pub expires_at: Option<u64>,
    /// When it is refreshed.
    pub due_at: Option<u64>,
    /// How often in a row that failed, here or in another process with the same folder.
    pub failures: u32,
    /// The last of these failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// Why it is not tried again: the provider's code, or what is wrong here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Whether a token is still to be revoked.
    pub to_be_revoked: bool,
}

/// Why there was no token, the last time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LastFailure {
    /// The provider's code, or what is wrong here.
    pub why: String,
    /// When, in Unix milliseconds.
    pub at: u64,
}

const OUTCOMES: [&str; 4] = ["ok", "refused", "unavailable", "failed"];

/// How requests for tokens ended.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; OUTCOMES.len()]);

impl Counters {
    pub(crate) fn count(&self, failed: Option<&AtpError>) {
        let outcome = match failed {
            None => 0,
            Some(error) if error.is_passing() => 2,
            Some(error) if matches!(error.cause(), AtpError::Refused { .. } | AtpError::WiderGrant) => 1,
            Some(_) => 3,
        };
        if let Some(counter) = self.0.get(outcome) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn render(&self) -> String {
        let mut out = "# HELP obol_atp_refreshes_total Requests for tokens by outcome.\n# TYPE obol_atp_refreshes_total counter\n"
            .to_owned();
        for (outcome, counter) in OUTCOMES.iter().zip(&self.0) {
            let count = counter.load(Ordering::Relaxed);
            out.push_str(&format!("obol_atp_refreshes_total{{outcome=\"{outcome}\"}} {count}\n"));
        }
        out
    }
}

/// Refreshes until it is dropped.
#[derive(Debug)]
pub struct Refresher(JoinHandle<()>);

impl Drop for Refresher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Begins to keep fresh what was requested, here or in another process with the same folder, now or before. Within a `tokio`
    /// runtime.
    pub fn refresh_in_background(&self) -> Refresher {
        let client = self.clone();
        Refresher(tokio::spawn(async move { client.refresh_for_ever().await }))
    }

    /// How it stands with each host that is kept fresh or has tokens to be revoked.
    ///
    /// # Errors
    /// [`AtpError`] if the list of hosts or the keychain cannot be read.
    pub async fn status(&self) -> Result<BTreeMap<Host, HostStatus>, AtpError> {
        let (hosts, mut failures) = (self.0.state.hosts()?, self.0.state.failures());
        let mut all = BTreeMap::new();
        for name in hosts.fresh.keys().chain(&hosts.revocations) {
            let Ok(host) = name.parse::<Host>() else { continue };
            let entry = self.0.keychain.entry(name).await?;
            let expires_at = entry.as_ref().map(|entry| entry.expires_at);
            let failed = failures.remove(name);
            let ended_here = self.0.ended.lock().get(&host).map(|(why, _)| why.clone());
            // A token that came since began anew.
            let ended = failed.as_ref().filter(|failed| failed.ended && failed.token_ends == expires_at);
            let status = HostStatus {
                expires_at,
                due_at: entry.as_ref().map(Entry::due_at),
                failures: self.0.back_off.count(&host).max(failed.as_ref().map_or(0, |failed| failed.count)),
                ended: ended_here.or_else(|| ended.map(|failed| failed.why.clone())),
                last_failure: failed.map(|failed| LastFailure { why: failed.why, at: failed.at }),
                to_be_revoked: hosts.revocations.contains(name),
            };
            all.insert(host, status);
        }
        Ok(all)
    }

    /// Metrics in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        self.0.counters.render()
    }

    async fn refresh_for_ever(&self) {
        let mut under_way: HashMap<Host, JoinHandle<()>> = HashMap::new();
        loop {
            let news = self.0.news.notified();
            under_way.retain(|_, work| !work.is_finished());
            let sleep = match self.round(&mut under_way).await {
                Ok(sleep) => sleep,
                Err(error) => {
                    tracing::error!(%error, "tokens are not kept fresh at the moment");
                    LOOK_EVERY
                }
            };
            let _early_or_late = tokio::time::timeout(sleep.max(LEAST_SLEEP), news).await;
        }
    }

    /// Begins what is due; how long nothing will be.
    async fn round(&self, under_way: &mut HashMap<Host, JoinHandle<()>>) -> Result<Duration, AtpError> {
        let hosts = self.0.state.hosts()?;
        let mut sleep = LOOK_EVERY;
        for (name, watched) in &hosts.fresh {
            let Ok(host) = name.parse::<Host>() else { continue };
            let entry = self.0.keychain.entry(name).await?;
            if under_way.contains_key(&host) || self.has_ended(&host, entry.as_ref()) {
                continue;
            }
            let due = match entry {
                Some(entry) => Duration::from_millis(entry.due_at().saturating_sub(now_ms())),
                None => Duration::ZERO,
            };
            let wait = due.max(self.0.back_off.left(&host));
            if wait > Duration::ZERO {
                sleep = sleep.min(wait);
                continue;
            }
            let (client, watched) = (self.clone(), watched.clone());
            let work = {
                let host = host.clone();
                tokio::spawn(async move { client.refresh(&host, &watched).await })
            };
            under_way.insert(host, work);
        }
        for name in &hosts.revocations {
            let Ok(host) = name.parse::<Host>() else { continue };
            let wait = self.0.back_off.left(&host);
            if under_way.contains_key(&host) || wait > Duration::ZERO {
                sleep = sleep.min(wait.max(LEAST_SLEEP));
                continue;
            }
            let client = self.clone();
            let work = {
                let host = host.clone();
                tokio::spawn(async move { client.bury_later(&host).await })
            };
            under_way.insert(host, work);
        }
        Ok(sleep)
    }

    /// Whether it is not tried any more. A token that came since, perhaps by another process, begins anew.
    fn has_ended(&self, host: &Host, entry: Option<&Entry>) -> bool {
        let mut ended = self.0.ended.lock();
        let Some((_, of)) = ended.get(host) else { return false };
        let is_same = *of == entry.map(|entry| entry.expires_at);
        if !is_same {
            ended.remove(host);
        }
        is_same
    }

    async fn refresh(&self, host: &Host, watched: &Watched) {
        let request = TokenRequest::new(watched.scopes.iter().map(String::as_str));
        let request = request.and_then(|request| match &watched.purpose {
            Some(purpose) => request.purpose(purpose),
            None => Ok(request),
        });
        let outcome = match request {
            Ok(request) => self.renew(host, &request).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            if error.is_passing() {
                tracing::warn!(%host, %error, "a token could not be refreshed; it is tried again");
                return;
            }
            tracing::error!(%host, %error, "a token is not refreshed any more until it is requested again");
            let (why, entry) = (why(&error), self.0.keychain.entry(&host.to_string()).await.ok().flatten());
            let token_ends = entry.map(|entry| entry.expires_at);
            self.0.state.note_failure(host, &why, Some(token_ends));
            self.0.ended.lock().insert(host.clone(), (why, token_ends));
        }
        self.0.news.notify_waiters();
    }

    async fn bury_later(&self, host: &Host) {
        let Ok(_between_processes) = self.lock(host).await else { return };
        let failed = match self.bury(host).await {
            Ok(true) => return,
            Ok(false) => "a token could not be revoked yet".to_owned(),
            Err(error) => {
                tracing::error!(%host, %error, "what is to be revoked cannot be read");
                why(&error)
            }
        };
        self.0.back_off.failed(host, None);
        self.0.state.note_failure(host, &failed, None);
    }
}
