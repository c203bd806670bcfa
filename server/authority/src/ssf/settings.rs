//! Who is listened to, as an operator writes it: one private file, since it may hold secrets.

use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};

use obol_secret::file::PrivateFile;
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
/// The longest name of a client, and of what it asks for, in bytes.
const MAX_NAME_BYTES: usize = 1_024;
/// The longest file with a client's secret, in bytes.
const MAX_SECRET_BYTES: usize = 4_096;
/// The word for humans of this machine's user list.
const LOCAL: &str = "local";

/// The file of security events.
#[derive(Debug, Default)]
pub struct EventSettings {
    pub(crate) transmitters: Vec<TransmitterSettings>,
    pub(in crate::ssf) tell: TellSettings,
    files: Vec<PathBuf>,
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
    /// Where such a token comes from that is not said.
    pub(crate) client: Option<ClientSettings>,
    /// How long a question may wait there for something; zero for one that is answered at once.
    pub(crate) wait: Duration,
}

/// A client of OAuth, as the transmitter's token endpoint knows it.
pub(crate) struct ClientSettings {
    pub(crate) token_url: Target,
    pub(crate) id: String,
    pub(crate) scope: Option<String>,
    pub(crate) secret: Zeroizing<String>,
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientSettings({} at {})", self.id, self.token_url.as_str())
    }
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
    client: Option<FileClient>,
    wait_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileClient {
    token_url: String,
    client_id: String,
    secret_file: PathBuf,
    scope: Option<String>,
}

fn wrong<T>(why: impl Into<String>) -> Result<T, EventSettingsError> {
    Err(EventSettingsError(why.into()))
}

impl EventSettings {
    /// Reads the file's text, for a service that is known as `origin`. Files that it names are private, and in `folder` if they are
    /// not said to be elsewhere.
    ///
    /// # Errors
    ///
    /// [`EventSettingsError`] says what is wrong, and repeats no secret.
    pub fn from_json(text: &[u8], origin: &str, folder: &Path) -> Result<Self, EventSettingsError> {
        let file: File = json::parse(text).map_err(|error| EventSettingsError(error.to_string()))?;
        if file.transmitters.len() > MAX_TRANSMITTERS {
            return wrong(format!("at most {MAX_TRANSMITTERS} transmitters"));
        }
        let clients = file.transmitters.iter().flat_map(|one| &one.poll).flat_map(|poll| &poll.client);
        let named: Vec<PathBuf> = clients.map(|client| client.secret_file.clone()).collect();
        let read = |transmitter: FileTransmitter| transmitter.read(origin, folder);
        let transmitters = file.transmitters.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut issuers: Vec<&str> = transmitters.iter().map(|one| one.issuer.as_str()).collect();
        issuers.sort_unstable();
        if issuers.windows(2).any(|pair| matches!(pair, [one, next] if one == next)) {
            return wrong("an issuer is named twice");
        }
        let tell = TellSettings::read(file.receivers, file.webhooks).map_err(EventSettingsError)?;
        let files = named.iter().map(|file| folder.join(file)).collect();
        Ok(Self { transmitters, tell, files })
    }

    /// The files that it names, which are read with it.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn targets(&self) -> impl Iterator<Item = &Target> {
        let targets = self.transmitters.iter().flat_map(|one| {
            let client = one.poll.iter().flat_map(|poll| &poll.client).map(|client| &client.token_url);
            core::iter::once(&one.configuration).chain(one.poll.iter().map(|poll| &poll.url)).chain(client)
        });
        targets.chain(self.tell.targets())
    }

    /// Whether somebody is reached over TLS.
    pub fn is_over_tls(&self) -> bool {
        self.targets().any(Target::is_tls)
    }

    /// The ports that are connected to.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.targets().map(Target::port).collect();
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
    fn read(self, origin: &str, folder: &Path) -> Result<TransmitterSettings, EventSettingsError> {
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
        let poll = self.poll.map(|poll| poll.read(folder)).transpose();
        let poll = poll.map_err(|(what, why)| about(&format!("poll.{what}"), &why))?;
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

/// What is wrong with a member, and why.
type Wrong = (&'static str, String);

impl FilePoll {
    fn read(self, folder: &Path) -> Result<PollSettings, Wrong> {
        let token = self.token.map(Zeroizing::new);
        let url = Target::parse(&self.url).map_err(|error| ("url", error.to_string()))?;
        // What is not in a header could not be sent.
        if !token.iter().all(|token| token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(("token", "visible ASCII without spaces".to_owned()));
        }
        if token.is_some() && self.client.is_some() {
            return Err(("client", "a token, or a client that fetches tokens, and not both".to_owned()));
        }
        let client = self.client.map(|client| client.read(folder)).transpose()?;
        let wait_secs = self.wait_secs.unwrap_or(WAIT_SECS.0);
        if wait_secs > WAIT_SECS.1 {
            return Err(("wait_secs", format!("0 to {}", WAIT_SECS.1)));
        }
        Ok(PollSettings { url, token, client, wait: Duration::from_secs(wait_secs) })
    }
}

impl FileClient {
    fn read(self, folder: &Path) -> Result<ClientSettings, Wrong> {
        let token_url =
            Target::parse(&self.token_url).map_err(|error| ("client.token_url", error.to_string()))?;
        let is_name = |text: &String| {
            !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.contains(char::is_control)
        };
        if !is_name(&self.client_id) {
            return Err((
                "client.client_id",
                format!("1 to {MAX_NAME_BYTES} bytes without control characters"),
            ));
        }
        if !self.scope.iter().all(is_name) {
            return Err(("client.scope", format!("1 to {MAX_NAME_BYTES} bytes without control characters")));
        }
        let file = folder.join(&self.secret_file);
        let bytes = PrivateFile::read(&file, MAX_SECRET_BYTES)
            .map_err(|error| ("client.secret_file", error.to_string()))?;
        let secret = core::str::from_utf8(&bytes).ok().map(str::trim_ascii);
        let is_line = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let secret = secret.filter(is_line).ok_or_else(|| {
            ("client.secret_file", format!("{} must hold one line of visible ASCII", file.display()))
        })?;
        let secret = Zeroizing::new(secret.to_owned());
        Ok(ClientSettings { token_url, id: self.client_id, scope: self.scope, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EventSettings, EventSettingsError> {
        EventSettings::from_json(text.as_bytes(), "https://as.example", Path::new("/nowhere"))
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
            (
                r#""poll": {"url": "https://idp.example", "token": "hush", "client": {"token_url": "https://idp.example/token",
                "client_id": "obol", "secret_file": "secret"}}"#,
                "poll.client",
            ),
            (
                r#""poll": {"url": "https://idp.example", "client": {"token_url": "http://idp.example/token",
                "client_id": "obol", "secret_file": "secret"}}"#,
                "poll.client.token_url",
            ),
            (
                r#""poll": {"url": "https://idp.example", "client": {"token_url": "https://idp.example/token",
                "client_id": "obol", "secret_file": "secret"}}"#,
                "poll.client.secret_file",
            ),
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
