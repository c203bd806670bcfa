//! The binary form of every value and message. Fields and variants come in the order they are
//! declared in; that order is the format.

use super::{Binary, BinaryError, Input, Output};
use crate::codec::RequestId;
use crate::control::{
    AllowResult, DeniedTool, DenyResult, FlushParams, FlushResult, FlushScope, HealthResult, HoldStatus,
    PolicyParams, ProvisionParams, ProvisionResult, ResumeResult, SecurityEventParams, SessionState,
    SessionStatus, StatusParams, StatusResult, ToolParams, ToolStatus,
};
use crate::frame::EncodeError;
use crate::message::{
    DequeueTokenParams, DequeueTokenResult, Empty, SessionInfoResult, TokenChannel, TokenProof,
    TokenStatusParams, TokenStatusResult,
};
use crate::proof::{ArgumentsHash, ProofAlgorithm, ProofSignature};
use crate::refusal::{ErrorCode, Refusal};
use crate::rs_control::{
    Kept, ReloadResult, RevokeParams, RevokeResult, RevokeScope, RsSessionState, RsSessionStatus,
    RsStatusResult,
};
use crate::secret::{ChannelText, SessionDocument, TokenText};
use crate::time::UtcTime;
use crate::value::{
    AgentInstanceId, AlgorithmSuite, Audience, ChannelAlgorithm, EventKind, Reason, SessionId, Tool, WaitMs,
};
use obol_secret::wipe::Wiped;

macro_rules! binary_text {
    ($($type:ty: $text:ident;)+) => {$(
        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                output.plain(self.$text())
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                Ok(Self::new(input.string()?)?)
            }
        }
    )+};
}

binary_text! {
    Tool: as_str;
    Audience: as_str;
    AgentInstanceId: as_str;
    Reason: as_str;
    EventKind: as_str;
    SessionDocument: reveal;
}

macro_rules! binary_base64url {
    ($($type:ty)+) => {$(
        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                output.plain(self.as_bytes())
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                Ok(Self::checked(Wiped::new(input.bytes()?.to_vec()))?)
            }
        }
    )+};
}

binary_base64url! { TokenText ChannelText }

macro_rules! binary_struct {
    ($($type:ident { $($field:ident),* })+) => {$(
        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                let Self { $($field),* } = self;
                let _ = &output;
                $( $field.put(output)?; )*
                Ok(())
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                let _ = &input;
                Ok(Self {
                    $( $field: Binary::take(input).map_err(|error| error.in_field(stringify!($field)))?, )*
                })
            }
        }
    )+};
}

binary_struct! {
    Empty {}
    DequeueTokenParams { tool, wait_ms, audience, pop_for }
    DequeueTokenResult { token, tool, expires_at, channel, pop }
    TokenProof { alg, sig }
    TokenChannel { alg, request_key, request_aad, response_key, response_iv, response_aad }
    TokenStatusParams { tool, from }
    TokenStatusResult { queue_depth, ttl, session_active, renewal_pending, retry_after_ms, tools, next }
    SessionInfoResult { session_id, agent_instance_id, established_at, algorithm_suite, expires_at }
    ProvisionParams { session, resume }
    ProvisionResult { session_id, grants }
    FlushParams { scope, reason }
    FlushResult { sessions_ended, partitions, tokens_discarded, sessions, held }
    ResumeResult { hold }
    HoldStatus { since, scope, reason }
    ToolParams { tool }
    DenyResult { granted }
    AllowResult { was_denied, denied_by_policy }
    SecurityEventParams { kind, subject, reason }
    PolicyParams { epoch, denied_tools }
    StatusParams { from }
    StatusResult {
        version, pid, uid, agent_users, uptime_seconds, sessions, tools, denials, next, hold, denied
    }
    DeniedTool { tool, by_operator, by_policy }
    SessionStatus { session_id, agent_instance_id, algorithm_suite, expires_at, state }
    ToolStatus {
        session_id, tool, audience, ready, stored, handed_out, minted, expired, discarded, ttl, denied, renewal_pending,
        retry_after_ms
    }
    HealthResult { ready, reason }
    RevokeParams { scope, reason }
    RevokeResult { revoked, sessions, kept }
    RsStatusResult { version, pid, audience, kept, sessions, next }
    RsSessionStatus { session_id, agent_instance_id, expires_at, state }
    ReloadResult { sessions }
}

impl Binary for SessionId {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        self.as_u64().put(output)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        input.u64().map(Self::from_u64)
    }
}

impl Binary for UtcTime {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        self.unix_seconds().put(output)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        input.u64().map(Self::from_unix_seconds)
    }
}

impl Binary for WaitMs {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        self.as_millis().put(output)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(input.u32()?)?)
    }
}

impl Binary for AlgorithmSuite {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(&self.number())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(input.plain()?)?)
    }
}

fn unknown_variant<T>(what: &str, number: u32) -> Result<T, BinaryError> {
    Err(BinaryError::Other(format!("{number} is no {what}")))
}

impl Binary for RequestId {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Number(number) => 0_u32.put(output).and_then(|()| number.put(output)),
            Self::Text(text) => 1_u32.put(output).and_then(|()| output.plain(text.as_str())),
            Self::Digits(_) => Err(EncodeError::Inexpressible),
        }
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        match input.u32()? {
            0 => input.u64().map(Self::Number),
            1 => Self::text(input.string()?)
                .ok_or_else(|| BinaryError::Other("an id that is a string has at most 64 bytes".to_owned())),
            other => unknown_variant("kind of request id", other),
        }
    }
}

impl Binary for FlushScope {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        match self {
            Self::All => 0_u32.put(output),
            Self::Session(session) => 1_u32.put(output).and_then(|()| session.put(output)),
            Self::Tool(tool) => 2_u32.put(output).and_then(|()| tool.put(output)),
            Self::Agent(agent) => 3_u32.put(output).and_then(|()| agent.put(output)),
        }
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        match input.u32()? {
            0 => Ok(Self::All),
            1 => SessionId::take(input).map(Self::Session),
            2 => Tool::take(input).map(Self::Tool),
            3 => AgentInstanceId::take(input).map(Self::Agent),
            other => unknown_variant("kind of scope", other),
        }
    }
}

impl Binary for RevokeScope {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        match self {
            Self::All => 0_u32.put(output),
            Self::Session(session) => 1_u32.put(output).and_then(|()| session.put(output)),
            Self::Agent(agent) => 2_u32.put(output).and_then(|()| agent.put(output)),
        }
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        match input.u32()? {
            0 => Ok(Self::All),
            1 => SessionId::take(input).map(Self::Session),
            2 => AgentInstanceId::take(input).map(Self::Agent),
            other => unknown_variant("kind of scope", other),
        }
    }
}

/// Enums without fields: each variant is its number.
macro_rules! binary_enum {
    ($($type:ident $what:literal { $($variant:ident = $number:literal),* })+) => {$(
        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                let number: u32 = match self { $( Self::$variant => $number, )* };
                number.put(output)
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                match input.u32()? {
                    $( $number => Ok(Self::$variant), )*
                    other => unknown_variant($what, other),
                }
            }
        }
    )+};
}

binary_enum! {
    SessionState "state of a session" { Active = 0, Expired = 1, Flushed = 2, Held = 3 }
    RsSessionState "state of a session" { Active = 0, Expired = 1, Revoked = 2 }
    Kept "way to keep sessions" { Memory = 0, File = 1, Shared = 2 }
    ChannelAlgorithm "algorithm of a channel" { Aes256Gcm = 0, ChaCha20Poly1305 = 1 }
}

macro_rules! binary_shown {
    ($($type:ty)+) => {$(
        impl Binary for $type {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                output.plain(&self.to_string())
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                Ok(Self::parse(&input.string()?)?)
            }
        }
    )+};
}

binary_shown! { ArgumentsHash ProofSignature }

impl Binary for ProofAlgorithm {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        let number: u32 = match self {
            Self::Ed25519 => 0,
        };
        number.put(output)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        match input.u32()? {
            0 => Ok(Self::Ed25519),
            other => unknown_variant("algorithm of a proof", other),
        }
    }
}

impl Binary for ErrorCode {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        let number: u32 = match self {
            Self::ParseError => 0,
            Self::InvalidRequest => 1,
            Self::MethodNotAllowed => 2,
            Self::InvalidArgument => 3,
            Self::QueueEmpty { .. } => 4,
            Self::PolicyDeny => 5,
            Self::NoSession => 6,
            Self::SessionFlushed => 7,
            Self::Overloaded { .. } => 8,
            Self::Unavailable => 9,
        };
        number.put(output)?;
        match self {
            Self::QueueEmpty { renewal_pending, retry_after_ms } => {
                renewal_pending.put(output)?;
                retry_after_ms.put(output)
            }
            Self::Overloaded { retry_after_ms } => retry_after_ms.put(output),
            _ => Ok(()),
        }
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(match input.u32()? {
            0 => Self::ParseError,
            1 => Self::InvalidRequest,
            2 => Self::MethodNotAllowed,
            3 => Self::InvalidArgument,
            4 => Self::QueueEmpty { renewal_pending: bool::take(input)?, retry_after_ms: input.u64()? },
            5 => Self::PolicyDeny,
            6 => Self::NoSession,
            7 => Self::SessionFlushed,
            8 => Self::Overloaded { retry_after_ms: input.u64()? },
            9 => Self::Unavailable,
            other => return unknown_variant("error code this version knows", other),
        })
    }
}

impl Binary for Refusal {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        self.code().put(output)?;
        output.plain(self.message())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(ErrorCode::take(input)?, input.string()?))
    }
}
