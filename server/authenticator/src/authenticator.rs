//! Registers an agent and opens its sessions, over the network.

use obol_handshake::{Established, IdentityKey, IdentityPublic, Purpose};
use obol_secret::json::parse;
use obol_secret::text::to_hex;
use obol_session::{AgentHalf, Cursor, SessionId};
use obol_stream::Subscribe;
use obol_uplink::{Answer, AuthError, Caller, Greeted, Pinned, Stream, Uplink, UplinkOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::derive::{OpenedSession, Route, derive};
use crate::identity::{Asked, Identity, Page};
use crate::leave::Leave;

/// What it calls itself to the service.
pub(crate) const CLIENT: &str = concat!("obol-authenticator/", env!("CARGO_PKG_VERSION"));

/// What an agent says of itself and asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Wishes {
    /// Its name, by which humans call it.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Roles that it would like.
    pub roles: Vec<String>,
    /// Tools that it would like to use.
    pub tools: Vec<String>,
    /// The machine it runs on.
    pub host: String,
    /// The user it runs as.
    pub user: String,
    /// Its software and version.
    pub software: String,
}

/// What asking to be registered came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Registered {
    /// A human has to type this code; the words are those of the key, and the human sees the same.
    Waits {
        /// The code.
        code: String,
        /// The words.
        words: String,
        /// For how many seconds it is good.
        expires_in_secs: u64,
        /// How often to ask, in seconds.
        interval_secs: u64,
    },
    /// An invitation approved it.
    Active {
        /// The agent's id.
        agent_id: String,
    },
}

/// What became of a registration.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RegistrationState {
    /// A human has yet to decide.
    Pending,
    /// A human said yes in a browser, and it has yet to come back.
    Confirming,
    /// A human said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// A human said yes.
    Approved {
        /// The agent's id.
        agent_id: String,
        /// When the approval ends, in Unix seconds.
        expires_at: u64,
    },
}

/// A registration that waits for a human.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// What the human types.
    pub code: String,
    /// Until when, in Unix seconds.
    pub expires_at: u64,
    /// Where they decide in a browser, and how that comes back.
    pub(crate) page: Option<Page>,
}

/// How a human's word in a browser could come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// To this port of loopback.
    Loopback(u16),
    /// Typed by the human.
    Code,
}

/// A session that was opened.
#[derive(Debug)]
pub struct Session {
    /// What tokens are minted with. It has no key for proofs of possession: whoever made one has it.
    pub half: AgentHalf,
    /// The requests that are calls of its tools, where the service knows.
    pub routes: Vec<Route>,
    /// When a human has to approve the agent again, in Unix seconds.
    pub approval_expires_at: u64,
}

/// Speaks to one service for one identity.
#[derive(Debug)]
pub struct Authenticator {
    identity: Identity,
    uplink: Uplink,
    previous: Option<SessionId>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RegisterDocument {
    Waits {
        registration_id: String,
        poll_token: String,
        user_code: String,
        interval: u64,
        expires_in: u64,
        #[serde(default)]
        page: Option<Page>,
    },
    Active {
        agent_id: String,
    },
}

impl Authenticator {
    /// For a service and an identity.
    ///
    /// # Errors
    ///
    /// Where the certificate authorities cannot be read.
    pub fn new(service: Pinned, identity: Identity, options: &UplinkOptions) -> Result<Self, AuthError> {
        Ok(Self { identity, uplink: Uplink::new(service, options)?, previous: None })
    }

    /// Which service this is, and the key that it must have.
    pub fn service(&self) -> &Pinned {
        self.uplink.service()
    }

    /// How far this machine's clock was ahead of the service's when they last spoke, in seconds; negative where it was behind.
    pub fn skew(&self) -> Option<i64> {
        self.uplink.skew()
    }

    /// The registration that waits for a human, if one does.
    pub fn waiting(&self) -> Option<Waiting> {
        let asked = self.identity.asked()?;
        Some(Waiting {
            code: asked.user_code.clone(),
            expires_at: asked.expires_at,
            page: asked.page.clone(),
        })
    }

    /// Forgets a registration of which the service knows nothing any more.
    ///
    /// # Errors
    ///
    /// [`AuthError::Identity`].
    pub(crate) fn forget_registration(&mut self) -> Result<(), AuthError> {
        Ok(self.identity.set_asked(None)?)
    }

    /// The identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The identity, to be left as a kill would leave it.
    #[cfg(test)]
    pub(crate) fn identity_mut(&mut self) -> &mut Identity {
        &mut self.identity
    }

    /// Asks to be registered. `ticket` is an invitation's. `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn register(
        &mut self,
        wishes: &Wishes,
        ticket: Option<&str>,
        now: u64,
    ) -> Result<Registered, AuthError> {
        self.register_by(wishes, ticket.map(Leave::Ticket), None, now).await
    }

    /// Asks to be registered by a signed token of somebody whom the service takes at their word. `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn register_attested(
        &mut self,
        wishes: &Wishes,
        assertion: &str,
        now: u64,
    ) -> Result<Registered, AuthError> {
        self.register_by(wishes, Some(Leave::Assertion(assertion)), None, now).await
    }

    /// As [`register`](Self::register), where a human's word in a browser could come back.
    pub(crate) async fn register_by(
        &mut self,
        wishes: &Wishes,
        leave: Option<Leave<'_>>,
        way: Option<Way>,
        now: u64,
    ) -> Result<Registered, AuthError> {
        let wanted = serde_json::to_value(wishes).map_err(|error| AuthError::System(error.to_string()))?;
        let mut caller = Registering { identity: &self.identity, wanted, leave, way };
        let (_, document) = self.uplink.carry_out(Purpose::Register, "/v1/agents", now, &mut caller).await?;
        match parse(&document).map_err(|error| AuthError::Answer(error.to_string()))? {
            RegisterDocument::Active { agent_id } => {
                self.identity.set_agent_id(&agent_id)?;
                Ok(Registered::Active { agent_id })
            }
            RegisterDocument::Waits {
                registration_id,
                poll_token,
                user_code,
                interval,
                expires_in,
                page,
            } => {
                let code = user_code.clone();
                let expires_at = now.saturating_add(expires_in);
                self.identity.set_asked(Some(Asked {
                    registration_id,
                    poll_token,
                    user_code,
                    expires_at,
                    page,
                }))?;
                let words = self.identity.public().words();
                Ok(Registered::Waits { code, words, expires_in_secs: expires_in, interval_secs: interval })
            }
        }
    }

    /// Asks what became of the registration.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn registration(&mut self) -> Result<RegistrationState, AuthError> {
        let asked = self.identity.asked().cloned().ok_or(AuthError::NotAsked)?;
        let path = format!("/v1/agents/registrations/{}", asked.registration_id);
        let mut connection = self.uplink.connect().await?;
        let body = match connection.get(&path, &asked.poll_token).await? {
            Answer::Done(body) => body,
            Answer::Refused(clear) => return Err(clear.into()),
        };
        let state = parse(&body).map_err(|error| AuthError::Answer(error.to_string()))?;
        match &state {
            RegistrationState::Approved { agent_id, .. } => self.identity.set_agent_id(agent_id)?,
            RegistrationState::Denied | RegistrationState::Expired => self.identity.set_asked(None)?,
            RegistrationState::Pending | RegistrationState::Confirming => {}
        }
        Ok(state)
    }

    /// Shows the service what came back with a human's yes; the agent's id, and when its approval ends, in Unix seconds.
    pub(crate) async fn complete(&mut self, shown: &str) -> Result<(String, u64), AuthError> {
        let asked = self.identity.asked().cloned().ok_or(AuthError::NotAsked)?;
        let path = format!("/v1/agents/registrations/{}/complete", asked.registration_id);
        let mut connection = self.uplink.connect().await?;
        let body = match connection.tell(&path, &asked.poll_token, &json!({ "code": shown })).await? {
            Answer::Done(body) => body,
            Answer::Refused(clear) => return Err(clear.into()),
        };
        match parse(&body).map_err(|error| AuthError::Answer(error.to_string()))? {
            RegistrationState::Approved { agent_id, expires_at } => {
                self.identity.set_agent_id(&agent_id)?;
                Ok((agent_id, expires_at))
            }
            other => Err(AuthError::Answer(format!("{other:?} is not what a completed registration is"))),
        }
    }

    /// What whoever brings a human's yes names.
    pub(crate) fn registration_id(&self) -> Option<&str> {
        self.identity.asked().map(|asked| asked.registration_id.as_str())
    }

    /// Opens a session. `pop_pub` is the public half of the key that its proofs of possession will be made with. `now` in Unix
    /// seconds.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn authenticate(&mut self, pop_pub: Option<[u8; 32]>, now: u64) -> Result<Session, AuthError> {
        let mut caller = Opening { identity: &mut self.identity, pop_pub, previous: self.previous, now };
        let (proven, document) =
            self.uplink.carry_out(Purpose::Session, "/v1/sessions", now, &mut caller).await?;
        let (own, sek) = (self.identity.identity_key(), sek_of(&self.identity)?);
        let opened = derive(self.uplink.service(), proven, &document, &own, &sek)?;
        let OpenedSession { half, routes, approval_expires_at } = opened;
        Ok(Session { half, routes, approval_expires_at })
    }

    /// What listens to the service beside everything else.
    pub(crate) fn listening(&self) -> Listening {
        self.listening_as(self.identity.identity_key())
    }

    /// Another way to the service, for what is done at the same time.
    pub(crate) fn another_uplink(&self) -> Uplink {
        self.uplink.another()
    }

    fn listening_as(&self, key: IdentityKey) -> Listening {
        Listening { uplink: self.uplink.another(), key }
    }

    /// Replaces the identity key by a fresh one, or goes on with that where it was begun before. `now` in Unix seconds.
    ///
    /// A kill at any point leaves both keys in the file, and this finds out which of them the service takes.
    ///
    /// # Errors
    ///
    /// [`AuthError`]. The old key may go on working, or the new one may: this is to be called again before anything else.
    pub async fn rotate(&mut self, now: u64) -> Result<(), AuthError> {
        if self.settle(now).await? {
            return Ok(());
        }
        self.name_next(now).await?;
        self.prove_next(now).await
    }

    /// Whether the next key may be in force already: nothing else is to be done with the old one before [`settle`](Self::settle).
    pub(crate) fn is_unsettled(&self) -> bool {
        self.identity.next_named_in().is_some()
    }

    /// Finds out whether a key that was named is in force, and sees to it that it is; whether it is.
    pub(crate) async fn settle(&mut self, now: u64) -> Result<bool, AuthError> {
        if !self.is_unsettled() {
            return Ok(false);
        }
        match self.prove_next(now).await {
            // It was proven before, or too much time has passed since it was named.
            Err(AuthError::Refused { code, .. }) if code == "UNKNOWN" => {}
            proven => return proven.map(|()| true),
        }
        let next = self.identity.next_key()?;
        match self.listening_as(next).follow(None, now).await {
            Err(AuthError::Refused { code, .. }) if code == "NOT_REGISTERED" => {
                self.identity.set_next_named_in(None)?;
                Ok(false)
            }
            Err(AuthError::Refused { code, detail }) if code != "REVOKED" => {
                Err(AuthError::Refused { code, detail })
            }
            // Whoever is revoked is known.
            Ok(_) | Err(AuthError::Refused { .. }) => Ok(self.identity.take_next(now).map(|()| true)?),
            Err(error) => Err(error),
        }
    }

    /// The old key names the new one.
    pub(crate) async fn name_next(&mut self, now: u64) -> Result<(), AuthError> {
        let next = self.identity.next_key()?.public();
        let mut caller = Naming { key: self.identity.identity_key(), next };
        let (proven, _) =
            self.uplink.carry_out(Purpose::RotateKey, "/v1/agents/rotate", now, &mut caller).await?;
        Ok(self.identity.set_next_named_in(Some(proven.established.hash.0))?)
    }

    /// The new key proves itself, and takes the old one's place.
    async fn prove_next(&mut self, now: u64) -> Result<(), AuthError> {
        let named_in = self.identity.next_named_in().ok_or(AuthError::NotAsked)?;
        let mut caller = Proving { key: self.identity.next_key()?, named_in };
        self.uplink.carry_out(Purpose::RotateKey, "/v1/agents/rotate", now, &mut caller).await?;
        Ok(self.identity.take_next(now)?)
    }

    /// Has the service end the agent for good: its sessions end, and its key never returns. `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn deregister(&mut self, now: u64) -> Result<(), AuthError> {
        let mut caller = Leaving { key: self.identity.identity_key() };
        self.uplink.carry_out(Purpose::Deregister, "/v1/agents/deregister", now, &mut caller).await?;
        Ok(())
    }

    /// Begins with another identity, where this one has ended for good.
    ///
    /// # Errors
    ///
    /// [`AuthError::Identity`].
    pub(crate) fn begin_anew(&mut self) -> Result<(), AuthError> {
        self.previous = None;
        Ok(self.identity.begin_anew()?)
    }

    /// Notes since when the key is in use, where that is not known.
    ///
    /// # Errors
    ///
    /// [`AuthError::Identity`] where that is not kept.
    pub(crate) fn set_key_since(&mut self, now: u64) -> Result<(), AuthError> {
        Ok(self.identity.set_key_since(now)?)
    }

    /// The session that the next one takes the place of: the service closes it once that one is open and its tokens are over.
    pub(crate) fn replaces(&mut self, previous: Option<SessionId>) {
        self.previous = previous;
    }

    /// Whether the service has heard of a flush of the sidecar that was at this time.
    pub(crate) fn has_told_flush(&self, since: u64) -> bool {
        self.identity.told_flush() == Some(since)
    }

    /// The service has heard of it.
    ///
    /// # Errors
    ///
    /// [`AuthError::Identity`] where that is not kept.
    pub(crate) fn set_told_flush(&mut self, since: u64) -> Result<(), AuthError> {
        Ok(self.identity.set_told_flush(since)?)
    }
}

/// What listens to the service.
#[derive(Debug)]
pub(crate) struct Listening {
    uplink: Uplink,
    key: IdentityKey,
}

impl Listening {
    /// As whom it listens from the next beginning on.
    pub(crate) fn set_key(&mut self, key: IdentityKey) {
        self.key = key;
    }

    /// Follows what the service says of this agent, behind a cursor. `now` in Unix seconds.
    pub(crate) async fn follow(&mut self, after: Option<Cursor>, now: u64) -> Result<Stream, AuthError> {
        let mut caller = Following { key: &self.key, after, now };
        self.uplink.follow(Purpose::AgentStream, "/v1/agents/stream", now, &mut caller).await
    }
}

/// Purpose 2.
struct Registering<'a> {
    identity: &'a Identity,
    wanted: Value,
    leave: Option<Leave<'a>>,
    way: Option<Way>,
}

impl Caller for Registering<'_> {
    fn key(&self) -> IdentityKey {
        self.identity.identity_key()
    }

    fn payload(&self, greeted: &Greeted) -> Result<Value, AuthError> {
        let mut request = greeted.sek_fields(&sek_of(self.identity)?);
        request.insert("wanted".to_owned(), self.wanted.clone());
        match self.leave {
            Some(Leave::Ticket(ticket)) => drop(request.insert("ticket".to_owned(), json!(ticket))),
            Some(Leave::Assertion(word)) => drop(request.insert("assertion".to_owned(), json!(word))),
            None => {}
        }
        match self.way {
            Some(Way::Loopback(port)) => {
                request.insert("flow".to_owned(), json!({ "loopback": { "port": port } }));
            }
            Some(Way::Code) => {
                request.insert("flow".to_owned(), json!("code"));
            }
            None => {}
        }
        Ok(Value::Object(request))
    }
}

/// Purpose 1.
struct Opening<'a> {
    identity: &'a mut Identity,
    pop_pub: Option<[u8; 32]>,
    previous: Option<SessionId>,
    now: u64,
}

impl Caller for Opening<'_> {
    fn key(&self) -> IdentityKey {
        self.identity.identity_key()
    }

    fn payload(&self, greeted: &Greeted) -> Result<Value, AuthError> {
        let mut request = greeted.sek_fields(&sek_of(self.identity)?);
        if let Some(pop_pub) = &self.pop_pub {
            request.insert("pop_pub".to_owned(), json!(to_hex(pop_pub)));
        }
        let chain = self.identity.chain();
        let chain: Vec<&str> = chain.iter().map(|value| value.as_str()).collect();
        request.insert("chain".to_owned(), json!(chain));
        if let Some(previous) = self.previous {
            request.insert("previous_session".to_owned(), json!(previous));
        }
        request.insert("client".to_owned(), json!(CLIENT));
        request.insert("now".to_owned(), json!(self.now));
        Ok(Value::Object(request))
    }

    fn before(&mut self, established: &Established) -> Result<(), AuthError> {
        Ok(self.identity.expect(&established.chain)?)
    }

    fn after(&mut self, established: &Established, done: bool) -> Result<(), AuthError> {
        Ok(self.identity.settle(&established.chain, done)?)
    }
}

/// Purpose 7, by the old key.
struct Naming {
    key: IdentityKey,
    next: IdentityPublic,
}

impl Caller for Naming {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        Ok(json!({ "next": to_hex(&self.next.0) }))
    }
}

/// Purpose 7, by the new key.
struct Proving {
    key: IdentityKey,
    named_in: [u8; 32],
}

impl Caller for Proving {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        Ok(json!({ "first": to_hex(&self.named_in) }))
    }
}

/// Purpose 8.
struct Leaving {
    key: IdentityKey,
}

impl Caller for Leaving {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        Ok(json!({}))
    }
}

/// Purpose 4.
struct Following<'a> {
    key: &'a IdentityKey,
    after: Option<Cursor>,
    now: u64,
}

impl Caller for Following<'_> {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        let subscribe =
            Subscribe { after: self.after, client: CLIENT.to_owned(), now: self.now, lease_secs: None };
        serde_json::to_value(subscribe).map_err(|error| AuthError::System(error.to_string()))
    }
}

fn sek_of(identity: &Identity) -> Result<obol_handshake::SekKey, AuthError> {
    identity.sek().ok_or_else(|| AuthError::System("the identity's SEK is not a key".to_owned()))
}
