//! What the outside world has seen of a daemon that is killed again and again, and what that rules out.
//!
//! **How it knows that a token was minted before a flush.** A token's nonce ends in a counter: the number of the
//! process's start, then how many tokens it had minted before. The operator asks for that number before he flushes. So
//! whoever sends a request after the flush has answered, and gets a token of its scope with a lower counter, has been
//! given a token that the flush had destroyed. A session that was flushed hands out nothing at all any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use obol_ipc::control::{SessionState, StatusResult};
use obol_token::Envelope;

/// Bits of a nonce counter that count inside one process.
pub(super) const BOOT_SHIFT: u32 = 40;

/// A token that a client was given.
pub(super) struct Drawn {
    tool: &'static str,
    session: u64,
    jti: [u8; 22],
    counter: u64,
    /// When the request was sent, and when the answer was there.
    sent: Instant,
    received: Instant,
}

impl Drawn {
    pub(super) fn new(tool: &'static str, text: &str, sent: Instant, received: Instant) -> Self {
        let bytes = obol_token::text::from_base64url(text.as_bytes()).expect("a token's text");
        let envelope = Envelope::parse(&bytes).expect("a token");
        let [.., a, b, c, d, e, f, g, h] = envelope.iv();
        let counter = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Self {
            tool,
            session: envelope.session_id().as_u64(),
            jti: *envelope.jti().as_bytes(),
            counter,
            sent,
            received,
        }
    }
}

/// What a flush was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flushed {
    Tool(&'static str),
    /// The one session that was active.
    Session(u64),
}

/// What somebody saw or did.
pub(super) enum Event {
    Drawn(Drawn),
    /// The operator asked, at that time, and was told.
    Looked {
        at: Instant,
        status: StatusResult,
    },
    FlushBegan(Flushed),
    /// `minted` is how many tokens the process had minted before the flush began.
    FlushReturned {
        at: Instant,
        what: Flushed,
        minted: u64,
    },
    ProvisioningBegan(u64),
    Provisioned(u64),
}

/// A promise that was broken.
#[derive(Debug)]
#[allow(dead_code, reason = "what each says is for whoever reads the failure")]
pub(super) enum Broken {
    Repeated(String),
    FlushUndone(String),
    SessionLost(String),
    TokensLost(String),
    /// The daemon did not do what it must to be looked at.
    NoAnswer(String),
}

pub(super) type Verdict = Result<(), Broken>;

/// How a session may stand, as far as anybody was told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Standing {
    Absent,
    Active,
    Flushed,
}

/// See the module's header.
pub(super) struct Witness {
    jtis: HashSet<[u8; 22]>,
    counters: HashSet<u64>,
    sessions: BTreeMap<u64, BTreeSet<Standing>>,
    next_session: u64,
    /// Whoever asked for a token of the tool after that moment must get one with at least this counter.
    floors: HashMap<&'static str, Vec<(Instant, u64)>>,
    /// Since when a session hands out nothing.
    ended: HashMap<u64, Instant>,
    /// At least this many tokens of a tool must wait after the next start, but for what a kill may cost.
    waiting: HashMap<&'static str, u64>,
    /// The present start of the daemon has at least this number.
    boot: u64,
    /// What a kill may cost of one tool.
    may_burn: u64,
}

impl Witness {
    /// For a daemon that keeps `max_ready` tokens of a tool in memory and serves this many clients.
    ///
    /// A kill costs what was claimed and not handed out, and for each client the token whose answer was lost.
    pub(super) fn new(max_ready: u64, clients: u64) -> Self {
        Self {
            jtis: HashSet::new(),
            counters: HashSet::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
            floors: HashMap::new(),
            ended: HashMap::new(),
            waiting: HashMap::new(),
            boot: 0,
            may_burn: max_ready + clients,
        }
    }

    pub(super) fn tokens(&self) -> u64 {
        self.jtis.len() as u64
    }

    /// The session that draws use, if there is certainly one.
    pub(super) fn active(&self) -> Option<u64> {
        let certain = |standings: &BTreeSet<Standing>| standings.iter().eq([&Standing::Active]);
        self.sessions.iter().rev().find(|(_, standings)| certain(standings)).map(|(number, _)| *number)
    }

    /// A number that no session has had.
    pub(super) fn next_session(&self) -> u64 {
        self.next_session
    }

    fn provisioning_began(&mut self, number: u64) {
        self.next_session = self.next_session.max(number + 1);
        self.sessions.insert(number, BTreeSet::from([Standing::Absent, Standing::Active]));
    }

    pub(super) fn provisioned(&mut self, number: u64) {
        self.provisioning_began(number);
        self.sessions.insert(number, BTreeSet::from([Standing::Active]));
    }

    /// A daemon was started and killed before anybody could look at it. Its start may have claimed something.
    pub(super) fn killed_unseen(&mut self) {
        for least in self.waiting.values_mut() {
            *least = least.saturating_sub(self.may_burn);
        }
    }

    /// Holds a daemon that has just been started against what was promised before.
    pub(super) fn reopened(&mut self, status: &StatusResult) -> Verdict {
        // A start that answers has a number of its own.
        self.boot += 1;
        let found: BTreeMap<u64, Standing> = status
            .sessions
            .iter()
            .map(|session| {
                let active = matches!(session.state, SessionState::Active | SessionState::Held);
                (session.session_id.as_u64(), if active { Standing::Active } else { Standing::Flushed })
            })
            .collect();
        for (number, may_be) in &mut self.sessions {
            let standing = found.get(number).copied().unwrap_or(Standing::Absent);
            if !may_be.contains(&standing) {
                let what = format!("session {number} is {standing:?} and must be one of {may_be:?}");
                return Err(match standing {
                    Standing::Active => Broken::FlushUndone(what),
                    _ => Broken::SessionLost(what),
                });
            }
            *may_be = BTreeSet::from([standing]);
        }
        self.sessions.retain(|_, known| !known.contains(&Standing::Absent));
        if let Some(unknown) = found.keys().find(|number| !self.sessions.contains_key(number)) {
            return Err(Broken::SessionLost(format!("session {unknown} was never provisioned")));
        }
        for (tool, least) in self.waiting.drain() {
            let of_the_tool = status.tools.iter().filter(|found| found.tool.as_str() == tool);
            let depth: u64 = of_the_tool.map(|tool| tool.ready + tool.stored).sum();
            if depth + self.may_burn < least {
                let what = format!("{tool}: {depth} wait, {least} did, {} may be gone", self.may_burn);
                return Err(Broken::TokensLost(what));
            }
        }
        Ok(())
    }

    /// Takes in what everybody saw in one life of the daemon; what the operator saw is in order.
    pub(super) fn learn(&mut self, events: Vec<Event>) -> Verdict {
        let (mut drawn, mut operated) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Drawn(token) => drawn.push(token),
                other => operated.push(other),
            }
        }
        // No token is from a later start than the one that hands it out.
        self.boot = drawn.iter().map(|token| token.counter >> BOOT_SHIFT).fold(self.boot, u64::max);
        let mut looked = HashMap::new();
        for event in operated {
            self.operated(event, &mut looked);
        }
        for token in &drawn {
            self.check(token)?;
        }
        for (tool, (at, stored)) in looked {
            let gone = drawn.iter().filter(|token| token.tool == tool && token.received >= at).count() as u64;
            self.waiting.insert(tool, stored.saturating_sub(gone));
        }
        for floors in self.floors.values_mut() {
            // Whatever comes in a later life was asked for after all of them.
            let highest = floors.iter().max_by_key(|(_, floor)| *floor).copied();
            floors.clear();
            floors.extend(highest);
        }
        Ok(())
    }

    fn operated(&mut self, event: Event, looked: &mut HashMap<&'static str, (Instant, u64)>) {
        match event {
            Event::Drawn(_) => {}
            Event::Looked { at, status } => {
                for tool in super::TOOLS {
                    let found = status.tools.iter().filter(|found| found.tool.as_str() == tool);
                    looked.insert(tool, (at, found.map(|found| found.stored).sum()));
                }
            }
            Event::FlushBegan(Flushed::Tool(tool)) => _ = looked.remove(tool),
            Event::FlushBegan(Flushed::Session(number)) => {
                looked.clear();
                self.sessions.entry(number).or_default().insert(Standing::Flushed);
            }
            Event::FlushReturned { at, what: Flushed::Tool(tool), minted } => {
                let floor = (self.boot << BOOT_SHIFT) + minted;
                self.floors.entry(tool).or_default().push((at, floor));
            }
            Event::FlushReturned { at, what: Flushed::Session(number), .. } => {
                self.sessions.insert(number, BTreeSet::from([Standing::Flushed]));
                self.ended.insert(number, at);
            }
            Event::ProvisioningBegan(number) => self.provisioning_began(number),
            Event::Provisioned(number) => self.provisioned(number),
        }
    }

    fn check(&mut self, token: &Drawn) -> Verdict {
        let Drawn { tool, session, counter, .. } = token;
        let what = format!(
            "{tool} of session {session}, counter {:x}.{}",
            counter >> BOOT_SHIFT,
            counter & 0xFF_FFFF_FFFF
        );
        if !self.jtis.insert(token.jti) {
            return Err(Broken::Repeated(what));
        }
        if !self.counters.insert(*counter) {
            return Err(Broken::Repeated(format!("the nonce of {what}")));
        }
        let undone = |(at, floor): &(Instant, u64)| token.sent > *at && counter < floor;
        if self.floors.get(tool).is_some_and(|floors| floors.iter().any(undone)) {
            return Err(Broken::FlushUndone(format!("minted before its tool was flushed: {what}")));
        }
        if self.ended.get(session).is_some_and(|at| token.sent > *at) {
            return Err(Broken::FlushUndone(format!("its session was flushed: {what}")));
        }
        Ok(())
    }
}
