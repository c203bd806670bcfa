//! JWT keys: made here, at random, so that none has anything to do with a secret that agents have. A new one every 30 days; the
//! one before is kept until its last token has ended.

use obol_atp::jwt::{Algorithm, Claims, JwtKey};
use obol_secret::text::{from_hex, to_hex};
use zeroize::Zeroizing;

use crate::store::{Row, secret_hex};

/// How long a key makes tokens, in seconds: 30 days.
const KEY_LIFE_SECS: u64 = 30 * 86_400;
/// How long after that it may be before a key is replaced, and its last token has ended, in seconds: a day each.
const LAST_TOKEN_SECS: u64 = 2 * 86_400;
/// How old a key is before it makes tokens while there is an older one, in seconds: by then every provider that shares it has it, or
/// answers nothing.
const SPREAD_SECS: u64 = 2;

/// What keys are to be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyPolicy {
    pub(crate) algorithm: Algorithm,
}

/// When a key of that age (Unix seconds) is over.
pub(crate) fn ends(created: u64) -> u64 {
    created.saturating_add(KEY_LIFE_SECS + LAST_TOKEN_SECS)
}

#[derive(Debug)]
struct Dated {
    key: JwtKey,
    created: u64,
}

/// The live keys, the newest first.
#[derive(Debug, Default)]
pub(crate) struct KeyRing(Vec<Dated>);

impl KeyRing {
    /// Takes a key in; `None` if it is none.
    pub(crate) fn put(&mut self, kid: &str, algorithm: Algorithm, hex: &str, created: u64) -> Option<()> {
        let bytes = Zeroizing::new(from_hex(hex)?);
        let key = JwtKey::new(kid, algorithm, *bytes).ok()?;
        if self.0.iter().all(|dated| dated.key.kid() != kid) {
            self.0.push(Dated { key, created });
            self.0.sort_by(|a, b| (b.created, b.key.kid()).cmp(&(a.created, a.key.kid())));
        }
        Some(())
    }

    /// A new key, if the newest is too old or there is none; `None` also where the system has no randomness.
    pub(crate) fn due(&self, policy: KeyPolicy, now: u64) -> Option<Row> {
        let is_young = |dated: &Dated| {
            dated.key.algorithm() == policy.algorithm && now < dated.created.saturating_add(KEY_LIFE_SECS)
        };
        if self.0.iter().any(is_young) {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        let mut name = [0; 4];
        getrandom::fill(bytes.as_mut_slice()).and_then(|()| getrandom::fill(&mut name)).ok()?;
        let kid = format!("{now}-{}", to_hex(&name));
        Some(Row::Key { kid, algorithm: policy.algorithm, hex: secret_hex(&*bytes), created: now })
    }

    /// Lets those go that are over, but never the newest; gives back their names.
    pub(crate) fn take_ended(&mut self, now: u64) -> Vec<String> {
        let Some(newest) = self.0.first().map(|dated| dated.key.kid().to_owned()) else { return Vec::new() };
        let (kept, over) = core::mem::take(&mut self.0)
            .into_iter()
            .partition(|dated| dated.key.kid() == newest || now < ends(dated.created));
        self.0 = kept;
        over.into_iter().map(|dated: Dated| dated.key.kid().to_owned()).collect()
    }

    /// The key that makes tokens now.
    pub(crate) fn current(&self, policy: KeyPolicy, now: u64) -> Option<&JwtKey> {
        let mut fit = self.0.iter().filter(|dated| dated.key.algorithm() == policy.algorithm);
        let newest = fit.next()?;
        let is_spread = |dated: &&Dated| dated.created.saturating_add(SPREAD_SECS) <= now;
        let makes = core::iter::once(newest).chain(fit).find(is_spread);
        Some(&makes.unwrap_or(newest).key)
    }

    /// A key by its name.
    pub(crate) fn named(&self, kid: &str) -> Option<&JwtKey> {
        self.0.iter().map(|dated| &dated.key).find(|key| key.kid() == kid)
    }

    /// Reads a token of one of the live keys.
    pub(crate) fn read(&self, token: &str, origin: &str, now: u64) -> Option<Claims> {
        self.0
            .iter()
            .find_map(|dated| obol_atp::jwt::read(core::slice::from_ref(&dated.key), token, origin, now))
    }

    /// Whether one of the keys is these bytes, or is written in them.
    pub(crate) fn any(&self, test: impl Fn(&[u8]) -> bool) -> bool {
        self.0.iter().any(|dated| test(dated.key.expose()) || test(to_hex(dated.key.expose()).as_bytes()))
    }

    /// The public halves.
    pub(crate) fn key_set(&self) -> serde_json::Value {
        obol_atp::jwt::key_set(self.0.iter().map(|dated| &dated.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::sync::Arc;

    const HMAC: KeyPolicy = KeyPolicy { algorithm: Algorithm::Hs256 };
    const ED: KeyPolicy = KeyPolicy { algorithm: Algorithm::EdDsa };

    fn claims(now: u64) -> Claims {
        let text = |text: &str| text.to_owned();
        Claims {
            iss: text("o"),
            aud: text("o"),
            sub: text("a"),
            agent_id: text("a"),
            scope: text("s"),
            scopes: vec![text("s")],
            iat: now,
            exp: now + 3_600,
            jti: text("tok"),
            cred: None,
            usage: None,
        }
    }

    #[tokio::test]
    async fn a_key_is_replaced_after_thirty_days_and_kept_until_its_last_token_has_ended() {
        let store = Store::memory();
        store.settle(HMAC, Arc::default(), 0).unwrap();
        let kid = |now| store.kept().keys.current(HMAC, now).unwrap().kid().to_owned();
        let old = kid(0);
        store.maintain(KEY_LIFE_SECS - 1).await.unwrap();
        let last = KEY_LIFE_SECS;
        store.maintain(last).await.unwrap();
        assert_eq!(kid(last), old, "until everybody has the new one");
        let token = store.kept().keys.current(HMAC, last).unwrap().mint(&claims(last));
        assert_ne!(kid(last + SPREAD_SECS), old);
        store.maintain(last + 3_599).await.unwrap();
        assert!(store.kept().keys.read(&token, "o", last + 3_599).is_some());
        assert!(store.kept().keys.named(&old).is_some());
        store.maintain(2 * KEY_LIFE_SECS).await.unwrap();
        assert!(store.kept().keys.named(&old).is_none(), "its last token has ended");
    }

    #[test]
    fn a_key_survives_in_a_file_and_opens_only_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = (folder.path().join("tokens.redb"), folder.path().join("key"));
        let open = |key: &std::path::Path| Store::open(&file, key);
        let store = open(&key).unwrap();
        store.settle(ED, Arc::default(), 10).unwrap();
        let token = store.kept().keys.current(ED, 10).unwrap().mint(&claims(10));
        drop(store);
        let store = open(&key).unwrap();
        assert!(store.kept().keys.read(&token, "o", 11).is_some());
        drop(store);
        let error = open(&folder.path().join("other")).unwrap_err();
        assert!(error.to_string().contains("does not open with this key"), "{error}");
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"Ed25"), "nothing is in the clear");
    }
}
