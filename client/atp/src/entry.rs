//! A token as it is kept, and when it is due.

use obol_atp::{AtpEndpoint, ScopeSet};
use obol_secret::json;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::AtpError;
use crate::token::Token;

/// The most that a token is refreshed ahead of its end, in milliseconds; of short ones a fifth of their life.
const MAX_LEAD_MS: u64 = 300_000;
/// How long before its end, by this machine's clock, a token is not handed out any more, in milliseconds; at most a tenth of the
/// lead.
const LAST_MS: u64 = 5_000;
/// Bounds of what is taken for a time in milliseconds: a provider that says seconds is not believed.
const LEAST_TIME_MS: u64 = 1_000_000_000_000;

/// How a token was got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Method {
    /// By a signed request.
    #[serde(rename = "agent_token")]
    Signed,
    /// By a master credential.
    #[serde(rename = "agent_token_master")]
    Master,
}

/// One host's token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) method: Method,
    pub(crate) access_token: Zeroizing<String>,
    /// Unix milliseconds.
    pub(crate) expires_at: u64,
    pub(crate) scopes_granted: Vec<String>,
    pub(crate) agent_id: String,
    pub(crate) token_id: String,
    pub(crate) endpoint: String,
    /// Unix milliseconds.
    pub(crate) obtained_at: u64,
}

#[derive(Deserialize)]
struct Issued {
    token: Zeroizing<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    expires_at: Option<u64>,
    #[serde(default)]
    scopes_granted: Option<Vec<String>>,
    #[serde(default)]
    scopes: Option<Vec<String>>,
    #[serde(default)]
    agent_id: String,
    #[serde(default)]
    id: String,
}

impl Entry {
    /// Reads an answer; `None` if it holds no token of the right form with an end and scopes.
    pub(crate) fn from_answer(method: Method, endpoint: &AtpEndpoint, body: &[u8], now: u64) -> Option<Self> {
        let issued: Issued = json::parse(body).ok()?;
        let granted = issued.scopes_granted.or(issued.scopes)?;
        let granted = ScopeSet::from_texts(granted.iter().map(String::as_str))?;
        let plain = !issued.token.is_empty() && issued.token.bytes().all(|byte| byte.is_ascii_graphic());
        // The end by this machine's clock, where the provider says how long.
        let expires_at = match (issued.expires_in, issued.expires_at) {
            (Some(seconds), _) => now.checked_add(seconds.checked_mul(1_000)?)?,
            (None, Some(time)) if time >= LEAST_TIME_MS => time,
            _ => return None,
        };
        (plain && expires_at > now).then(|| Self {
            method,
            access_token: issued.token,
            expires_at,
            scopes_granted: granted.iter().map(str::to_owned).collect(),
            agent_id: issued.agent_id,
            token_id: issued.id,
            endpoint: endpoint.to_string(),
            obtained_at: now,
        })
    }

    fn lead(&self) -> u64 {
        MAX_LEAD_MS.min(self.expires_at.saturating_sub(self.obtained_at) / 5)
    }

    /// When it is refreshed: a fifth of its life ahead of its end, at most five minutes, and up to a tenth of that earlier or later,
    /// so that agents that began together do not come together. By the token itself, which is random: all who ask agree.
    pub(crate) fn due_at(&self) -> u64 {
        let lead = self.lead();
        let digest: [u8; 32] = Sha256::digest(self.access_token.as_bytes()).into();
        let random = digest.first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
        let spread = lead / 5 * u64::from(random) / u64::from(u32::MAX);
        self.expires_at.saturating_sub(lead - lead / 10 + spread)
    }

    /// Whether it may still be handed out, though it is due.
    pub(crate) fn is_alive(&self, now: u64) -> bool {
        now < self.expires_at.saturating_sub(LAST_MS.min(self.lead() / 10))
    }

    pub(crate) fn covers(&self, scopes: &ScopeSet) -> bool {
        scopes.iter().all(|scope| self.scopes_granted.iter().any(|granted| granted == scope))
    }

    pub(crate) fn token(&self, stored_in: &'static str, now: u64) -> Token {
        Token {
            access_token: self.access_token.clone(),
            expires_in: self.expires_at.saturating_sub(now).div_ceil(1_000),
            expires_at: self.expires_at,
            refresh_at: self.due_at(),
            scopes_granted: self.scopes_granted.clone(),
            agent_id: self.agent_id.clone(),
            id: self.token_id.clone(),
            stored_in,
        }
    }

    pub(crate) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, AtpError> {
        serde_json::to_vec(self).map(Zeroizing::new).map_err(|error| AtpError::System(error.to_string()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(number: u64, ttl_ms: u64) -> Entry {
        Entry {
            method: Method::Signed,
            access_token: Zeroizing::new(format!("token {number}")),
            expires_at: 10_000_000 + ttl_ms,
            scopes_granted: Vec::new(),
            agent_id: String::new(),
            token_id: String::new(),
            endpoint: String::new(),
            obtained_at: 10_000_000,
        }
    }

    #[test]
    fn a_token_is_due_a_fifth_of_its_life_or_five_minutes_ahead_and_not_all_at_once() {
        for (ttl, lead) in [(3_600_000, 300_000), (100_000, 20_000)] {
            let all: Vec<u64> =
                (0..200).map(|number| entry(number, ttl)).map(|one| one.expires_at - one.due_at()).collect();
            assert!(all.iter().all(|early| (lead * 9 / 10..=lead * 11 / 10).contains(early)), "{all:?}");
            assert!(all.iter().max().unwrap() - all.iter().min().unwrap() > lead / 10);
            let one = entry(1, ttl);
            assert!(one.is_alive(one.due_at()) && !one.is_alive(one.expires_at));
        }
    }

    #[test]
    fn a_thousand_agents_with_tokens_of_one_second_come_by_forty_a_second_at_most() {
        let mut seconds = std::collections::HashMap::new();
        for number in 0..1_000 {
            *seconds.entry(entry(number, 3_600_000).due_at() / 1_000).or_insert(0) += 1;
        }
        let busiest = seconds.values().max().unwrap();
        assert!(*busiest <= 40, "{busiest}");
    }

    #[test]
    fn an_answer_without_a_true_end_is_none() {
        let endpoint: AtpEndpoint = "https://a.example/t".parse().unwrap();
        let now = 1_767_225_600_000;
        let read = |text: &str| Entry::from_answer(Method::Master, &endpoint, text.as_bytes(), now);
        let ours = read(r#"{"token":"t","expires_in":60,"scopes_granted":["a"]}"#).unwrap();
        assert_eq!(ours.expires_at, now + 60_000);
        let bare = read(r#"{"token":"t","expires_at":1767225660000,"scopes":["a"],"id":"tok_1"}"#).unwrap();
        assert_eq!((bare.expires_at, &*bare.token_id), (now + 60_000, "tok_1"));
        for bad in [
            r#"{}"#,
            r#"{"token":"t","scopes":["a"]}"#,
            r#"{"token":"t","expires_at":1767225660,"scopes":["a"]}"#,
            r#"{"token":"t","expires_in":0,"scopes":["a"]}"#,
            r#"{"token":"t","expires_in":60}"#,
            r#"{"token":"a b","expires_in":60,"scopes":["a"]}"#,
            r#"{"token":"t","expires_in":18446744073709551615,"scopes":["a"]}"#,
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
