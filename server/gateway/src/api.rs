//! One API behind the gateway, as its file says it.
//!
//! ```toml
//! upstream = "https://api.github.com"
//! headers = ["x-github-api-version"]     # passed on, beside the usual ones
//!
//! [credential]
//! put = "bearer"
//!
//! [[route]]
//! method = "GET"
//! path = "/repos/{owner}/{repo}/issues"
//! tool = "github_issues"
//! action = "read"
//! resource = "repo/{owner}/{repo}"
//! query = ["state", "page", "per_page"]
//! ```

use core::time::Duration;
use std::path::PathBuf;

use http::{HeaderName, Uri};
use serde::Deserialize;

use crate::credential::{Credential, NOT_LOOKED_FOR, Placement};
use crate::headers;
use crate::route::ApiRoute;

/// How long an API may take to begin its answer, and to go on with it, unless told otherwise, in seconds.
const TIMEOUT_SECS: u64 = 300;
/// The longest timeout, in seconds.
const MAX_TIMEOUT_SECS: u64 = 86_400;
/// The longest time between two runs of a program that prints a credential, in seconds.
const MAX_RENEW_SECS: u64 = 30 * 86_400;
/// The longest body that is passed on unread, unless told otherwise, in bytes.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// The file of one API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// An origin.
    upstream: String,
    /// Plain HTTP to another machine is meant.
    #[serde(default)]
    plain: bool,
    /// The certificate authorities that are trusted for it, and no others.
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    headers: Vec<String>,
    /// In seconds.
    #[serde(default)]
    timeout: Option<u64>,
    #[serde(default)]
    max_body_bytes: Option<u64>,
    credential: CredentialRule,
    #[serde(default, rename = "route")]
    routes: Vec<ApiRoute>,
}

/// What the credential is to be put into, and where it comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialRule {
    put: Put,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    token_url: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    file: Option<PathBuf>,
    #[serde(default)]
    credential: Option<String>,
    #[serde(default)]
    command: Option<Vec<String>>,
    /// In seconds.
    #[serde(default)]
    renew: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Put {
    /// `Authorization: Bearer SECRET`
    Bearer,
    /// A header of the API's own.
    Header,
    /// `Authorization: Basic`, of `user:password`
    Basic,
    /// A parameter of the query.
    Query,
    /// `Authorization: Bearer`, of a token that the secret gets from `token_url`.
    OauthClient,
}

/// Where the secret comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// What `obol gateway add` sealed.
    Sealed,
    /// A private file.
    File(PathBuf),
    /// A credential of the service manager.
    Credential(String),
    /// What a program prints.
    Command(Vec<String>),
}

impl Api {
    /// What is wrong with what the file says, if anything.
    ///
    /// # Errors
    ///
    /// One sentence for people.
    pub fn check(&self) -> Result<(), String> {
        self.upstream()?;
        self.placement()?;
        self.source()?;
        self.passed_headers()?;
        if self.credential.renew.is_some_and(|seconds| !(1..=MAX_RENEW_SECS).contains(&seconds)) {
            return Err(format!("credential: `renew` is 1 to {MAX_RENEW_SECS} seconds"));
        }
        if self.credential.renew.is_some() && self.credential.command.is_none() {
            return Err("credential: `renew` goes with `command`".to_owned());
        }
        if self.timeout.is_some_and(|seconds| !(1..=MAX_TIMEOUT_SECS).contains(&seconds)) {
            return Err(format!("timeout: 1 to {MAX_TIMEOUT_SECS} seconds"));
        }
        if self.routes.is_empty() {
            return Err("there is no [[route]], so no request could reach the API".to_owned());
        }
        self.routes.iter().try_for_each(ApiRoute::check)
    }

    /// The API's origin.
    pub(crate) fn upstream(&self) -> Result<Uri, String> {
        let why = "upstream: an origin, such as https://api.example; http:// is for this machine, or with plain = true";
        origin(&self.upstream, self.plain).ok_or_else(|| why.to_owned())
    }

    /// Whether the API, or where its tokens come from, is reached over TLS.
    pub(crate) fn is_over_tls(&self) -> Result<bool, String> {
        let is_https = |uri: &Uri| uri.scheme_str() == Some("https");
        Ok(match self.placement()? {
            Placement::Oauth { token_url, .. } if is_https(&token_url) => true,
            _ => is_https(&self.upstream()?),
        })
    }

    /// Where the API is: its host, and its port.
    #[must_use]
    pub fn hosts_and_ports(&self) -> Vec<(String, u16)> {
        let token_url = self.credential.token_url.as_deref().and_then(|url| url.parse().ok());
        self.upstream().into_iter().chain(token_url).filter_map(|uri: Uri| host_and_port(&uri)).collect()
    }

    /// What the credential is put into.
    pub(crate) fn placement(&self) -> Result<Placement, String> {
        let rule = &self.credential;
        let name = || rule.name.as_deref().ok_or("credential: `name` says which header or parameter it is");
        let placement = match rule.put {
            Put::Bearer => Placement::bearer(),
            Put::Basic => Placement::Basic,
            Put::Query => Placement::Query(name()?.to_owned()),
            Put::Header => {
                let header: HeaderName = name()?
                    .parse()
                    .map_err(|_| "credential: `name` is not the name of a header".to_owned())?;
                headers::check_own(&header)?;
                Placement::Header { name: header, prefix: rule.prefix.clone().unwrap_or_default() }
            }
            Put::OauthClient => {
                let url = rule.token_url.as_deref().and_then(|url| read_url(url, self.plain));
                let client_id = rule.client_id.clone();
                match (url, client_id) {
                    (Some(token_url), Some(client_id)) => {
                        Placement::Oauth { token_url, client_id, scope: rule.scope.clone() }
                    }
                    _ => {
                        return Err(
                            "credential: oauth-client needs token_url (https://) and client_id".to_owned()
                        );
                    }
                }
            }
        };
        let is_named = matches!(rule.put, Put::Header | Put::Query);
        if rule.name.is_some() != is_named {
            return Err("credential: `name` goes with put = \"header\" and put = \"query\"".to_owned());
        }
        if rule
            .prefix
            .as_ref()
            .is_some_and(|prefix| !prefix.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        {
            return Err("credential: `prefix` is visible ASCII".to_owned());
        }
        Ok(placement)
    }

    /// Where the secret comes from.
    ///
    /// # Errors
    ///
    /// Several are named.
    pub fn source(&self) -> Result<Source, String> {
        let rule = &self.credential;
        match (&rule.file, &rule.credential, &rule.command) {
            (None, None, None) => Ok(Source::Sealed),
            (Some(file), None, None) if file.is_absolute() => Ok(Source::File(file.clone())),
            (Some(_), None, None) => Err("credential: `file` is an absolute path".to_owned()),
            (None, Some(name), None) if !name.is_empty() && !name.contains('/') => {
                Ok(Source::Credential(name.clone()))
            }
            (None, Some(_), None) => {
                Err("credential: `credential` is a name, as in LoadCredential=".to_owned())
            }
            (None, None, Some(command))
                if command.first().is_some_and(|program| program.starts_with('/')) =>
            {
                Ok(Source::Command(command.clone()))
            }
            (None, None, Some(_)) => {
                Err("credential: `command` is a list that begins with a program's absolute path".to_owned())
            }
            _ => Err("credential: one of file, credential and command".to_owned()),
        }
    }

    /// After which time its program is run again, if it is.
    #[must_use]
    pub fn renew(&self) -> Option<Duration> {
        self.credential.renew.map(Duration::from_secs)
    }

    /// Headers that are passed on beside the usual ones.
    pub(crate) fn passed_headers(&self) -> Result<Vec<HeaderName>, String> {
        let own = match self.placement() {
            Ok(Placement::Header { name, .. }) => Some(name),
            _ => None,
        };
        let header = |text: &String| {
            let name: HeaderName =
                text.parse().map_err(|_| format!("headers: {text:?} is not a header's name"))?;
            headers::check_passed(&name)?;
            match own.as_ref() == Some(&name) {
                true => Err(format!("headers: {name} is the credential's own")),
                false => Ok(name),
            }
        };
        self.headers.iter().map(header).collect()
    }

    /// Whether this can be its secret.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that do not repeat it.
    pub fn check_secret(&self, secret: &[u8]) -> Result<(), String> {
        Credential::new(self.placement()?, secret).map(drop).map_err(|error| error.to_string())
    }

    /// What whoever gives this credential should know of it, if there is something.
    #[must_use]
    pub fn caution(&self, secret: &[u8]) -> Option<&'static str> {
        let credential = Credential::new(self.placement().ok()?, secret).ok()?;
        (!credential.is_looked_for()).then_some(NOT_LOOKED_FOR)
    }

    /// How many routes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.routes.len()
    }

    pub(crate) fn routes(&self) -> &[ApiRoute] {
        &self.routes
    }

    /// A file of certificate authorities, if the API has its own.
    #[must_use]
    pub fn ca_file(&self) -> Option<&PathBuf> {
        self.ca_file.as_ref()
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(TIMEOUT_SECS))
    }

    pub(crate) fn max_body_bytes(&self) -> u64 {
        self.max_body_bytes.unwrap_or(MAX_BODY_BYTES)
    }
}

/// Whether an API may have this name, which is the first segment of its requests' paths.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(is_plain)
}

fn origin(text: &str, plain: bool) -> Option<Uri> {
    let uri = read_url(text, plain)?;
    let is_bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    is_bare.then_some(uri)
}

/// A URL with https, or with http where that is meant.
pub(crate) fn read_url(text: &str, plain: bool) -> Option<Uri> {
    if text.contains(['@', '#', '\\']) || !text.is_ascii() {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    match uri.scheme_str()? {
        "https" => {}
        "http" if plain || is_here(host) => {}
        _ => return None,
    }
    Some(uri)
}

pub(crate) fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<core::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host_and_port(uri: &Uri) -> Option<(String, u16)> {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some((uri.host()?.to_owned(), uri.port_u16().unwrap_or(usual)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "[[route]]\nmethod = \"GET\"\npath = \"/a\"\ntool = \"a\"\n";

    fn checked(front: &str, credential: &str) -> Result<(), String> {
        let text = format!("{front}\n[credential]\n{credential}\n{ROUTE}");
        let api: Api = toml::from_str(&text).map_err(|error| error.message().to_owned())?;
        api.check()
    }

    #[test]
    fn what_a_file_may_say() {
        let front = "upstream = \"https://api.example\"";
        for credential in [
            "put = \"bearer\"",
            "put = \"header\"\nname = \"X-Api-Key\"",
            "put = \"header\"\nname = \"Authorization\"\nprefix = \"token \"",
            "put = \"basic\"\nfile = \"/etc/x\"",
            "put = \"query\"\nname = \"key\"\ncredential = \"x\"",
            "put = \"bearer\"\ncommand = [\"/bin/x\", \"y\"]",
            "put = \"bearer\"\ncommand = [\"/bin/x\"]\nrenew = 900",
            "put = \"oauth-client\"\ntoken_url = \"https://login.example/token\"\nclient_id = \"me\"",
        ] {
            checked(front, credential).unwrap_or_else(|why| panic!("{credential}: {why}"));
        }
        for credential in [
            "put = \"header\"",
            "put = \"bearer\"\nname = \"x\"",
            "put = \"header\"\nname = \"Host\"",
            "put = \"header\"\nname = \"content-length\"",
            "put = \"header\"\nname = \"a b\"",
            "put = \"bearer\"\nfile = \"x\"",
            "put = \"bearer\"\nfile = \"/x\"\ncommand = [\"/bin/x\"]",
            "put = \"bearer\"\ncommand = [\"x\"]",
            "put = \"bearer\"\ncredential = \"../x\"",
            "put = \"bearer\"\ncommand = [\"/bin/x\"]\nrenew = 0",
            "put = \"bearer\"\nfile = \"/x\"\nrenew = 900",
            "put = \"oauth-client\"\ntoken_url = \"http://login.example/token\"\nclient_id = \"me\"",
            "put = \"oauth-client\"\nclient_id = \"me\"",
            "put = \"cookie\"",
            "put = \"bearer\"\nsecret = \"x\"",
        ] {
            assert!(checked(front, credential).is_err(), "{credential}");
        }
    }

    #[test]
    fn an_upstream_is_an_origin_and_encrypted() {
        let credential = "put = \"bearer\"";
        for upstream in
            ["https://a", "https://a:8443/", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"]
        {
            checked(&format!("upstream = \"{upstream}\""), credential).unwrap();
        }
        checked("upstream = \"http://api:8080\"\nplain = true", credential).unwrap();
        for upstream in
            ["http://a", "https://a/v1", "https://a?b", "a", "https://u:p@a", "ftp://a", "https://"]
        {
            assert!(checked(&format!("upstream = \"{upstream}\""), credential).is_err(), "{upstream}");
        }
        for header in [
            "authorization",
            "Cookie",
            "x-api-key",
            "Host",
            "connection",
            "X-Forwarded-For",
            "a_b",
            "Upgrade",
        ] {
            let front = format!("upstream = \"https://a\"\nheaders = [\"{header}\"]");
            assert!(checked(&front, credential).is_err(), "{header}");
        }
        checked("upstream = \"https://a\"\nheaders = [\"OpenAI-Beta\"]", credential).unwrap();
    }

    #[test]
    fn a_name_is_one_plain_segment() {
        assert!(is_name("github") && is_name("a-1"));
        for bad in ["", "A", "a/b", "a.b", "..", "a_b", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
