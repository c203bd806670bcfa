//! The real credential of an API: put on each request here, and told nobody.
//!
//! Nothing in this crate prints it: not in `Debug`, not in an error, not in a log. An answer in which it stands has it blotted
//! out (`blot.rs`).

mod again;
mod oauth;

use core::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use obol_secret::wipe::Wiped;
use parking_lot::RwLock;
use tokio::sync::Notify;

pub(crate) use self::again::Again;
pub use self::again::Origin;
pub(crate) use self::oauth::Renewal;

/// The longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 16 << 10;
/// A shorter text is not looked for in answers: it stands there by chance.
const SHORTEST_LOOKED_FOR: usize = 8;
/// What is said of a shorter one.
pub(crate) const NOT_LOOKED_FOR: &str = "the credential, or its password, has fewer than 8 characters: it is not looked for in the API's answers, and one that shows it shows it to the agent";
/// The most texts that are looked for in answers: those of the credential, three at the most, and of the ones before it.
const MAX_LOOKED_FOR: usize = 9;

/// What a credential is put into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Placement {
    Header { name: HeaderName, prefix: String },
    Basic,
    Query(String),
    Oauth { token_url: Uri, client_id: String, scope: Option<String> },
}

impl Placement {
    pub(crate) fn bearer() -> Self {
        Self::Header { name: AUTHORIZATION, prefix: "Bearer ".to_owned() }
    }
}

/// A credential as it is put on.
pub(crate) struct Ready {
    header: Option<(HeaderName, HeaderValue)>,
    query: Option<(String, Wiped)>,
    /// What of it must not be in an answer.
    secrets: Vec<Wiped>,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}

/// Why a secret cannot be used. It does not repeat any of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnfitCredential(&'static str);

impl fmt::Display for UnfitCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for UnfitCredential {}

/// A secret's bytes without the line end that editors leave.
fn trimmed(secret: &[u8]) -> Result<&[u8], UnfitCredential> {
    let secret = secret.strip_suffix(b"\n").unwrap_or(secret);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    let is_visible = secret.iter().all(|byte| (b' '..=b'~').contains(byte));
    if secret.is_empty() || secret.len() > MAX_SECRET_BYTES || !is_visible {
        return Err(UnfitCredential("a credential is one line of 1 to 16,384 visible ASCII characters"));
    }
    Ok(secret)
}

impl Ready {
    fn of(placement: &Placement, secret: &[u8]) -> Result<Self, UnfitCredential> {
        let header = |name: &HeaderName, text: &Wiped| {
            let mut value =
                HeaderValue::from_bytes(text).map_err(|_| UnfitCredential("it cannot stand in a header"))?;
            value.set_sensitive(true);
            Ok(Some((name.clone(), value)))
        };
        let mut secrets = vec![Wiped::new(secret.to_vec())];
        let (mut in_header, mut in_query) = (None, None);
        match placement {
            Placement::Header { name, prefix } => {
                in_header = header(name, &joined(prefix, secret))?;
            }
            Placement::Oauth { .. } => in_header = header(&AUTHORIZATION, &joined("Bearer ", secret))?,
            Placement::Basic => {
                let colon = secret.iter().position(|byte| *byte == b':');
                let place =
                    colon.ok_or(UnfitCredential("for put = \"basic\" the credential is user:password"))?;
                let encoded = Wiped::text(STANDARD.encode(secret));
                in_header = header(&AUTHORIZATION, &joined("Basic ", &encoded))?;
                secrets.push(Wiped::new(secret.get(place + 1..).unwrap_or_default().to_vec()));
                secrets.push(encoded);
            }
            Placement::Query(name) => in_query = Some((name.clone(), Wiped::new(secret.to_vec()))),
        }
        Ok(Self { header: in_header, query: in_query, secrets })
    }

    /// Puts it into the headers, in place of any of that name.
    pub(crate) fn put_on(&self, headers: &mut HeaderMap) {
        if let Some((name, value)) = &self.header {
            headers.insert(name, value.clone());
        }
    }

    /// The parameter that it is in the query, if it is one.
    pub(crate) fn parameter(&self) -> Option<(&str, &str)> {
        let (name, value) = self.query.as_ref()?;
        core::str::from_utf8(value).ok().map(|value| (name.as_str(), value))
    }

    /// Whether all of it is looked for in answers.
    fn is_looked_for(&self) -> bool {
        self.secrets.iter().all(|secret| secret.len() >= SHORTEST_LOOKED_FOR)
    }
}

fn joined(prefix: &str, secret: &[u8]) -> Wiped {
    let mut text = Wiped::default();
    text.append(prefix.as_bytes());
    text.append(secret);
    text
}

/// A credential, and what is looked for in answers.
#[derive(Default)]
struct Now {
    /// `None` until there is one, and when it is over.
    ready: Option<Arc<Ready>>,
    /// The newest first. An API may show what it was sent a while ago, and take it still.
    looked_for: Arc<[Wiped]>,
}

/// The credential of one API, as it is now.
pub(crate) struct Credential {
    placement: Placement,
    now: RwLock<Now>,
    renewal: Option<Renewal>,
    /// Told when the API, or who gives tokens for the secret, does not take what there is.
    refused: Notify,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

impl Credential {
    /// Of this secret.
    pub(crate) fn new(placement: Placement, secret: &[u8]) -> Result<Self, UnfitCredential> {
        let secret = trimmed(secret)?;
        if let Placement::Oauth { token_url, client_id, scope } = &placement {
            let renewal = Renewal::new(token_url.clone(), client_id, scope.as_deref(), secret);
            let (now, refused) = (RwLock::default(), Notify::new());
            return Ok(Self { placement, now, renewal: Some(renewal), refused });
        }
        let ready = Ready::of(&placement, secret)?;
        let credential = Self { placement, now: RwLock::default(), renewal: None, refused: Notify::new() };
        credential.change(Some(ready));
        Ok(credential)
    }

    fn change(&self, next: Option<Ready>) {
        let mut now = self.now.write();
        if let Some(next) = &next {
            let mut looked_for: Vec<Wiped> = Vec::with_capacity(MAX_LOOKED_FOR);
            for secret in next.secrets.iter().chain(&*now.looked_for) {
                let is_new = looked_for.iter().all(|known| **known != **secret);
                if is_new && secret.len() >= SHORTEST_LOOKED_FOR && looked_for.len() < MAX_LOOKED_FOR {
                    looked_for.push(Wiped::new(secret.to_vec()));
                }
            }
            now.looked_for = looked_for.into();
        }
        now.ready = next.map(Arc::new);
    }

    /// What must not be in an answer.
    pub(crate) fn looked_for(&self) -> Arc<[Wiped]> {
        Arc::clone(&self.now.read().looked_for)
    }

    /// Whether all of what there is now is looked for in answers; what is too short is not.
    pub(crate) fn is_looked_for(&self) -> bool {
        self.now.read().ready.as_ref().is_none_or(|ready| ready.is_looked_for())
    }

    /// What is to be put on, if there is something.
    pub(crate) fn ready(&self) -> Option<Arc<Ready>> {
        self.now.read().ready.clone()
    }

    /// Takes another secret in place of this one. Calls under way keep theirs.
    pub(crate) fn replace(&self, secret: &[u8]) -> Result<(), UnfitCredential> {
        let secret = trimmed(secret)?;
        match &self.renewal {
            Some(renewal) => renewal.replace(secret),
            None => self.change(Some(Ready::of(&self.placement, secret)?)),
        }
        Ok(())
    }

    /// That the API does not take what `put_on` put on. It is got anew then, if it still is the one in use.
    pub(crate) fn was_refused(&self, used: &Arc<Ready>) {
        let is_current = self.now.read().ready.as_ref().is_some_and(|ready| Arc::ptr_eq(ready, used));
        match &self.renewal {
            Some(renewal) if is_current => renewal.ask(),
            None if is_current => self.refused.notify_one(),
            _ => {}
        }
    }

    /// The renewal of a token, where it is one.
    pub(crate) fn renewal(&self) -> Option<&Renewal> {
        self.renewal.as_ref()
    }

    fn put(&self, token: Option<&[u8]>) -> Result<(), UnfitCredential> {
        self.change(token.map(|token| Ready::of(&self.placement, trimmed(token)?)).transpose()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_on(placement: Placement, secret: &str) -> (HeaderMap, Option<(String, String)>) {
        let ready = Credential::new(placement, secret.as_bytes()).unwrap().ready().unwrap();
        let mut headers = HeaderMap::new();
        ready.put_on(&mut headers);
        (headers, ready.parameter().map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn a_credential_stands_where_the_api_wants_it() {
        let (headers, _) = put_on(Placement::bearer(), "sk-123\n");
        assert_eq!(headers[AUTHORIZATION], "Bearer sk-123");
        assert!(headers[AUTHORIZATION].is_sensitive());
        let (headers, _) = put_on(Placement::Basic, "me:secret");
        assert_eq!(headers[AUTHORIZATION], "Basic bWU6c2VjcmV0");
        let (headers, parameter) = put_on(Placement::Query("key".to_owned()), "a b&c");
        assert_eq!((headers.len(), parameter), (0, Some(("key".to_owned(), "a b&c".to_owned()))));
    }

    #[test]
    fn what_cannot_be_one_is_said_without_repeating_it() {
        for (placement, secret) in [
            (Placement::bearer(), ""),
            (Placement::bearer(), "\n"),
            (Placement::bearer(), "two\nlines"),
            (Placement::bearer(), "caf\u{e9}"),
            (Placement::Basic, "nocolon"),
        ] {
            let error = Credential::new(placement, secret.as_bytes()).unwrap_err().to_string();
            assert!(secret.trim().is_empty() || !error.contains(secret), "{error}");
        }
        let credential = Credential::new(Placement::bearer(), b"sk-123456789").unwrap();
        let debug = format!("{credential:?} {:?}", credential.ready());
        assert!(!debug.contains("sk-"), "{debug}");
    }

    #[test]
    fn another_secret_takes_its_place_and_the_last_ones_are_looked_for_still() {
        let credential = Credential::new(Placement::bearer(), b"first-secret").unwrap();
        let looked_for = || {
            let texts = credential.looked_for();
            texts.iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        credential.replace(b"second-secret").unwrap();
        assert!(credential.replace(b"").is_err(), "one that is wrong changes nothing");
        credential.replace(b"second-secret").unwrap();
        assert_eq!(
            looked_for(),
            ["second-secret", "first-secret"],
            "one that is the same again takes no room"
        );
        for number in 0..100 {
            credential.replace(format!("secret-{number:05}").as_bytes()).unwrap();
        }
        assert_eq!((looked_for().len(), looked_for()[0].as_str()), (MAX_LOOKED_FOR, "secret-00099"));
        credential.put(None).unwrap();
        assert_eq!(looked_for().len(), MAX_LOOKED_FOR, "nor is it forgotten when it is over");
    }

    #[test]
    fn what_is_too_short_to_be_looked_for_is_known() {
        for (placement, secret, is_looked_for) in [
            (Placement::bearer(), "hunter2", false),
            (Placement::bearer(), "hunter22", true),
            (Placement::Basic, "me:hunter2", false),
            (Placement::Basic, "me:hunter22", true),
        ] {
            let credential = Credential::new(placement, secret.as_bytes()).unwrap();
            assert_eq!(credential.is_looked_for(), is_looked_for, "{secret}");
        }
    }
}
