//! The agent's side of `obol atp`: request, verify, revoke, agent-id.

use std::io::Read as _;
use std::path::PathBuf;

use obol_atp::{AtpEndpoint, Host};
use obol_atp_client::{AgentIdMode, AtpError, Client, KeychainChoice, Options, TokenRequest};
use serde_json::json;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};
use crate::operate::atp::sign::read_secret;
use crate::output;
use crate::places::state_folder;
use crate::settings::args::atp::{AgentIdArgs, AgentSettings, HostArgs, RequestArgs, VerifyArgs};
use crate::settings::config::Atp;

/// The longest token that is read from standard input, in bytes.
const MAX_TOKEN_BYTES: u64 = 8 << 10;

impl From<AtpError> for Failure {
    fn from(error: AtpError) -> Self {
        let exit = match error.cause() {
            _ if error.is_passing() => Exit::Unavailable,
            AtpError::NotOffered => Exit::Unavailable,
            AtpError::Refused { .. }
            | AtpError::WiderGrant
            | AtpError::WrongIssuer
            | AtpError::Discovery(_) => Exit::Denied,
            AtpError::NoSecret(_)
            | AtpError::Secret(_)
            | AtpError::Argument(_)
            | AtpError::File(_)
            | AtpError::Key(_) => Exit::Usage,
            _ => Exit::Other,
        };
        Self::new(exit, error)
    }
}

pub(super) fn client(settings: &AgentSettings, config: &Atp) -> Outcome<Client> {
    Ok(Client::open(options(settings, config)?)?)
}

/// Everything that is wrong with the settings, for `obol config check`. Nothing is made, and no provider is asked.
pub(crate) fn check(config: &Atp) -> Vec<Failure> {
    let mut found = Vec::new();
    found.extend(parsed::<Host>("atp.hosts", config.hosts.as_ref()).err());
    found.extend(parsed::<AtpEndpoint>("atp.endpoints", config.endpoints.as_ref()).err());
    found.extend(parsed::<Host>("atp.allow_private", config.allow_private.as_ref()).err());
    found.extend(agent_id_mode(config).err());
    found.extend(keychain(config).err());
    let masters = masters(config).map_err(|failure| found.push(failure)).unwrap_or_default();
    for file in config.secret_file.iter().chain(masters.iter().map(|(_, file)| file)) {
        found.extend(read_secret(file).err());
    }
    if let Some(file) = &config.ca_file {
        let checked = Options::default().ca_file(file).check();
        found.extend(checked.map_err(Failure::from).err());
    }
    found.iter().map(|failure| failure.about("[atp]")).collect()
}

fn agent_id_mode(config: &Atp) -> Outcome<Option<AgentIdMode>> {
    let read = |mode: &String| mode.parse().map_err(Failure::usage);
    config.agent_id_mode.as_ref().map(read).transpose()
}

fn keychain(config: &Atp) -> Outcome<Option<KeychainChoice>> {
    let read = |choice: &String| choice.parse().map_err(Failure::usage);
    config.keychain.as_ref().map(read).transpose()
}

/// The master credentials' files, by host.
fn masters(config: &Atp) -> Outcome<Vec<(Host, PathBuf)>> {
    let wrong = || Failure::usage("atp.masters: an entry is a host, an equals sign and a file");
    let read = |master: &String| {
        let (host, file) = master.split_once('=').ok_or_else(wrong)?;
        Ok((host.parse().map_err(|_| wrong())?, file.into()))
    };
    config.masters.iter().flatten().map(read).collect()
}

fn options(settings: &AgentSettings, config: &Atp) -> Outcome<Options> {
    let folder =
        settings.state.clone().or_else(|| config.state.clone()).unwrap_or_else(|| state_folder().join("atp"));
    let mut options = Options::new(folder)
        .hosts(parsed::<Host>("atp.hosts", config.hosts.as_ref())?)
        .endpoints(parsed::<AtpEndpoint>("atp.endpoints", config.endpoints.as_ref())?)
        .allow_private(parsed::<Host>("atp.allow_private", config.allow_private.as_ref())?);
    let either = |flag: &Option<PathBuf>, setting: &Option<PathBuf>| flag.clone().or_else(|| setting.clone());
    if let Some(file) = either(&settings.secret_file, &config.secret_file) {
        options = options.secret_file(file);
    }
    if let Some(file) = either(&settings.ca_file, &config.ca_file) {
        options = options.ca_file(file);
    }
    for (host, file) in masters(config)? {
        options = options.master(host, file);
    }
    if let Some(mode) = agent_id_mode(config)? {
        options = options.agent_id_mode(mode);
    }
    match settings.keychain.map_or_else(|| keychain(config), |choice| Ok(Some(choice)))? {
        Some(choice) => Ok(options.keychain(choice)),
        None => Ok(options),
    }
}

fn parsed<T: core::str::FromStr<Err: core::fmt::Display>>(
    name: &str,
    texts: Option<&Vec<String>>,
) -> Outcome<Vec<T>> {
    let read = |text: &String| text.parse().map_err(|error| Failure::usage(format_args!("{name}: {error}")));
    texts.into_iter().flatten().map(read).collect()
}

pub(super) fn run<T>(work: impl Future<Output = Result<T, AtpError>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work)?)
}

pub(super) fn request(args: &RequestArgs, config: &Atp) -> Outcome {
    output::must_be_open()?;
    let mut wanted = TokenRequest::new(args.scope.iter().map(String::as_str))?;
    if let Some(purpose) = &args.purpose {
        wanted = wanted.purpose(purpose)?;
    }
    let mut options = options(&args.agent.settings, config)?;
    if let Some(file) = &args.master_file {
        options = options.master(args.host.clone(), file);
    }
    let client = Client::open(options)?;
    let token = run(async {
        if args.cached {
            client.ensure_token(&args.host, &wanted).await
        } else {
            client.request_token(&args.host, &wanted).await
        }
    })?;
    if !args.agent.output.json {
        return output::token(&token.access_token);
    }
    output::json(&json!({
        "access_token": *token.access_token,
        "expires_in": token.expires_in,
        "expires_at": token.expires_at,
        "refresh_at": token.refresh_at,
        "scopes_granted": token.scopes_granted,
        "agent_id": token.agent_id,
        "id": token.id,
        "stored_in": token.stored_in,
    }));
    Ok(())
}

pub(super) fn verify(args: &VerifyArgs, config: &Atp) -> Outcome {
    let client = client(&args.agent.settings, config)?;
    let named = match args.token.as_deref() {
        Some("-") => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
            Some(Zeroizing::new(text.trim().to_owned()))
        }
        Some(token) => Some(Zeroizing::new(token.to_owned())),
        None => None,
    };
    let verdict = run(async {
        let token = match named {
            Some(token) => Some(token),
            None => client.kept_token(&args.host).await?,
        };
        match token {
            Some(token) => client.verify_token(&token, &args.host).await.map(Some),
            None => Ok(None),
        }
    })?;
    let verdict = verdict.ok_or_else(|| {
        Failure::unavailable(format_args!("no token for {} is kept here; name one", args.host))
    })?;
    if args.agent.output.json {
        output::json(&serde_json::to_value(&verdict).map_err(Failure::other)?);
    } else if verdict.valid {
        output::line("valid");
    }
    if verdict.valid { Ok(()) } else { Err(Failure::new(Exit::Denied, "the token is not valid")) }
}

pub(super) fn revoke(args: &HostArgs, config: &Atp) -> Outcome {
    let client = client(&args.agent.settings, config)?;
    let revocation = run(client.revoke_token(&args.host))?;
    if args.agent.output.json {
        output::json(
            &json!({ "revoked": true, "had_token": revocation.had_token, "remote": revocation.remote }),
        );
    } else if !revocation.had_token {
        output::line("there was no token");
    }
    if revocation.remote {
        return Ok(());
    }
    Err(Failure::unavailable(
        "the token is removed here, but the provider could not be told; it is told again before the next request",
    ))
}

pub(super) fn agent_id(args: &AgentIdArgs, config: &Atp) -> Outcome {
    let id = match &args.keyed {
        Some(host) => {
            let options = options(&args.agent.settings, config)?.agent_id_mode(AgentIdMode::Keyed);
            Client::open(options)?.agent_id_at(host)?
        }
        None => client(&args.agent.settings, config)?.agent_id()?,
    };
    if args.agent.output.json {
        output::json(&json!({ "agent_id": id }));
    } else {
        output::line(&id.to_string());
    }
    Ok(())
}

pub(super) fn keep_secret(args: &HostArgs, config: &Atp) -> Outcome {
    let file = args.agent.settings.secret_file.as_ref().or(config.secret_file.as_ref());
    let file =
        file.ok_or_else(|| Failure::usage("--secret-file FILE is needed: the file with the secret"))?;
    let secret = read_secret(file)?;
    let client = client(&args.agent.settings, config)?;
    let stored_in = run(client.keep_secret(&args.host, &secret))?;
    if args.agent.output.json {
        output::json(&json!({ "stored_in": stored_in }));
    } else {
        output::line(&format!("kept ({stored_in}); {} is no longer needed", file.display()));
    }
    Ok(())
}
