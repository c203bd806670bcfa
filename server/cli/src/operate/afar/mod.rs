//! The service's operator from another machine: `obol login`, `obol logout`, and the way of every other command of the operator to a
//! service that is not of this machine.
//!
//! What is kept is a key, in a private file, and no token: each request is a handshake of its own by that key, with the service
//! whose key was pinned.

mod kept;
mod landing;
mod way;

use core::time::Duration;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Instant;

use obol_client::AsControlClient;
use obol_handshake::{IdentityKey, Purpose, SystemRandom};
use obol_ipc::user::name_of;
use obol_secret::json;
use obol_session::clock::{Clock as _, SystemClock};
use obol_uplink::{AuthError, Caller, Greeted, Pinned, Uplink, UplinkOptions};
use serde::Deserialize;
use serde_json::{Value, json as object};

pub(crate) use self::kept::Kept;
use self::landing::Landing;
use self::way::Afar;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::peer::options;
use crate::settings::args::authority::{LoginArgs, LogoutArgs};

const LOGIN: &str = "/v1/operators/login";
/// Pause between two questions whether the human has decided.
const POLL_PAUSE: Duration = Duration::from_secs(2);
/// How often a wrong return code may be typed here.
const TRIES: usize = 3;

/// A client of the service that this login is for.
pub(crate) fn client(kept: Kept) -> Outcome<AsControlClient> {
    Ok(AsControlClient::over(Box::new(Afar::new(kept)?), options()?))
}

pub(super) fn now() -> u64 {
    SystemClock::new().now()
}

/// One message of purpose 9 or 10.
struct Says {
    key: IdentityKey,
    what: Value,
    anew: bool,
}

impl Caller for Says {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        Ok(self.what.clone())
    }

    fn may_begin_anew(&self) -> bool {
        self.anew
    }
}

fn uplink(service: Pinned, ca_file: Option<&Path>) -> Outcome<Uplink> {
    let mut options = UplinkOptions::new();
    if let Some(file) = ca_file {
        options = options.ca_file(file);
    }
    Uplink::new(service, &options).map_err(Failure::usage)
}

/// A login that is being asked for.
struct Asking {
    uplink: Uplink,
    key: IdentityKey,
}

#[derive(Deserialize)]
struct AskedAnswer {
    login_id: String,
    url: String,
    #[serde(default)]
    code: Option<String>,
    expires_in: u64,
}

#[derive(Deserialize)]
struct StateAnswer {
    state: String,
}

/// What the service says of whoever is let in.
#[derive(Deserialize)]
struct LetIn {
    login_id: String,
    issuer: String,
    subject: String,
    name: String,
    until: u64,
}

impl Asking {
    async fn say<T: serde::de::DeserializeOwned>(&mut self, what: Value) -> Result<T, AuthError> {
        let mut caller = Says { key: IdentityKey::from_bytes(self.key.expose()), what, anew: false };
        let (_, told) = self.uplink.carry_out(Purpose::Login, LOGIN, now(), &mut caller).await?;
        json::parse(&told).map_err(|error| AuthError::Answer(error.to_string()))
    }

    async fn ask(&mut self, flow: Value) -> Result<AskedAnswer, AuthError> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let user = name_of(rustix::process::getuid().as_raw());
        let software = concat!("obol-cli/", env!("CARGO_PKG_VERSION"));
        self.say(object!({ "ask": { "flow": flow, "host": host, "user": user, "software": software } })).await
    }

    async fn complete(&mut self, login_id: &str, code: &str) -> Result<LetIn, AuthError> {
        self.say(object!({ "complete": { "login_id": login_id, "code": code } })).await
    }

    async fn is_denied(&mut self, login_id: &str) -> Result<bool, AuthError> {
        let told: StateAnswer = self.say(object!({ "state": { "login_id": login_id } })).await?;
        Ok(told.state == "denied")
    }

    /// A browser of this machine brings the yes.
    async fn by_loopback(&mut self) -> Outcome<LetIn> {
        let mut landing = Landing::open().await?;
        let asked = self.ask(object!({ "loopback": { "port": landing.port() } })).await.map_err(failure)?;
        landing.expect(&asked.login_id, &asked.url);
        output::line(&format!(
            "Open this in a browser on this machine, within ten minutes:\n\n    {}\n",
            landing.link()
        ));
        self.tell_words();
        output::line("\nWaiting for you …");
        flush();
        let deadline = Instant::now() + Duration::from_secs(asked.expires_in);
        while Instant::now() < deadline {
            let Some(brought) = landing.next(POLL_PAUSE).await else {
                if self.is_denied(&asked.login_id).await.map_err(failure)? {
                    return Err(Failure::new(Exit::Denied, "the login was denied in the browser"));
                }
                continue;
            };
            let done = self.complete(&asked.login_id, brought.code()).await;
            brought.tell(done.is_ok()).await;
            return done.map_err(failure);
        }
        Err(Failure::new(Exit::Login, "nobody approved the login within ten minutes; run `obol login` again"))
    }

    /// The human types a code there, and words here.
    async fn by_code(&mut self) -> Outcome<LetIn> {
        let asked = self.ask(object!("code")).await.map_err(failure)?;
        let code = asked.code.unwrap_or_default();
        output::line(&format!(
            "In a browser on any machine, open {} and type this code:\n\n    {code}\n",
            asked.url
        ));
        self.tell_words();
        output::line("\nThe page then shows three words. Type them here.");
        flush();
        let mut last = None;
        for _ in 0..TRIES {
            let Some(typed) = typed_words()? else { break };
            match self.complete(&asked.login_id, &typed).await {
                Ok(done) => return Ok(done),
                Err(error) if error.code() == "WRONG_CODE" || error.code() == "PENDING_APPROVAL" => {
                    output::line(&error.to_string());
                    flush();
                    last = Some(error);
                }
                Err(error) => return Err(failure(error)),
            }
        }
        Err(last
            .map_or_else(|| Failure::usage("no return code was typed, so you are not logged in"), failure))
    }

    fn tell_words(&self) {
        output::line(&format!("The page must show these words: {}", self.key.public().words()));
    }
}

/// Output that a human waits for.
fn flush() {
    let _seen_at_the_end = std::io::stdout().flush();
}

/// The words that the page shows, typed; none at the end of the input.
fn typed_words() -> Outcome<Option<String>> {
    if std::io::stdin().is_terminal() {
        let mut prompt = std::io::stderr();
        prompt.write_all(b"Return code (three words, from the page): ").and_then(|()| prompt.flush())?;
    }
    let mut typed = String::new();
    Ok((std::io::stdin().lock().read_line(&mut typed)? > 0).then(|| typed.trim().to_lowercase()))
}

/// `obol login`.
pub(crate) fn login(args: &LoginArgs) -> Outcome {
    let before = Kept::find(Some(&args.service))?;
    let service = match (args.service.contains('#'), &before) {
        (false, Some(before)) => before.service().clone(),
        _ => Pinned::parse(&args.service).map_err(Failure::usage)?,
    };
    let ca_file = args.ca_file.clone().or_else(|| before.as_ref().and_then(|kept| kept.ca_file().cloned()));
    let ca_file = ca_file.map(std::path::absolute).transpose()?;
    let mut asking = Asking {
        uplink: uplink(service.clone(), ca_file.as_deref())?,
        key: IdentityKey::generate(&mut SystemRandom),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let let_in = runtime
        .block_on(async { if args.remote { asking.by_code().await } else { asking.by_loopback().await } })?;
    // The one before ends with this one: nobody needs two.
    if let Some(before) = before {
        let _ended_by_itself = runtime.block_on(leave(&before));
        before.remove()?;
    }
    let LetIn { login_id, issuer, subject, name, until } = let_in;
    let who = format!("{name} ({subject} at {issuer})");
    let kept = Kept::new(service, ca_file, &asking.key, login_id, who, until);
    kept.write()?;
    let minutes = output::duration(until.saturating_sub(now()));
    output::line(&format!("Logged in at {} as {}, for {minutes}.", kept.service().origin(), kept.who()));
    Ok(())
}

/// Tells the service that the login ends.
async fn leave(kept: &Kept) -> Outcome {
    let mut asking = Asking {
        uplink: uplink(kept.service().clone(), kept.ca_file().map(AsRef::as_ref))?,
        key: kept.key(),
    };
    asking.say::<Value>(object!({ "leave": {} })).await.map(drop).map_err(failure)
}

/// `obol logout`.
pub(crate) fn logout(args: &LogoutArgs) -> Outcome {
    let found = Kept::find(args.service.as_deref())?;
    let Some(kept) = found else {
        return Err(Failure::new(Exit::Login, "you are not logged in; there is nothing to end"));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let left = runtime.block_on(leave(&kept));
    // Whatever the service says: whoever logs out leaves nothing here.
    kept.remove()?;
    match left {
        Ok(()) => output::line(&format!("Logged out at {}.", kept.service().origin())),
        Err(failure) if kept.until() <= now() => {
            output::line(&format!("The login at {} had already ended ({failure}).", kept.service().origin()));
        }
        Err(failure) => {
            return Err(Failure::unavailable(format_args!(
                "the key is removed from this machine, but {} could not be told: {failure}. A copy of the key, if there is one, stays valid for at most {}; an operator ends it with `obol logins end {}`",
                kept.service().origin(),
                output::duration(kept.until().saturating_sub(now())),
                kept.login_id(),
            )));
        }
    }
    Ok(())
}

/// How a command ends that the service refused so, or that did not reach it.
fn failure(error: AuthError) -> Failure {
    match &error {
        AuthError::Refused { code, .. } if code == "NOT_LOGGED_IN" => Failure::new(Exit::Login, error),
        AuthError::Refused { .. } => Failure::new(Exit::Denied, error),
        AuthError::Unreachable(_) | AuthError::Rejected { .. } => Failure::unavailable(error),
        _ => Failure::other(error),
    }
}
