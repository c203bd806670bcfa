//! What the methods of `auth.sock` and `auth-control.sock` do: they ask the keeper, or read what it knows.

use core::future::Future;
use core::time::Duration;
use std::sync::Arc;

use obol_ipc::Protocol;
use obol_ipc::auth::{AuthProtocol, AuthReply, AuthRequest};
use obol_ipc::auth_control::{AuthControlProtocol, AuthControlReply, AuthControlRequest};
use obol_ipc::message::Empty;
use obol_ipc::refusal::Refusal;
use obol_probe::stop::Stop;
use obol_sidecar::{Answer, Answerer, Requester};
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tracing::Span;

use crate::approvals::Approvals;
use crate::keeper::{Order, Reply};
use crate::known::Shared;
use crate::refusal;

/// When whoever finds too many before it should ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The way to the keeper.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) stop: Stop,
}

/// Answers agents.
pub(crate) struct Agents {
    pub(crate) shared: Arc<Shared>,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) orders: Orders,
}

/// Answers the operator.
pub(crate) struct Operator {
    pub(crate) orders: Orders,
}

impl Answerer<AuthProtocol> for Agents {
    fn answer(self: &Arc<Self>, call: AuthRequest, requester: &Requester) -> Answer<AuthProtocol> {
        let open = |fresh| move |reply| Order::Open { fresh, reply };
        match call {
            AuthRequest::AuthStatus(params) => {
                Answer::Now(Ok(AuthReply::AuthStatus(self.shared.status(params))))
            }
            AuthRequest::Register(params) => {
                self.orders.give(|reply| Order::Register(params, reply), AuthReply::Register)
            }
            AuthRequest::RegistrationStatus(_) => {
                self.orders.give(Order::Registration, AuthReply::RegistrationStatus)
            }
            AuthRequest::CompleteRegistration(params) => self.orders.give(
                |reply| Order::Complete(params.code.as_str().to_owned(), reply),
                AuthReply::CompleteRegistration,
            ),
            AuthRequest::Authenticate(_) => self.orders.give(open(true), AuthReply::Authenticate),
            AuthRequest::EnsureAuthenticated(_) => {
                self.orders.give(open(false), AuthReply::EnsureAuthenticated)
            }
            AuthRequest::RequestApproval(params) => {
                let agents = Arc::clone(self);
                self.beside(
                    async move { agents.approvals.request(params).await.map(AuthReply::RequestApproval) },
                )
            }
            AuthRequest::ApprovalStatus(params) => {
                let agents = Arc::clone(self);
                self.beside(
                    async move { agents.approvals.status(params).await.map(AuthReply::ApprovalStatus) },
                )
            }
            AuthRequest::TokenStolen(stolen) => {
                let heard = self.shared.stolen.hear(stolen, requester);
                Answer::Now(heard.map(|()| AuthReply::TokenStolen(Empty {})).map_err(Refusal::overloaded))
            }
        }
    }

    fn span(&self, requester: &Requester) -> Span {
        tracing::debug_span!("request", id = %requester.tag, client = &*requester.client)
    }
}

impl Agents {
    /// Does it at once, beside the keeper.
    fn beside(
        &self,
        act: impl Future<Output = Result<AuthReply, Refusal>> + Send + 'static,
    ) -> Answer<AuthProtocol> {
        let stop = self.orders.stop.clone();
        Answer::later(async move {
            tokio::select! {
                outcome = act => outcome,
                () = stop.said() => Err(refusal::stopping()),
            }
        })
    }
}

impl Answerer<AuthControlProtocol> for Operator {
    fn answer(
        self: &Arc<Self>,
        call: AuthControlRequest,
        _requester: &Requester,
    ) -> Answer<AuthControlProtocol> {
        match call {
            AuthControlRequest::Rotate(_) => self.orders.give(Order::Rotate, AuthControlReply::Rotate),
            AuthControlRequest::Deregister(_) => {
                self.orders.give(Order::Deregister, AuthControlReply::Deregister)
            }
        }
    }

    fn span(&self, requester: &Requester) -> Span {
        tracing::info_span!("request", id = %requester.tag, client = &*requester.client)
    }
}

impl Orders {
    /// Has the keeper do it, in its turn.
    fn give<P: Protocol, T: Send + 'static>(
        &self,
        order: impl FnOnce(Reply<T>) -> Order,
        reply: impl FnOnce(T) -> P::Reply + Send + 'static,
    ) -> Answer<P> {
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
