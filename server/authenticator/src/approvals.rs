//! A human's yes to calls, for agents that ask on `auth.sock`: the service is asked, and the sidecar told of a yes.
//!
//! All of it is in memory. After a restart an agent asks anew; what a human said yes to before is then of no use to anybody.
//! Nothing here waits for the keeper, nor the keeper for it.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use obol_handshake::{IdentityKey, Purpose};
use obol_ipc::approvals::{
    ApprovalResult, ApprovalState, ApprovalStatusParams, ApprovedUse, MAX_CALL_TEXT_BYTES, MAX_CALLS,
    MintApprovedParams, RequestApprovalParams, WantedCall,
};
use obol_ipc::names::{Audience, Label, ToolName, ValueError};
use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_ipc::time::UtcTime;
use obol_secret::json::parse;
use obol_session::clock::Clock;
use obol_uplink::{Answer, AuthError, Caller, Greeted, Uplink};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::authenticator::CLIENT;
use crate::listener::Between;
use crate::refusal;
use crate::tqs::Tqs;

/// The most requests that are remembered.
const MAX_ASKED: usize = 64;
/// The most that are asked for at a time.
const MAX_ASKING: usize = 4;
/// The longest request, in bytes: it has to fit into one message of the handshake.
const MAX_REQUEST_BYTES: usize = 12 * 1024;
/// How long a yes may be used at most, in seconds.
const USED_SECS: u64 = 300;
/// How often the service is asked about one of them, without word of it.
const POLL: Duration = Duration::from_secs(2);
/// How often it is asked at the most.
const POLL_SOONER: Duration = Duration::from_millis(1_000);
/// How long one thing at the service may take in all.
const PATIENCE: Duration = Duration::from_secs(20);
/// When whoever finds too many before it should ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Approvals {
    uplink: Mutex<Uplink>,
    tqs: Mutex<Tqs>,
    between: Arc<Between>,
    clock: Arc<dyn Clock>,
    asking: Semaphore,
    asked: parking_lot::Mutex<HashMap<String, Arc<Asked>>>,
}

/// A request that the service has taken.
struct Asked {
    id: String,
    poll_token: Zeroizing<String>,
    calls: Vec<ToldCall>,
    /// Until when somebody may decide, in Unix seconds.
    expires_at: u64,
    progress: Mutex<Progress>,
}

impl core::fmt::Debug for Asked {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Asked").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How it stood when the service was asked last.
#[derive(Debug, Default)]
struct Progress {
    told: Option<Told>,
    polled: Option<Instant>,
    /// The sidecar knows of the yes.
    given: bool,
}

/// What the service says of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Told {
    Waiting,
    Approved { confirmed_at: u64, expires_at: u64 },
    Denied,
    Expired,
}

#[derive(Deserialize)]
struct ToldApproval {
    approval_id: String,
    poll_token: String,
    expires_at: u64,
    calls: Vec<ToldCall>,
}

#[derive(Clone, Debug, Deserialize)]
struct ToldCall {
    id: String,
    tool: String,
    aud: String,
    action: Vec<String>,
    resource: String,
    #[serde(default)]
    constraints: Option<Map<String, Value>>,
    #[serde(default)]
    purpose: Option<String>,
    uses: Vec<ToldUse>,
}

#[derive(Clone, Debug, Deserialize)]
struct ToldUse {
    txn_id: String,
    digest: String,
}

/// Purpose 6.
struct Asking {
    key: IdentityKey,
    request: Value,
}

impl Caller for Asking {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        Ok(self.request.clone())
    }
}

impl Approvals {
    pub(crate) fn new(uplink: Uplink, tqs: Tqs, between: Arc<Between>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            uplink: Mutex::new(uplink),
            tqs: Mutex::new(tqs),
            between,
            clock,
            asking: Semaphore::new(MAX_ASKING),
            asked: parking_lot::Mutex::default(),
        })
    }

    /// Asks the service for a human's yes.
    pub(crate) async fn request(&self, params: RequestApprovalParams) -> Result<ApprovalResult, Refusal> {
        let Ok(_permit) = self.asking.try_acquire() else { return Err(Refusal::overloaded(RETRY_AFTER)) };
        let key = self.between.key.borrow().as_ref().map(|key| IdentityKey::from_bytes(key.expose()));
        let key = key.ok_or_else(refusal::not_registered)?;
        let now = self.clock.now();
        self.make_room(now)?;
        let request = in_the_services_words(&params, now)?;
        let mut caller = Asking { key, request };
        let mut uplink = self.uplink.lock().await;
        let asking = uplink.carry_out(Purpose::Approval, "/v1/approvals", now, &mut caller);
        let (_, document) = timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(AuthError::Unreachable("no answer in time".to_owned())))
            .map_err(|error| of_service(&error))?;
        drop(uplink);
        let told: ToldApproval =
            parse(&document).map_err(|error| of_service(&AuthError::Answer(error.to_string())))?;
        let ToldApproval { approval_id: id, poll_token, expires_at, calls } = told;
        tracing::info!(approval = id, calls = calls.len(), "a human is asked for a yes");
        let asked = Arc::new(Asked {
            id: id.clone(),
            poll_token: Zeroizing::new(poll_token),
            calls,
            expires_at,
            progress: Mutex::default(),
        });
        let result = asked.result(Told::Waiting);
        self.asked.lock().insert(id, asked);
        Ok(result)
    }

    /// Forgets what is over.
    fn make_room(&self, now: u64) -> Result<(), Refusal> {
        let mut asked = self.asked.lock();
        // A yes may be used for five minutes after the last moment at which it may be said.
        asked.retain(|_, one| now < one.expires_at.saturating_add(USED_SECS));
        if asked.len() >= MAX_ASKED {
            return Err(Refusal::overloaded(RETRY_AFTER));
        }
        Ok(())
    }

    /// How a request stands, at once or after at most so long.
    pub(crate) async fn status(&self, params: ApprovalStatusParams) -> Result<ApprovalResult, Refusal> {
        let deadline = Instant::now() + params.wait_ms.as_duration();
        let found = self.asked.lock().get(params.approval_id.as_str()).cloned();
        let asked = found.ok_or_else(|| {
            let problem = "approvalId: no such request was made here, or it is forgotten; ask again";
            Refusal::invalid_argument(problem)
        })?;
        loop {
            let news = self.between.decided.notified();
            tokio::pin!(news);
            // From here on: what is decided while the service is asked is not missed.
            news.as_mut().enable();
            let outcome = self.look(&asked).await;
            let waits = match &outcome {
                Ok(result) => result.state == ApprovalState::Waiting,
                Err(refusal) => matches!(refusal.code(), ErrorCode::AuthorityUnreachable { .. }),
            };
            if !waits || Instant::now() >= deadline {
                return outcome;
            }
            let _news_or_time = timeout_at(deadline.min(Instant::now() + POLL), news).await;
        }
    }

    /// Asks the service, if that was not a moment ago, and tells the sidecar of a yes.
    async fn look(&self, asked: &Asked) -> Result<ApprovalResult, Refusal> {
        let mut progress = asked.progress.lock().await;
        let is_open = progress.told.is_none_or(|told| told == Told::Waiting);
        let may_ask = progress.polled.is_none_or(|polled| polled.elapsed() >= POLL_SOONER);
        if is_open && may_ask {
            progress.polled = Some(Instant::now());
            progress.told = Some(self.ask(asked).await.map_err(|error| of_service(&error))?);
        }
        let told = progress.told.unwrap_or(Told::Waiting);
        let now = self.clock.now();
        match told {
            Told::Approved { confirmed_at, expires_at } if now < expires_at => {
                if !progress.given {
                    self.give(asked, confirmed_at, expires_at).await?;
                    progress.given = true;
                }
                Ok(asked.result(told))
            }
            Told::Approved { .. } => Ok(asked.result(Told::Expired)),
            told => Ok(asked.result(told)),
        }
    }

    async fn ask(&self, asked: &Asked) -> Result<Told, AuthError> {
        let path = format!("/v1/approvals/{}", asked.id);
        let connecting = async {
            let connection = self.uplink.lock().await.another();
            connection.connect().await?.get(&path, &asked.poll_token).await
        };
        let answer = timeout(PATIENCE, connecting)
            .await
            .unwrap_or_else(|_| Err(AuthError::Unreachable("no answer in time".to_owned())))?;
        match answer {
            Answer::Done(body) => parse(&body).map_err(|error| AuthError::Answer(error.to_string())),
            Answer::Refused(clear) if clear.code == "SLOW_DOWN" => Ok(Told::Waiting),
            Answer::Refused(clear) if clear.code == "NO_SUCH_APPROVAL" => Ok(Told::Expired),
            Answer::Refused(clear) => Err(clear.into()),
        }
    }

    /// Tells the sidecar, which mints each token when it is drawn.
    async fn give(&self, asked: &Asked, confirmed_at: u64, expires_at: u64) -> Result<(), Refusal> {
        for call in &asked.calls {
            let params = minted(call, confirmed_at, expires_at)
                .map_err(|error| of_service(&AuthError::Answer(error.to_string())))?;
            let told = self.tqs.lock().await.mint_approved(params).await;
            told.map_err(|error| refusal::of_sidecar(&error))?;
        }
        tracing::info!(approval = asked.id, "a human said yes; the tokens can be drawn");
        Ok(())
    }
}

impl Asked {
    fn result(&self, told: Told) -> ApprovalResult {
        let (state, expires_at) = match told {
            Told::Waiting => (ApprovalState::Waiting, self.expires_at),
            Told::Approved { expires_at, .. } => (ApprovalState::Approved, expires_at),
            Told::Denied => (ApprovalState::Denied, self.expires_at),
            Told::Expired => (ApprovalState::Expired, self.expires_at),
        };
        ApprovalResult {
            approval_id: self.id.clone(),
            state,
            calls: self.calls.iter().map(|call| call.id.clone()).collect(),
            expires_at: UtcTime::from_unix_seconds(expires_at),
        }
    }
}

/// What the sidecar is told of a call.
fn minted(call: &ToldCall, confirmed_at: u64, expires_at: u64) -> Result<MintApprovedParams, ValueError> {
    let one = |one: &ToldUse| ApprovedUse { txn_id: one.txn_id.clone(), digest: one.digest.clone() };
    Ok(MintApprovedParams {
        approval_id: Label::new(call.id.as_str())?,
        tool: ToolName::new(call.tool.as_str())?,
        audience: Audience::new(call.aud.as_str())?,
        actions: call.action.clone(),
        resource: Some(call.resource.clone()),
        constraints: call.constraints.as_ref().map(|limits| Value::Object(limits.clone()).to_string()),
        purpose: call.purpose.clone(),
        uses: call.uses.iter().map(one).collect(),
        confirmed_at,
        expires_at,
    })
}

/// The request as the service reads it.
fn in_the_services_words(params: &RequestApprovalParams, now: u64) -> Result<Value, Refusal> {
    if params.calls.is_empty() || params.calls.len() > MAX_CALLS {
        return Err(Refusal::invalid_argument(format_args!("calls: 1 to {MAX_CALLS}")));
    }
    let calls: Vec<Value> = params.calls.iter().map(wanted).collect::<Result<_, _>>()?;
    let request = json!({
        "calls": calls,
        "purpose": params.purpose,
        "lifetime_secs": params.lifetime_seconds,
        "client": CLIENT,
        "now": now,
    });
    if request.to_string().len() > MAX_REQUEST_BYTES {
        let problem = format!("calls: they are too long together; at most {MAX_REQUEST_BYTES} bytes");
        return Err(Refusal::invalid_argument(problem));
    }
    Ok(request)
}

fn wanted(call: &WantedCall) -> Result<Value, Refusal> {
    let constraints = match &call.constraints {
        Some(text) if text.len() > MAX_CALL_TEXT_BYTES => {
            let problem = format!("constraints: at most {MAX_CALL_TEXT_BYTES} bytes");
            return Err(Refusal::invalid_argument(problem));
        }
        Some(text) => Some(
            parse::<Map<String, Value>>(text.as_bytes())
                .map_err(|error| Refusal::invalid_argument(format_args!("constraints: {error}")))?,
        ),
        None => None,
    };
    Ok(json!({
        "tool": call.tool,
        "aud": call.audience,
        "action": call.actions,
        "resource": call.resource,
        "constraints": constraints,
        "arguments": call.arguments,
        "count": call.count,
    }))
}

/// What an agent hears of a failure at the service. Whoever said no to the request said it for good.
fn of_service(error: &AuthError) -> Refusal {
    match error {
        AuthError::Refused { code, detail } if code == "NOT_OFFERED" => {
            Refusal::new(ErrorCode::PolicyDeny, detail.as_str())
        }
        AuthError::Refused { code, detail } if code == "MALFORMED" => Refusal::invalid_argument(detail),
        error => refusal::of_service(error, RETRY_AFTER),
    }
}
