//! Where the sessions of a resource server come from that follows an Authentication Service: which service, and the identity
//! with which this copy has joined it.

use std::path::PathBuf;
use std::sync::Arc;

use obol_handshake::IdentityKey;
use obol_resource::provision::{Follower, Lease};
use obol_token::Audience;
use obol_uplink::{Pinned, Uplink, UplinkOptions};
use obol_verify::{SessionStore, SystemClock};

use crate::exit::{Failure, Outcome};
use crate::places::place;
use crate::role::master_key::Sources;
use crate::role::pin;
use crate::settings::args::{RsArgs, RsAuthorityArgs};
use crate::settings::config::Config;

/// The file with the copy's identity, where none is named.
const IDENTITY_KEY: &str = "rs-identity.key";
/// What the identity is derived for from what the file holds.
const PURPOSE: &str = "obol-rs-identity-v1";
/// How long nothing needs to be heard if nothing is said, in seconds.
const LEASE_SECS: u64 = 300;

/// A service that is followed.
pub(crate) struct Followed {
    uplink: Uplink,
    key: IdentityKey,
    lease_secs: u64,
}

/// Which service is followed, if one is.
pub(crate) fn service(args: &RsAuthorityArgs, config: &Config) -> Outcome<Option<Pinned>> {
    let url = args.authority.as_ref().or(config.rs.authority.as_ref());
    let file = args.rs_pin_file.as_ref().or(config.rs.pin_file.as_ref());
    if url.is_none() && file.is_none() {
        return Ok(None);
    }
    pin::find("rs", "authority", url, file).map(Some)
}

/// What is wrong with it, and with the way to it, as far as that can be said without asking it.
pub(crate) fn check(args: &RsAuthorityArgs, config: &Config) -> Outcome {
    match service(args, config)? {
        Some(service) => way(args, config, service).map(drop),
        None => Ok(()),
    }
}

fn way(args: &RsAuthorityArgs, config: &Config, service: Pinned) -> Outcome<Uplink> {
    let mut options = UplinkOptions::new();
    if let Some(file) = args.rs_ca_file.as_ref().or(config.rs.ca_file.as_ref()) {
        options = options.ca_file(file);
    }
    Uplink::new(service, &options).map_err(Failure::usage)
}

/// The way to it, and this copy's identity.
pub(crate) fn uplink(
    args: &RsAuthorityArgs,
    config: &Config,
    service: Pinned,
) -> Outcome<(Uplink, IdentityKey)> {
    let uplink = way(args, config, service)?;
    let sources = Sources {
        named: args.rs_identity_key.as_deref(),
        credential: "obol-rs-identity-key",
        keychain: None,
        set: config.rs.identity_key.as_ref(),
        usual: IDENTITY_KEY,
        sealed: &[],
    };
    Ok((uplink, IdentityKey::from_bytes(&sources.load()?.derive(PURPOSE))))
}

/// Where that identity is.
pub(crate) fn identity_key(args: &RsAuthorityArgs, config: &Config) -> Outcome<PathBuf> {
    place(args.rs_identity_key.as_ref().or(config.rs.identity_key.as_ref()), IDENTITY_KEY)
}

impl Followed {
    /// What the settings name, if they name a service. Sessions then come from there and from nowhere else.
    pub(crate) fn find(args: &RsArgs, config: &Config, files: &[PathBuf]) -> Outcome<Option<Self>> {
        let Some(service) = service(&args.service, config)? else { return Ok(None) };
        if !files.is_empty() {
            return Err(Failure::usage(
                "sessions come either from the Authentication Service in rs.authority or from files, not from both: each would end sessions that it does not list",
            ));
        }
        let (uplink, key) = uplink(&args.service, config, service)?;
        Ok(Some(Self { uplink, key, lease_secs: config.rs.lease.unwrap_or(LEASE_SECS) }))
    }

    /// Its lease.
    pub(crate) fn lease(&self, clock: &Arc<SystemClock>) -> Arc<Lease> {
        Arc::new(Lease::new(self.lease_secs, Arc::<SystemClock>::clone(clock)))
    }

    /// Follows it, once it runs.
    pub(crate) fn follower(
        self,
        audience: Audience,
        sessions: Arc<dyn SessionStore>,
        lease: Arc<Lease>,
        clock: &Arc<SystemClock>,
    ) -> Follower {
        Follower::new(self.uplink, self.key, audience, sessions, lease, Arc::<SystemClock>::clone(clock))
    }
}
