//! Where messages go, from whom and to whom, as an operator sets it.

use core::fmt;
use std::path::Path;

use http::Uri;
use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use zeroize::Zeroizing;

use crate::notices::Topic;
use crate::outbound::is_this_machine;

/// The most addresses that hear of one topic.
const MAX_ADDRESSES: usize = 32;
/// The longest text of a setting, in bytes.
const MAX_TEXT_BYTES: usize = 512;
/// The longest file of certificates, in bytes.
const MAX_PEM_BYTES: usize = 1 << 20;

/// What an operator sets of e-mail.
pub struct MailSettings {
    pub(super) server: Server,
    pub(super) from: Mailbox,
    pub(super) approvals: Vec<Mailbox>,
    pub(super) alarms: Vec<Mailbox>,
    pub(super) login: Option<Login>,
}

/// Who the service is to the mail server.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

/// A mail server, and how it is spoken with.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// TLS from the first byte.
    Tls,
    /// TLS after the greeting, or nothing is sent.
    StartTls,
    /// In the clear, on this machine alone.
    Plain,
}

/// A setting of e-mail that cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailError(String);

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for MailError {}

fn wrong<T>(why: impl Into<String>) -> Result<T, MailError> {
    Err(MailError(why.into()))
}

impl MailSettings {
    /// Messages from this address through this server: `smtps://host` (TLS), `smtp://host` (STARTTLS, without which nothing is
    /// sent), or on this machine alone `smtp+plain://localhost:25`.
    ///
    /// # Errors
    ///
    /// [`MailError`] says what cannot be.
    pub fn new(server: &str, from: &str) -> Result<Self, MailError> {
        let (server, from) = (Server::parse(server)?, mailbox(from)?);
        Ok(Self { server, from, approvals: Vec::new(), alarms: Vec::new(), login: None })
    }

    /// Who hears of what waits for a human, and who of alarms.
    ///
    /// # Errors
    ///
    /// Where one is no address, or nobody hears anything.
    pub fn to(mut self, approvals: &[String], alarms: &[String]) -> Result<Self, MailError> {
        if approvals.len().max(alarms.len()) > MAX_ADDRESSES {
            return wrong(format!("at most {MAX_ADDRESSES} addresses hear of one topic"));
        }
        if approvals.is_empty() && alarms.is_empty() {
            return wrong("nobody would get a message: name addresses for approvals, alarms or both");
        }
        let read = |all: &[String]| all.iter().map(|one| mailbox(one)).collect::<Result<_, _>>();
        (self.approvals, self.alarms) = (read(approvals)?, read(alarms)?);
        Ok(self)
    }

    /// What the service proves itself with to the mail server.
    ///
    /// # Errors
    ///
    /// Where either is empty, too long, or has control characters.
    pub fn login(mut self, user: &str, password: Zeroizing<String>) -> Result<Self, MailError> {
        let is_text =
            |text: &str| !text.is_empty() && text.len() <= MAX_TEXT_BYTES && !text.contains(char::is_control);
        if !is_text(user) || !is_text(&password) {
            return wrong("user and password have 1 to 512 bytes each without control characters");
        }
        self.login = Some(Login { user: user.to_owned(), password });
        Ok(self)
    }

    /// The port that is connected to.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Who hears of a topic.
    pub(super) fn about(&self, topic: Topic) -> &[Mailbox] {
        match topic {
            Topic::Approvals => &self.approvals,
            Topic::Alarms => &self.alarms,
            Topic::Sessions => &[],
        }
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, MailError> {
        let form = || {
            MailError(format!(
                "the mail server {text:?} must be smtps://host, or smtp://host for one that speaks STARTTLS, and a port if it is \
                 not the usual one"
            ))
        };
        let uri: Uri = text.parse().map_err(|_| form())?;
        let (way, port) = match uri.scheme_str() {
            Some("smtps") => (Way::Tls, 465),
            Some("smtp") => (Way::StartTls, 587),
            Some("smtp+plain") => (Way::Plain, 25),
            _ => return Err(form()),
        };
        let authority = uri.authority().ok_or_else(form)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if host.is_empty() || text.len() > MAX_TEXT_BYTES || text.contains(['@', '#']) || !is_bare {
            return Err(form());
        }
        if way == Way::Plain && !is_this_machine(&host) {
            return wrong(format!(
                "the mail server {text:?}: in the clear on this machine alone (127.0.0.1, [::1] or localhost); use smtps:// or smtp://"
            ));
        }
        Ok(Self { host, port: authority.port_u16().unwrap_or(port), way })
    }

    /// How the connection is protected: by the system's certificate authorities, or those of one file alone.
    pub(super) fn tls(&self, ca_file: Option<&Path>) -> Result<Tls, MailError> {
        if self.way == Way::Plain {
            return Ok(Tls::None);
        }
        let mut builder = TlsParameters::builder(self.host.clone());
        if let Some(path) = ca_file {
            let unreadable = || MailError(format!("{} is not a PEM file of certificates", path.display()));
            let pem = obol_secret::file::read_public(path, MAX_PEM_BYTES);
            let pem = pem.map_err(|error| MailError(error.to_string()))?;
            let trusted = Certificate::from_pem(&pem).map_err(|_| unreadable())?;
            builder = builder.certificate_store(CertificateStore::None).add_root_certificate(trusted);
        } else {
            // The library takes the same ones, and says nothing where there are none.
            obol_probe::tls::system_roots().map_err(MailError)?;
        }
        let parameters = builder.build().map_err(|error| MailError(error.to_string()))?;
        Ok(if self.way == Way::Tls { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
    }
}

/// An address alone, without a name before it: it may stand in a header and in the envelope.
fn mailbox(text: &str) -> Result<Mailbox, MailError> {
    let is_short = text.len() <= MAX_TEXT_BYTES && text.is_ascii() && !text.contains(char::is_control);
    let address = is_short.then(|| text.parse::<Address>().ok()).flatten();
    let wrong = || MailError(format!("{text:?} is not an address such as ops@example.com"));
    Ok(Mailbox::new(None, address.ok_or_else(wrong)?))
}

impl fmt::Debug for MailSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailSettings")
            .field("server", &self.server)
            .field("from", &self.from.email)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_with_in_the_clear() {
        let way = |text: &str| Server::parse(text).map(|server| (server.way, server.port));
        assert_eq!(way("smtps://mail.example"), Ok((Way::Tls, 465)));
        assert_eq!(way("smtp://mail.example:2525"), Ok((Way::StartTls, 2525)));
        assert_eq!(way("smtp://localhost"), Ok((Way::StartTls, 587)));
        for here in ["smtp+plain://localhost", "smtp+plain://127.0.0.1:25", "smtp+plain://[::1]"] {
            assert_eq!(way(here).unwrap().0, Way::Plain, "{here}");
        }
        for there in ["smtp+plain://mail.example", "smtp+plain://127.0.0.1.evil.example"] {
            assert!(way(there).unwrap_err().to_string().contains("in the clear"), "{there}");
        }
        for bad in
            ["", "mail.example", "https://mail.example", "smtp://", "smtp://u:p@mail.example", "smtp://m/x"]
        {
            assert!(way(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_one_and_nothing_else() {
        let to = |text: &str| {
            MailSettings::new("smtps://mail.example", "obol@example.com").unwrap().to(&[text.to_owned()], &[])
        };
        assert!(to("ops@example.com").is_ok());
        for bad in [
            "",
            "ops",
            "ops@example.com\r\nBcc: x@evil.example",
            "Ops <ops@example.com>",
            "a@b, c@d",
            "a@b\0.c",
        ] {
            assert!(to(bad).is_err(), "{bad:?}");
        }
        let none = MailSettings::new("smtps://mail.example", "obol@example.com").unwrap().to(&[], &[]);
        assert!(none.unwrap_err().to_string().contains("nobody"));
    }

    #[test]
    fn a_password_is_not_printed() {
        let settings = MailSettings::new("smtps://mail.example", "obol@example.com").unwrap();
        let settings = settings.login("obol", Zeroizing::new("hunter2".to_owned())).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        let settings = MailSettings::new("smtps://mail.example", "obol@example.com").unwrap();
        assert!(settings.login("obol", Zeroizing::new("two\r\nlines".to_owned())).is_err());
    }
}
