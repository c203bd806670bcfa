//! What flags and settings say of the Authentication Service, checked as far as that can be without opening anything.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_authority::directory::ClonePolicy;
use obol_authority::http::{Certificate, Options, Rate, TLS13};
use obol_authority::{AttestorSettings, EventSettings, Outbound, Settings};
use obol_probe::host::names_loopback;
use obol_secret::file::PrivateFile;
use obol_session::Suite;
use obol_session::limits::is_name;

use super::provider;
use crate::exit::{Failure, Outcome};
use crate::places::place;
use crate::policy::folder;
use crate::role::audit::AS_KEY;
use crate::settings::args::authority::AsArgs;
use crate::settings::config::As;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8720);
const DAY_SECS: u64 = 86_400;
/// Messages of one kind a second from one address, unless told otherwise.
const DEFAULT_RATE: u32 = 20;

/// The longest file of security events, in bytes.
const MAX_EVENTS_BYTES: usize = 256 << 10;

/// The longest file of attestors, in bytes.
const MAX_ATTESTORS_BYTES: usize = 256 << 10;

/// A certificate chain, and its private key.
pub(super) type CertificateFiles = (PathBuf, PathBuf);

/// Where everything is.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) directory: PathBuf,
    /// What counts the directory's commits.
    pub(super) witness: PathBuf,
    pub(super) identity_key: PathBuf,
    /// The audit log and its key.
    pub(super) audit: Option<(PathBuf, PathBuf)>,
    pub(super) policy: Option<PathBuf>,
    pub(super) certificate: Option<CertificateFiles>,
    /// The file of security events.
    pub(super) events: Option<PathBuf>,
    /// The file of those who are taken at their word.
    pub(super) attestors: Option<PathBuf>,
}

impl Places {
    /// Makes the state folder where something is in it.
    pub(super) fn find(args: &AsArgs, config: &As) -> Outcome<Self> {
        let either = |flag: &Option<PathBuf>, set: &Option<PathBuf>| flag.clone().or_else(|| set.clone());
        let log = either(&args.audit.audit_log, &config.audit_log);
        let key = either(&args.audit.audit_key, &config.audit_key);
        let directory = place(either(&args.directory, &config.directory).as_ref(), "authority.redb")?;
        Ok(Self {
            witness: config.witness.clone().unwrap_or_else(|| directory.with_extension("witness")),
            directory,
            identity_key: identity_key(either(&args.identity_key, &config.identity_key).as_ref())?,
            audit: log.map(|log| Ok::<_, Failure>((log, place(key.as_ref(), AS_KEY)?))).transpose()?,
            policy: either(&args.policy, &config.policy),
            certificate: certificate_files(args, config)?,
            events: either(&args.events, &config.events),
            attestors: either(&args.attestors, &config.attestors),
        })
    }
}

/// The file with the private half of the key that agents pin.
pub(super) fn identity_key(named: Option<&PathBuf>) -> Outcome<PathBuf> {
    place(named, "as-identity.key")
}

fn certificate_files(args: &AsArgs, config: &As) -> Outcome<Option<CertificateFiles>> {
    let chain = args.tls_cert.as_ref().or(config.tls_cert.as_ref());
    match (chain, args.tls_key.as_ref().or(config.tls_key.as_ref())) {
        (Some(chain), Some(key)) => Ok(Some((chain.clone(), key.clone()))),
        (None, None) => Ok(None),
        _ => Err(Failure::usage("a certificate and its key go together: name --tls-cert and --tls-key")),
    }
}

/// Reads the certificate, where there is to be one.
pub(super) fn certificate(files: Option<&CertificateFiles>) -> Outcome<Option<Arc<Certificate>>> {
    let Some((chain, key)) = files else { return Ok(None) };
    Certificate::load(chain, key, TLS13).map(|loaded| Some(Arc::new(loaded))).map_err(Failure::usage)
}

/// The address to listen on.
pub(super) fn listen(args: &AsArgs, config: &As) -> SocketAddr {
    args.listen.or(config.listen).unwrap_or(DEFAULT_LISTEN)
}

/// What agents know the service as: what is named, or without TLS its address on this machine.
pub(super) fn origin(named: Option<&str>, listen: SocketAddr, with_tls: bool) -> Outcome<String> {
    let Some(named) = named else {
        return match listen.ip().is_loopback() && listen.port() != 0 && !with_tls {
            true => Ok(format!("http://{listen}")),
            false => Err(Failure::usage(
                "--origin is needed: the service's address as agents know it, such as https://as.example; its certificate must be for that name",
            )),
        };
    };
    match named.strip_prefix("http://") {
        Some(rest) if !names_loopback(rest) => Err(Failure::usage(format_args!(
            "{named}: agents use http:// only with a service on their own machine; name an origin with https://"
        ))),
        _ => Ok(named.to_owned()),
    }
}

/// The settings of the service.
pub(super) fn settings(args: &AsArgs, config: &As) -> Outcome<Settings> {
    let named = args.origin.as_deref().or(config.origin.as_deref());
    let with_tls = certificate_files(args, config)?.is_some();
    let origin = origin(named, listen(args, config), with_tls)?;
    let mut settings = Settings::new(&origin, provider::own(args, config)).map_err(Failure::usage)?;
    if let Some(secs) = config.session_life {
        settings = settings.session_secs(secs).map_err(Failure::usage)?;
    }
    if let Some(secs) = config.lease {
        settings = settings.lease_secs(secs).map_err(Failure::usage)?;
    }
    if let Some(days) = config.approval_days {
        settings = settings.approval_secs(days.saturating_mul(DAY_SECS)).map_err(Failure::usage)?;
    }
    if let Some(count) = config.call_approvals {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        settings = settings.call_approvals_per_hour(count).map_err(Failure::usage)?;
    }
    if let Some(secs) = config.call_wait {
        settings = settings.call_wait_secs(secs).map_err(Failure::usage)?;
    }
    if let Some(secs) = config.operator_login {
        settings = settings.login_secs(secs).map_err(Failure::usage)?;
    }
    settings = settings.operator_roles(operator_roles(config)?);
    if let Some(number) = config.min_suite {
        let suite = u8::try_from(number).ok().and_then(Suite::from_number);
        settings = settings.min_suite(suite.ok_or_else(|| Failure::usage("as.min_suite must be 1 to 4"))?);
    }
    Ok(match config.suspend_clones {
        Some(true) => settings.clones(ClonePolicy::Suspend),
        _ => settings,
    })
}

/// The roles that may operate the service from elsewhere.
fn operator_roles(config: &As) -> Outcome<Vec<String>> {
    let roles = config.operator_roles.clone().unwrap_or_default();
    match roles.iter().find(|role| !is_name(role)) {
        None => Ok(roles),
        Some(bad) => Err(Failure::usage(format_args!("as.operator_roles: {bad:?} is not a role's name"))),
    }
}

/// Where those who watch the process ask, if anywhere: on loopback alone.
pub(super) fn probes(args: &AsArgs, config: &As) -> Outcome<Option<SocketAddr>> {
    let named = args.http.as_ref().or(config.http.as_ref()).filter(|address| *address != "off");
    let Some(named) = named else { return Ok(None) };
    let address = named.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    address.map(Some).ok_or_else(|| {
        Failure::usage("--http is a loopback address with a port, such as 127.0.0.1:8721, or off")
    })
}

/// Where to listen, and how.
pub(super) fn options(
    args: &AsArgs,
    config: &As,
    certificate: Option<&Arc<Certificate>>,
) -> Outcome<Options> {
    let per_second = config.address_rate.unwrap_or(DEFAULT_RATE);
    let rate = Rate::new(per_second).map(|rate| rate.with_burst(per_second.saturating_mul(2)));
    let mut options = Options::new(listen(args, config)).rate(rate);
    if let Some(connections) = config.connections {
        options = options.max_connections(connections);
    }
    if let Some(certificate) = certificate {
        options = options.certificate(Arc::clone(certificate));
    }
    if let Some(address) = probes(args, config)? {
        options = options.http_at(address);
    }
    options.check().map_err(Failure::unavailable)?;
    Ok(options)
}

/// Reads the file of security events, where there is one.
pub(super) fn events(file: Option<&PathBuf>, origin: &str, outbound: &Outbound) -> Outcome<EventSettings> {
    let Some(file) = file else { return Ok(EventSettings::default()) };
    let text = PrivateFile::read(file, MAX_EVENTS_BYTES).map_err(Failure::usage)?;
    let read = EventSettings::from_json(&text, origin, file.parent().unwrap_or(Path::new("")));
    let settings = read.map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))?;
    outbound.check(settings.is_over_tls()).map_err(Failure::usage)?;
    Ok(settings)
}

/// Reads the file of those who are taken at their word, where there is one. Whoever could write it could let agents in.
pub(super) fn attestors(
    file: Option<&PathBuf>,
    origin: &str,
    outbound: &Outbound,
) -> Outcome<AttestorSettings> {
    let Some(file) = file else { return Ok(AttestorSettings::default()) };
    let text = PrivateFile::read(file, MAX_ATTESTORS_BYTES).map_err(Failure::usage)?;
    let read = AttestorSettings::from_json(&text, origin);
    let settings = read.map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))?;
    outbound.check(settings.is_over_tls()).map_err(Failure::usage)?;
    Ok(settings)
}

/// What the service asks and tells others with.
pub(super) fn outbound(config: &As) -> Outcome<Outbound> {
    Outbound::new(config.ca_file.as_deref()).map_err(Failure::usage)
}

/// Everything that is wrong with the settings, for `obol config check`.
pub(crate) fn check(config: &As) -> Vec<Failure> {
    let args = AsArgs::default();
    let mut found = Vec::new();
    let outbound = outbound(config);
    found.extend(outbound.as_ref().ok().and_then(|outbound| provider::check(&args, config, outbound).err()));
    match (settings(&args, config), outbound) {
        (Ok(settings), Ok(outbound)) => {
            found.extend(events(config.events.as_ref(), settings.origin(), &outbound).err());
            found.extend(attestors(config.attestors.as_ref(), settings.origin(), &outbound).err());
        }
        (settings, outbound) => found.extend(settings.err().into_iter().chain(outbound.err())),
    }
    found.extend(super::mail::check(config).err());
    let files = certificate_files(&args, config).and_then(|files| certificate(files.as_ref()));
    match files {
        Err(failure) => found.push(failure),
        Ok(certificate) => found.extend(options(&args, config, certificate.as_ref()).err()),
    }
    if let Some(policy) = &config.policy {
        found.extend(folder::version(policy).err());
    }
    found.iter().map(|failure| failure.about("[as]")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_the_address_only_on_this_machine_without_tls() {
        let here: SocketAddr = "127.0.0.1:8720".parse().unwrap();
        let everywhere: SocketAddr = "0.0.0.0:8720".parse().unwrap();
        assert_eq!(origin(None, here, false).unwrap(), "http://127.0.0.1:8720");
        assert_eq!(origin(None, "[::1]:1".parse().unwrap(), false).unwrap(), "http://[::1]:1");
        let no_port = "127.0.0.1:0".parse().unwrap();
        for (listen, tls) in [(here, true), (everywhere, false), (no_port, false)] {
            let failure = origin(None, listen, tls).unwrap_err().to_string();
            assert!(failure.contains("--origin"), "{failure}");
        }
        for named in ["https://as.example", "http://localhost:1", "http://127.0.0.1", "http://[::1]:8720"] {
            assert_eq!(origin(Some(named), everywhere, true).unwrap(), named);
        }
        for named in ["http://as.example", "http://10.0.0.1:80", "http://127.0.0.1.evil.example"] {
            assert!(origin(Some(named), here, false).is_err(), "{named}");
        }
    }
}
