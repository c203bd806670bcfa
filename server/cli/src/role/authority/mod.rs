//! `obol as`: the Authentication Service.
//!
//! As with the other servers, the process is closed to others before a key is loaded, and the sandbox entered while there is
//! one thread: the directory and the audit log have threads of their own.

mod control;
mod key;
mod mail;
mod policy;
mod provider;
mod put_back;
mod setup;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_authority::directory::RedbDirectory;
use obol_authority::http::{Handle, Service};
use obol_authority::policy::{KeptPolicy, Policies};
use obol_authority::{Authority, Events, Now, Outbound, Parts, Settings};
use obol_handshake::AuthoritySecret;
use obol_ipc::Endpoint;
use obol_probe::contract::Address;
use obol_probe::notify::Notifier;
use obol_probe::stop::Stop;
use obol_secret::key::Key32;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::control::{Control, Door};
pub(crate) use self::key::show as key;
use self::setup::Places;
pub(crate) use self::setup::check;
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::environment;
use crate::role::master_key::Sources;
use crate::role::operator_door::OperatorDoor;
use crate::role::{audit, sandbox};
use crate::settings::args::authority::AsArgs;
use crate::settings::config::As;
use crate::signals::{LAST_WAIT, service_manager, shutdown_signal};

/// What it calls itself to its operator.
const NAME: &str = concat!("obol-as/", env!("CARGO_PKG_VERSION"));
/// What codes are hashed under is derived for this.
const CODE_PURPOSE: &str = "obol-authority-codes-v1";

/// Runs until SIGTERM or SIGINT. SIGHUP reads policy and certificate again.
pub(crate) fn run(args: &AsArgs, config: &As) -> Outcome {
    let mut hardening = obol_sandbox::harden_process();
    let notifier = service_manager();
    let settings = setup::settings(args, config)?;
    let places = Places::find(args, config)?;
    let certificate = setup::certificate(places.certificate.as_ref())?;
    let outbound = setup::outbound(config)?;
    provider::check(args, config, &outbound)?;
    let heard = setup::events(places.events.as_ref(), settings.origin(), &outbound)?;
    let (mut reached, named) = (heard.ports(), heard.files().to_vec());
    reached.extend(provider::ports(args, config)?);
    reached.extend(mail::check(config)?);
    let attesting = setup::attestors(places.attestors.as_ref(), settings.origin(), &outbound)?;
    reached.extend(attesting.ports());
    let events = Arc::new(Events::new(heard, outbound.clone()));
    let options = setup::options(args, config, certificate.as_ref())?.events(Arc::clone(&events));
    let mail = mail::open(config)?;
    let options = mail.iter().fold(options, |options, mail| options.mail(Arc::clone(mail)));
    #[cfg(feature = "people")]
    let (settings, providers) = provider::open(args, config, settings, &outbound)?;
    #[cfg(feature = "people")]
    let options = providers.into_iter().fold(options, obol_authority::http::Options::providers);
    // Outside the sandbox, as the keyring is. Without the socket nobody could approve or end anything, so there is no service
    // without it.
    let operator = operator_door(args)?;
    let master = master_key(args, config, &places)?;
    let secret = key::load(&places.identity_key, &places.directory)?;
    let sandbox = (!args.no_sandbox && config.sandbox != Some(false))
        .then(|| sandbox::of_authority(&reach(args, config, &places, operator.path(), (reached, &named))));
    hardening.extend(sandbox::enter(sandbox.as_ref()));
    obol_sandbox::report(&hardening, None);
    let (authority, policies) = open(settings, &places, &master, secret, config, args.accept_rollback)?;
    #[cfg(feature = "people")]
    let options = options.policies(Arc::clone(&policies));
    authority.attestors().replace(attesting, outbound.clone());
    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let (pin, words) =
            (key::pin(authority.settings().origin(), &authority.key()), key::words(&authority.key()));
        let control = Control::new(
            Arc::clone(&authority),
            Arc::clone(&policies),
            Arc::clone(&events),
            pin.clone(),
            words.clone(),
        );
        let control = Arc::new(control.with_mail(mail));
        let options = options.operator(Arc::<Control>::clone(&control));
        let service = options.bind(Arc::clone(&authority)).await.map_err(Failure::unavailable)?;
        let handle = service.handle();
        for address in handle.addresses().iter().filter_map(Address::tcp).take(1) {
            tracing::info!(%address, "listening");
        }
        let reloads = signal(SignalKind::hangup())?;
        tracing::info!(words, pin, "the key that agents pin");
        let stop = Stop::new();
        let operated = operator.serve(Door(control), NAME, stop.clone())?;
        let events = (events, places.events, authority.settings().origin().to_owned());
        let attestors = (Arc::clone(&authority), places.attestors, outbound);
        let reload = Reload { policies, folder: places.policy, handle, events, attestors };
        serve(service, &authority, notifier, reloads, reload).await?;
        stop.say();
        let _panicked = tokio::task::block_in_place(|| operated.join());
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

fn operator_door(args: &AsArgs) -> Outcome<OperatorDoor> {
    let named = args.socket.as_control_socket.as_deref();
    let endpoint = Endpoint::as_control(named, environment).map_err(Failure::usage)?;
    OperatorDoor::open(&endpoint)?
        .map_err(|error| Failure::unavailable(format_args!("{error}; --as-control-socket names another")))
}

fn master_key(args: &AsArgs, config: &As, places: &Places) -> Outcome<Key32> {
    let sources = Sources {
        named: args.master_key.as_deref(),
        credential: "obol-as-master-key",
        keychain: config.keychain.as_deref(),
        set: config.master_key.as_ref(),
        usual: "as-master.key",
        sealed: &[&places.directory],
    };
    sources.load()
}

/// What is left to the process.
fn reach<'a>(
    args: &AsArgs,
    config: &As,
    places: &'a Places,
    socket: &'a Path,
    (reached, named): (Vec<u16>, &'a [PathBuf]),
) -> sandbox::AuthorityReach<'a> {
    let audit = places.audit.iter().flat_map(|(log, key)| [log, key]);
    let certificate = places.certificate.iter().flat_map(|(chain, key)| [chain, key]);
    let probes = setup::probes(args, config).unwrap_or_default();
    sandbox::AuthorityReach {
        ports: [Some(setup::listen(args, config)), probes]
            .into_iter()
            .flatten()
            .map(|at| at.port())
            .collect(),
        written: audit
            .chain([&places.directory, &places.witness, &places.identity_key])
            .map(PathBuf::as_path)
            .chain([socket])
            .collect(),
        read: certificate
            .chain(&places.policy)
            .chain(&places.events)
            .chain(&places.attestors)
            .chain(named)
            .map(PathBuf::as_path)
            .collect(),
        reached,
    }
}

/// Opens the directory and the audit log, and puts the service together. At the first start the policy comes from its folder.
fn open(
    settings: Settings,
    places: &Places,
    master: &Key32,
    key: Option<AuthoritySecret>,
    config: &As,
    accept_rollback: bool,
) -> Outcome<(Arc<Authority>, Arc<Policies>)> {
    let log = places.audit.as_ref();
    let log = log.map(|(log, key)| audit::open_beside_key(log, key, config.audit_file_bytes)).transpose()?;
    let directory = match accept_rollback {
        true => put_back::accept(places, master, log.as_deref(), Now::read())?,
        false => RedbDirectory::open_witnessed(&places.directory, &places.witness, master)
            .map_err(Failure::unavailable)?,
    };
    if log.is_none() {
        tracing::warn!(
            "there is no audit log: only this log records who approved, opened and ended what; name one with --audit-log"
        );
    }
    let kept = KeptPolicy::load(&directory).map_err(Failure::unavailable)?;
    let key = key.map_or_else(|| key::create(&places.identity_key, &directory), Ok)?;
    let parts = Parts {
        settings,
        directory: Arc::new(directory),
        decider: kept.decider(),
        key,
        code_key: *master.derive(CODE_PURPOSE),
        audit: log,
    };
    let authority = Arc::new(Authority::new(parts, Now::read()).map_err(Failure::unavailable)?);
    let undecided = kept.undecided().map(str::to_owned);
    let policies = Arc::new(Policies::new(Arc::clone(&authority), kept));
    policy::begin(&policies, places.policy.as_deref(), undecided.as_deref())?;
    Ok((authority, policies))
}

/// What SIGHUP reads again.
struct Reload {
    policies: Arc<Policies>,
    folder: Option<PathBuf>,
    handle: Handle,
    /// Who is listened to, the file that says so, and what the service is known as.
    events: (Arc<Events>, Option<PathBuf>, String),
    /// Who takes others at their word, the file that says whom, and what their keys are fetched with.
    attestors: (Arc<Authority>, Option<PathBuf>, Outbound),
}

impl Reload {
    /// What is wrong changes nothing.
    async fn run(self, mut asked: Signal, notifier: Arc<Notifier>) {
        while asked.recv().await.is_some() {
            notifier.reloading();
            tokio::task::block_in_place(|| {
                policy::reload(&self.policies, self.folder.as_deref());
                if let Err(error) = self.handle.reload_certificate() {
                    tracing::error!(%error, "the certificate stays as it was");
                }
                let ((events, heard, origin), (authority, file, outbound)) = (&self.events, &self.attestors);
                match setup::events(heard.as_ref(), origin, outbound) {
                    Ok(settings) => events.replace(settings),
                    Err(error) => tracing::error!(%error, "the transmitters of events stay as they were"),
                }
                match setup::attestors(file.as_ref(), origin, outbound) {
                    Ok(settings) => authority.attestors().replace(settings, outbound.clone()),
                    Err(error) => tracing::error!(%error, "the trusted assertion issuers stay as they were"),
                }
            });
            notifier.ready();
        }
    }
}

/// Serves until it is told to stop.
async fn serve(
    service: Service,
    authority: &Arc<Authority>,
    notifier: Notifier,
    reloads: Signal,
    reload: Reload,
) -> Outcome {
    let shutdown = shutdown_signal()?;
    let notifier = Arc::new(notifier);
    let reloading = tokio::spawn(reload.run(reloads, Arc::clone(&notifier)));
    notifier.ready();
    let stopped = async {
        shutdown.await;
        notifier.stopping();
    };
    let watched = async {
        notifier.watch_over(|| still_keeps(Arc::clone(authority))).await;
        core::future::pending::<()>().await;
    };
    tokio::select! {
        _said_in_the_log = service.run(stopped) => {}
        () = watched => {}
    }
    reloading.abort();
    Ok(())
}

/// Whether the directory's writer carries out what it is told.
async fn still_keeps(authority: Arc<Authority>) -> Result<(), String> {
    tokio::task::spawn_blocking(move || authority.health()).await.map_err(|error| error.to_string())?
}
