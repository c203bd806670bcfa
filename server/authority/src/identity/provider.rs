//! The provider: what it says of itself, where a browser is sent, and what is made of what it brings back.

use core::time::Duration;
use std::sync::Arc;
use std::time::SystemTime;

use obol_handshake::Random;
use obol_secret::text::plain;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClaimName, CoreClaimType, CoreClientAuthMethod,
    CoreErrorResponseType, CoreGenderClaim, CoreGrantType, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreSubjectIdentifierType,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthType, AuthenticationContextClass, AuthenticationFlow, AuthorizationCode,
    ClaimsVerificationError, Client, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, IdTokenClaims, IdTokenFields, IdTokenVerifier, IssuerUrl,
    Nonce, NonceVerifier, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl, Scope,
    StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::claims::Claims;
use super::login::{Callback, Known, Login, LoginError};
use super::settings::{ProviderError, ProviderSettings};
use super::web::sending;
use crate::directory::Human;
use crate::outbound::Outbound;

/// How old a login may be that is taken, in seconds.
const MAX_LOGIN_AGE_SECS: u64 = 300;
/// How far the provider's clock may be off, in seconds.
const MAX_SKEW_SECS: u64 = 60;
/// How long what the provider says of itself is taken as it is, in seconds; and how long if it does not answer.
pub(super) const FRESH_SECS: u64 = 3_600;
const STALE_SECS: u64 = 86_400;
/// How soon the provider is asked for its keys again because of one that is not known, in seconds.
const REFRESH_PAUSE_SECS: u64 = 10;
/// The longest name that a human is called by, in characters.
const MAX_NAME_CHARS: usize = 100;
/// The longest subject, in bytes: what OpenID Connect allows.
const MAX_SUBJECT_BYTES: usize = 255;

/// Signatures that only the provider can make, by a key that it publishes.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 8] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
];

/// What OpenID Connect's own list of metadata lacks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Extra {
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    /// Where it is told to ask a human itself (CIBA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backchannel_authentication_endpoint: Option<String>,
}

impl AdditionalProviderMetadata for Extra {}

pub(super) type Metadata = ProviderMetadata<
    Extra,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;
type Fields = IdTokenFields<
    Claims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
pub(super) type Tokens = StandardTokenResponse<Fields, CoreTokenType>;
type ProviderClient = Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;
pub(super) type Verified = IdTokenClaims<Claims, CoreGenderClaim>;

/// What the provider says of itself, and since when, in Unix seconds.
pub(super) struct Found {
    pub(super) metadata: Metadata,
    at: u64,
}

/// What was found, and when it was last looked for.
#[derive(Default)]
struct Cache {
    found: Option<Arc<Found>>,
    tried_at: Option<u64>,
}

impl Cache {
    fn younger_than(&self, secs: u64, now: u64) -> Option<Arc<Found>> {
        self.found.clone().filter(|found| now.saturating_sub(found.at) < secs)
    }

    fn was_tried_lately(&self, now: u64) -> bool {
        self.tried_at.is_some_and(|at| now.saturating_sub(at) < REFRESH_PAUSE_SECS)
    }
}

/// An identity provider.
pub struct Provider {
    pub(super) settings: ProviderSettings,
    redirect: RedirectUrl,
    pub(super) outbound: Outbound,
    // Held while it is asked, so that it is asked once by all who wait.
    cache: Mutex<Cache>,
}

pub(super) fn not_trusted(why: impl core::fmt::Display) -> LoginError {
    LoginError::NotTrusted(why.to_string())
}

pub(super) fn unreachable(why: impl core::fmt::Display) -> LoginError {
    LoginError::Unreachable(why.to_string())
}

impl Provider {
    /// For a service that browsers know as `origin`. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// Where the origin is no URL, or the provider is reached over TLS and nobody is trusted.
    pub fn new(settings: ProviderSettings, origin: &str, outbound: Outbound) -> Result<Self, ProviderError> {
        outbound.check(settings.is_over_tls()).map_err(ProviderError)?;
        let redirect = RedirectUrl::new(format!("{origin}{}", settings.callback()));
        let redirect = redirect.map_err(|error| ProviderError(error.to_string()))?;
        Ok(Self { settings, redirect, outbound, cache: Mutex::new(Cache::default()) })
    }

    /// The settings.
    pub fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    /// What the provider says of itself; asked for anew where it is older than `fresh_secs`. What is known stays good for a day if the
    /// provider does not answer.
    pub(super) async fn found(&self, fresh_secs: u64, now: u64) -> Result<Arc<Found>, LoginError> {
        let mut cache = self.cache.lock().await;
        if let Some(found) = cache.younger_than(fresh_secs, now) {
            return Ok(found);
        }
        let stale = cache.younger_than(STALE_SECS, now);
        if let Some(stale) = &stale
            && cache.was_tried_lately(now)
        {
            return Ok(Arc::clone(stale));
        }
        cache.tried_at = Some(now);
        match (self.discover().await, stale) {
            (Ok(metadata), _) => {
                let found = Arc::new(Found { metadata, at: now });
                cache.found = Some(Arc::clone(&found));
                Ok(found)
            }
            (Err(error), Some(stale)) => {
                tracing::warn!(%error, "the identity provider does not say its keys; those known are taken");
                Ok(stale)
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn discover(&self) -> Result<Metadata, LoginError> {
        let issuer = IssuerUrl::new(self.settings.issuer.clone()).map_err(unreachable)?;
        let http = sending(&self.outbound);
        Metadata::discover_async(issuer, &http).await.map_err(|error| unreachable(told(&error)))
    }

    fn client(&self, found: &Found) -> ProviderClient {
        let secret = self.settings.client_secret.as_ref().map(|secret| ClientSecret::new(secret.to_string()));
        let id = ClientId::new(self.settings.client_id.clone());
        let offered = found.metadata.token_endpoint_auth_methods_supported();
        let takes_basic =
            offered.is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
        let auth = if takes_basic { AuthType::BasicAuth } else { AuthType::RequestBody };
        ProviderClient::from_provider_metadata(found.metadata.clone(), id, secret)
            .set_redirect_uri(self.redirect.clone())
            .set_auth_type(auth)
    }

    /// Begins a login: where to send the browser. `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`LoginError::Unreachable`].
    pub async fn begin(
        &self,
        rng: &mut (dyn Random + Send),
        now: u64,
    ) -> Result<(String, Login), LoginError> {
        let login = Login::new(&self.settings.issuer, rng, now);
        let found = self.found(FRESH_SECS, now).await?;
        let client = self.client(&found);
        let (state, nonce) = (CsrfToken::new(login.state.clone()), Nonce::new(login.nonce.clone()));
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(login.verifier.clone()));
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut request = client
            .authorize_url(flow, move || state, move || nonce)
            .add_scopes(self.settings.scopes.iter().cloned().map(Scope::new))
            .set_max_age(Duration::from_secs(MAX_LOGIN_AGE_SECS))
            .set_pkce_challenge(challenge);
        for acr in &self.settings.acr_values {
            request = request.add_auth_context_value(AuthenticationContextClass::new(acr.clone()));
        }
        if self.settings.always_ask {
            request = request.add_prompt(CoreAuthPrompt::Login);
        }
        let (url, _, _) = request.url();
        Ok((url.into(), login))
    }

    /// Ends a login with what the browser brought back. `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    pub async fn finish(&self, login: Login, back: Callback, now: u64) -> Result<Known, LoginError> {
        if login.issuer != self.settings.issuer {
            return Err(not_trusted("it was begun with another provider"));
        }
        let found = self.found(FRESH_SECS, now).await?;
        self.check_issuer(&found, back.iss.as_deref())?;
        if let Some(error) = back.error {
            return Err(LoginError::Said(plain(&error).chars().take(MAX_NAME_CHARS).collect()));
        }
        let code = back.code.ok_or_else(|| not_trusted("there is no code in it"))?;
        let client = self.client(&found);
        let http = sending(&self.outbound);
        let tokens = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(unreachable)?
            .set_pkce_verifier(PkceCodeVerifier::new(login.verifier.clone()))
            .request_async(&http)
            .await
            .map_err(|error| not_trusted(format!("the code was not exchanged: {}", told(&error))))?;
        let nonce = Nonce::new(login.nonce.clone());
        let claims = match self.verify(&found, &tokens, &nonce, false, now) {
            Err(ClaimsVerificationError::SignatureVerification(_)) => {
                // The provider may sign with a key that is newer than what is known of it.
                let found = self.found(0, now).await?;
                self.verify(&found, &tokens, &nonce, false, now)
            }
            verified => verified,
        };
        self.known(claims.map_err(|error| not_trusted(told(&error)))?)
    }

    /// The callback's issuer: without it, an answer of one provider could be taken for another's. One that never says it is told apart
    /// by its own callback address.
    fn check_issuer(&self, found: &Found, said: Option<&str>) -> Result<(), LoginError> {
        let is_promised = found.metadata.additional_metadata().authorization_response_iss_parameter_supported;
        match said {
            Some(said) if said == self.settings.issuer => Ok(()),
            Some(_) => Err(not_trusted("another issuer answers")),
            None if is_promised => {
                Err(not_trusted("the answer does not say its issuer, as the provider promises"))
            }
            None => Ok(()),
        }
    }

    /// The claims, if they are of now and the provider's own; `lacks_login` where a token need not say when somebody logged in.
    pub(super) fn verify<'t>(
        &self,
        found: &Found,
        tokens: &'t Tokens,
        nonce: impl NonceVerifier,
        lacks_login: bool,
        now: u64,
    ) -> Result<&'t Verified, ClaimsVerificationError> {
        let other = |why: &str| ClaimsVerificationError::Other(why.to_owned());
        let token = tokens.id_token().ok_or_else(|| other("there is no ID token in the answer"))?;
        let id = ClientId::new(self.settings.client_id.clone());
        let metadata = &found.metadata;
        let skewed = now.saturating_sub(MAX_SKEW_SECS);
        let (lacks, acr_values) = (lacks_login || self.settings.lacks_auth_time, &self.settings.acr_values);
        // Without the client's secret: it is not a key that a signature could be made with.
        let verifier =
            IdTokenVerifier::new_public_client(id, metadata.issuer().clone(), metadata.jwks().clone())
                .set_allowed_algs(ALGORITHMS)
                .set_time_fn(move || (SystemTime::UNIX_EPOCH + Duration::from_secs(skewed)).into())
                .set_issue_time_verifier_fn(move |issued| {
                    is_recent(issued.timestamp(), now).then_some(()).ok_or_else(late)
                })
                .set_auth_time_verifier_fn(move |at| match at {
                    None if lacks => Ok(()),
                    None => Err("it does not say when the human logged in".to_owned()),
                    Some(at) => is_recent(at.timestamp(), now).then_some(()).ok_or_else(late),
                })
                .set_auth_context_verifier_fn(move |acr| {
                    let is_asked = |acr: &&AuthenticationContextClass| {
                        acr_values.iter().any(|asked| asked == acr.as_str())
                    };
                    let is_fit = acr_values.is_empty() || acr.filter(is_asked).is_some();
                    is_fit
                        .then_some(())
                        .ok_or_else(|| "the login was not of a kind that was asked for".to_owned())
                });
        let claims = token.claims(&verifier, nonce)?;
        if claims.authorized_party().is_some_and(|party| party.as_str() != self.settings.client_id) {
            return Err(other("it was made for another client (azp)"));
        }
        Ok(claims)
    }

    pub(super) fn known(&self, claims: &Verified) -> Result<Known, LoginError> {
        let subject = claims.subject().as_str();
        let is_sound = !subject.is_empty() && subject.len() <= MAX_SUBJECT_BYTES && plain(subject) == subject;
        if !is_sound {
            return Err(not_trusted("its subject is not a name"));
        }
        let name = claims.name().and_then(|names| names.get(None)).map(|name| name.as_str());
        let name = name.or_else(|| claims.preferred_username().map(|name| name.as_str())).unwrap_or(subject);
        let methods = claims.auth_method_refs().map_or(&[][..], Vec::as_slice);
        let login_at = claims.auth_time().unwrap_or_else(|| claims.issue_time()).timestamp();
        Ok(Known {
            human: Human { issuer: self.settings.issuer.clone(), subject: subject.to_owned() },
            name: plain(name).chars().take(MAX_NAME_CHARS).collect(),
            roles: claims.additional_claims().roles(&self.settings).map_err(not_trusted)?,
            mfa: methods.iter().any(|method| method.as_str() == "mfa"),
            login_at: u64::try_from(login_at).unwrap_or_default(),
        })
    }
}

/// Whether it was within the time that a login may be old, as far as clocks agree.
fn is_recent(at: i64, now: u64) -> bool {
    u64::try_from(at).is_ok_and(|at| {
        at <= now.saturating_add(MAX_SKEW_SECS)
            && now.saturating_sub(at) <= MAX_LOGIN_AGE_SECS + MAX_SKEW_SECS
    })
}

fn late() -> String {
    "the login is too old, or from the future: are the clocks right?".to_owned()
}

/// An error with what it comes from: the library's own words are short.
pub(super) fn told(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    plain(&text).chars().take(500).collect()
}

impl core::fmt::Debug for Provider {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Provider").field("settings", &self.settings).finish_non_exhaustive()
    }
}
