//! The identity provider of the Authentication Service, as flags and settings name it.

use crate::exit::{Failure, Outcome};
use crate::settings::args::authority::AsArgs;
use crate::settings::config::As;

/// The provider's issuer URL, if there is to be one.
fn named<'a>(args: &'a AsArgs, config: &'a As) -> Option<&'a String> {
    args.provider.as_ref().or(config.provider.as_ref())
}

/// The port that the provider is reached at.
pub(super) fn port(args: &AsArgs, config: &As) -> Option<u16> {
    let uri: http::Uri = named(args, config)?.parse().ok()?;
    uri.port_u16().or_else(|| Some(if uri.scheme_str() == Some("http") { 80 } else { 443 }))
}

/// This build cannot speak to one.
#[cfg(not(feature = "people"))]
pub(super) fn check(args: &AsArgs, config: &As) -> Outcome {
    match named(args, config) {
        None => Ok(()),
        Some(named) => Err(Failure::usage(format_args!(
            "the identity provider {named} cannot be used: this build of obol has no OpenID Connect; build it with `cargo build \
             --release -p obol --features people`"
        ))),
    }
}

#[cfg(feature = "people")]
pub(super) use self::with_people::{check, open};

#[cfg(feature = "people")]
mod with_people {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use obol_authority::Outbound;
    use obol_authority::identity::{Provider, ProviderSettings};
    use obol_secret::file::{PrivateFile, read_credential};
    use obol_session::limits::is_name;
    use zeroize::Zeroizing;

    use super::{As, AsArgs, Failure, Outcome, named};
    use crate::places::environment;

    /// The longest secret, in bytes.
    const MAX_SECRET_BYTES: usize = 4 << 10;
    /// The secret's name among the credentials of the service manager.
    const CREDENTIAL: &str = "obol-as-client-secret";

    /// Whether what is said of the provider can be.
    pub(crate) fn check(args: &AsArgs, config: &As) -> Outcome {
        settings(args, config).map(drop)
    }

    /// The provider, if there is to be one, for a service that browsers know as `origin`.
    pub(crate) fn open(
        args: &AsArgs,
        config: &As,
        origin: &str,
        outbound: Outbound,
    ) -> Outcome<Option<Provider>> {
        let Some(settings) = settings(args, config)? else { return Ok(None) };
        let file = args.provider_client_secret.as_ref().or(config.provider_client_secret.as_ref());
        let settings = match secret(file)? {
            Some(secret) => settings.client_secret(secret),
            None if config.provider_approves_calls == Some(true) => {
                return Err(Failure::usage(
                    "as.provider_approves_calls wants --provider-client-secret: a provider asks humans for clients that it knows",
                ));
            }
            None => settings,
        };
        Provider::new(settings, origin, outbound).map(Some).map_err(Failure::usage)
    }

    fn settings(args: &AsArgs, config: &As) -> Outcome<Option<ProviderSettings>> {
        let Some(issuer) = named(args, config) else { return Ok(None) };
        let id = args.provider_client_id.as_ref().or(config.provider_client_id.as_ref());
        let id = id.ok_or_else(|| {
            Failure::usage(
                "--provider-client-id is needed: what the service is registered as at the identity provider",
            )
        })?;
        let mut settings = ProviderSettings::new(issuer, id).map_err(Failure::usage)?;
        if let Some(scopes) = &config.provider_scopes {
            settings = settings.scopes(scopes.clone());
        }
        if let Some(claim) = &config.provider_roles_claim {
            settings = settings.roles_claim(claim.clone());
        }
        if let Some(values) = &config.provider_acr_values {
            settings = settings.acr_values(values.clone());
        }
        Ok(Some(
            settings
                .roles(roles(config.provider_roles.as_deref().unwrap_or_default())?)
                .always_ask(config.provider_always_ask == Some(true))
                .lacks_auth_time(config.provider_lacks_auth_time == Some(true))
                .approves_calls(config.provider_approves_calls == Some(true)),
        ))
    }

    /// `value=role`, where the value itself may have such a sign in it.
    fn roles(pairs: &[String]) -> Outcome<BTreeMap<String, String>> {
        let pair = |text: &String| {
            let (value, role) =
                text.rsplit_once('=').filter(|(value, role)| !value.is_empty() && is_name(role))?;
            Some((value.to_owned(), role.to_owned()))
        };
        let wrong = |text: &String| {
            Failure::usage(format_args!(
                "as.provider_roles: {text:?} is not \"value=role\", such as \"obol-developers=dev\""
            ))
        };
        pairs.iter().map(|text| pair(text).ok_or_else(|| wrong(text))).collect()
    }

    /// From the file that was named; else a credential of the service manager.
    fn secret(file: Option<&PathBuf>) -> Outcome<Option<Zeroizing<String>>> {
        let bytes = match (file, environment("CREDENTIALS_DIRECTORY")) {
            (Some(file), _) => PrivateFile::read(file, MAX_SECRET_BYTES)?,
            (None, None) => return Ok(None),
            (None, Some(folder)) => {
                match read_credential(&Path::new(&folder).join(CREDENTIAL), MAX_SECRET_BYTES) {
                    Err(error) if error.is_missing() => return Ok(None),
                    bytes => bytes?,
                }
            }
        };
        let text = core::str::from_utf8(&bytes).ok().map(str::trim_ascii).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Failure::usage("the client secret must be one line of text"))?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_role_is_what_stands_behind_the_last_sign() {
            let found = roles(&["a=b=dev".to_owned(), "CN=ops,DC=x=ops".to_owned()]).unwrap();
            assert_eq!((found["a=b"].as_str(), found["CN=ops,DC=x"].as_str()), ("dev", "ops"));
            for bad in ["dev", "=dev", "a=", "a=d v"] {
                assert!(roles(&[bad.to_owned()]).is_err(), "{bad}");
            }
        }

        #[test]
        fn a_provider_needs_a_client_id_and_an_address_that_nobody_can_read_along() {
            let with = |issuer: &str, id: Option<&str>| {
                let (issuer, id) = (Some(issuer.to_owned()), id.map(str::to_owned));
                check(
                    &AsArgs { provider: issuer, provider_client_id: id, ..AsArgs::default() },
                    &As::default(),
                )
            };
            assert!(with("https://idp.example", Some("obol")).is_ok());
            assert!(
                with("https://idp.example", None).unwrap_err().to_string().contains("--provider-client-id")
            );
            for bad in ["http://idp.example", "idp.example", "https://idp.example?x=1"] {
                assert!(with(bad, Some("obol")).is_err(), "{bad}");
            }
        }
    }
}
