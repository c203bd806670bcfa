//! E-mail of the Authentication Service, as settings name it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_authority::{Mail, MailSettings};
use obol_secret::file::{PrivateFile, read_credential};
use zeroize::Zeroizing;

use crate::exit::{Failure, Outcome};
use crate::places::environment;
use crate::settings::config::As;

/// The longest password, in bytes.
const MAX_PASSWORD_BYTES: usize = 1 << 10;
/// The password's name among the credentials of the service manager.
const CREDENTIAL: &str = "obol-as-mail-password";

/// Whether what is said of e-mail can be; the port of the mail server, where there is one.
pub(super) fn check(config: &As) -> Outcome<Option<u16>> {
    let Some(settings) = settings(config)? else { return Ok(None) };
    let port = settings.port();
    Mail::new(settings, config.ca_file.as_deref()).map_err(Failure::usage)?;
    Ok(Some(port))
}

/// What sends messages, if anything is to.
pub(super) fn open(config: &As) -> Outcome<Option<Arc<Mail>>> {
    let Some(mut settings) = settings(config)? else { return Ok(None) };
    if let Some(user) = &config.mail_user {
        settings = settings.login(user, password(config.mail_password.as_ref())?).map_err(Failure::usage)?;
    }
    Mail::new(settings, config.ca_file.as_deref()).map(|mail| Some(Arc::new(mail))).map_err(Failure::usage)
}

fn settings(config: &As) -> Outcome<Option<MailSettings>> {
    let Some(server) = &config.mail_server else {
        let without =
            [config.mail_from.is_some(), config.mail_user.is_some(), config.mail_password.is_some()];
        let told = [config.mail_approvals.as_ref(), config.mail_alarms.as_ref()];
        return match without.contains(&true) || told.into_iter().flatten().any(|all| !all.is_empty()) {
            true => Err(Failure::usage("as.mail_server is needed: without it no message can be sent")),
            false => Ok(None),
        };
    };
    let from = config.mail_from.as_ref();
    let from = from.ok_or_else(|| Failure::usage("as.mail_from is needed: the sender's address"))?;
    if config.mail_password.is_some() && config.mail_user.is_none() {
        return Err(Failure::usage("as.mail_user is needed: the user that as.mail_password belongs to"));
    }
    let of = |all: &Option<Vec<String>>| all.clone().unwrap_or_default();
    let settings = MailSettings::new(server, from).map_err(Failure::usage)?;
    settings.to(&of(&config.mail_approvals), &of(&config.mail_alarms)).map(Some).map_err(Failure::usage)
}

/// From the file that was named; else a credential of the service manager.
fn password(file: Option<&PathBuf>) -> Outcome<Zeroizing<String>> {
    let bytes = match (file, environment("CREDENTIALS_DIRECTORY")) {
        (Some(file), _) => PrivateFile::read(file, MAX_PASSWORD_BYTES)?,
        (None, Some(folder)) => read_credential(&Path::new(&folder).join(CREDENTIAL), MAX_PASSWORD_BYTES)?,
        (None, None) => {
            return Err(Failure::usage(
                "as.mail_password is needed: a private file with the password of as.mail_user",
            ));
        }
    };
    let text = core::str::from_utf8(&bytes).ok().map(str::trim_ascii).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Failure::usage("the mail server's password must be one line of text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_mail_goes_together() {
        let text = |text: &str| Some(text.to_owned());
        let whole = || As {
            mail_server: text("smtps://mail.example"),
            mail_from: text("obol@example.com"),
            mail_alarms: Some(vec!["ops@example.com".to_owned()]),
            ..As::default()
        };
        assert_eq!(check(&whole()).unwrap(), Some(465));
        assert_eq!(check(&As::default()).unwrap(), None);
        let file = || Some(PathBuf::from("/etc/obol/mail-password"));
        for (bad, says) in [
            (As { mail_server: None, ..whole() }, "as.mail_server is needed"),
            (As { mail_from: None, ..whole() }, "as.mail_from is needed"),
            (As { mail_alarms: None, ..whole() }, "nobody would get a message"),
            (As { mail_password: file(), ..whole() }, "as.mail_user is needed"),
            (As { mail_server: text("smtp+plain://mail.example"), ..whole() }, "in the clear"),
        ] {
            let failure = check(&bad).unwrap_err().to_string();
            assert!(failure.contains(says), "{failure}");
        }
    }
}
