//! The way of a request to a service on another machine: each is a handshake by the login's key.

use core::time::Duration;

use obol_client::{CallError, Way};
use obol_handshake::Purpose;
use obol_ipc::Protocol as _;
use obol_ipc::as_control::{AsControlProtocol, AsControlReply, AsControlRequest, ConfirmationsParams};
use obol_ipc::codec::{Codec, RequestId};
use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_secret::json;
use obol_uplink::{AuthError, Uplink};
use serde::Deserialize;
use serde_json::{Value, json as object};
use tokio::runtime::Runtime;

use super::{Kept, Says, now, uplink};
use crate::exit::Outcome;

const OPERATE: &str = "/v1/operators";
/// How long the service may wait for others within one request, in milliseconds: less than the request itself may take.
const MAX_WAIT_MS: u32 = 6_000;
/// How often it is asked again where it takes no more from here for now, and how long is waited before.
const MAX_PAUSES: usize = 20;
const PAUSE: Duration = Duration::from_secs(1);

/// See the module's header.
#[derive(Debug)]
pub(super) struct Afar {
    runtime: Runtime,
    uplink: Uplink,
    kept: Kept,
    last_id: u64,
}

#[derive(Deserialize)]
struct Answer {
    answer: Value,
}

impl Afar {
    pub(super) fn new(kept: Kept) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let uplink = uplink(kept.service().clone(), kept.ca_file().map(AsRef::as_ref))?;
        Ok(Self { runtime, uplink, kept, last_id: 0 })
    }

    fn ask(&mut self, call: &Value) -> Result<Vec<u8>, AuthError> {
        let mut caller = Says { key: self.kept.key(), what: object!({ "call": call }), anew: false };
        let uplink = &mut self.uplink;
        let told = self.runtime.block_on(async {
            let mut pauses = 0;
            loop {
                match uplink.carry_out(Purpose::Operate, OPERATE, now(), &mut caller).await {
                    // Nothing was done: it was not looked at.
                    Err(AuthError::Rejected { code, .. }) if code == "TOO_MANY" && pauses < MAX_PAUSES => {
                        pauses += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    done => return done,
                }
            }
        });
        let Answer { answer } =
            json::parse(&told?.1).map_err(|error| AuthError::Answer(error.to_string()))?;
        Ok(answer.to_string().into_bytes())
    }
}

impl Way<AsControlProtocol> for Afar {
    fn call(&mut self, request: &AsControlRequest, _wait: Duration) -> Result<AsControlReply, CallError> {
        self.last_id = self.last_id.wrapping_add(1);
        let id = RequestId::Number(self.last_id);
        let shorter = within_patience(request);
        let request = shorter.as_ref().unwrap_or(request);
        let frame =
            Codec::Json.encode_request::<AsControlProtocol>(&id, request).map_err(CallError::Encode)?;
        let not_ours = |why: &dyn core::fmt::Display| {
            let text = format!(
                "the answer cannot be understood ({why}); the request may have been carried out, so check before you ask again"
            );
            CallError::Refused(Refusal::new(ErrorCode::AuthorityRefused, text))
        };
        let call = json::parse(frame.body()).map_err(|error| not_ours(&error))?;
        let answer = self.ask(&call).map_err(|error| refused(&error))?;
        let response = Codec::Json.decode_response(&answer).map_err(|error| not_ours(&error))?;
        if response.id().is_some_and(|answered| *answered != id) {
            return Err(not_ours(&"an answer to a request that was never made"));
        }
        let outcome = response.outcome::<AsControlProtocol>(AsControlProtocol::method_of(request));
        outcome.map_err(|error| not_ours(&error))?.map_err(CallError::Refused)
    }
}

/// The same for a shorter wait, where it would wait longer than a request may take.
fn within_patience(request: &AsControlRequest) -> Option<AsControlRequest> {
    match request {
        AsControlRequest::Confirmations(params) if params.wait_ms > MAX_WAIT_MS => {
            let params = ConfirmationsParams { wait_ms: MAX_WAIT_MS, ..params.clone() };
            Some(AsControlRequest::Confirmations(params))
        }
        _ => None,
    }
}

fn refused(error: &AuthError) -> CallError {
    let code = match error {
        AuthError::Refused { code, .. } if code == "NOT_LOGGED_IN" => ErrorCode::NoSession,
        AuthError::Unreachable(_) => {
            let text =
                format!("{error}; the request may have been carried out, so check before you ask again");
            return CallError::Refused(Refusal::new(
                ErrorCode::AuthorityUnreachable { retry_after_ms: 1_000 },
                text,
            ));
        }
        _ => ErrorCode::AuthorityRefused,
    };
    CallError::Refused(Refusal::new(code, error.to_string()))
}
