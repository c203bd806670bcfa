//! Purposes 4 and 5: resource servers and agents follow what happens, and say how far they have come.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use obol_handshake::{HandshakeError, Purpose, Random as _, Sealer};
use obol_stream::{Hello, Mode, Standing, StreamId, Subscribe, Word};
use tokio::sync::mpsc;

use super::alarms::Stolen;
use super::{Authority, Now, Rejected, handshake_of, payload};
use crate::directory::{
    AgentStatus, Answer, Carried, EndScope, Event, Follower, Follows, Human, MAX_PAGE, Replica,
};
use crate::notices::Topic;
use crate::refused::Refused;
use crate::settings::{LEASE_SECS_ALLOWED, MAX_SKEW_SECS};
use crate::stream::{Feed, Joined, Live, Who};

/// How often a stream has a heartbeat, in seconds.
pub(crate) const HEARTBEAT_SECS: u64 = 5;
/// How long an agent's answer waits for the resource servers to have been sent its session.
const SENT_PATIENCE: Duration = Duration::from_millis(300);
/// How long after it was said a heartbeat may be heard and still count, in seconds: its time may be off by so much from the
/// follower's clock, and that clock from this one.
const HELD_BACK_SECS: u64 = 2 * MAX_SKEW_SECS;
/// The longest text of a follower that goes into the log, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// What became of a third message that asks for a stream: the answers are sealed with this.
pub(crate) struct Begun {
    pub(crate) sealer: Sealer,
    pub(crate) outcome: Result<Started, Refused>,
}

/// A stream that was opened.
pub(crate) struct Started {
    pub(crate) live: Arc<Live>,
    pub(crate) queue: mpsc::Receiver<Arc<Event>>,
    pub(crate) feed: Feed,
    pub(crate) hello: Hello,
}

/// What a copy of a resource server has said about an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy {
    /// Its id.
    pub id: String,
    /// Its resource server.
    pub audience: String,
    /// Whether it follows now.
    pub follows: bool,
    /// Whether it says that it has applied the event.
    pub confirmed: bool,
    /// When it accepts nothing any more unless it hears something, at the latest, in Unix seconds.
    pub lease_ends: u64,
    /// The number of the last event that it says it has applied.
    pub applied: u64,
    /// When it said so last, in Unix seconds, as far as that is known.
    pub said_at: Option<u64>,
    /// When it joined, in Unix seconds.
    pub joined_at: u64,
}

/// What an agent's authenticator has said about an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sidecar {
    /// The agent.
    pub agent: String,
    /// Whether it follows now.
    pub follows: bool,
    /// Whether it says that its sidecar destroyed what was minted ahead.
    pub confirmed: bool,
}

/// Why a word was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotTaken {
    /// It is not a word of that stream's follower, or was taken before.
    Malformed,
    /// It cannot be carried out now.
    Unavailable(String),
}

impl Authority {
    /// Opens a stream for a third message.
    ///
    /// # Errors
    ///
    /// [`Rejected`] where there is nothing to seal an answer with, or this handshake was answered before.
    pub(crate) fn begin_stream(&self, purpose: Purpose, proof: &[u8], now: Now) -> Result<Begun, Rejected> {
        let proven = self.open_proof(purpose, proof, now)?;
        let asked = payload::read::<Subscribe>(&proven.payload).and_then(|asked| check(asked, now));
        let lease_secs =
            asked.as_ref().ok().and_then(|asked| asked.lease_secs).unwrap_or(self.settings.lease_secs);
        let follows = match purpose {
            Purpose::AgentStream => Follows::Agent(proven.identity),
            Purpose::ResourceStream => Follows::Replica(proven.identity, lease_secs),
            other => return Err(Rejected::Malformed(HandshakeError::Purpose(other.number()))),
        };
        let handshake = handshake_of(&proven);
        // Before anything is sealed: the same message again would else be answered under the same key and numbers.
        let carried = self.directory.begin_stream(handshake, follows, now.secs())?;
        let follower = match carried {
            Carried::Now(outcome, _) => outcome,
            Carried::Again(_) | Carried::Used | Carried::Stale => return Err(Rejected::Used),
        };
        let established = proven.established;
        let outcome = match (asked, follower) {
            (Ok(asked), Ok(follower)) => {
                Ok(self.start(&asked, &follower, lease_secs, established.receive, now)?)
            }
            (Err(refused), _) | (_, Err(refused)) => {
                self.auditor.refused(&proven.identity, &refused);
                Err(refused)
            }
        };
        Ok(Begun { sealer: established.send, outcome })
    }

    fn start(
        &self,
        asked: &Subscribe,
        follower: &Follower,
        lease_secs: u64,
        opener: obol_handshake::Opener,
        now: Now,
    ) -> Answer<Started> {
        let mut id = [0; 16];
        self.random().fill(&mut id);
        let who = Who::of(follower);
        let Joined { live, queue, head } = self.hub.join(StreamId(id), who.clone(), lease_secs, opener);
        let after = asked.after.filter(|after| after.incarnation == self.incarnation);
        if after.is_some_and(|after| after.seq > head) {
            self.knows_less_than(live.who.id(), now);
        }
        let feed = Feed::new(Arc::clone(&self.directory), who, after.map(|after| after.seq), head);
        let feed = feed.inspect_err(|_| self.hub.leave(&live))?;
        if let (Some(after), false) = (after, feed.is_snapshot()) {
            self.hub.note_applied(&live, after.seq);
        }
        let (audience, standing) = match follower {
            Follower::Replica(replica) => (Some(replica.audience.clone()), None),
            Follower::Agent(agent) => (None, Some(standing(agent.status))),
        };
        let hello = Hello {
            stream: live.id,
            incarnation: self.incarnation,
            head,
            lease_secs: self.settings.lease_secs,
            heartbeat_secs: HEARTBEAT_SECS,
            mode: if feed.is_snapshot() { Mode::Snapshot } else { Mode::Resume },
            follower: live.who.id().to_owned(),
            audience,
            standing,
        };
        tracing::info!(follower = live.who.id(), mode = ?hello.mode, head, "a stream was opened");
        Ok(Started { live, queue, feed, hello })
    }

    /// A stream is over: how far its follower had come is kept.
    pub(crate) fn end_stream(&self, live: &Live) {
        self.hub.leave(live);
        if let Who::Replica { id, .. } = &live.who
            && let Err(error) = self.directory.acknowledge(id, live.applied(), live.heard_at())
        {
            tracing::warn!(%error, "how far a resource server has come could not be kept");
        }
        tracing::info!(follower = live.who.id(), "a stream is over");
    }

    /// Hands out what was committed since the last time.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub(crate) fn dispatch(&self) -> Answer<()> {
        loop {
            let after = self.hub.dispatched();
            match self.directory.events(after)? {
                Some(events) => {
                    let is_all = events.len() < MAX_PAGE;
                    self.hub.dispatch(events);
                    if is_all {
                        return Ok(());
                    }
                }
                None => self.hub.start_over(self.directory.last_event()?),
            }
        }
    }

    /// Takes a word of a follower.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub(crate) fn word(&self, live: &Live, number: u64, sealed: &[u8], now: Now) -> Result<(), NotTaken> {
        match (live.open(number, sealed).ok_or(NotTaken::Malformed)?, &live.who) {
            (Word::Applied { seq }, _) => {
                live.note_said(now.secs());
                self.hub.note_applied(live, seq);
                Ok(())
            }
            (Word::Flushed { scope, reason, .. }, Who::Agent(agent)) => {
                let short = |text: &str| {
                    let plain = obol_secret::text::plain(text);
                    plain.chars().take(MAX_TEXT_BYTES / 4).collect::<String>()
                };
                let reason = format!("its sidecar was flushed ({}: {})", short(&scope), short(&reason));
                let by = Human { issuer: "agent".to_owned(), subject: agent.to_string() };
                let text = format!("agent {agent} is held: {reason}");
                self.notices.say(Topic::Alarms, "sidecar_flushed", text, now.secs());
                match self.end_as(&EndScope::Agent(agent.to_string()), &reason, &by, now) {
                    Ok(_) | Err(Refused::Revoked) => Ok(()),
                    Err(refused) => Err(NotTaken::Unavailable(refused.to_string())),
                }
            }
            (Word::TokenStolen { session, audience, tool, unsaid }, Who::Agent(agent)) => {
                let said = Stolen { session, audience, tool, times: unsaid.saturating_add(1) };
                self.token_stolen(agent, &said, now)
                    .map(|_in_a_line| ())
                    .map_err(|error| NotTaken::Unavailable(error.to_string()))
            }
            // It has no sidecar.
            (Word::Flushed { .. } | Word::TokenStolen { .. }, Who::Replica { .. }) => {
                Err(NotTaken::Malformed)
            }
        }
    }

    /// Waits, not for long, until the resource servers that follow have been sent this session: its tokens may be there soon.
    pub(super) fn wait_until_sent(&self, audiences: &[String], event: u64) {
        self.hub.wait_written(audiences, event, Instant::now() + SENT_PATIENCE);
    }

    /// Waits until everybody who follows and holds what was ended has said so, at most for this long; and tells who has.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`].
    pub fn confirmations(
        &self,
        event: u64,
        audiences: &[String],
        agents: &[String],
        patience: Duration,
    ) -> Result<(Vec<Copy>, Vec<Sidecar>), Refused> {
        let holds = |replica: &Replica| audiences.contains(&replica.audience);
        let mut replicas = self.directory.replicas()?;
        replicas.retain(holds);
        let ids = replicas.iter().map(|replica| replica.id.as_str());
        let followers: Vec<&str> = ids.chain(agents.iter().map(String::as_str)).collect();
        self.hub.wait_applied(&followers, event, Instant::now() + patience);
        // A row that was written while we waited says more.
        let mut replicas = self.directory.replicas()?;
        replicas.retain(holds);
        let copies = replicas.iter().map(|replica| self.copy(replica, event)).collect();
        let sidecar = |agent: &String| {
            let live = self.hub.stream_of(agent);
            let confirmed = live.as_ref().is_some_and(|live| live.applied() >= event);
            Sidecar { agent: agent.clone(), follows: live.is_some(), confirmed }
        };
        Ok((copies, agents.iter().map(sidecar).collect()))
    }

    fn copy(&self, replica: &Replica, event: u64) -> Copy {
        let live = self.hub.stream_of(replica.id.as_str());
        let applied = live.as_ref().map_or(0, |live| live.applied()).max(replica.cursor);
        // What was sent before this process began is not known; it may have been up to then.
        let heard_at = match &live {
            Some(live) if live.heard_at() > 0 => live.heard_at(),
            _ => replica.seen_at.max(self.began_at),
        };
        let said_at = live.as_ref().map(|live| live.said_at()).or(Some(replica.seen_at));
        let kept = replica.lease_secs.unwrap_or(self.settings.lease_secs);
        let lease_secs = live.as_ref().map_or(kept, |live| live.lease_secs);
        Copy {
            id: replica.id.to_string(),
            audience: replica.audience.clone(),
            follows: live.is_some(),
            confirmed: applied >= event,
            lease_ends: heard_at.saturating_add(lease_secs).saturating_add(HELD_BACK_SECS),
            applied,
            said_at: said_at.filter(|at| *at > 0),
            joined_at: replica.joined_at,
        }
    }

    /// Forgets a copy of a resource server for good, by id.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn remove_replica(&self, id: &str, by: &Human, now: Now) -> Result<Replica, Refused> {
        let id = crate::id::ReplicaId::parse(id).ok_or(Refused::Unknown("copy of a resource server"))?;
        self.check_reach_of_service(by)?;
        let place = self.auditor.reserve()?;
        let replica = self.directory.remove_replica(&id, now.secs())??;
        place.removed(&replica, by);
        Ok(replica)
    }
}

/// What reading alone does not see.
fn check(asked: Subscribe, now: Now) -> Result<Subscribe, Refused> {
    if asked.client.len() > MAX_TEXT_BYTES {
        return Err(Refused::Malformed(format!("client: at most {MAX_TEXT_BYTES} bytes")));
    }
    // A shorter one is the follower's own affair; a longer one would let it go on after whoever ends something was told.
    let longest = *LEASE_SECS_ALLOWED.end();
    if asked.lease_secs.is_some_and(|secs| secs == 0 || secs > longest) {
        return Err(Refused::Malformed(format!("lease_secs: 1 to {longest}")));
    }
    match now.secs().abs_diff(asked.now) {
        skew if skew > MAX_SKEW_SECS => Err(Refused::ClockSkew(skew)),
        _ => Ok(asked),
    }
}

fn standing(status: AgentStatus) -> Standing {
    match status {
        AgentStatus::Active => Standing::Active,
        AgentStatus::Suspended | AgentStatus::Revoked => Standing::Suspended,
    }
}
