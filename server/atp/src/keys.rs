//! JWT keys: made here, at random, so that none has anything to do with a secret that agents have. A new one every 30 days; the
//! one before is kept until its last token has ended.

use obol_atp::jwt::{Algorithm, Claims, JwtKey};
use obol_secret::text::{from_hex, to_hex};
use std::sync::{PoisonError, RwLock};
use zeroize::Zeroizing;

use crate::store::{Row, Store, Unwritable};

/// How long a key makes tokens, in seconds: 30 days.
const KEY_LIFE_SECS: u64 = 30 * 86_400;

#[derive(Debug)]
struct Dated {
    key: JwtKey,
    created: u64,
}

/// The live keys, the newest first.
#[derive(Debug)]
pub(crate) struct KeyRing {
    keys: RwLock<Vec<Dated>>,
    algorithm: Algorithm,
    /// The longest life of a token, in seconds.
    longest: u64,
}

/// There is no key, and none can be made.
#[derive(Debug)]
pub(crate) struct NoKey;

impl KeyRing {
    /// Takes over the keys that the store holds, and makes one if none is young enough.
    pub(crate) fn open(
        store: &mut Store,
        algorithm: Algorithm,
        longest: u64,
        now: u64,
    ) -> Result<Self, NoKey> {
        let mut keys = Vec::new();
        for row in store.take_keys() {
            let Row::Key { kid, algorithm, hex, created } = row else { continue };
            let bytes = Zeroizing::new(from_hex(&hex.0).ok_or(NoKey)?);
            keys.push(Dated { key: JwtKey::new(&kid, algorithm, *bytes).map_err(|_| NoKey)?, created });
        }
        keys.sort_by_key(|dated| core::cmp::Reverse(dated.created));
        let ring = Self { keys: RwLock::new(keys), algorithm, longest };
        if let Some((dated, row)) = ring.due(now)? {
            store.keep_now(vec![row]).map_err(|_| NoKey)?;
            ring.add(dated, now);
        }
        Ok(ring)
    }

    /// Makes a key if the newest is too old, and lets those go whose last token has ended. A new key is durable before it
    /// is used.
    pub(crate) async fn rotate(&self, store: &Store, now: u64) -> Result<(), Unwritable> {
        if let Some((dated, row)) = self.due(now).map_err(|_| Unwritable)? {
            store.keep(vec![row]).await?;
            tracing::info!(kid = dated.key.kid(), "a new JWT key");
            self.add(dated, now);
        }
        Ok(())
    }

    fn due(&self, now: u64) -> Result<Option<(Dated, Row)>, NoKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_young =
            |dated: &Dated| dated.key.algorithm() == self.algorithm && now < dated.created + KEY_LIFE_SECS;
        if keys.first().is_some_and(is_young) {
            return Ok(None);
        }
        let mut bytes = Zeroizing::new([0; 32]);
        let mut name = [0; 4];
        getrandom::fill(bytes.as_mut_slice()).and_then(|()| getrandom::fill(&mut name)).map_err(|_| NoKey)?;
        let kid = format!("{now}-{}", to_hex(&name));
        let key = JwtKey::new(&kid, self.algorithm, *bytes).map_err(|_| NoKey)?;
        let hex = crate::store::secret_hex(&*bytes);
        let row = Row::Key { kid, algorithm: self.algorithm, hex, created: now };
        Ok(Some((Dated { key, created: now }, row)))
    }

    fn add(&self, dated: Dated, now: u64) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(0, dated);
        // Each key but the newest ended to make tokens when the next one was made.
        let ends: Vec<u64> = keys.iter().map(|dated| dated.created).collect();
        let longest = self.longest;
        let mut successors = ends.into_iter();
        let mut successor = None;
        keys.retain(|_| {
            let keeps = successor.is_none_or(|made: u64| now <= made.saturating_add(longest));
            successor = successors.next();
            keeps
        });
    }

    /// Makes a token with the newest key, and says which that is.
    pub(crate) fn mint(&self, claims: &Claims) -> Option<(String, String)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.first().map(|dated| (dated.key.mint(claims), dated.key.kid().to_owned()))
    }

    /// Makes the same token once more, if its key is still there.
    pub(crate) fn mint_again(&self, kid: &str, claims: &Claims) -> Option<String> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|dated| dated.key.kid() == kid).map(|dated| dated.key.mint(claims))
    }

    /// Reads a token of one of the live keys.
    pub(crate) fn read(&self, token: &str, origin: &str, now: u64) -> Option<Claims> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter()
            .find_map(|dated| obol_atp::jwt::read(core::slice::from_ref(&dated.key), token, origin, now))
    }

    /// Whether one of the keys is these bytes, or is written in them.
    pub(crate) fn any(&self, test: impl Fn(&[u8]) -> bool) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().any(|dated| test(dated.key.reveal()) || test(to_hex(dated.key.reveal()).as_bytes()))
    }

    /// The public halves.
    pub(crate) fn key_set(&self) -> serde_json::Value {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        obol_atp::jwt::key_set(keys.iter().map(|dated| &dated.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut store = Store::memory();
        let ring = KeyRing::open(&mut store, Algorithm::Hs256, 3_600, 0).unwrap();
        ring.rotate(&store, KEY_LIFE_SECS - 1).await.unwrap();
        let last = KEY_LIFE_SECS;
        let (old, old_kid) = ring.mint(&claims(last)).unwrap();
        ring.rotate(&store, last).await.unwrap();
        let (_, kid) = ring.mint(&claims(last)).unwrap();
        assert_ne!(kid, old_kid);
        assert!(ring.read(&old, "o", last + 3_599).is_some());
        assert!(ring.mint_again(&old_kid, &claims(last)).is_some());
        ring.rotate(&store, 2 * KEY_LIFE_SECS).await.unwrap();
        assert!(ring.mint_again(&old_kid, &claims(last)).is_none(), "its last token has ended");
    }

    #[test]
    fn a_key_survives_in_a_file_and_opens_only_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = (folder.path().join("tokens.redb"), folder.path().join("key"));
        let open = |key: &std::path::Path| Store::open(&file, key);
        let mut store = open(&key).unwrap();
        let token = KeyRing::open(&mut store, Algorithm::EdDsa, 60, 10).unwrap().mint(&claims(10)).unwrap().0;
        drop(store);
        let mut store = open(&key).unwrap();
        let ring = KeyRing::open(&mut store, Algorithm::EdDsa, 60, 11).unwrap();
        assert!(ring.read(&token, "o", 11).is_some());
        drop(store);
        let error = open(&folder.path().join("other")).unwrap_err();
        assert!(error.to_string().contains("does not open with this key"), "{error}");
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"Ed25"), "nothing is in the clear");
    }
}
