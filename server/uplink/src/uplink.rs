//! One purpose from message A to the answer, over the network: begun anew for another suite where the service asks for one
//! that this side speaks, and where the handshake took too long.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_handshake::{Established, IdentityKey, Purpose};
use obol_session::Suite;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::connect::{Answer, Connection, Opened, UplinkConnector};
use crate::error::{AuthError, Clear};
use crate::exchange::{Greeted, Proven, Told, begin};
use crate::kept::Kept;
use crate::pinned::Pinned;
use crate::stream::Stream;

/// Suites as they are tried if nothing else is said: the strongest first.
const PREFERENCE: [Suite; 4] = [Suite::HybridAesGcm, Suite::AesGcm, Suite::ChaCha20Poly1305, Suite::Tbac];
/// How often the same message is sent again after its answer was lost.
const MAX_REPEATS: usize = 3;
/// How far the clocks may be apart, in seconds.
pub const MAX_SKEW_SECS: u64 = 30;
/// Where message A goes.
const HANDSHAKE: &str = "/v1/handshake";
/// How often a handshake is begun anew: for another suite, or because it took too long.
const MAX_BEGINNINGS: usize = 3;

/// How the service is spoken to.
#[derive(Clone, Debug, Default)]
pub struct UplinkOptions {
    suites: Vec<Suite>,
    ca_file: Option<PathBuf>,
}

impl UplinkOptions {
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

/// Who speaks to the service.
pub trait Caller: Send {
    /// The key that it proves.
    fn key(&self) -> IdentityKey;

    /// What it says, once the service has shown who it is.
    ///
    /// # Errors
    ///
    /// Where it has nothing to say; nothing is sent then.
    fn payload(&self, greeted: &Greeted) -> Result<Value, AuthError>;

    /// Whether the whole may be begun anew where nobody knows if the service did what was asked, as nothing is done twice by that.
    fn may_begin_anew(&self) -> bool {
        true
    }

    /// Keeps what must be kept before the message that may need it is sent.
    ///
    /// # Errors
    ///
    /// Where it cannot be kept; nothing is sent then.
    fn before(&mut self, established: &Established) -> Result<(), AuthError> {
        let _ = established;
        Ok(())
    }

    /// Keeps what is known once the service has answered, and whether it did what was asked.
    ///
    /// # Errors
    ///
    /// Where it cannot be kept.
    fn after(&mut self, established: &Established, done: bool) -> Result<(), AuthError> {
        let _ = (established, done);
        Ok(())
    }
}

/// The way to one service.
#[derive(Debug)]
pub struct Uplink {
    service: Pinned,
    connector: Arc<UplinkConnector>,
    suites: Vec<Suite>,
    skew: Option<i64>,
    kept: Kept,
}

/// What messages C and D came to.
enum Finished<T> {
    Done(T),
    Refused {
        code: String,
        detail: String,
        suite: Option<Suite>,
    },
    /// The cookie was too old. The service did nothing, or did it before.
    TooLate(Clear),
}

impl Uplink {
    /// To a service.
    ///
    /// # Errors
    ///
    /// Where the certificate authorities cannot be read, or there are none and the service is reached over TLS.
    pub fn new(service: Pinned, options: &UplinkOptions) -> Result<Self, AuthError> {
        let connector = Arc::new(UplinkConnector::new(&service, options.ca_file.as_deref())?);
        let suites = if options.suites.is_empty() { PREFERENCE.to_vec() } else { options.suites.clone() };
        Ok(Self { service, connector, suites, skew: None, kept: Kept::default() })
    }

    /// Another one, for what is done at the same time.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            service: self.service.clone(),
            connector: Arc::clone(&self.connector),
            suites: self.suites.clone(),
            skew: None,
            kept: Kept::default(),
        }
    }

    /// Which service this is, and the key that it must have.
    pub fn service(&self) -> &Pinned {
        &self.service
    }

    /// How far this machine's clock was ahead of the service's when they last spoke, in seconds; negative where it was behind.
    pub fn skew(&self) -> Option<i64> {
        self.skew
    }

    /// A connection to the service, for what no handshake protects.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unreachable`].
    pub async fn connect(&self) -> Result<Connection, AuthError> {
        self.connector.open(&self.service).await
    }

    /// Carries out one purpose: what the handshake left, and the service's answer. `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn carry_out(
        &mut self,
        purpose: Purpose,
        path: &str,
        now: u64,
        caller: &mut dyn Caller,
    ) -> Result<(Proven, Zeroizing<Vec<u8>>), AuthError> {
        let mut attempts = Attempts::new(&self.suites)?;
        while let Some((connection, greeted)) = self.begin(purpose, now, &mut attempts).await? {
            let request = caller.payload(&greeted)?;
            let (proven, message) = greeted.prove(&caller.key(), request)?;
            let finished = self.finish(connection, path, proven, &message, caller).await?;
            if let (Finished::TooLate(clear), false) = (&finished, caller.may_begin_anew()) {
                return Err(clear.clone().into());
            }
            if let Some(done) = attempts.take(finished)? {
                return Ok(done);
            }
        }
        Err(attempts.last)
    }

    /// Begins to follow the service, as [`carry_out`](Self::carry_out).
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn follow(
        &mut self,
        purpose: Purpose,
        path: &str,
        now: u64,
        caller: &mut dyn Caller,
    ) -> Result<Stream, AuthError> {
        let mut attempts = Attempts::new(&self.suites)?;
        while let Some((connection, greeted)) = self.begin(purpose, now, &mut attempts).await? {
            let request = caller.payload(&greeted)?;
            let (proven, message) = greeted.prove(&caller.key(), request)?;
            let finished = match connection.into_stream(path, &message).await? {
                Opened::Open(body) => {
                    let stream =
                        Stream::begin(body, proven, Arc::clone(&self.connector), self.service.clone());
                    Finished::Done(stream.await?)
                }
                // Its answer cannot be kept and asked for again, so a lost one is begun anew.
                Opened::Refused(clear) if is_too_late(&clear) => Finished::TooLate(clear),
                Opened::Refused(clear) => return Err(clear.into()),
            };
            if let Some(done) = attempts.take(finished)? {
                return Ok(done);
            }
        }
        Err(attempts.last)
    }

    /// Messages A and B of one attempt, until a suite is found that both speak; `None` once there were enough attempts.
    async fn begin(
        &mut self,
        purpose: Purpose,
        now: u64,
        attempts: &mut Attempts,
    ) -> Result<Option<(Connection, Greeted)>, AuthError> {
        while attempts.begin() {
            let (connection, greeted) = self.greet(purpose, now, attempts).await?;
            match greeted {
                Ok(greeted) => return Ok(Some((connection, greeted))),
                Err(other) => {
                    self.kept.put(connection);
                    attempts.suite = other;
                }
            }
        }
        Ok(None)
    }

    /// Messages A and B; or another suite that both speak, where the service does not speak this one.
    async fn greet(
        &mut self,
        purpose: Purpose,
        now: u64,
        attempts: &Attempts,
    ) -> Result<(Connection, Result<Greeted, Suite>), AuthError> {
        let suite = attempts.suite;
        let (begun, hello) = begin(&self.service, purpose, suite, &self.suites)?;
        let (connection, answer) = self.say_hello(&hello).await?;
        let greeted = match answer {
            Answer::Done(reply) => {
                let (greeted, skew) = begun.greeted(&reply, attempts.preferred(), now)?;
                self.skew = Some(skew);
                if skew.unsigned_abs() > MAX_SKEW_SECS {
                    return Err(AuthError::ClockSkew(skew));
                }
                Ok(greeted)
            }
            Answer::Refused(clear) if clear.code == "SUITE" => {
                let other =
                    self.suites.iter().find(|own| **own != suite && clear.suites.contains(&own.number()));
                Err(other.copied().ok_or(AuthError::NoSuite)?)
            }
            Answer::Refused(clear) => return Err(clear.into()),
        };
        Ok((connection, greeted))
    }

    /// Sends message A: over the connection that was kept, or over another where that is dead, as nothing follows from this
    /// message.
    async fn say_hello(&mut self, hello: &[u8]) -> Result<(Connection, Answer), AuthError> {
        if let Some(kept) = self.kept.take() {
            match self.send(Some(kept), HANDSHAKE, hello).await {
                Ok(answered) => return Ok(answered),
                Err(error) => tracing::debug!(%error, "the connection that was kept is dead"),
            }
        }
        self.send(None, HANDSHAKE, hello).await
    }

    /// Messages C and D. A lost answer is asked for again with the same bytes.
    async fn finish(
        &mut self,
        connection: Connection,
        path: &str,
        mut proven: Proven,
        message: &[u8],
        caller: &mut dyn Caller,
    ) -> Result<Finished<(Proven, Zeroizing<Vec<u8>>)>, AuthError> {
        caller.before(&proven.established)?;
        let mut connection = Some(connection);
        let mut repeats = 0;
        let answer = loop {
            match self.send(connection.take(), path, message).await {
                Ok((open, answer)) => {
                    self.kept.put(open);
                    break answer;
                }
                Err(error) if repeats >= MAX_REPEATS => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "an answer was lost; the same message is sent again");
                    repeats += 1;
                    tokio::time::sleep(Duration::from_millis(100 << repeats)).await;
                }
            }
        };
        let answer = match answer {
            Answer::Done(answer) => answer,
            Answer::Refused(clear) if is_too_late(&clear) => return Ok(Finished::TooLate(clear)),
            Answer::Refused(clear) => return Err(clear.into()),
        };
        let told = proven.told(&answer)?;
        caller.after(&proven.established, matches!(told, Told::Done(_)))?;
        Ok(match told {
            Told::Done(document) => Finished::Done((proven, document)),
            Told::Refused { code, detail, suite } => Finished::Refused { code, detail, suite },
        })
    }

    /// Sends a message over this connection, or a new one.
    async fn send(
        &self,
        connection: Option<Connection>,
        path: &str,
        message: &[u8],
    ) -> Result<(Connection, Answer), AuthError> {
        let mut connection = match connection {
            Some(open) => open,
            None => self.connect().await?,
        };
        let answer = connection.post(path, message).await?;
        Ok((connection, answer))
    }
}

/// Which suite is tried next, and how often one was.
struct Attempts {
    suites: Vec<Suite>,
    suite: Suite,
    /// What the service refuses inside the handshake is its word: better suites are then known not to do.
    ruled_out: usize,
    left: usize,
    last: AuthError,
}

impl Attempts {
    fn new(suites: &[Suite]) -> Result<Self, AuthError> {
        let suite = suites.first().copied().ok_or(AuthError::NoSuite)?;
        let suites = suites.to_vec();
        Ok(Self { suites, suite, ruled_out: 0, left: MAX_BEGINNINGS, last: AuthError::NoSuite })
    }

    fn begin(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    fn preferred(&self) -> &[Suite] {
        self.suites.get(self.ruled_out..).unwrap_or_default()
    }

    /// What it came to; `None` where it is worth another attempt.
    fn take<T>(&mut self, finished: Finished<T>) -> Result<Option<T>, AuthError> {
        match finished {
            Finished::Done(done) => Ok(Some(done)),
            Finished::Refused { code, detail, suite: asked } => {
                let place = asked.and_then(|asked| self.suites.iter().position(|own| *own == asked));
                let refused = AuthError::Refused { code, detail };
                match place.and_then(|place| Some((place, *self.suites.get(place)?))) {
                    Some((place, suite)) if suite != self.suite => {
                        (self.suite, self.ruled_out, self.last) = (suite, place, refused);
                        Ok(None)
                    }
                    _ => Err(refused),
                }
            }
            Finished::TooLate(clear) => {
                self.last = clear.into();
                Ok(None)
            }
        }
    }
}

fn is_too_late(clear: &Clear) -> bool {
    ["COOKIE_EXPIRED", "HANDSHAKE_USED"].contains(&clear.code.as_str())
}
