//! Those who are taken at their word, while the service runs. Settings can be replaced; the keys that are known of who stays are
//! kept.

use std::sync::Arc;

use obol_secret::text::plain;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::assertion::{self, Claims};
use super::settings::{Attestor, AttestorSettings, Kind, TYPES};
use crate::directory::{Attested, Wanted};
use crate::issuer_keys::Keys;
use crate::jws::{NotTaken, Unchecked};
use crate::outbound::Outbound;
use crate::refused::Refused;

/// The longest word, in bytes. Tokens of workloads have some thousand.
const MAX_ASSERTION_BYTES: usize = 8 << 10;
/// How much of an issuer that is not known is repeated, in characters.
const MAX_TEXT_CHARS: usize = 200;

/// See the module's header.
#[derive(Debug, Default)]
pub struct Attestors {
    live: watch::Sender<Arc<Live>>,
}

#[derive(Debug, Default)]
struct Live {
    attestors: Vec<Arc<Known>>,
    outbound: Option<Outbound>,
}

#[derive(Debug)]
struct Known {
    settings: Attestor,
    keys: Arc<Keys>,
}

/// How it stands with one who is taken at their word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttestorStatus {
    /// Its name.
    pub issuer: String,
    /// How many keys of its are known.
    pub keys: usize,
    /// When they were fetched last, in Unix seconds.
    pub keys_fetched_at: Option<u64>,
    /// Why they could not be fetched since.
    pub error: Option<String>,
}

impl Attestors {
    /// Takes others at their word from now on, and fetches their keys with this, once it runs.
    pub fn replace(&self, settings: AttestorSettings, outbound: Outbound) {
        self.live.send_modify(|live| {
            let known = |settings: Attestor| {
                let same = |known: &&Arc<Known>| {
                    known.settings.issuer == settings.issuer && known.settings.kind == settings.kind
                };
                let keys = live.attestors.iter().find(same).map(|known| Arc::clone(&known.keys));
                Arc::new(Known { settings, keys: keys.unwrap_or_default() })
            };
            let attestors = settings.attestors.into_iter().map(known).collect();
            *live = Arc::new(Live { attestors, outbound: Some(outbound) });
        });
    }

    /// Whether nobody is taken at their word.
    pub fn is_empty(&self) -> bool {
        self.live.borrow().attestors.is_empty()
    }

    /// How it stands with each.
    pub fn status(&self) -> Vec<AttestorStatus> {
        let of = |known: &Arc<Known>| {
            let (keys_fetched_at, error) = known.keys.standing();
            let (issuer, keys) = (known.settings.issuer.clone(), known.keys.current().len());
            AttestorStatus { issuer, keys, keys_fetched_at, error }
        };
        self.live.borrow().attestors.iter().map(of).collect()
    }

    /// Fetches keys until it is dropped.
    pub(crate) async fn run(&self, now: impl Fn() -> u64 + Copy + Send + 'static) {
        let mut changes = self.live.subscribe();
        loop {
            let live = Arc::clone(&changes.borrow_and_update());
            let mut tasks = JoinSet::new();
            if let Some(outbound) = &live.outbound {
                for known in &live.attestors {
                    let (known, outbound) = (Arc::clone(known), outbound.clone());
                    tasks.spawn(async move {
                        known.keys.keep(&known.settings.keys, &known.settings.issuer, &outbound, now).await;
                    });
                }
            }
            // Dropping the tasks ends them.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Checks a word about an agent that wants this: its signature, and what it says. Nothing is spent yet. `now` in Unix seconds.
    pub(crate) fn check(&self, word: &[u8], wanted: &Wanted, now: u64) -> Result<Attested, Refused> {
        let not_taken = |error: NotTaken| Refused::Assertion(error.to_string());
        if word.len() > MAX_ASSERTION_BYTES {
            return Err(Refused::Assertion(format!("it has more than {MAX_ASSERTION_BYTES} bytes")));
        }
        let (unchecked, typ) = Unchecked::read_one_of(word, &TYPES).map_err(not_taken)?;
        let claims: Claims = unchecked.claims().map_err(not_taken)?;
        let issuer = claims.get("iss").and_then(|issuer| issuer.as_str()).unwrap_or_default();
        let by = self.named(issuer, Kind::of_type(typ)).ok_or_else(|| {
            let issuer: String = plain(issuer).chars().take(MAX_TEXT_CHARS).collect();
            Refused::Assertion(format!(
                "nobody is taken at their word here for tokens of this kind of {issuer:?}"
            ))
        })?;
        match unchecked.check(&by.keys.current()) {
            Ok(()) => {}
            // No request waits for a fetch.
            Err(NotTaken::UnknownKey) if by.keys.ask() => {
                return Err(Refused::Unavailable("the keys of its issuer are being fetched".to_owned()));
            }
            Err(error) => return Err(not_taken(error)),
        }
        assertion::check(&claims, &by.settings, wanted, now).map_err(Refused::Assertion)
    }

    fn named(&self, issuer: &str, kind: Kind) -> Option<Arc<Known>> {
        let live = self.live.borrow();
        live.attestors
            .iter()
            .find(|known| known.settings.issuer == issuer && known.settings.kind == kind)
            .cloned()
    }
}
