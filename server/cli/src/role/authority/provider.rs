//! The identity providers of the Authentication Service, as flags and settings name them.

use std::path::PathBuf;

use obol_authority::Outbound;

use crate::exit::{Failure, Outcome};
use crate::settings::args::authority::AsArgs;
use crate::settings::config::As;

/// The provider's issuer URL, if there is to be one.
fn named<'a>(args: &'a AsArgs, config: &'a As) -> Option<&'a String> {
    args.provider.as_ref().or(config.provider.as_ref())
}

/// The service's own organisation.
pub(super) fn own<'a>(args: &'a AsArgs, config: &'a As) -> &'a str {
    args.org.as_deref().or(config.org.as_deref()).unwrap_or("default")
}

/// The file that names several, if there is to be one.
fn file<'a>(args: &'a AsArgs, config: &'a As) -> Option<&'a PathBuf> {
    args.providers.as_ref().or(config.providers.as_ref())
}

/// This build cannot speak to one.
#[cfg(not(feature = "people"))]
pub(super) fn check(args: &AsArgs, config: &As, _: &Outbound) -> Outcome {
    let file = file(args, config).map(|file| file.display().to_string());
    match named(args, config).cloned().or(file) {
        None => Ok(()),
        Some(named) => Err(Failure::usage(format_args!(
            "the identity provider {named} cannot be used: this build of obol has no OpenID Connect; build it with `cargo build \
             --release -p obol --features people`"
        ))),
    }
}

/// This build reaches none.
#[cfg(not(feature = "people"))]
pub(super) fn ports(_: &AsArgs, _: &As) -> Outcome<Vec<u16>> {
    Ok(Vec::new())
}

#[cfg(feature = "people")]
pub(super) use self::with_people::{check, open, ports};

#[cfg(feature = "people")]
mod with_people {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use obol_authority::Settings;
    use obol_authority::identity::{FileProvider, Provider, ProviderSettings, Providers, ProvidersFile};
    use obol_secret::file::{PrivateFile, read_credential};
    use obol_session::limits::is_name;
    use zeroize::Zeroizing;

    use super::{As, AsArgs, Failure, Outbound, Outcome, file, named, own};
    use crate::places::environment;

    /// The longest secret, in bytes.
    const MAX_SECRET_BYTES: usize = 4 << 10;
    /// The longest file of providers, in bytes.
    const MAX_FILE_BYTES: usize = 256 << 10;
    /// The secret's name among the credentials of the service manager.
    const CREDENTIAL: &str = "obol-as-client-secret";

    /// Whether what is said of the providers can be.
    pub(crate) fn check(args: &AsArgs, config: &As, outbound: &Outbound) -> Outcome {
        let Some((_, several)) = several(args, config)? else {
            // None at all is well too.
            let Some(one) = settings(args, config)? else { return Ok(()) };
            return together(core::iter::once(one), "https://as.example", outbound).map(drop);
        };
        let service = Settings::new("https://as.example", own(args, config)).map_err(Failure::usage)?;
        several.providers.iter().try_fold(service, organised)?;
        let settings = several.providers.into_iter().map(|one| one.settings);
        together(settings, "https://as.example", outbound).map(drop)
    }

    /// The ports that the providers are reached at.
    pub(crate) fn ports(args: &AsArgs, config: &As) -> Outcome<Vec<u16>> {
        let several = several(args, config)?.map(|(_, several)| several.providers);
        let settings = several.into_iter().flatten().map(|one| one.settings);
        Ok(settings.chain(self::settings(args, config)?).filter_map(|one| one.port()).collect())
    }

    /// The providers, if there are to be any, for a service of these settings, which then know whose humans are whose.
    pub(crate) fn open(
        args: &AsArgs,
        config: &As,
        service: Settings,
        outbound: &Outbound,
    ) -> Outcome<(Settings, Option<Providers>)> {
        let origin = service.origin().to_owned();
        let Some((file, several)) = several(args, config)? else {
            return Ok(match one(args, config, &origin, outbound)? {
                Some(one) => (service.with_pages(), Some(Providers::from(one))),
                None => (service, None),
            });
        };
        let service = several.providers.iter().try_fold(service.with_pages(), organised)?;
        let mut settings = Vec::new();
        for one in several.providers {
            // A name without a folder is of a file beside the one that names it.
            let place = one.client_secret_file.map(|secret| match file.parent() {
                Some(folder) => folder.join(secret),
                None => secret,
            });
            let secret =
                place.map(|place| text_of(&PrivateFile::read(&place, MAX_SECRET_BYTES)?)).transpose()?;
            settings.push(match secret {
                Some(secret) => one.settings.client_secret(secret),
                None => one.settings,
            });
        }
        Ok((service, Some(together(settings.into_iter(), &origin, outbound)?)))
    }

    /// The settings, which know of one more provider whose its humans are.
    fn organised(service: Settings, one: &FileProvider) -> Outcome<Settings> {
        let issuer = one.settings.issuer();
        let name = one.organisation.clone().unwrap_or_else(|| service.own_organisation().to_owned());
        service
            .organisation(issuer, &name)
            .map_err(|error| Failure::usage(format_args!("as.providers: {issuer}: {error}")))
    }

    fn together(
        settings: impl Iterator<Item = ProviderSettings>,
        origin: &str,
        outbound: &Outbound,
    ) -> Outcome<Providers> {
        let providers = settings.map(|one| Provider::new(one, origin, outbound.clone()));
        let providers = providers.collect::<Result<_, _>>().map_err(Failure::usage)?;
        Providers::new(providers).map_err(|error| Failure::usage(format_args!("as.providers: {error}")))
    }

    /// What the file says, where one is named. Whoever could write it could say who is whom.
    fn several<'a>(args: &'a AsArgs, config: &'a As) -> Outcome<Option<(&'a PathBuf, ProvidersFile)>> {
        let Some(file) = file(args, config) else { return Ok(None) };
        if let Some(named) = named(args, config) {
            return Err(Failure::usage(format_args!(
                "as.provider names {named} and as.providers names a file; use one of them, and for several providers the file"
            )));
        }
        let text = PrivateFile::read(file, MAX_FILE_BYTES).map_err(Failure::usage)?;
        let read = ProvidersFile::from_json(&text, own(args, config));
        read.map(|read| Some((file, read)))
            .map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))
    }

    /// The one that flags or settings name without a file.
    fn one(args: &AsArgs, config: &As, origin: &str, outbound: &Outbound) -> Outcome<Option<Provider>> {
        let Some(settings) = settings(args, config)? else { return Ok(None) };
        let file = args.provider_client_secret.as_ref().or(config.provider_client_secret.as_ref());
        let settings = match secret(file)? {
            Some(secret) => settings.client_secret(secret),
            None if config.provider_approves_calls == Some(true) => {
                return Err(Failure::usage(
                    "as.provider_approves_calls needs --provider-client-secret: a provider asks humans only for clients that it can authenticate",
                ));
            }
            None => settings,
        };
        Provider::new(settings, origin, outbound.clone()).map(Some).map_err(Failure::usage)
    }

    fn settings(args: &AsArgs, config: &As) -> Outcome<Option<ProviderSettings>> {
        let Some(issuer) = named(args, config) else { return Ok(None) };
        let id = args.provider_client_id.as_ref().or(config.provider_client_id.as_ref());
        let id = id.ok_or_else(|| {
            Failure::usage("--provider-client-id is needed: the service's client ID at the identity provider")
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
        text_of(&bytes).map(Some)
    }

    fn text_of(bytes: &[u8]) -> Outcome<Zeroizing<String>> {
        let text = core::str::from_utf8(bytes).ok().map(str::trim_ascii).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Failure::usage("the client secret must be one line of text"))?;
        Ok(Zeroizing::new(text.to_owned()))
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
                let args = AsArgs { provider: issuer, provider_client_id: id, ..AsArgs::default() };
                check(&args, &As::default(), &Outbound::new(None).unwrap())
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
