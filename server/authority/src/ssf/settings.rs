//! Who is listened to, as an operator writes it: one private file, since it may hold secrets.

use core::fmt;
use core::time::Duration;

use obol_secret::json;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::outlet_settings::{FileHook, FileReceiver, TellSettings};
use crate::outbound::Target;

/// How old a security event may be if not said, in seconds.
const DEFAULT_MAX_AGE_SECS: u64 = 600;
/// How old it may be at most, in seconds: as long as it is remembered.
const MAX_AGE_SECS: u64 = crate::directory::SET_KEPT_SECS;
/// How long a question may wait at a transmitter if not said, and at most, in seconds. What is between here and there often cuts
/// off what is silent for a minute.
const WAIT_SECS: (u64, u64) = (45, 600);
/// The most transmitters.
const MAX_TRANSMITTERS: usize = 32;
/// The word for humans of this machine's user list.
const LOCAL: &str = "local";

/// The file of security events.
#[derive(Debug, Default)]
pub struct EventSettings {
    pub(crate) transmitters: Vec<TransmitterSettings>,
    pub(in crate::ssf) tell: TellSettings,
}

/// Why the file is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventSettingsError(String);

impl fmt::Display for EventSettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for EventSettingsError {}

/// One who is listened to.
#[derive(Debug)]
pub(crate) struct TransmitterSettings {
    /// Its name, which its tokens carry.
    pub(crate) issuer: String,
    /// Where it describes itself.
    pub(crate) configuration: Target,
    /// What its tokens call this service.
    pub(crate) audience: String,
    /// Whose humans it speaks of: an issuer, or `local`.
    pub(crate) users_of: String,
    /// Addresses in this domain name its humans, by what is before the @.
    pub(crate) email_domain: Option<String>,
    /// Changes of a human's standing on which their agents are suspended.
    pub(crate) suspend_on: Vec<Standing>,
    /// How old its tokens may be, in seconds.
    pub(crate) max_age_secs: u64,
    /// Where its tokens are fetched, if they are not sent.
    pub(crate) poll: Option<PollSettings>,
}

/// Where tokens are fetched, and with what.
#[derive(Debug)]
pub(crate) struct PollSettings {
    pub(crate) url: Target,
    pub(crate) token: Option<Zeroizing<String>>,
    /// How long a question may wait there for something; zero for one that is answered at once.
    pub(crate) wait: Duration,
}

/// A change of a human's standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub(crate) enum Standing {
    /// Who they are was shown less well than before.
    #[serde(rename = "assurance-level-change")]
    Assurance,
    /// Their device does not comply any more.
    #[serde(rename = "device-compliance-change")]
    Compliance,
    /// The risk is high.
    #[serde(rename = "risk-level-change")]
    Risk,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    transmitters: Vec<FileTransmitter>,
    #[serde(default)]
    receivers: Vec<FileReceiver>,
    #[serde(default)]
    webhooks: Vec<FileHook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTransmitter {
    issuer: String,
    audience: Option<String>,
    users_of: Option<String>,
    email_domain: Option<String>,
    #[serde(default)]
    suspend_on: Vec<Standing>,
    max_age_secs: Option<u64>,
    poll: Option<FilePoll>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePoll {
    url: String,
    token: Option<String>,
    wait_secs: Option<u64>,
}

fn wrong<T>(why: impl Into<String>) -> Result<T, EventSettingsError> {
    Err(EventSettingsError(why.into()))
}

impl EventSettings {
    /// Reads the file's text, for a service that is known as `origin`.
    ///
    /// # Errors
    ///
    /// [`EventSettingsError`] says what is wrong, and repeats no secret.
    pub fn from_json(text: &[u8], origin: &str) -> Result<Self, EventSettingsError> {
        let file: File = json::parse(text).map_err(|error| EventSettingsError(error.to_string()))?;
        if file.transmitters.len() > MAX_TRANSMITTERS {
            return wrong(format!("at most {MAX_TRANSMITTERS} transmitters"));
        }
        let read = |transmitter: FileTransmitter| transmitter.read(origin);
        let transmitters = file.transmitters.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut issuers: Vec<&str> = transmitters.iter().map(|one| one.issuer.as_str()).collect();
        issuers.sort_unstable();
        if issuers.windows(2).any(|pair| matches!(pair, [one, next] if one == next)) {
            return wrong("an issuer is named twice");
        }
        let tell = TellSettings::read(file.receivers, file.webhooks).map_err(EventSettingsError)?;
        Ok(Self { transmitters, tell })
    }

    /// The ports that are connected to.
    pub fn ports(&self) -> Vec<u16> {
        let targets = self.transmitters.iter().flat_map(|one| {
            core::iter::once(&one.configuration).chain(one.poll.iter().map(|poll| &poll.url))
        });
        let mut ports: Vec<u16> = targets.map(Target::port).chain(self.tell.ports()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether anything is said.
    pub fn is_empty(&self) -> bool {
        self.transmitters.is_empty() && self.tell.is_empty()
    }
}

impl FileTransmitter {
    fn read(self, origin: &str) -> Result<TransmitterSettings, EventSettingsError> {
        let about = |what: &str, why: &dyn fmt::Display| {
            EventSettingsError(format!("transmitter {}: {what}: {why}", self.issuer))
        };
        let target = Target::parse(&self.issuer).map_err(|error| about("issuer", &error))?;
        // OpenID's way of well-known places: before the path of the issuer, if it has one.
        let path = target.path().trim_end_matches('/');
        let configuration = target.at(&format!("/.well-known/ssf-configuration{path}"));
        let max_age_secs = self.max_age_secs.unwrap_or(DEFAULT_MAX_AGE_SECS);
        if !(60..=MAX_AGE_SECS).contains(&max_age_secs) {
            return Err(about("max_age_secs", &format!("60 to {MAX_AGE_SECS}")));
        }
        let poll = match self.poll {
            None => None,
            Some(FilePoll { url, token, wait_secs }) => {
                let token = token.map(Zeroizing::new);
                let url = Target::parse(&url).map_err(|error| about("poll.url", &error))?;
                // What is not in a header could not be sent.
                let is_sendable =
                    |token: &Zeroizing<String>| token.bytes().all(|byte| byte.is_ascii_graphic());
                if !token.iter().all(is_sendable) {
                    return Err(about("poll.token", &"visible ASCII without spaces"));
                }
                let wait_secs = wait_secs.unwrap_or(WAIT_SECS.0);
                if wait_secs > WAIT_SECS.1 {
                    return Err(about("poll.wait_secs", &format!("0 to {}", WAIT_SECS.1)));
                }
                Some(PollSettings { url, token, wait: Duration::from_secs(wait_secs) })
            }
        };
        let users_of = match self.users_of {
            None => self.issuer.clone(),
            Some(named) if named == LOCAL || Target::parse(&named).is_ok() => named,
            Some(_) => return Err(about("users_of", &"an issuer's address, or local")),
        };
        let is_domain = |domain: &String| domain.contains('.') && !domain.contains(['@', ' ']);
        if !self.email_domain.iter().all(is_domain) {
            return Err(about("email_domain", &"a domain such as corp.example"));
        }
        Ok(TransmitterSettings {
            configuration,
            audience: self.audience.unwrap_or_else(|| origin.to_owned()),
            users_of,
            email_domain: self.email_domain.map(|domain| domain.to_ascii_lowercase()),
            suspend_on: self.suspend_on,
            max_age_secs,
            poll,
            issuer: self.issuer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EventSettings, EventSettingsError> {
        EventSettings::from_json(text.as_bytes(), "https://as.example")
    }

    #[test]
    fn what_is_not_said_is_what_most_want() {
        let settings = read(r#"{"transmitters": [{"issuer": "https://idp.example/tenant/"}]}"#).unwrap();
        let one = &settings.transmitters[0];
        assert_eq!(one.configuration.as_str(), "https://idp.example/.well-known/ssf-configuration/tenant");
        assert_eq!((one.audience.as_str(), one.max_age_secs), ("https://as.example", 600));
        assert_eq!(one.users_of, "https://idp.example/tenant/", "its own humans and nobody else's");
        assert!(one.email_domain.is_none() && one.poll.is_none() && settings.ports() == [443]);
        assert!(read("{}").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_repeated() {
        let with = |member: &str| {
            let text = format!(r#"{{"transmitters": [{{"issuer": "https://idp.example", {member}}}]}}"#);
            read(&text).unwrap_err().to_string()
        };
        for (member, named) in [
            (r#""max_age_secs": 59"#, "max_age_secs"),
            (r#""poll": {"url": "http://idp.example/poll"}"#, "poll.url"),
            (r#""poll": {"url": "https://idp.example", "token": "hush hush"}"#, "poll.token"),
            (r#""poll": {"url": "https://idp.example", "wait_secs": 601}"#, "poll.wait_secs"),
            (r#""users_of": "everybody""#, "users_of"),
            (r#""email_domain": "@corp""#, "email_domain"),
            (r#""suspend_on": ["session-revoked"]"#, "suspend_on"),
            (r#""mail": true"#, "mail"),
        ] {
            let error = with(member);
            assert!(error.contains(named) && !error.contains("hush"), "{error}");
        }
        assert!(read(r#"{"transmitters": [{"issuer": "http://idp.example"}]}"#).is_err());
        let one = r#"{"issuer": "https://a.example"}"#;
        assert!(
            read(&format!(r#"{{"transmitters": [{one}, {one}]}}"#))
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }
}
