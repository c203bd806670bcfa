//! Purposes 9 and 10: an operator elsewhere is let in by the key of their command line, and asks for something by it.

use core::fmt;

use obol_handshake::{Proven, Purpose, Random as _};
use obol_secret::text::plain;
use serde::Deserialize;
use serde_json::{Value, json};

use super::payload::{self, AskedFlow};
use super::{Authority, Now, Outcome, Rejected, seal_answer_of};
use crate::Confirmed;
use crate::directory::{Flow, Human, PersonStatus, Unavailable};
use crate::id::{LoginId, UserCode};
use crate::notices::{Topic, quoted};
use crate::refused::Refused;
use crate::remote::{ASKED_SECS, AskedLogin, LiveLogin, LoginState, Of, Operator, SaidOfLogin, Turn};

/// The longest text that is said of a machine, in bytes.
const MAX_TEXT_BYTES: usize = 128;

/// Purpose 9.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum LoginRequest {
    /// To be let in, once a human said so.
    Ask { flow: AskedFlow, host: String, user: String, software: String },
    /// What became of it.
    State { login_id: String },
    /// With what came back with a human's yes.
    Complete { login_id: String, code: ShownText },
    /// To be let in no more.
    Leave {},
}

/// What came back, which is not for logs.
#[derive(Deserialize)]
#[serde(transparent)]
struct ShownText(String);

impl fmt::Debug for ShownText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownText([redacted])")
    }
}

/// Purpose 10.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperateRequest {
    call: Value,
}

/// Somebody who is let in asks for something.
pub(crate) struct Asks {
    proven: Proven,
    live: LiveLogin,
    call: Vec<u8>,
}

/// What became of a third message of purpose 10, before what it asks for is looked at.
pub(crate) enum Asked {
    /// It is answered with this.
    Answer(Vec<u8>),
    /// It is to be carried out.
    Asks(Box<Asks>),
}

impl Authority {
    /// Purpose 9.
    pub(super) fn login(&self, proven: Proven, source: &str, now: Now) -> Result<Outcome, Rejected> {
        if let Some(answer) = self.turn(&proven, now)? {
            return Ok(Outcome::Answer(answer));
        }
        let done = payload::read::<LoginRequest>(&proven.payload)
            .and_then(|request| self.carry_out_login(request, &proven, source, now));
        if let Err(refused) = &done {
            self.auditor.refused(&proven.identity, refused);
        }
        Ok(Outcome::Answer(self.answered_once(proven, &told(done))))
    }

    fn carry_out_login(
        &self,
        request: LoginRequest,
        proven: &Proven,
        source: &str,
        now: Now,
    ) -> Result<Value, Refused> {
        let id = |text: &str| LoginId::parse(text).ok_or(Refused::NoSuchCode);
        match request {
            LoginRequest::Ask { flow, host, user, software } => {
                let said =
                    SaidOfLogin { host: short(&host)?, user: short(&user)?, software: short(&software)? };
                self.ask_login(proven, said, source, flow.into(), now)
            }
            LoginRequest::State { login_id } => {
                let state = self.logins.state(&id(&login_id)?, &proven.identity, now.secs());
                Ok(json!({ "state": match state.ok_or(Refused::NoSuchCode)? {
                    LoginState::Waiting => "waiting",
                    LoginState::Confirmed { .. } => "confirmed",
                    LoginState::Denied => "denied",
                } }))
            }
            LoginRequest::Complete { login_id, code } => {
                let live = self.complete_login(&id(&login_id)?, proven, &code.0, now)?;
                let name = self.person(&live.human)?.name;
                Ok(json!({
                    "login_id": live.id, "issuer": live.human.issuer, "subject": live.human.subject,
                    "name": name, "until": live.until,
                }))
            }
            LoginRequest::Leave {} => {
                let key = proven.identity;
                let live = self.logins.by_key(&key, now.secs()).ok_or(Refused::NotLoggedIn)?;
                let place = self.auditor.reserve()?;
                let ended = self.logins.end(|login| login.key == key);
                place.logged_out(&live.human.to_string(), "logged out", &ended);
                Ok(json!({ "ended": ended.len() }))
            }
        }
    }

    fn ask_login(
        &self,
        proven: &Proven,
        said: SaidOfLogin,
        source: &str,
        flow: Flow,
        now: Now,
    ) -> Result<Value, Refused> {
        if !self.settings.has_pages || self.settings.operator_roles.is_empty() {
            return Err(Refused::NoRemoteOperators);
        }
        let rng = &mut self.random();
        let (id, code) = (LoginId::generate(rng), UserCode::generate(rng));
        let hash = match flow {
            Flow::Code => code.hash(&self.code_key),
            // Nobody types one, so none is found.
            Flow::Loopback(_) | Flow::Local => {
                let mut none = [0; 32];
                rng.fill(&mut none);
                none
            }
        };
        self.logins.ask(id.clone(), proven.identity, (said, source.to_owned()), flow, hash, now.secs())?;
        let origin = &self.settings.origin;
        let url = match flow {
            Flow::Code => format!("{origin}/operate"),
            Flow::Loopback(_) | Flow::Local => format!("{origin}/operate/{id}"),
        };
        let code = (flow == Flow::Code).then(|| code.to_string());
        Ok(json!({ "login_id": id, "url": url, "code": code, "expires_in": ASKED_SECS }))
    }

    /// The login of this name that waits for a human.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn review_login(&self, id: &LoginId, now: Now) -> Result<AskedLogin, Refused> {
        self.logins.waiting(id, now.secs()).ok_or(Refused::NoSuchCode)
    }

    /// The login with this code.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn review_login_coded(&self, code: &UserCode, now: Now) -> Result<AskedLogin, Refused> {
        self.logins.coded(&code.hash(&self.code_key), now.secs()).ok_or(Refused::NoSuchCode)
    }

    /// Whether this human may operate the service from elsewhere at all.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn may_log_in(&self, by: &Human) -> Result<(), Refused> {
        let person = self.person(by)?;
        let has_role = self.settings.operator_roles.iter().any(|role| person.roles.contains(role));
        let is_active = person.status == PersonStatus::Active && !by.is_local();
        if has_role && is_active { Ok(()) } else { Err(Refused::MayNotLogIn) }
    }

    /// Notes a human's yes to a login. It is none until what is given here came back to the key that asked.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn confirm_login(
        &self,
        asked: &AskedLogin,
        by: &Human,
        now: Now,
    ) -> Result<Confirmed, Refused> {
        self.may_log_in(by)?;
        let (confirmed, hash) = self.to_come_back(asked.flow).ok_or(Refused::NoSuchCode)?;
        self.logins.confirm(&asked.id, by.clone(), hash, now.secs())?;
        Ok(confirmed)
    }

    /// Notes a human's no to a login. `is_foreign`: they did not start it.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) fn deny_login(
        &self,
        id: &LoginId,
        is_foreign: bool,
        by: &Human,
        now: Now,
    ) -> Result<(), Refused> {
        let place = self.auditor.reserve()?;
        let denied = self.logins.deny(id, is_foreign, now.secs())?;
        place.login_denied(&denied, by, is_foreign);
        if is_foreign {
            let (by, source) = (by.to_string(), &denied.source);
            let text = format!(
                "{} was asked to let somebody at {} operate this service, and did not start it",
                quoted(&by),
                quoted(source)
            );
            self.notices.say(Topic::Alarms, "foreign_login", text, now.secs());
        }
        Ok(())
    }

    fn complete_login(
        &self,
        id: &LoginId,
        proven: &Proven,
        shown: &str,
        now: Now,
    ) -> Result<LiveLogin, Refused> {
        let hash = self.came_back(shown)?;
        let human = self.logins.shown(id, &proven.identity, &hash, now.secs())?;
        self.may_log_in(&human)?;
        let place = self.auditor.reserve()?;
        let until = now.secs().saturating_add(self.settings.login_secs);
        let live = self.logins.begin(id, human, until, now.secs())?;
        place.logged_in(&live);
        Ok(live)
    }

    /// The operators of other machines who are let in, oldest first: those whom `by` reaches.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`] where it cannot be decided.
    pub fn logins(&self, by: &Human, now: Now) -> Result<Vec<LiveLogin>, Refused> {
        let mut reached = Vec::new();
        for live in self.logins.live(now.secs()) {
            if self.reaches(by, &live.human)? {
                reached.push(live);
            }
        }
        Ok(reached)
    }

    /// Ends the login of this name, or all of those of the human of this name, and says how many.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`] where it cannot be audited: nothing was ended.
    pub fn end_logins(&self, named: &str, by: &Human, now: Now) -> Result<usize, Refused> {
        let place = self.auditor.reserve()?;
        let is_meant = |live: &LiveLogin| {
            live.id.as_str() == named || live.human.to_string() == named || live.human.subject == named
        };
        let reached = self.logins(by, now)?;
        let meant: Vec<LoginId> = reached.into_iter().filter(is_meant).map(|live| live.id).collect();
        if meant.is_empty() {
            return Ok(0);
        }
        let ended = self.logins.end(|live| meant.contains(&live.id));
        place.logged_out(&by.to_string(), "ended by an operator", &ended);
        Ok(ended.len())
    }

    /// Whoever knows this human said that something of theirs ends: so do their logins.
    pub(super) fn end_logins_of(&self, human: &Human, why: &str) {
        let ended = self.logins.end_of(human);
        if ended.is_empty() {
            return;
        }
        // What follows for agents is written already; that nobody operates on must not wait for a line.
        self.auditor.logged_out(why, &ended);
    }

    /// Message C of purpose 10, as far as to who asks.
    ///
    /// # Errors
    ///
    /// [`Rejected`].
    pub(crate) fn ask_to_operate(&self, proof: &[u8], now: Now) -> Result<Asked, Rejected> {
        let proven = self.open_proof(Purpose::Operate, proof, now)?;
        if let Some(answer) = self.turn(&proven, now)? {
            return Ok(Asked::Answer(answer));
        }
        let checked = self.logins.by_key(&proven.identity, now.secs()).ok_or(Refused::NotLoggedIn);
        let checked = checked.and_then(|live| {
            let request = payload::read::<OperateRequest>(&proven.payload)?;
            Ok((live, request.call.to_string().into_bytes()))
        });
        match checked {
            Ok((live, call)) => Ok(Asked::Asks(Box::new(Asks { proven, live, call }))),
            Err(refused) => {
                self.auditor.refused(&proven.identity, &refused);
                Ok(Asked::Answer(self.answered_once(proven, &told(Err(refused)))))
            }
        }
    }

    /// Carries out what somebody who is let in asks for: message D of purpose 10.
    pub(crate) fn operate(&self, asks: Asks, operator: &dyn Operator, now: Now) -> Vec<u8> {
        let Asks { proven, live, call } = asks;
        let answer = operator.operate(&call, &live.human, &|verb, of| self.may(&live, verb, of, now));
        let told = [b"{\"answer\":", answer.as_slice(), b"}"].concat();
        self.answered_once(proven, &told)
    }

    /// Whether somebody who is let in may do this now; that they do is audited first.
    fn may(&self, live: &LiveLogin, verb: &str, of: Of, now: Now) -> Result<(), Refused> {
        let decided = self.decide_operating(live, verb, of, now);
        match decided {
            Ok(()) => {
                self.auditor.reserve()?.operated(live, verb);
                Ok(())
            }
            Err(refused) => {
                self.auditor.may_not_operate(live, verb, &refused);
                Err(refused)
            }
        }
    }

    fn decide_operating(&self, live: &LiveLogin, verb: &str, of: Of, now: Now) -> Result<(), Refused> {
        // It may have ended while it waited for its turn.
        let is_live = self.logins.by_key(&live.key, now.secs()).is_some_and(|now| now.id == live.id);
        if !is_live {
            return Err(Refused::NotLoggedIn);
        }
        self.may_log_in(&live.human)?;
        match self.may_operate(&live.human, verb)?.allowed {
            true if of == Of::Service => self.check_reach_of_service(&live.human),
            true => Ok(()),
            false => Err(Refused::MayNotOperate(verb.to_owned())),
        }
    }

    /// Nothing, where it is this message's turn; or the answer that it got before.
    fn turn(&self, proven: &Proven, now: Now) -> Result<Option<Vec<u8>>, Rejected> {
        match self.answers.take(proven.hash_before_proof.0, now.secs()) {
            Turn::First => Ok(None),
            Turn::Again(answer) => Ok(Some(answer)),
            Turn::Used => Err(Rejected::Used),
            Turn::Full => Err(Rejected::Unavailable(Unavailable::new("too many handshakes at once"))),
        }
    }

    fn answered_once(&self, proven: Proven, told: &[u8]) -> Vec<u8> {
        let transcript = proven.hash_before_proof.0;
        let answer = seal_answer_of(proven, told);
        self.answers.keep(&transcript, &answer);
        answer
    }
}

fn told(done: Result<Value, Refused>) -> Vec<u8> {
    done.unwrap_or_else(|refused| refused.to_json()).to_string().into_bytes()
}

fn short(text: &str) -> Result<String, Refused> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Refused::Malformed(format!("host, user, software: at most {MAX_TEXT_BYTES} bytes each")));
    }
    Ok(plain(text).into_owned())
}
