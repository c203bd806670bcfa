//! What the methods of `auth.sock` do: they ask the keeper, or read what it knows.

use core::time::Duration;
use std::sync::Arc;

use obol_ipc::auth::{AuthProtocol, AuthReply, AuthRequest};
use obol_ipc::refusal::Refusal;
use obol_probe::stop::Stop;
use obol_sidecar::{Answer, Answerer, Requester};
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tracing::Span;

use crate::keeper::{Order, Reply};
use crate::known::Shared;
use crate::refusal;

/// When whoever finds too many before it should ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Answers agents.
pub(crate) struct Agents {
    pub(crate) shared: Arc<Shared>,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) stop: Stop,
}

impl Answerer<AuthProtocol> for Agents {
    fn answer(self: &Arc<Self>, call: AuthRequest, _requester: &Requester) -> Answer<AuthProtocol> {
        let open = |fresh| move |reply| Order::Open { fresh, reply };
        match call {
            AuthRequest::AuthStatus(params) => {
                Answer::Now(Ok(AuthReply::AuthStatus(self.shared.status(params))))
            }
            AuthRequest::Register(params) => {
                self.ask(|reply| Order::Register(params, reply), AuthReply::Register)
            }
            AuthRequest::RegistrationStatus(_) => {
                self.ask(Order::Registration, AuthReply::RegistrationStatus)
            }
            AuthRequest::Authenticate(_) => self.ask(open(true), AuthReply::Authenticate),
            AuthRequest::EnsureAuthenticated(_) => self.ask(open(false), AuthReply::EnsureAuthenticated),
        }
    }

    fn span(&self, requester: &Requester) -> Span {
        tracing::debug_span!("request", id = %requester.tag, client = &*requester.client)
    }
}

impl Agents {
    /// Has the keeper do it, in its turn.
    fn ask<T: Send + 'static>(
        &self,
        order: impl FnOnce(Reply<T>) -> Order,
        reply: impl FnOnce(T) -> AuthReply + Send + 'static,
    ) -> Answer<AuthProtocol> {
        let (answer, answered) = oneshot::channel();
        if self.orders.try_send(order(answer)).is_err() {
            return Answer::Now(Err(Refusal::overloaded(RETRY_AFTER)));
        }
        let stop = self.stop.clone();
        Answer::later(async move {
            tokio::select! {
                biased;
                outcome = answered => outcome.unwrap_or_else(|_| Err(refusal::stopping())).map(reply),
                () = stop.said() => Err(refusal::stopping()),
            }
        })
    }
}
