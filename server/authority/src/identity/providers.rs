//! All providers that humans of a service log in with. Each has its own name, issuer and callback address, so that nothing of one is
//! taken for another's.

use std::sync::Arc;

use super::login::Login;
use super::provider::Provider;
use super::settings::ProviderError;

/// The most providers of one service.
pub(super) const MAX_PROVIDERS: usize = 32;

/// See the module's header. There is at least one.
#[derive(Debug)]
pub struct Providers(Vec<Arc<Provider>>);

impl From<Provider> for Providers {
    fn from(provider: Provider) -> Self {
        Self(vec![Arc::new(provider)])
    }
}

impl Providers {
    /// These, of which no two are called the same or have one issuer: a human is an issuer and a subject.
    ///
    /// # Errors
    ///
    /// Where there is none, or there are too many, or two could be confused.
    pub fn new(all: Vec<Provider>) -> Result<Self, ProviderError> {
        if all.is_empty() || all.len() > MAX_PROVIDERS {
            return Err(ProviderError(format!("1 to {MAX_PROVIDERS} providers")));
        }
        for (number, one) in all.iter().enumerate() {
            let before = all.iter().take(number).map(Provider::settings);
            let one = one.settings();
            for other in before {
                if other.issuer() == one.issuer() {
                    return Err(ProviderError(format!("the issuer {} is named twice", one.issuer())));
                }
                if other.name() == one.name() {
                    let name = one.name().unwrap_or_default();
                    return Err(ProviderError(format!("the name {name:?} is given twice")));
                }
            }
        }
        Ok(Self(all.into_iter().map(Arc::new).collect()))
    }

    /// All of them, in the order that they are named in.
    pub(crate) fn all(&self) -> &[Arc<Provider>] {
        &self.0
    }

    /// The one, where there is one.
    pub(crate) fn only(&self) -> Option<&Arc<Provider>> {
        match self.0.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The one of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Provider>> {
        self.0.iter().find(|one| one.settings().name() == Some(name))
    }

    /// The one whose humans say that they are of this issuer.
    pub(crate) fn of_issuer(&self, issuer: &str) -> Option<&Arc<Provider>> {
        self.0.iter().find(|one| one.settings().issuer() == issuer)
    }

    /// Whether any of them asks humans about calls.
    pub(crate) fn ask_for_calls(&self) -> bool {
        self.0.iter().any(|one| one.settings().asks_for_calls())
    }

    /// The one that a login was begun with, if the answer came to its own callback: that of this name, or of none.
    pub(crate) fn answered(&self, login: &Login, came_to: Option<&str>) -> Option<&Arc<Provider>> {
        self.of_issuer(&login.issuer).filter(|one| one.settings().name() == came_to)
    }
}
