//! Several providers, as an operator writes them: one private file, since whoever could write it could name humans.

use std::collections::BTreeMap;
use std::path::PathBuf;

use obol_secret::json;
use obol_secret::text::plain;
use obol_session::limits::is_name;
use serde::Deserialize;

use super::providers::MAX_PROVIDERS;
use super::settings::{MAX_TEXT_BYTES, ProviderError, ProviderSettings};

/// The longest name of a provider, in bytes: it is part of an address.
const MAX_NAME_BYTES: usize = 32;
/// The longest title, in characters.
const MAX_TITLE_CHARS: usize = 64;
/// The most texts of a list, and values of a map.
const MAX_TEXTS: usize = 256;

/// The file of providers.
#[derive(Debug)]
pub struct ProvidersFile {
    /// They, in the order that they are named in; humans choose in it.
    pub providers: Vec<FileProvider>,
}

/// One of them, and where what the service proves itself with there is.
#[derive(Debug)]
pub struct FileProvider {
    /// Its settings, without the secret.
    pub settings: ProviderSettings,
    /// The organisation whose humans it knows; without it, the service's own.
    pub organisation: Option<String>,
    /// The file with the secret; without it, a public client. From the folder of the file that names it.
    pub client_secret_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    providers: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    title: Option<String>,
    issuer: String,
    client_id: String,
    client_secret_file: Option<PathBuf>,
    scopes: Option<Vec<String>>,
    organisation: Option<String>,
    roles_claim: Option<String>,
    #[serde(default)]
    roles: BTreeMap<String, String>,
    #[serde(default)]
    acr_values: Vec<String>,
    #[serde(default)]
    always_ask: bool,
    #[serde(default)]
    lacks_auth_time: bool,
    #[serde(default)]
    approves_calls: bool,
}

fn wrong<T>(why: impl Into<String>) -> Result<T, ProviderError> {
    Err(ProviderError(why.into()))
}

impl ProvidersFile {
    /// Reads the file's text, for a service of the organisation `own`.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] says what is wrong, and of which provider.
    pub fn from_json(text: &[u8], own: &str) -> Result<Self, ProviderError> {
        let file: File = json::parse(text).map_err(|error| ProviderError(error.to_string()))?;
        if file.providers.is_empty() || file.providers.len() > MAX_PROVIDERS {
            return wrong(format!("providers: 1 to {MAX_PROVIDERS} of them"));
        }
        let read = |one: Text| {
            let name = plain(&one.name).into_owned();
            one.read(own).map_err(|error| ProviderError(format!("provider {name}: {error}")))
        };
        let providers = file.providers.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { providers })
    }
}

impl Text {
    fn read(self, own: &str) -> Result<FileProvider, ProviderError> {
        check_name(&self.name)?;
        if let Some(title) = &self.title {
            check_title(title)?;
        }
        let lists = [&self.scopes.clone().unwrap_or_default(), &self.acr_values];
        let is_sound = |text: &String| {
            !text.is_empty()
                && text.len() <= MAX_TEXT_BYTES
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if lists.iter().any(|list| list.len() > MAX_TEXTS || !list.iter().all(is_sound)) {
            return wrong(format!(
                "scopes and acr_values: up to {MAX_TEXTS} texts of visible ASCII without spaces"
            ));
        }
        let is_pair = |(value, role): (&String, &String)| {
            !value.is_empty() && value.len() <= MAX_TEXT_BYTES && is_name(role)
        };
        if self.roles.len() > MAX_TEXTS || !self.roles.iter().all(is_pair) {
            return wrong(format!(
                "roles: up to {MAX_TEXTS} values of the claim, each with the name of the role that it stands for, such as {{\"obol-developers\": \"dev\"}}"
            ));
        }
        let organisation = self.organisation.filter(|named| named != own);
        if organisation.is_some() && self.roles.is_empty() {
            return wrong(
                "roles: whoever runs the provider of another organisation names its groups, and could name one as a role of yours; say which \
                 of its values stand for which role, such as {\"obol-developers\": \"acme-dev\"}",
            );
        }
        if self.approves_calls && self.client_secret_file.is_none() {
            return wrong(
                "approves_calls wants client_secret_file: a provider asks humans for clients that it knows",
            );
        }
        let mut settings = ProviderSettings::new(&self.issuer, &self.client_id)?.named(self.name);
        if let Some(title) = self.title {
            settings = settings.title(title);
        }
        if let Some(scopes) = self.scopes {
            settings = settings.scopes(scopes);
        }
        if let Some(claim) = self.roles_claim {
            settings = settings.roles_claim(claim);
        }
        let settings = settings
            .roles(self.roles)
            .acr_values(self.acr_values)
            .always_ask(self.always_ask)
            .lacks_auth_time(self.lacks_auth_time)
            .approves_calls(self.approves_calls);
        Ok(FileProvider { settings, organisation, client_secret_file: self.client_secret_file })
    }
}

/// It is part of an address, and of nothing else.
fn check_name(name: &str) -> Result<(), ProviderError> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_letter) {
        true => Ok(()),
        false => wrong(format!(
            "name: 1 to {MAX_NAME_BYTES} small letters, digits and dashes; it is part of the address that browsers come back to"
        )),
    }
}

/// Humans choose by it, so it must not be read as another.
fn check_title(title: &str) -> Result<(), ProviderError> {
    match !title.trim().is_empty() && title.chars().count() <= MAX_TITLE_CHARS && plain(title) == title {
        true => Ok(()),
        false => wrong(format!("title: 1 to {MAX_TITLE_CHARS} characters that are seen as what they are")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(providers: &Value) -> Result<ProvidersFile, String> {
        let text = json!({ "providers": providers }).to_string();
        ProvidersFile::from_json(text.as_bytes(), "corp").map_err(|error| error.to_string())
    }

    fn one(more: &Value) -> Value {
        let mut one = json!({ "name": "corp", "issuer": "https://idp.example", "client_id": "obol" });
        let more = more.as_object().unwrap().clone();
        one.as_object_mut().unwrap().extend(more);
        json!([one])
    }

    #[test]
    fn a_file_names_several_each_with_an_address_of_its_own() {
        let file = read(&json!([
            { "name": "corp", "title": "Corp", "issuer": "https://idp.example", "client_id": "obol",
              "organisation": "corp", "client_secret_file": "corp.secret", "roles_claim": "realm_access.roles" },
            { "name": "entra-2", "issuer": "https://login.example/t/v2.0", "client_id": "6f",
              "organisation": "acme", "roles": { "1f": "dev" } },
        ]))
        .unwrap();
        let [corp, entra] = file.providers.as_slice() else { panic!("{file:?}") };
        assert_eq!((corp.settings.shown(), corp.settings.callback().as_str()), ("Corp", "/callback/corp"));
        assert_eq!(corp.client_secret_file.as_deref(), Some(std::path::Path::new("corp.secret")));
        assert_eq!(
            (entra.settings.shown(), entra.settings.callback().as_str()),
            ("entra-2", "/callback/entra-2")
        );
        assert_eq!(
            (entra.settings.roles["1f"].as_str(), entra.organisation.as_deref()),
            ("dev", Some("acme"))
        );
        assert_eq!(corp.organisation, None, "the service's own");
        assert_eq!(ProviderSettings::new("https://x.example", "obol").unwrap().callback(), "/callback");
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_it_must_be() {
        assert!(read(&json!([])).unwrap_err().contains("1 to 32"));
        for (more, told) in [
            (json!({ "name": "Corp" }), "small letters"),
            (json!({ "name": "a/b" }), "small letters"),
            (json!({ "name": "" }), "small letters"),
            (json!({ "title": "Corp\u{202e}" }), "title"),
            (json!({ "title": " " }), "title"),
            (json!({ "issuer": "http://idp.example" }), "issuer URL"),
            (json!({ "client_id": "" }), "client id"),
            (json!({ "roles": { "x": "d v" } }), "roles"),
            (json!({ "scopes": ["a b"] }), "scopes"),
            (json!({ "approves_calls": true }), "client_secret_file"),
            (json!({ "organisation": "acme" }), "could name one as a role of yours"),
            (json!({ "secret": "x" }), "secret"),
        ] {
            let error = read(&one(&more)).unwrap_err();
            assert!(error.contains(told), "{more}: {error}");
        }
    }
}
