//! Calls that wait for a human's yes, where the identity provider asks their agent's owner itself.
//!
//! Asked is who answers for the agent, by the provider that knows them, and only if policy lets them say yes. One question at a time for each human, so that nobody is
//! worn down by questions; who has one already finds the others on the page. The provider shows a code, the first letters of the
//! request's name, which agent, page and message show as well. A yes, and a no, goes the way of every other.

use core::time::Duration;
use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::authority::{Authority, Now};
use crate::directory::{CallStanding, Human};
use crate::id::ApprovalId;
use crate::identity::{LoginError, Provider, Providers, Question, Word};
use crate::notices::Notice;
use crate::refused::Refused;

/// The most questions at a time.
const MAX_AT_ONCE: usize = 256;
/// How much longer is waited for an answer once the provider says that it is asked too often.
const SLOWER: Duration = Duration::from_secs(5);
/// The longest pause between two times.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// See the module's header.
pub(crate) struct Asking {
    providers: Arc<Providers>,
    authority: Arc<Authority>,
    now: fn() -> Now,
    /// Who is being asked.
    asked: Mutex<HashSet<Human>>,
}

/// A question that may be put.
struct Case {
    id: ApprovalId,
    owner: Human,
    /// The provider that knows them.
    provider: Arc<Provider>,
    /// Until when somebody may decide, in Unix seconds.
    until: u64,
}

/// A human who is being asked; they are not, once it is dropped.
struct Turn<'a>(&'a Asking, &'a Human);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.asked.lock().remove(self.1);
    }
}

impl Asking {
    pub(crate) fn new(providers: Arc<Providers>, authority: Arc<Authority>, now: fn() -> Now) -> Arc<Self> {
        Arc::new(Self { providers, authority, now, asked: Mutex::default() })
    }

    /// Asks about what is heard of from now on, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, mut heard: Receiver<Notice>) {
        let mut questions = JoinSet::new();
        loop {
            while questions.try_join_next().is_some() {}
            let notice = match heard.recv().await {
                Ok(notice) => notice,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let Some(id) = notice.call else { continue };
            if questions.len() < MAX_AT_ONCE {
                questions.spawn(Arc::clone(&self).ask(id));
            }
        }
    }

    async fn ask(self: Arc<Self>, id: ApprovalId) {
        let (asking, now) = (Arc::clone(&self), (self.now)());
        let case = match spawn_blocking(move || asking.case(id, now)).await {
            Ok(Ok(Some(case))) => case,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "nobody is asked at the identity provider about a call");
                return;
            }
        };
        if !self.asked.lock().insert(case.owner.clone()) {
            return;
        }
        let _turn = Turn(&self, &case.owner);
        let left = case.until.saturating_sub(now.secs());
        match case.provider.ask(&case.owner.subject, &case.id.code(), left, now.secs()).await {
            Ok(question) => self.follow(&case, &question).await,
            Err(error) => {
                tracing::warn!(%error, approval = %case.id, "nobody is asked at the identity provider about a call");
            }
        }
    }

    /// What is to be asked, and of whom: nothing where it is decided, or no provider asks the owner, or they may not decide.
    fn case(&self, id: ApprovalId, now: Now) -> Result<Option<Case>, Refused> {
        let directory = self.authority.directory();
        let Some(approval) = directory.call_approval(&id)? else { return Ok(None) };
        let Some(agent) = directory.agent(approval.agent.as_str())? else { return Ok(None) };
        let of_owner = self.providers.of_issuer(&agent.owner.issuer);
        let Some(provider) = of_owner.filter(|one| one.settings().asks_for_calls()) else { return Ok(None) };
        let (provider, until) = (Arc::clone(provider), approval.expires_at);
        let allowed = self.authority.asked_approval(&id, &agent.owner, now)?.allowed;
        Ok(allowed.then_some(Case { id, owner: agent.owner, provider, until }))
    }

    /// Asks the provider what came of it, until something did, or it is over.
    async fn follow(&self, case: &Case, question: &Question) {
        let mut pause = question.pause;
        loop {
            sleep(pause).await;
            let now = (self.now)();
            if now.secs() >= case.until || !self.still_waits(&case.id).await {
                return;
            }
            match case.provider.hear(question, now.secs()).await {
                Ok(Word::Waits) => {}
                Ok(Word::SlowDown) => pause = (pause + SLOWER).min(MAX_PAUSE),
                Ok(Word::Over) => return,
                Ok(Word::No) => return self.decide(case, false).await,
                Ok(Word::Yes(known)) if known.human == case.owner => return self.decide(case, true).await,
                Ok(Word::Yes(known)) => {
                    tracing::error!(approval = %case.id, asked = %case.owner, answered = %known.human, "somebody else answered for a human; it counts for nothing");
                    return;
                }
                Err(LoginError::Unreachable(why)) => {
                    tracing::warn!(why, "the identity provider does not say what came of a question");
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Err(error) => {
                    tracing::warn!(%error, approval = %case.id, "an answer about a call counts for nothing");
                    return;
                }
            }
        }
    }

    async fn still_waits(&self, id: &ApprovalId) -> bool {
        let (authority, id, now) = (Arc::clone(&self.authority), id.clone(), (self.now)());
        let found = spawn_blocking(move || authority.directory().call_approval(&id)).await;
        matches!(found, Ok(Ok(Some(found))) if found.standing(now.secs()) == CallStanding::Waiting)
    }

    async fn decide(&self, case: &Case, approve: bool) {
        let (authority, now) = (Arc::clone(&self.authority), (self.now)());
        let (id, owner) = (case.id.clone(), case.owner.clone());
        let decided = spawn_blocking(move || authority.decide_approval(&id, approve, &owner, now)).await;
        match decided {
            Ok(Ok(_)) => {
                tracing::info!(approval = %case.id, human = %case.owner, approve, "decided at the identity provider");
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, approval = %case.id, "a word at the identity provider counts for nothing");
            }
            Err(_) => tracing::error!(approval = %case.id, "internal error: a word was not carried out"),
        }
    }
}
