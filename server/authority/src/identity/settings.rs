//! Which identity provider knows the humans, and how their roles are read from what it says.

use core::fmt;
use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::outbound::Target;

/// The claim that names roles if nothing else is said.
const DEFAULT_ROLES_CLAIM: &str = "groups";
/// The longest text in a setting, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 1_024;
/// Where a browser comes back to from the provider.
const CALLBACK: &str = "/callback";

/// What an operator sets of the identity provider.
#[derive(Clone)]
pub struct ProviderSettings {
    pub(super) name: Option<String>,
    pub(super) title: Option<String>,
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) client_secret: Option<Zeroizing<String>>,
    pub(super) scopes: Vec<String>,
    pub(super) roles_claim: String,
    pub(super) roles: BTreeMap<String, String>,
    pub(super) acr_values: Vec<String>,
    pub(super) always_ask: bool,
    pub(super) lacks_auth_time: bool,
    pub(super) approves_calls: bool,
}

/// A setting of the provider that cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProviderError(pub(super) String);

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for ProviderError {}

impl ProviderSettings {
    /// The provider with this issuer URL, where the service is known as `client_id`.
    ///
    /// # Errors
    ///
    /// Where either cannot be.
    pub fn new(issuer: &str, client_id: &str) -> Result<Self, ProviderError> {
        if Target::parse(issuer).is_err() || issuer.len() > MAX_TEXT_BYTES || issuer.contains(['?', ' ']) {
            return Err(ProviderError(format!(
                "the provider {issuer:?} must be the issuer URL as the provider writes it, with https:// (http:// on this machine alone)"
            )));
        }
        if client_id.is_empty() || client_id.len() > MAX_TEXT_BYTES || client_id.contains(char::is_control) {
            return Err(ProviderError(
                "the client id is missing: the provider gives one when the service is registered there"
                    .to_owned(),
            ));
        }
        Ok(Self {
            name: None,
            title: None,
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            client_secret: None,
            scopes: vec!["profile".to_owned()],
            roles_claim: DEFAULT_ROLES_CLAIM.to_owned(),
            roles: BTreeMap::new(),
            acr_values: Vec::new(),
            always_ask: false,
            lacks_auth_time: false,
            approves_calls: false,
        })
    }

    /// What it is called here, where there are several: browsers come back from it to an address of its own, `/callback/NAME`.
    #[must_use]
    pub fn named(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    /// What humans choose it by; its name if not said.
    #[must_use]
    pub fn title(mut self, title: String) -> Self {
        self.title = Some(title);
        self
    }

    /// What the service proves itself with there. Without it, it is a public client, which PKCE alone protects.
    #[must_use]
    pub fn client_secret(mut self, secret: Zeroizing<String>) -> Self {
        self.client_secret = Some(secret);
        self
    }

    /// Scopes to ask for beside `openid`; `profile` if not said.
    #[must_use]
    pub fn scopes(mut self, scopes: Vec<String>) -> Self {
        self.scopes = scopes;
        self
    }

    /// The claim of the ID token that names roles: a name, or a path with dots through objects; `groups` if not said.
    #[must_use]
    pub fn roles_claim(mut self, claim: String) -> Self {
        self.roles_claim = claim;
        self
    }

    /// Which role each value of that claim stands for. Other values stand for none. Without a map each is the role of that name.
    #[must_use]
    pub fn roles(mut self, roles: BTreeMap<String, String>) -> Self {
        self.roles = roles;
        self
    }

    /// Kinds of login to ask for; one of them must be what the provider says it was.
    #[must_use]
    pub fn acr_values(mut self, values: Vec<String>) -> Self {
        self.acr_values = values;
        self
    }

    /// Has the provider ask for the password at each login, also of somebody whom it knows already.
    #[must_use]
    pub fn always_ask(mut self, always: bool) -> Self {
        self.always_ask = always;
        self
    }

    /// The provider does not say when somebody logged in, so that the token's own time is taken for it. How fresh a login is is then not
    /// known.
    #[must_use]
    pub fn lacks_auth_time(mut self, lacks: bool) -> Self {
        self.lacks_auth_time = lacks;
        self
    }

    /// The provider asks who answers for an agent for their yes to a call, on a device of theirs (CIBA).
    #[must_use]
    pub fn approves_calls(mut self, approves: bool) -> Self {
        self.approves_calls = approves;
        self
    }

    /// Whether it does.
    pub(crate) fn asks_for_calls(&self) -> bool {
        self.approves_calls
    }

    /// The issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What it is called here, if it is called anything.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What humans choose it by.
    pub(crate) fn shown(&self) -> &str {
        self.title.as_deref().or(self.name.as_deref()).unwrap_or(&self.issuer)
    }

    /// Where on the service's own pages a browser comes back to from it.
    pub(super) fn callback(&self) -> String {
        match &self.name {
            None => CALLBACK.to_owned(),
            Some(name) => format!("{CALLBACK}/{name}"),
        }
    }

    pub(super) fn is_over_tls(&self) -> bool {
        Target::parse(&self.issuer).is_ok_and(|target| target.is_tls())
    }

    /// The port that it is reached at.
    pub fn port(&self) -> Option<u16> {
        Target::parse(&self.issuer).ok().map(|target| target.port())
    }
}

impl fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderSettings")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .field("roles_claim", &self.roles_claim)
            .finish_non_exhaustive()
    }
}
