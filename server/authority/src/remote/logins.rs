//! Who asks to operate from elsewhere, and who may: each by a key, for a time.

use core::fmt;
use std::collections::HashMap;

use obol_handshake::IdentityPublic;
use obol_secret::compare::ct_eq_32;
use parking_lot::Mutex;

use crate::directory::{Flow, Human};
use crate::id::LoginId;
use crate::refused::Refused;

/// How long a human has to say yes, and the yes to come back, in seconds.
pub(crate) const ASKED_SECS: u64 = 600;
/// The most that ask at a time, and from one source.
const MAX_ASKED: usize = 1_000;
const MAX_FROM_ONE_SOURCE: usize = 5;
/// How long nothing is taken from a source of which somebody said that they did not start it, in seconds; and how many such.
const BLOCK_SECS: u64 = 3_600;
const MAX_BLOCKED: usize = 1_000;
/// How many wrong codes may be shown.
const MAX_WRONG: u8 = 3;
/// The most logins at a time; and of one human: one more ends the oldest.
const MAX_LIVE: usize = 1_000;
const MAX_OF_ONE_HUMAN: usize = 8;

/// What whoever asks says of itself. Nobody has checked it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaidOfLogin {
    /// The machine.
    pub host: String,
    /// The user of that machine.
    pub user: String,
    /// The program.
    pub software: String,
}

/// Somebody who asks to operate from elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AskedLogin {
    /// Its name.
    pub id: LoginId,
    /// The key that it was asked by.
    pub key: IdentityPublic,
    /// What is said of it.
    pub said: SaidOfLogin,
    /// Where it was asked from.
    pub source: String,
    /// How a yes comes back.
    pub flow: Flow,
    /// When, in Unix seconds.
    pub asked_at: u64,
    code_hash: [u8; 32],
    state: LoginState,
    wrong: u8,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LoginState {
    /// A human has yet to decide.
    Waiting,
    /// A human said yes, which has yet to come back to the key's holder.
    Confirmed {
        /// Who.
        by: Human,
        /// What has to come back is hashed to this.
        hash: [u8; 32],
    },
    /// A human said no.
    Denied,
}

/// Somebody who may operate from elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveLogin {
    /// Its name.
    pub id: LoginId,
    /// Who it is.
    pub human: Human,
    /// The key by which they ask.
    pub key: IdentityPublic,
    /// What is said of where they sit.
    pub said: SaidOfLogin,
    /// Where they logged in from.
    pub source: String,
    /// Since when and until when, in Unix seconds.
    pub since: u64,
    /// See above.
    pub until: u64,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Logins(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    asked: HashMap<LoginId, AskedLogin>,
    live: HashMap<LoginId, LiveLogin>,
    blocked: HashMap<String, u64>,
}

impl Logins {
    /// Somebody asks to be let in.
    pub(crate) fn ask(
        &self,
        id: LoginId,
        key: IdentityPublic,
        (said, source): (SaidOfLogin, String),
        flow: Flow,
        code_hash: [u8; 32],
        now: u64,
    ) -> Result<(), Refused> {
        let mut inner = self.0.lock();
        inner.forget(now);
        let from_here = inner.asked.values().filter(|asked| asked.source == source).count();
        if from_here >= MAX_FROM_ONE_SOURCE || inner.blocked.contains_key(&source) {
            return Err(Refused::TooManyPending);
        }
        if inner.asked.len() >= MAX_ASKED {
            return Err(Refused::Full("login that waits"));
        }
        let state = LoginState::Waiting;
        let asked =
            AskedLogin { id: id.clone(), key, said, source, flow, asked_at: now, code_hash, state, wrong: 0 };
        inner.asked.insert(id, asked);
        Ok(())
    }

    /// The one of this name that waits for a human.
    pub(crate) fn waiting(&self, id: &LoginId, now: u64) -> Option<AskedLogin> {
        let mut inner = self.0.lock();
        inner.forget(now);
        inner.asked.get(id).filter(|asked| asked.state == LoginState::Waiting).cloned()
    }

    /// The one whose code is hashed to this, of those that wait for a typed one.
    pub(crate) fn coded(&self, hash: &[u8; 32], now: u64) -> Option<AskedLogin> {
        let mut inner = self.0.lock();
        inner.forget(now);
        let is_meant = |asked: &&AskedLogin| {
            asked.flow == Flow::Code && asked.state == LoginState::Waiting && ct_eq_32(&asked.code_hash, hash)
        };
        inner.asked.values().find(is_meant).cloned()
    }

    /// Somebody said yes, and what has to come back is hashed to this.
    pub(crate) fn confirm(&self, id: &LoginId, by: Human, hash: [u8; 32], now: u64) -> Result<(), Refused> {
        let mut inner = self.0.lock();
        inner.forget(now);
        match inner.asked.get_mut(id) {
            Some(asked) if asked.state == LoginState::Waiting => {
                asked.state = LoginState::Confirmed { by, hash };
                Ok(())
            }
            _ => Err(Refused::NoSuchCode),
        }
    }

    /// Somebody said no; with `block`, nothing more is taken from there for a while.
    pub(crate) fn deny(&self, id: &LoginId, block: bool, now: u64) -> Result<AskedLogin, Refused> {
        let mut inner = self.0.lock();
        inner.forget(now);
        let asked = inner.asked.get_mut(id).filter(|asked| asked.state == LoginState::Waiting);
        let asked = asked.ok_or(Refused::NoSuchCode)?;
        asked.state = LoginState::Denied;
        let denied = asked.clone();
        if block && inner.blocked.len() < MAX_BLOCKED {
            inner.blocked.insert(denied.source.clone(), now.saturating_add(BLOCK_SECS));
        }
        Ok(denied)
    }

    /// What became of what this key asked; nothing of another's is told.
    pub(crate) fn state(&self, id: &LoginId, key: &IdentityPublic, now: u64) -> Option<LoginState> {
        let mut inner = self.0.lock();
        inner.forget(now);
        inner.asked.get(id).filter(|asked| asked.key == *key).map(|asked| asked.state.clone())
    }

    /// Whoever said yes to what this key asked, if what is shown is hashed to what has to come back. Nothing is changed but the
    /// number of tries.
    pub(crate) fn shown(
        &self,
        id: &LoginId,
        key: &IdentityPublic,
        shown: &[u8; 32],
        now: u64,
    ) -> Result<Human, Refused> {
        let mut inner = self.0.lock();
        inner.forget(now);
        let asked = inner.asked.get_mut(id).filter(|asked| asked.key == *key).ok_or(Refused::NoSuchCode)?;
        match &asked.state {
            LoginState::Waiting => Err(Refused::PendingApproval),
            LoginState::Denied => Err(Refused::LoginDenied),
            LoginState::Confirmed { by, hash } if ct_eq_32(hash, shown) => Ok(by.clone()),
            LoginState::Confirmed { .. } => {
                asked.wrong = asked.wrong.saturating_add(1);
                let left = MAX_WRONG.saturating_sub(asked.wrong);
                if left == 0 {
                    inner.asked.remove(id);
                }
                Err(Refused::WrongCode(left))
            }
        }
    }

    /// What was asked has become a login, until then.
    pub(crate) fn begin(
        &self,
        id: &LoginId,
        human: Human,
        until: u64,
        now: u64,
    ) -> Result<LiveLogin, Refused> {
        let mut inner = self.0.lock();
        inner.forget(now);
        let of_this_human = inner.live.values().filter(|live| live.human == human);
        let oldest = of_this_human.clone().min_by_key(|live| live.since).map(|live| live.id.clone());
        let oldest = oldest.filter(|_| of_this_human.count() >= MAX_OF_ONE_HUMAN);
        if oldest.is_none() && inner.live.len() >= MAX_LIVE {
            return Err(Refused::Full("login"));
        }
        let AskedLogin { id, key, said, source, .. } = inner.asked.remove(id).ok_or(Refused::NoSuchCode)?;
        oldest.map(|oldest| inner.live.remove(&oldest));
        let live = LiveLogin { id: id.clone(), human, key, said, source, since: now, until };
        inner.live.insert(id, live.clone());
        Ok(live)
    }

    /// The login by this key.
    pub(crate) fn by_key(&self, key: &IdentityPublic, now: u64) -> Option<LiveLogin> {
        let mut inner = self.0.lock();
        inner.forget(now);
        inner.live.values().find(|live| live.key == *key).cloned()
    }

    /// All there are, oldest first.
    pub(crate) fn live(&self, now: u64) -> Vec<LiveLogin> {
        let mut inner = self.0.lock();
        inner.forget(now);
        let mut live: Vec<_> = inner.live.values().cloned().collect();
        live.sort_by(|one, other| (one.since, &one.id).cmp(&(other.since, &other.id)));
        live
    }

    /// Ends those for which `is_meant` says so, which are given.
    pub(crate) fn end(&self, is_meant: impl Fn(&LiveLogin) -> bool) -> Vec<LiveLogin> {
        let mut inner = self.0.lock();
        inner.live.extract_if(|_, live| is_meant(live)).map(|(_, live)| live).collect()
    }

    /// Ends what this human has, also a yes that has not come back.
    pub(crate) fn end_of(&self, human: &Human) -> Vec<LiveLogin> {
        let is_theirs = |state: &LoginState| matches!(state, LoginState::Confirmed { by, .. } if by == human);
        self.0.lock().asked.retain(|_, asked| !is_theirs(&asked.state));
        self.end(|live| live.human == *human)
    }
}

impl Inner {
    fn forget(&mut self, now: u64) {
        self.asked.retain(|_, asked| now.saturating_sub(asked.asked_at) < ASKED_SECS);
        self.live.retain(|_, live| now < live.until);
        self.blocked.retain(|_, until| now < *until);
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.0.lock();
        write!(f, "Logins {{ asked: {}, live: {} }}", inner.asked.len(), inner.live.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SystemRandom;

    const START: u64 = 1_000_000;

    fn said() -> (SaidOfLogin, String) {
        let text = |text: &str| text.to_owned();
        (SaidOfLogin { host: text("laptop"), user: text("anna"), software: text("obol") }, text("192.0.2.1"))
    }

    fn key(byte: u8) -> IdentityPublic {
        IdentityPublic([byte; 32])
    }

    fn human(name: &str) -> Human {
        Human { issuer: "https://idp.example".into(), subject: name.into() }
    }

    fn asked(logins: &Logins, byte: u8, now: u64) -> LoginId {
        let id = LoginId::generate(&mut SystemRandom);
        logins.ask(id.clone(), key(byte), said(), Flow::Code, [byte; 32], now).unwrap();
        id
    }

    #[test]
    fn what_came_back_to_the_key_that_asked_is_a_login_and_nothing_else_is() {
        let logins = Logins::default();
        let id = asked(&logins, 1, START);
        assert_eq!(logins.shown(&id, &key(1), &[9; 32], START), Err(Refused::PendingApproval));
        assert_eq!(logins.coded(&[1; 32], START).unwrap().id, id);
        logins.confirm(&id, human("anna"), [9; 32], START).unwrap();
        assert!(logins.coded(&[1; 32], START).is_none(), "it is decided once");
        assert_eq!(logins.confirm(&id, human("bert"), [8; 32], START), Err(Refused::NoSuchCode));
        assert_eq!(logins.shown(&id, &key(2), &[9; 32], START), Err(Refused::NoSuchCode), "another key");
        assert_eq!(logins.shown(&id, &key(1), &[8; 32], START), Err(Refused::WrongCode(2)));
        assert_eq!(logins.shown(&id, &key(1), &[9; 32], START), Ok(human("anna")));
        logins.begin(&id, human("anna"), START + 60, START).unwrap();
        assert_eq!(logins.begin(&id, human("anna"), START + 60, START), Err(Refused::NoSuchCode));
        assert_eq!(logins.by_key(&key(1), START + 59).unwrap().human, human("anna"));
        assert!(logins.by_key(&key(1), START + 60).is_none() && logins.by_key(&key(2), START).is_none());
    }

    #[test]
    fn three_wrong_codes_end_it_and_so_does_time() {
        let logins = Logins::default();
        let id = asked(&logins, 1, START);
        logins.confirm(&id, human("anna"), [9; 32], START).unwrap();
        for left in [2, 1, 0] {
            assert_eq!(logins.shown(&id, &key(1), &[8; 32], START), Err(Refused::WrongCode(left)));
        }
        assert_eq!(logins.shown(&id, &key(1), &[9; 32], START), Err(Refused::NoSuchCode));
        let late = asked(&logins, 1, START);
        logins.confirm(&late, human("anna"), [9; 32], START).unwrap();
        let then = START + ASKED_SECS;
        assert_eq!(logins.shown(&late, &key(1), &[9; 32], then), Err(Refused::NoSuchCode));
    }

    #[test]
    fn few_may_ask_from_one_place_and_who_is_reported_not_at_all() {
        let logins = Logins::default();
        let ids: Vec<_> = (0..5).map(|byte| asked(&logins, byte, START)).collect();
        let one_more = |now| {
            let id = LoginId::generate(&mut SystemRandom);
            logins.ask(id, key(9), said(), Flow::Code, [9; 32], now)
        };
        assert_eq!(one_more(START), Err(Refused::TooManyPending));
        logins.deny(ids.first().unwrap(), true, START).unwrap();
        assert_eq!(one_more(START + ASKED_SECS), Err(Refused::TooManyPending));
        assert_eq!(one_more(START + BLOCK_SECS), Ok(()));
    }

    #[test]
    fn a_human_has_a_few_logins_and_all_end_at_once() {
        let logins = Logins::default();
        for byte in 0..=8 {
            let now = START + u64::from(byte);
            let id = asked(&logins, byte, now + 700 * u64::from(byte));
            let now = now + 700 * u64::from(byte);
            logins.begin(&id, human("anna"), START + 90_000, now).unwrap();
        }
        let now = START + 6_000;
        assert_eq!(logins.live(now).len(), MAX_OF_ONE_HUMAN);
        assert!(logins.by_key(&key(0), now).is_none(), "the oldest went");
        let waits = asked(&logins, 20, now);
        logins.confirm(&waits, human("anna"), [9; 32], now).unwrap();
        assert_eq!(logins.end_of(&human("bert")).len(), 0);
        assert_eq!(logins.end_of(&human("anna")).len(), MAX_OF_ONE_HUMAN);
        assert_eq!(logins.shown(&waits, &key(20), &[9; 32], now), Err(Refused::NoSuchCode));
    }
}
