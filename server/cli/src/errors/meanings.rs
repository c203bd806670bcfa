//! What codes mean and what to do about them.

/// One code's meaning.
pub(super) struct Meaning {
    pub(super) code: &'static str,
    /// Where codes share a name: the number that tells them apart.
    pub(super) number: Option<&'static str>,
    pub(super) meaning: &'static str,
    pub(super) advice: &'static str,
}

/// `code: "meaning" => "advice";`, and `code (number): …` where the name alone is not enough.
macro_rules! meanings {
    ($($(#[doc = $about:literal])+ $name:ident { $($code:literal $(($number:literal))?: $meaning:literal $(=> $advice:literal)?;)+ })+) => {$(
        $(#[doc = $about])+
        pub(super) const $name: &[Meaning] = &[$(Meaning {
            code: $code,
            number: meanings!(@number $($number)?),
            meaning: $meaning,
            advice: meanings!(@advice $($advice)?),
        },)+];
    )+};
    (@number) => { None };
    (@number $number:literal) => { Some($number) };
    (@advice) => { "" };
    (@advice $advice:literal) => { $advice };
}

#[cfg(feature = "authority")]
pub(super) use meanings;

meanings! {
    /// Of commands.
    EXITS {
        "FAILED": "Something else went wrong, or a check such as `obol audit verify` found a fault."
            => "Read the message.";
        "USAGE": "The command line, a file or the configuration is wrong. Nothing was done."
            => "Correct what the message names; `obol config check` finds every fault at once.";
        "DENIED": "Policy, a resource server or a provider refused, or the socket belongs to another user."
            => "If the message gives a command for the operator, run it; otherwise ask the person who grants the tool.";
        "UNAVAILABLE": "Nothing answers, nothing is ready, or something cannot be written."
            => "Try again, after `retryAfterMs` if it is given; if it keeps failing, look at `/readyz` and the daemon's log.";
        "LOGIN_NEEDED": "There is no session, it was flushed, or the agent is not registered or not approved."
            => "Authenticate again, or run `obol session provision FILE`; after a flush, run `obol resume` first; register with `obol register`.";
    }

    /// Of the local sockets.
    SOCKETS {
        "INVALID_ARGUMENT" ("-32700"): "The body is not a message in the agreed codec."
            => "Fix the client.";
        "INVALID_ARGUMENT" ("-32600"): "The message is not a request."
            => "Fix the client.";
        "METHOD_NOT_ALLOWED" ("-32601"): "This socket does not have this method."
            => "Use the other socket: operators' methods are on `control.sock`, `rs-control.sock` and `as-control.sock`.";
        "INVALID_ARGUMENT" ("-32602"): "A parameter is missing, unknown or out of range; or the tool is granted for several audiences and the request names none."
            => "Correct what the message names.";
        "QUEUE_EMPTY": "No token is ready. `renewalPending` says whether one is being minted."
            => "Ask again after `retryAfterMs`, or let the request wait (`waitMs`).";
        "POLICY_DENY": "No session grants the tool, or it is denied."
            => "`obol status` shows what is granted and who denies it; `obol policy allow TOOL` lifts the operator's denial.";
        "NO_SESSION": "There is no session, or the last one has ended."
            => "Authenticate again, or run `obol session provision FILE`.";
        "SESSION_FLUSHED": "An operator flushed the session; its waiting tokens are destroyed."
            => "Wait until the operator runs `obol resume` and provisions another session.";
        "OVERLOADED": "Too many requests, or the audit log's disk cannot keep up."
            => "Ask again after `retryAfterMs`.";
        "UNAVAILABLE": "The store failed, the audit log cannot be written, or the daemon is stopping. Nothing was handed out."
            => "Connect again a little later; if it keeps failing, make room on the disk and restart the daemon.";
        "APPROVAL_REQUIRED": "A human must approve each call of this tool, and no approval is waiting for a token."
            => "Ask for an approval: the option `approval` of `fetch`, or `obol fetch --approval wait`. A human gives it with `obol approve ID` where the service runs.";
        "NOT_REGISTERED": "The Authentication Service does not know the agent."
            => "Run `obol register`, and have a human approve the agent.";
        "APPROVAL_PENDING": "A human has not yet decided about the agent or about a call."
            => "Where the service runs, a human runs `obol approve` with the code or ID that was shown; `obol auth status` shows the agent's code.";
        "APPROVAL_DENIED": "A human denied the call or the agent, or nobody decided about the agent in time."
            => "Talk to them; then ask again, or run `obol register` again.";
        "APPROVAL_EXPIRED": "The human's approval has expired."
            => "Run `obol register` again; the human sees what changed.";
        "SUSPENDED": "The Authentication Service suspended the agent; tokens minted ahead are destroyed."
            => "Wait until an operator runs `obol agent enable`. Sessions then open again by themselves.";
        "REVOKED": "The Authentication Service ended the agent's key for good."
            => "If the agent is to come back, move `authenticator.identity` away and register the agent again.";
        "AUTHORITY_UNREACHABLE": "The Authentication Service does not answer, or something on the way refused the connection."
            => "Wait: it is tried again automatically. If it keeps failing, look at the service and the network.";
        "AUTHORITY_REFUSED": "The Authentication Service refused. The message begins with the service's own code; see [authority.md](authority.md)."
            => "Correct what the message names; for `NO_GRANTS`, ask the person who writes the policies.";
        "CLOCK_SKEW": "This machine's clock and the service's are more than 30 s apart; the message says how much."
            => "Set the clock that is wrong, and keep both synchronised by NTP.";
    }

    /// Of the first frame.
    HELLOS {
        "MALFORMED_HELLO": "The first frame is not a hello."
            => "Fix the client; see [protocol.md](protocol.md).";
        "UNSUPPORTED_VERSION": "The client speaks another version of the protocol."
            => "Use a client of the same version as the daemon.";
        "UNKNOWN_CODEC": "The client asks for an unknown codec."
            => "Ask for `json` or `bincode`.";
        "INVALID_CLIENT_NAME": "The client's name breaks its rule."
            => "Use 1 to 128 bytes of visible ASCII without spaces, such as `name/version`.";
        "USER_NOT_SERVED": "This daemon does not serve the client's user."
            => "The operator adds the user: `sudo obol install --agent-user NAME`, or `tqs.agent_users`.";
        "OVERLOADED": "All connections are in use."
            => "Close some, or connect again later.";
        "UNAVAILABLE": "The daemon is stopping."
            => "Connect again once it is back.";
    }

    /// Of tokens.
    DENIALS {
        "TBAC_REQUIRED": "The request has no token."
            => "Draw one for the tool (`obol dequeue TOOL`) and send it with the request.";
        "MALFORMED_TOKEN": "The bytes are not a token, or its contents are not well-formed."
            => "Send the token exactly as it was drawn, with nothing cut off or added.";
        "NON_JSON_POP_NOT_SUPPORTED": "The token carries the request inside it, which this server does not support."
            => "Send the request as JSON, or sealed beside the token.";
        "SESSION_NOT_FOUND": "The server does not know the token's session."
            => "Provision it there: `--sessions`, then `obol rs reload`. Check that it was made for this server.";
        "SESSION_EXPIRED": "The session is revoked, or the token is outside the session's time."
            => "Authenticate again, or provision a new session.";
        "STALE_TIMESTAMP": "The token has expired, is not yet valid, lives too long, or is older than the server can vouch for."
            => "Draw another. If many fail at once, the cause is a fence after a restart, which passes; clocks that differ; or a `ttl` above `rs.max_ttl`.";
        "AUD_MISMATCH": "The token is for another resource server."
            => "Draw with `--audience`, or compare `rs.audience` with the audience that the session names.";
        "INVALID_SIGNATURE": "The signature is not valid. Opaque: `AUTHORIZATION_FAILED`."
            => "Draw another; if it fails again, the two halves belong to different sessions.";
        "DECRYPTION_FAILED": "The body cannot be decrypted. Opaque: `AUTHORIZATION_FAILED`."
            => "As for `INVALID_SIGNATURE`.";
        "MUTUAL_AUTH_MISMATCH": "The body does not repeat the session's `mutual_auth`. Opaque: `AUTHORIZATION_FAILED`."
            => "As for `INVALID_SIGNATURE`.";
        "VERIFIER_SECRET_MISMATCH": "The body does not repeat the session's `verifier_secret`. Opaque: `AUTHORIZATION_FAILED`."
            => "As for `INVALID_SIGNATURE`.";
        "SCOPE_FIELD_MISSING": "The scope lacks a field, or a field breaks its rule."
            => "Fix the minter; tokens from `obol tqs` have all fields.";
        "TOKEN_REPLAYED": "The token was spent before."
            => "Draw a new token for each call. If you sent it only once, somebody else has it: see [incident.md](incident.md).";
        "EPOCH_EXPIRED": "The token was minted under an older policy."
            => "Draw another; the sidecar mints under the new policy as soon as it learns of it.";
        "PRIVILEGE_SIG_INVALID": "`priv_sig` does not cover the scope. Opaque: `AUTHORIZATION_FAILED`."
            => "As for `INVALID_SIGNATURE`.";
        "INSUFFICIENT_PRIVILEGE": "The scope does not allow the call, or it is wider than the session's grants or the server's templates."
            => "Draw for the tool that you call, within the action and resource of its grant; the server's log says what was too wide.";
        "ORG_ID_MISMATCH": "The scope and its session belong to different organisations."
            => "Provision both halves of one session.";
        "CHANNEL_ENCRYPTION_REQUIRED": "The scope asks for a sealed request, and this request came in the clear."
            => "Seal the arguments with the token's channel keys.";
        "MALFORMED_REQUEST": "The request is not well-formed; the status is 408 if the body does not arrive, and 413 if it is too long."
            => "Correct what `detail` names. Behind a proxy, check the proxy's settings.";
        "APPROVAL_DIGEST_MISMATCH": "The token does not allow what the human approved."
            => "Ask for approval of exactly this scope.";
        "CIBA_APPROVAL_EXPIRED": "The human's approval is too old, or its time is in the future."
            => "Ask for approval again.";
        "INTENT_INTEGRITY_FAILED": "`intent_hash` is not the hash of `user_raw_intent`."
            => "Fix the minter.";
        "INTENT_PAYLOAD_TOO_LARGE": "`user_raw_intent` is longer than 4,096 bytes."
            => "Shorten the intent.";
        "POP_REQUIRED": "The scope asks for a proof of possession, and the request has none."
            => "Draw with the call's arguments (`obol dequeue --arguments`, `popFor`), and send the proof with the request.";
        "POP_FAILED": "The proof of possession is not valid for this token and these arguments."
            => "Send exactly the arguments that the proof was drawn for; send numbers beyond 2^53 as text.";
        "AUTHORIZATION_FAILED": "A cryptographic check failed; the answer does not say which."
            => "As for `INVALID_SIGNATURE`; the server's log has the code.";
        "UNAVAILABLE": "The token is not at fault: something that the answer depends on cannot be reached or written. The token may be burned."
            => "Draw another and try again; if it keeps failing, `/readyz` and `obol_not_ready` say what is missing.";
    }

    /// Of the service.
    SERVICE {
        "OVERLOADED": "Too many requests or bodies at once. The token was not spent."
            => "Send the same request again after `Retry-After`.";
        "NOT_FOUND": "There is no such route."
            => "Use `/v1/verify` or `/v1/authorize`; `/v1/spend` is on its own socket.";
        "METHOD_NOT_ALLOWED": "This route does not allow the method."
            => "Use `POST` for `/v1/verify` and `/v1/spend`, and `GET` for the others.";
        "FOREIGN_HOST": "On a loopback address, `Host` or `Origin` names another machine."
            => "Use a loopback address or `localhost`; a proxy in front must set `Host`.";
        "SEALING_FAILED": "The response to a sealed request could not be sealed, so it was not sent. The call was carried out."
            => "Look at the server's log: the handler's response was too long or took too long.";
        "GUARD_MISSING": "A handler asks for a token on a route that lacks the layer."
            => "Put `TbacLayer` in front of the route.";
        "CALL_RUNNING": "The call that this `Idempotency-Key` names is still running."
            => "Ask again with the same key, after `Retry-After`.";
        "OUTCOME_UNKNOWN": "The call that this `Idempotency-Key` names was started, and its outcome is unknown. It is not carried out again."
            => "Check what the call did; if it is still needed, make it again with another key.";
        "ANSWER_NOT_KEPT": "The call that this `Idempotency-Key` names was carried out; its answer was too long to keep."
            => "Find out in another way what the call did.";
        "KEY_REUSED": "This `Idempotency-Key` names another call of the same agent."
            => "Use each key for one call and its repeats.";
        "ALREADY_SPENT": "The identifier in `POST /v1/spend` was spent before."
            => "Refuse what it came with: somebody is presenting it again.";
        "NOT_REMEMBERED": "The server no longer knows whether the identifier was spent before: it has expired, or it may be older than the time up to which marks were lost."
            => "Refuse what it came with, and ask for a fresh one. If its issue time is signed, send it as `issued`: then only identifiers that old are refused.";
        "UPSTREAM_FAILED": "The gateway sent the call to its API, and no complete answer came. The call may have been carried out; it is not sent again."
            => "Check what the call did; if it is still needed, make it again.";
        "UPSTREAM_TIMEOUT": "The gateway sent the call to its API, and the answer did not begin in time. The call may have been carried out."
            => "As for `UPSTREAM_FAILED`; `timeout` in the API's file allows more.";
        "CREDENTIAL_REFUSED": "The API answered the gateway's own credential with 401. The caller's token was good and is spent."
            => "The operator of the gateway gives it another credential: `obol gateway add --replace`.";
    }

    /// Of the steps of the cascade.
    CHECKS {
        "TOKEN_ABSENT": "Does the request have a token?";
        "FRAMING_CHECK": "Step 1, and the form of the body and scope.";
        "CONFORMANCE_SCOPE": "`request_format`.";
        "SESSION_LOOKUP": "Step 2: is the session known?";
        "SESSION_VALIDITY": "Steps 2 and 4: is the session active, and is it within its time?";
        "TEMPORAL_VALIDATION": "Step 3: the token's times.";
        "AUDIENCE_VALIDATION": "Steps 3 and 13: the audience.";
        "SCHNORR_VERIFICATION": "Step 6: the signature.";
        "AEAD_DECRYPTION": "Step 7.";
        "MUTUAL_AUTH_CHECK": "Step 8.";
        "VERIFIER_SECRET_CHECK": "Step 9.";
        "TBAC_SCOPE_EVALUATION": "Step 13, and the fields that the scope must have.";
        "REPLAY_CONSUME": "Steps 10 and 15: was the token spent before?";
        "POLICY_EPOCH_VALIDATION": "Step 11.";
        "PRIVILEGE_SIGNATURE": "Step 12.";
        "ORG_ID_VALIDATION": "Step 13: the organisation.";
        "CHANNEL_ENCRYPTION_MISSING": "Step 13: channel encryption.";
        "REQUEST_FRAMING": "The form of the request.";
        "CIBA_DIGEST_VALIDATION": "Step 13: what the human approved.";
        "CIBA_VALIDATION": "Step 13: when the human approved it.";
        "INTENT_HASH_CHECK": "Step 13.7.";
        "INTENT_VALIDATION": "The length of the intent.";
        "POP_MISSING": "Step 14: does the request have a proof?";
        "POP_VERIFICATION": "Step 14: is the proof valid?";
        "CRYPTOGRAPHIC_VERIFICATION": "One of the cryptographic checks, at an opaque server.";
        "SPENT_SET": "Can the server tell which tokens were spent?";
        "SESSION_TABLE": "Can the server tell which sessions exist?";
        "AUDIT_LOG": "Can the answer be written to the audit log?";
    }

    /// Of the Agent Token Protocol.
    ATP {
        "invalid_request": "The request is malformed."
            => "Correct the field that `error_description` names.";
        "method_not_allowed": "This route does not allow the method."
            => "Use a method that `Allow` names.";
        "request_too_large": "The body is too long."
            => "Shorten it.";
        "unsupported_media_type": "The body is not `application/json`."
            => "Send JSON, and set `Content-Type`.";
        "invalid_signature": "The signature is wrong, the agent is unknown, or the secret is retired."
            => "Compare the secret with the provider's (`obol atp secret`), and sign exactly the body that you send.";
        "wrong_audience": "The request is signed for another endpoint."
            => "Sign for the URL of this endpoint.";
        "stale_timestamp": "The request was signed too long ago, or in the future."
            => "Set the clock, and sign again.";
        "replayed": "This exact request was answered before."
            => "Sign a new request.";
        "invalid_master": "The master credential is unknown."
            => "Compare it with the provider's (`obol atp secret`).";
        "invalid_token": "The request has no token, or its token is no longer valid."
            => "Ask for another (`obol atp request`).";
        "agent_disabled": "The operator disabled the agent."
            => "Ask the provider's operator.";
        "insufficient_scope": "The token is valid but lacks the scope."
            => "Ask for a token with the scope that `WWW-Authenticate` names.";
        "invalid_scope": "The request names no scope, a scope that is not offered, or one above the agent's ceiling."
            => "Ask for scopes that the discovery document lists.";
        "not_found": "There is no such route, or this master has no such token."
            => "Check the address and the ID.";
        "too_many_requests": "Too many requests from this address or agent."
            => "Wait as long as `Retry-After` says.";
        "unavailable": "The store or the audit log is unavailable, or a fence holds; nothing was issued."
            => "Try again after `Retry-After`; `/readyz` says what is missing.";
    }

    /// Of the SDKs, and of the proxy that is built on one.
    SDKS {
        "QUEUE_EMPTY": "No token was ready in time." => "Ask again after `retryAfterMs`.";
        "POLICY_DENY": "The session has no grant for the tool, or the tool is denied." => "Ask the person who grants the tool; `obol status` shows what is granted.";
        "APPROVAL_REQUIRED": "A human must approve each call of the tool, and nobody was asked." => "Use the option `approval` of `fetch`, or `obol fetch --approval wait`.";
        "NO_SESSION": "There is no session." => "Run `obol authenticate` or `obol session provision FILE`.";
        "SESSION_FLUSHED": "An operator flushed the session." => "Wait until the operator runs `obol resume` and there is another session.";
        "OVERLOADED": "Too many requests at once." => "Ask again after `retryAfterMs`, or `Retry-After`.";
        "UNAVAILABLE": "The daemon's store failed, or it is stopping." => "Ask again a little later; if it keeps failing, look at the daemon's log.";
        "METHOD_NOT_ALLOWED": "The daemon is older than the library and does not have the method." => "Use a daemon of the same version as the library.";
        "NOT_REGISTERED": "The agent is not registered." => "Run `obol register`, and have a human approve the agent.";
        "APPROVAL_PENDING": "A human has not yet decided about the agent or about the call." => "Wait, or ask them.";
        "APPROVAL_DENIED": "A human denied the agent or the call." => "Talk to them before you ask again.";
        "APPROVAL_EXPIRED": "The human's approval of the agent has expired." => "Run `obol register` again.";
        "SUSPENDED": "The service suspended the agent until an operator enables it." => "Run `obol agent enable NAME` where the service runs.";
        "REVOKED": "The service ended the agent's key for good." => "If the agent is to come back, register it again.";
        "AUTHORITY_UNREACHABLE": "The Authentication Service does not answer." => "Wait: it is tried again automatically. If it keeps failing, look at the service and the network.";
        "AUTHORITY_REFUSED": "The Authentication Service refused; the message begins with [the service's own code](#the-authentication-service)." => "Correct what the message names.";
        "CLOCK_SKEW": "The clocks of this machine and the service are too far apart." => "Set the clock that is wrong, and keep both synchronised by NTP.";
        "INVALID_ARGUMENT": "An argument, or a part of the request, is missing, unknown or out of range. Nothing was sent." => "Correct what the message names.";
        "USER_NOT_SERVED": "The daemon, or the proxy, does not serve this user." => "The operator adds the user: `tqs.agent_users`, or the proxy's `--agent-user`.";
        "UNSUPPORTED_VERSION": "The daemon speaks another version." => "Use a library of the same version as the daemon.";
        "MALFORMED_HELLO": "The daemon could not read the hello." => "Use a library of the same version as the daemon.";
        "UNKNOWN_CODEC": "The daemon does not speak JSON." => "Use a library of the same version as the daemon.";
        "INVALID_CLIENT_NAME": "The client's name breaks its rule." => "Use 1 to 128 bytes of visible ASCII without spaces.";
        "UNKNOWN_DESTINATION": "The session does not name this destination, or not for this tool. Nothing was drawn." => "Compare the URL with the audience in `obol status`.";
        "TOOL_REQUIRED": "Several tools are granted for this destination. Nothing was drawn." => "Name the tool: with the option `tool`, or in the proxy's path.";
        "REDIRECT_REFUSED": "The answer redirects to a place where the token must not go. The request may have been carried out." => "If the new address is right, ask for it directly.";
        "OUTCOME_UNKNOWN": "The request was sent, and no complete answer came: it may have been carried out." => "Find out before you send it again; an idempotency key makes that safe.";
        "UNREACHABLE": "The library could not connect to the server. Nothing was sent." => "Try again; if it keeps failing, look at the server and the network.";
        "TIMEOUT": "The time ran out, and nothing was carried out that changes anything." => "Try again, or allow more time.";
        "TOKEN_STOLEN": "Somebody else spent the token." => "Follow [the steps for a stolen token](incident.md#a-token-was-stolen).";
        "CHANNEL_FAILED": "The answer was not sealed, or it does not open. The call may have been carried out." => "Find out what is on the way: a proxy that changes bodies, or an attacker.";
        "CHANNEL_UNSUPPORTED": "The package that seals bodies is not installed." => "Install what the message names.";
        "EXPIRED": "Nobody decided in time about the registration or the call." => "Ask again when an approver is available.";
        "DAEMON_UNREACHABLE": "Nothing listens on the daemon's socket." => "Start the daemon, or name its socket.";
        "UNTRUSTED_DAEMON": "The socket, or the process behind it, belongs to another user." => "Find out whose it is, and name the right socket.";
        "PROTOCOL_ERROR": "The library does not understand the daemon's answer." => "Use a library of the same version as the daemon.";
        "CLOSED": "The agent was closed." => "Open another.";
        "FOREIGN_HOST": "Only from the proxy: the request names a host that is not this machine, which a web page in a browser can cause." => "Name `127.0.0.1` or `localhost`, and ask from a program.";
    }
}
