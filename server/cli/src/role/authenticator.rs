//! `obol authenticator`: keeps the agent's identity, opens its sessions and gives them to the sidecar.
//!
//! As with the sidecar the order of the start matters: the process is closed to others before a key is loaded, what lies
//! outside the sandbox is taken before it is entered, and it is entered while there is one thread. The sandbox is the other
//! way round than the sidecar's: it may reach the service, and has no port and no store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_authenticator::service::Options;
use obol_authenticator::{Authenticator, Identity, Wishes};
use obol_ipc::Endpoint;
use obol_secret::file::{Fault, PrivateFile};
use obol_session::Suite;
use obol_session::clock::SystemClock;
use obol_sidecar::{Access, HttpAddress, HttpListener, Listener, OperatorSocket};
use obol_uplink::{Pinned, Uplink, UplinkOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::{environment, folder_of, place};
use crate::role::master_key::Sources;
use crate::role::tqs::sockets::{access, beside, http_at};
use crate::role::{audit, pin, sandbox};
use crate::settings::args::authenticator::{AuthenticatorArgs, AuthenticatorRoleArgs};
use crate::settings::args::{AuditLogArgs, LogLevel};
use crate::settings::config::{self, Config, Origin};
use crate::settings::log_level;
use crate::signals::{LAST_WAIT, service_manager, shutdown_signal};

/// File of the HTTP listener, beside the agent's socket.
const HTTP_SOCKET: &str = "auth-http.sock";
/// Suites from the strongest on.
const SUITES: [Suite; 4] = [Suite::HybridAesGcm, Suite::AesGcm, Suite::ChaCha20Poly1305, Suite::Tbac];

/// What it listens on.
struct Sockets {
    auth: Listener,
    operator: OperatorSocket,
    http: Option<HttpListener>,
    control: Endpoint,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &AuthenticatorRoleArgs, config: &Config, origin: &Origin) -> Outcome {
    apply_log_level(config, origin);
    let mut hardening = obol_sandbox::harden_process();
    let notifier = service_manager();
    let service = pinned(&args.authenticator, config)?;
    let settings = &config.authenticator;
    let place_of = args.authenticator.identity.as_ref().or(settings.identity.as_ref());
    let path = place(place_of, "authenticator/agent.identity")?;
    let _until_the_end = alone(&path)?;
    let identity = identity(&args.authenticator, config, &path)?;
    let options = connecting(&args.authenticator, config);
    let authenticator = Authenticator::new(service.clone(), identity, &options).map_err(Failure::usage)?;
    let audit_places = audit_places(&args.audit, config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sockets = {
        let _inside = runtime.enter();
        Sockets::bind(args, config)?
    };
    let sandbox = (!args.no_sandbox && settings.sandbox != Some(false)).then(|| {
        sandbox::of_authenticator(&path, &service, sockets.folders(), audit_places.as_ref(), origin)
    });
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, None);
    // It has a thread of its own.
    let log = audit_places.map(|(log, key)| audit::open_beside_key(&log, &key, settings.audit_file_bytes));
    let log = log.transpose()?;
    log_lines::begin()?;
    let words = authenticator.identity().public().words();
    tracing::info!(
        service = service.origin(),
        words,
        agent = authenticator.identity().agent_id(),
        "the identity is ready"
    );
    let mut options = Options::new(sockets.auth, sockets.control)
        .wishes(wishes(config)?)
        .operator(sockets.operator)
        .rotate_days(settings.rotate_days.unwrap_or(90))
        .clock(Arc::new(SystemClock::new()))
        .notify(notifier);
    if let Some(http) = sockets.http {
        options = options.http(http);
    }
    if let Some(log) = log {
        options = options.audit(log);
    }
    let ended = runtime.block_on(async {
        let service = options.bind(authenticator).await.map_err(Failure::unavailable)?;
        let shutdown = shutdown_signal()?;
        tokio::select! {
            _said_in_the_log = service.run(shutdown) => Ok(()),
            never = reload(origin) => never,
        }
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

/// On SIGHUP the log's level is read again; what else is set waits for the next start.
async fn reload(origin: &Origin) -> Outcome {
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        if hangup.recv().await.is_none() {
            core::future::pending::<()>().await;
        }
        let named = origin.file.clone();
        let loaded = tokio::task::spawn_blocking(move || Config::load(named.as_deref()));
        match loaded.await.unwrap_or_else(|error| Err(Failure::other(error))) {
            Ok(config) => {
                apply_log_level(&config, origin);
                tracing::info!("the log level was read again; other settings wait for a restart");
            }
            Err(error) => tracing::error!(%error, "the previous settings stay in force"),
        }
    }
}

fn apply_log_level(config: &Config, origin: &Origin) {
    log_level::set(origin.log.or(config.log.level).unwrap_or(LogLevel::Info));
}

/// What is wrong with the settings, as far as that can be said without opening anything. Nothing is where none are set: not
/// every machine has an authenticator.
pub(crate) fn check(args: &AuthenticatorArgs, config: &Config) -> Outcome {
    let settings = &config.authenticator;
    if args.url.is_none() && args.pin_file.is_none() && *settings == config::Authenticator::default() {
        return Ok(());
    }
    let service = pinned(args, config)?;
    Uplink::new(service, &connecting(args, config)).map_err(Failure::usage)?;
    wishes(config)?;
    // A socket that is wrong is said elsewhere.
    let Ok(agent) = Endpoint::agent(None, environment) else { return Ok(()) };
    match http_at(settings.http.as_deref(), HTTP_SOCKET, &agent)? {
        Some(address) => address.check().map_err(Failure::unavailable),
        None => Ok(()),
    }
}

/// How the service is reached.
fn connecting(args: &AuthenticatorArgs, config: &Config) -> UplinkOptions {
    let settings = &config.authenticator;
    let options = UplinkOptions::new().suites(&suites(settings.min_suite));
    match args.ca_file.as_ref().or(settings.ca_file.as_ref()) {
        Some(file) => options.ca_file(file),
        None => options,
    }
}

/// The audit log, if there is to be one, and its key.
fn audit_places(args: &AuditLogArgs, config: &Config) -> Outcome<Option<(PathBuf, PathBuf)>> {
    let settings = &config.authenticator;
    let Some(log) = args.audit_log.as_ref().or(settings.audit_log.as_ref()) else { return Ok(None) };
    let key = args.audit_key.as_ref().or(settings.audit_key.as_ref());
    Ok(Some((log.clone(), place(key, audit::AUTHENTICATOR_KEY)?)))
}

/// Which service it is, and its key.
fn pinned(args: &AuthenticatorArgs, config: &Config) -> Outcome<Pinned> {
    let settings = &config.authenticator;
    let url = args.url.as_ref().or(settings.url.as_ref());
    let file = args.pin_file.as_ref().or(settings.pin_file.as_ref());
    pin::find("authenticator", "url", url, file)
}

/// The identity, sealed under a key from where the sidecar's master key may come from as well.
fn identity(args: &AuthenticatorArgs, config: &Config, path: &Path) -> Outcome<Identity> {
    let settings = &config.authenticator;
    let key = Sources {
        named: args.identity_key.as_deref(),
        credential: "obol-identity-key",
        keychain: settings.keychain.as_deref(),
        set: settings.identity_key.as_ref(),
        usual: "authenticator/identity.key",
        sealed: &[path],
    };
    Identity::open(path, key.load()?).map_err(Failure::usage)
}

/// Makes sure that no other authenticator uses this identity: each would look like a copy to the service that the other's
/// sessions are known to. The kernel gives the lock back when the process ends, however it ends.
fn alone(identity: &Path) -> Outcome<PrivateFile> {
    let path = identity.with_added_extension("lock");
    PrivateFile::lock(path).map_err(|error| match error.fault() {
        Fault::InUse => Failure::unavailable(format_args!(
            "another authenticator uses the identity {}; stop it, or name another identity",
            identity.display()
        )),
        _ => Failure::unavailable(format_args!("cannot lock the identity: {error}")),
    })
}

/// Suites that are at least as strong as this one, the strongest first.
fn suites(least: Option<u16>) -> Vec<Suite> {
    let strongest = match least {
        Some(4) => 1,
        Some(2 | 3) => 3,
        _ => SUITES.len(),
    };
    SUITES.into_iter().take(strongest).collect()
}

/// What the agent is registered as, as far as it is set.
fn wishes(config: &Config) -> Outcome<Wishes> {
    let settings = &config.authenticator;
    let named = [("name", settings.name.iter()), ("class", settings.class.iter())];
    let listed = [("roles", settings.roles.iter().flatten()), ("tools", settings.tools.iter().flatten())];
    let all = named.into_iter().flat_map(|(what, names)| names.map(move |name| (what, name)));
    let all = all.chain(listed.into_iter().flat_map(|(what, names)| names.map(move |name| (what, name))));
    for (what, name) in all {
        obol_ipc::names::WishedName::new(name.as_str())
            .map_err(|error| Failure::usage(format_args!("authenticator.{what} = {name:?}: {error}")))?;
    }
    Ok(Wishes {
        name: settings.name.clone().unwrap_or_default(),
        class: settings.class.clone().unwrap_or_default(),
        roles: settings.roles.clone().unwrap_or_default(),
        tools: settings.tools.clone().unwrap_or_default(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        user: obol_ipc::user::name_of(rustix::process::geteuid().as_raw()),
        software: concat!("obol-authenticator/", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

impl Sockets {
    /// Must be called inside a tokio runtime.
    fn bind(args: &AuthenticatorRoleArgs, config: &Config) -> Outcome<Self> {
        let access = access(config)?;
        let agent = Endpoint::agent(args.sockets.socket.as_deref(), environment).map_err(Failure::usage)?;
        let control = Endpoint::control(args.sockets.control_socket.as_deref(), &agent, environment)
            .map_err(Failure::usage)?;
        let at = Endpoint::auth(args.authenticator.auth_socket.as_deref(), &agent, environment)
            .map_err(Failure::usage)?;
        let auth = Listener::bind(&at, access.clone()).map_err(Failure::unavailable)?;
        let own = Endpoint::auth_control(args.auth_control_socket.as_deref(), &agent, environment)
            .map_err(Failure::usage)?;
        let operator =
            OperatorSocket::bind_beside(&own, &beside(&access, &at, &own)).map_err(Failure::unavailable)?;
        let named = args.http.as_deref().or(config.authenticator.http.as_deref());
        let http = match http_at(named, HTTP_SOCKET, &agent)? {
            None => None,
            Some(address) => {
                let access = match &address {
                    HttpAddress::Unix(socket) => beside(&access, &at, socket),
                    HttpAddress::Tcp(_) => Access::OwnUser,
                };
                Some(address.bind(access).map_err(Failure::unavailable)?)
            }
        };
        Ok(Self { auth, operator, http, control })
    }

    /// Folders in which sockets may have to be made again, or removed at the end.
    fn folders(&self) -> Vec<PathBuf> {
        let http = self.http.as_ref().and_then(HttpListener::path);
        [Some(self.auth.path()), Some(self.operator.path()), http]
            .into_iter()
            .flatten()
            .map(|path| folder_of(path).to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_suites_that_are_strong_enough_are_used_and_the_strongest_first() {
        let numbers = |least| suites(least).iter().map(|suite| suite.number()).collect::<Vec<_>>();
        assert_eq!(numbers(None), [4, 2, 3, 1]);
        assert_eq!(numbers(Some(1)), [4, 2, 3, 1]);
        assert_eq!(numbers(Some(2)), [4, 2, 3]);
        assert_eq!(numbers(Some(3)), [4, 2, 3]);
        assert_eq!(numbers(Some(4)), [4]);
    }

    #[test]
    fn the_key_is_beside_the_address_or_in_a_file_and_never_two() {
        let folder = tempfile::tempdir().unwrap();
        let key = "ab".repeat(32);
        let whole = format!("https://as.example#{key}");
        let file = |text: &str| {
            let path = folder.path().join("pin");
            std::fs::write(&path, text).unwrap();
            path
        };
        let read = |url: Option<&str>, text: Option<&str>| {
            let args = AuthenticatorArgs {
                auth_socket: None,
                url: url.map(str::to_owned),
                pin_file: text.map(file),
                identity: None,
                identity_key: None,
                ca_file: None,
            };
            pinned(&args, &Config::default()).map(|pinned| pinned.to_string())
        };
        let bare = Some("https://as.example");
        for (url, text) in [
            (Some(whole.as_str()), None),
            (None, Some(format!("{whole}\n"))),
            (bare, Some(format!("{key}\n"))),
            (bare, Some(whole.clone())),
            (Some(whole.as_str()), Some(whole.clone())),
        ] {
            assert_eq!(read(url, text.as_deref()).unwrap(), whole, "{url:?} {text:?}");
        }
        let other = format!("https://other.example#{key}");
        for (url, text) in
            [(None, None), (bare, None), (bare, Some(other)), (Some(whole.as_str()), Some(key))]
        {
            assert!(read(url, text.as_deref()).is_err(), "{url:?} {text:?}");
        }
    }
}
