//! Registers an agent and opens its sessions, over the network.

use std::path::Path;

use obol_handshake::Purpose;
use obol_secret::json::parse;
use obol_secret::text::to_hex;
use obol_session::{AgentHalf, Suite};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::connect::{Answer, Clear, Connection, Connector};
use crate::error::AuthError;
use crate::exchange::{Greeted, OpenedSession, Proven, Route, Told, begin, derive};
use crate::identity::{Asked, Identity};
use crate::pinned::Pinned;

/// Suites as they are tried if nothing else is said: the strongest first.
const PREFERENCE: [Suite; 4] = [Suite::HybridAesGcm, Suite::AesGcm, Suite::ChaCha20Poly1305, Suite::Tbac];
/// How often the same message is sent again after its answer was lost.
const MAX_REPEATS: usize = 3;
/// How far the clocks may be apart, in seconds.
const MAX_SKEW_SECS: u64 = 30;
/// How often a handshake is begun anew: for another suite, or because it took too long.
const MAX_BEGINNINGS: usize = 3;

/// How the service is spoken to.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    suites: Vec<Suite>,
    ca_file: Option<std::path::PathBuf>,
}

impl ConnectOptions {
    /// All suites, the strongest first; the system's certificate authorities.
    pub fn new() -> Self {
        Self::default()
    }

    /// These suites alone, in this order. What is not named is never gone down to.
    #[must_use]
    pub fn suites(mut self, suites: &[Suite]) -> Self {
        self.suites = suites.to_vec();
        self
    }

    /// The certificate authorities of this file alone.
    #[must_use]
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.ca_file = Some(path.as_ref().to_owned());
        self
    }
}

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
    service: Pinned,
    identity: Identity,
    connector: Connector,
    suites: Vec<Suite>,
    skew: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RegisterDocument {
    Waits { registration_id: String, poll_token: String, user_code: String, interval: u64, expires_in: u64 },
    Active { agent_id: String },
}

impl Authenticator {
    /// For a service and an identity.
    ///
    /// # Errors
    ///
    /// Where the certificate authorities cannot be read.
    pub fn new(service: Pinned, identity: Identity, options: &ConnectOptions) -> Result<Self, AuthError> {
        let connector = Connector::new(options.ca_file.as_deref())?;
        let suites = if options.suites.is_empty() { PREFERENCE.to_vec() } else { options.suites.clone() };
        Ok(Self { service, identity, connector, suites, skew: None })
    }

    /// Which service this is, and the key that it must have.
    pub fn service(&self) -> &Pinned {
        &self.service
    }

    /// How far this machine's clock was ahead of the service's when they last spoke, in seconds; negative where it was behind.
    pub fn skew(&self) -> Option<i64> {
        self.skew
    }

    /// The registration that waits for a human, if one does.
    pub fn waiting(&self) -> Option<Waiting> {
        let asked = self.identity.asked()?;
        Some(Waiting { code: asked.user_code.clone(), expires_at: asked.expires_at })
    }

    /// Forgets a registration of which the service knows nothing any more.
    ///
    /// # Errors
    ///
    /// [`AuthError::Identity`].
    pub fn forget_registration(&mut self) -> Result<(), AuthError> {
        Ok(self.identity.set_asked(None)?)
    }

    /// The identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
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
        let wanted = serde_json::to_value(wishes).map_err(|error| AuthError::System(error.to_string()))?;
        let (_, document) = self
            .carry_out(Purpose::Register, "/v1/agents", now, &mut |greeted, identity| {
                let mut request = greeted.sek_fields(&sek_of(identity)?);
                request.insert("wanted".to_owned(), wanted.clone());
                if let Some(ticket) = ticket {
                    request.insert("ticket".to_owned(), json!(ticket));
                }
                Ok(Value::Object(request))
            })
            .await?;
        match parse(&document).map_err(|error| AuthError::Answer(error.to_string()))? {
            RegisterDocument::Active { agent_id } => {
                self.identity.set_agent_id(&agent_id)?;
                Ok(Registered::Active { agent_id })
            }
            RegisterDocument::Waits { registration_id, poll_token, user_code, interval, expires_in } => {
                let code = user_code.clone();
                let expires_at = now.saturating_add(expires_in);
                self.identity.set_asked(Some(Asked {
                    registration_id,
                    poll_token,
                    user_code,
                    expires_at,
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
        let mut connection = self.connector.open(&self.service).await?;
        let body = match connection.get(&path, &asked.poll_token).await? {
            Answer::Done(body) => body,
            Answer::Refused(clear) => return Err(rejected(clear)),
        };
        let state = parse(&body).map_err(|error| AuthError::Answer(error.to_string()))?;
        match &state {
            RegistrationState::Approved { agent_id, .. } => self.identity.set_agent_id(agent_id)?,
            RegistrationState::Denied | RegistrationState::Expired => self.identity.set_asked(None)?,
            RegistrationState::Pending => {}
        }
        Ok(state)
    }

    /// Opens a session. `pop_pub` is the public half of the key that its proofs of possession will be made with. `now` in Unix
    /// seconds.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn authenticate(&mut self, pop_pub: Option<[u8; 32]>, now: u64) -> Result<Session, AuthError> {
        let (proven, document) = self
            .carry_out(Purpose::Session, "/v1/sessions", now, &mut |greeted, identity| {
                let mut request = greeted.sek_fields(&sek_of(identity)?);
                if let Some(pop_pub) = &pop_pub {
                    request.insert("pop_pub".to_owned(), json!(to_hex(pop_pub)));
                }
                let chain = identity.chain();
                let chain: Vec<&str> = chain.iter().map(|value| value.as_str()).collect();
                request.insert("chain".to_owned(), json!(chain));
                request.insert(
                    "client".to_owned(),
                    json!(concat!("obol-authenticator/", env!("CARGO_PKG_VERSION"))),
                );
                request.insert("now".to_owned(), json!(now));
                Ok(Value::Object(request))
            })
            .await?;
        let (own, sek) = (self.identity.identity_key(), sek_of(&self.identity)?);
        let opened = derive(&self.service, proven, &document, &own, &sek)?;
        let OpenedSession { half, routes, approval_expires_at } = opened;
        Ok(Session { half, routes, approval_expires_at })
    }

    /// One purpose, from message A to the answer: begun anew for another suite where the service asks for one that this
    /// side speaks, and where the handshake took too long.
    async fn carry_out(
        &mut self,
        purpose: Purpose,
        path: &str,
        now: u64,
        payload: &mut (dyn FnMut(&Greeted, &Identity) -> Result<Value, AuthError> + Send),
    ) -> Result<(Proven, zeroize::Zeroizing<Vec<u8>>), AuthError> {
        let mut suite = self.suites.first().copied().ok_or(AuthError::NoSuite)?;
        // What the service refuses inside the handshake is its word: better suites are then known not to do.
        let mut ruled_out = 0;
        let mut last = AuthError::NoSuite;
        for _ in 0..MAX_BEGINNINGS {
            let mut connection = self.connector.open(&self.service).await?;
            let preferred = self.suites.get(ruled_out..).unwrap_or_default().to_vec();
            let greeted = match self.greet(&mut connection, purpose, suite, &preferred, now).await? {
                Ok(greeted) => greeted,
                Err(other) => {
                    suite = other;
                    continue;
                }
            };
            let request = payload(&greeted, &self.identity)?;
            let (proven, message) = greeted.prove(&self.identity.identity_key(), request)?;
            match self.finish(connection, purpose, path, proven, &message).await? {
                Finished::Done(proven, document) => return Ok((proven, document)),
                Finished::Refused { code, detail, suite: asked } => {
                    let place = asked.and_then(|asked| self.suites.iter().position(|own| *own == asked));
                    last = AuthError::Refused { code, detail };
                    match place {
                        Some(place) if self.suites.get(place) != Some(&suite) => {
                            (suite, ruled_out) = (*self.suites.get(place).unwrap_or(&suite), place);
                        }
                        _ => return Err(last),
                    }
                }
                Finished::TooLate(clear) => last = rejected(clear),
            }
        }
        Err(last)
    }

    /// Messages A and B; or another suite that both speak, where the service does not speak this one.
    async fn greet(
        &mut self,
        connection: &mut Connection,
        purpose: Purpose,
        suite: Suite,
        preferred: &[Suite],
        now: u64,
    ) -> Result<Result<Greeted, Suite>, AuthError> {
        let (begun, hello) = begin(&self.service, purpose, suite, &self.suites)?;
        match connection.post("/v1/handshake", &hello).await? {
            Answer::Done(reply) => {
                let (greeted, skew) = begun.greeted(&reply, preferred, now)?;
                self.skew = Some(skew);
                if skew.unsigned_abs() > MAX_SKEW_SECS {
                    return Err(AuthError::ClockSkew(skew));
                }
                Ok(Ok(greeted))
            }
            Answer::Refused(clear) if clear.code == "SUITE" => {
                let other =
                    self.suites.iter().find(|own| **own != suite && clear.suites.contains(&own.number()));
                other.copied().map(Err).ok_or(AuthError::NoSuite)
            }
            Answer::Refused(clear) => Err(rejected(clear)),
        }
    }

    /// Messages C and D. A lost answer is asked for again with the same bytes.
    async fn finish(
        &mut self,
        connection: Connection,
        purpose: Purpose,
        path: &str,
        mut proven: Proven,
        message: &[u8],
    ) -> Result<Finished, AuthError> {
        let opens = purpose == Purpose::Session;
        if opens {
            self.identity.expect(&proven.established.chain)?;
        }
        let mut connection = Some(connection);
        let mut repeats = 0;
        let answer = loop {
            let sent = match connection.take() {
                Some(mut open) => open.post(path, message).await,
                None => match self.connector.open(&self.service).await {
                    Ok(mut open) => open.post(path, message).await,
                    Err(error) => Err(error),
                },
            };
            match sent {
                Ok(answer) => break answer,
                Err(error) if repeats >= MAX_REPEATS => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "an answer was lost; the same message is sent again");
                    repeats += 1;
                    tokio::time::sleep(core::time::Duration::from_millis(100 << repeats)).await;
                }
            }
        };
        let answer = match answer {
            Answer::Done(answer) => answer,
            Answer::Refused(clear) if ["COOKIE_EXPIRED", "HANDSHAKE_USED"].contains(&clear.code.as_str()) => {
                return Ok(Finished::TooLate(clear));
            }
            Answer::Refused(clear) => return Err(rejected(clear)),
        };
        let told = proven.told(&answer)?;
        if opens {
            self.identity.settle(&proven.established.chain, matches!(told, Told::Done(_)))?;
        }
        Ok(match told {
            Told::Done(document) => Finished::Done(proven, document),
            Told::Refused { code, detail, suite } => Finished::Refused { code, detail, suite },
        })
    }
}

/// What messages C and D came to.
enum Finished {
    Done(Proven, zeroize::Zeroizing<Vec<u8>>),
    Refused {
        code: String,
        detail: String,
        suite: Option<Suite>,
    },
    /// The cookie was too old. The service did nothing, or did it before.
    TooLate(Clear),
}

fn sek_of(identity: &Identity) -> Result<obol_handshake::SekKey, AuthError> {
    identity.sek().ok_or_else(|| AuthError::System("the identity's SEK is not a key".to_owned()))
}

#[expect(clippy::needless_pass_by_value, reason = "an answer is read once")]
fn rejected(clear: Clear) -> AuthError {
    let plain = |text: &str| obol_secret::text::plain(text).into_owned();
    AuthError::Rejected { code: plain(&clear.code), detail: plain(&clear.detail) }
}
