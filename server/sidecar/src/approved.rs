//! Calls that a human said yes to, as the authenticator tells of them.

use obol_ipc::approvals::{ApprovedUse, MAX_CALL_TEXT_BYTES, MintApprovedParams};
use obol_ipc::message::Empty;
use obol_ipc::refusal::{ErrorCode, Refusal};
use obol_queue::{ApproveError, ConfirmedCall, Queue};
use obol_secret::json::parse;
use obol_secret::text::from_hex;
use obol_session::Call;

/// Notes a call once for each of its uses. What was noted before a refusal stays: the same again changes nothing of it.
pub(crate) fn note(queue: &Queue, params: &MintApprovedParams) -> Result<Empty, Refusal> {
    let call = call(params)?;
    for used in &params.uses {
        let (txn_id, digest) = read(used)?;
        let approved = ConfirmedCall {
            id: params.approval_id.as_str().to_owned(),
            call: call.clone(),
            txn_id,
            digest,
            confirmed_at: params.confirmed_at,
            expires_at: params.expires_at,
        };
        queue.approve(approved).map_err(|error| {
            let code = match error {
                ApproveError::NotGranted => ErrorCode::PolicyDeny,
                _ => ErrorCode::InvalidArgument,
            };
            Refusal::new(code, error.to_string())
        })?;
    }
    Ok(Empty {})
}

fn call(params: &MintApprovedParams) -> Result<Call, Refusal> {
    let texts = [&params.resource, &params.constraints, &params.purpose];
    let lengths = texts.into_iter().flatten().chain(&params.actions).map(String::len);
    if lengths.sum::<usize>() > 4 * MAX_CALL_TEXT_BYTES {
        return Err(Refusal::invalid_argument("the call is too long"));
    }
    let constraints = params.constraints.as_ref().map(|text| parse(text.as_bytes())).transpose();
    Ok(Call {
        tool: params.tool.as_str().to_owned(),
        aud: params.audience.as_str().to_owned(),
        action: params.actions.clone(),
        resource: params.resource.clone(),
        constraints: constraints
            .map_err(|error| Refusal::invalid_argument(format_args!("constraints: {error}")))?,
        purpose: params.purpose.clone(),
    })
}

fn read(used: &ApprovedUse) -> Result<([u8; 16], [u8; 32]), Refusal> {
    let txn_id = from_hex(&used.txn_id);
    let digest = from_hex(&used.digest);
    txn_id
        .zip(digest)
        .ok_or_else(|| Refusal::invalid_argument("uses: txnId has 32 hex digits, and digest 64"))
}
