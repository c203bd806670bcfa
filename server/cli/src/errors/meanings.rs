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
        "FAILED": "Anything else went wrong; also a check that found something, such as `obol audit verify`."
            => "Read the message.";
        "USAGE": "The command line, a file or the configuration is wrong. Nothing was done."
            => "Put right what the message names; `obol config check` finds all of it at once.";
        "DENIED": "Policy, a resource server or a provider said no, or the socket is another user's."
            => "Where the message gives a command for the operator, that one works; else ask whoever grants the tool.";
        "UNAVAILABLE": "Nothing answers, nothing is ready, or something cannot be written."
            => "Try again, after `retryAfterMs` where it is given; if it lasts, look at `/readyz` and the daemon's log.";
        "LOGIN_NEEDED": "There is no session, or it was flushed; or the agent is not registered, or not approved."
            => "Authenticate again, or `obol session provision FILE`; after a flush `obol resume` first; register with `obol register`.";
    }

    /// Of the local sockets.
    SOCKETS {
        "INVALID_ARGUMENT" ("-32700"): "The body is not a message of the codec that was agreed on."
            => "Mend the client.";
        "INVALID_ARGUMENT" ("-32600"): "The message is not a request."
            => "Mend the client.";
        "METHOD_NOT_ALLOWED" ("-32601"): "This socket does not know the method."
            => "Ask the other socket: operators' methods are on `control.sock`, `rs-control.sock` and `as-control.sock`.";
        "INVALID_ARGUMENT" ("-32602"): "A parameter is missing, unknown or out of range; or the tool is granted for several audiences and none was named."
            => "Put right what the message names.";
        "QUEUE_EMPTY": "No token is ready. `renewalPending` says whether one is being made."
            => "Ask again after `retryAfterMs`, or let the request wait (`waitMs`).";
        "POLICY_DENY": "No session grants the tool, or it is denied."
            => "`obol status` shows what is granted and who denies it; `obol policy allow TOOL` lifts the operator's own denial.";
        "NO_SESSION": "There is no session, or the last one has ended."
            => "Authenticate again, or `obol session provision FILE`.";
        "SESSION_FLUSHED": "An operator flushed the session; what it had minted is destroyed."
            => "Nothing, until the operator runs `obol resume` and provisions another session.";
        "OVERLOADED": "Too many requests, or the audit log's disk cannot keep up."
            => "Ask again after `retryAfterMs`.";
        "UNAVAILABLE": "The store failed, the audit log cannot be written, or the daemon is stopping. Nothing was handed out."
            => "Connect again a little later; if it lasts, make room on the disk and restart the daemon.";
        "APPROVAL_REQUIRED": "A human says yes to each call of this tool, and no such yes waits for its token."
            => "Have one asked: the option `approval` of `fetch`, `obol fetch --approval wait`. `obol approve ID` where the service runs says yes.";
        "NOT_REGISTERED": "The Authentication Service does not know the agent."
            => "`obol register`, and have a human approve it.";
        "APPROVAL_PENDING": "A human has yet to decide: about the agent, or about a call."
            => "`obol approve` with the code or the ID that was shown, where the service runs; `obol auth status` shows the agent's code.";
        "APPROVAL_DENIED": "A human said no: to a call, or to the agent; or nobody decided about the agent in time."
            => "Ask them; then ask again, or `obol register` again.";
        "APPROVAL_EXPIRED": "The human's approval is over."
            => "`obol register` again; the human sees what changed.";
        "SUSPENDED": "The Authentication Service ended the agent; what was minted ahead is destroyed."
            => "Nothing, until `obol agent enable`. Then sessions are opened again by themselves.";
        "REVOKED": "The Authentication Service ended the agent's key for good."
            => "Move `authenticator.identity` away and register the agent anew, if it is to come back at all.";
        "AUTHORITY_UNREACHABLE": "The Authentication Service does not answer, or something on the way refused."
            => "Nothing: it is tried again by itself. If it lasts, look at the service and the network.";
        "AUTHORITY_REFUSED": "The Authentication Service refused. The message begins with its own code, see [authority.md](authority.md)."
            => "Put right what the message names; `NO_GRANTS`: ask whoever writes the policies.";
        "CLOCK_SKEW": "This machine's clock and the service's are more than 30 s apart; the message says by how much."
            => "Set the clock that is wrong, and keep both by NTP.";
    }

    /// Of the first frame.
    HELLOS {
        "MALFORMED_HELLO": "The first frame is not a hello."
            => "Mend the client; see [protocol.md](protocol.md).";
        "UNSUPPORTED_VERSION": "The client speaks another version of the protocol."
            => "Use a client of the daemon's version.";
        "UNKNOWN_CODEC": "The client asks for a codec that does not exist."
            => "Ask for `json` or `bincode`.";
        "INVALID_CLIENT_NAME": "The client's name breaks its rule."
            => "Use 1 to 128 bytes of visible ASCII without spaces, such as `name/version`.";
        "USER_NOT_SERVED": "The client's user is not one whom this daemon serves."
            => "The operator adds it: `sudo obol install --agent-user NAME`, or `tqs.agent_users`.";
        "OVERLOADED": "All connections are taken."
            => "Close some, or connect again later.";
        "UNAVAILABLE": "The daemon is stopping."
            => "Connect again once it is back.";
    }

    /// Of tokens.
    DENIALS {
        "TBAC_REQUIRED": "There is no token."
            => "Draw one for the tool (`obol dequeue TOOL`) and send it along.";
        "MALFORMED_TOKEN": "The bytes are not a token, or its contents are not well-formed."
            => "Send the token as it was drawn; nothing may be cut off or added.";
        "NON_JSON_POP_NOT_SUPPORTED": "The request is enveloped in the token, which this server does not do."
            => "Send the request as JSON, or sealed beside the token.";
        "SESSION_NOT_FOUND": "The server does not know the token's session."
            => "Provision it there: `--sessions`, then `obol rs reload`. Was it made for another server?";
        "SESSION_EXPIRED": "The session is revoked, or the token is outside its time."
            => "Authenticate again, or provision a new session.";
        "STALE_TIMESTAMP": "The token is over, not yet valid, too long-lived, or older than the server can answer for."
            => "Draw another. Many at once: a fence after a restart, which passes; or clocks apart; or a `ttl` above `rs.max_ttl`.";
        "AUD_MISMATCH": "The token is for another resource server."
            => "Draw with `--audience`, or compare `rs.audience` with what the session names.";
        "INVALID_SIGNATURE": "The signature does not hold. Opaque: `AUTHORIZATION_FAILED`."
            => "Draw another; if it stays, both halves of the session are not of the same session.";
        "DECRYPTION_FAILED": "The body cannot be decrypted. Opaque: `AUTHORIZATION_FAILED`."
            => "As for `INVALID_SIGNATURE`.";
        "MUTUAL_AUTH_MISMATCH": "The body does not repeat the session's `mutual_auth`. Opaque: `AUTHORIZATION_FAILED`."
            => "As for `INVALID_SIGNATURE`.";
        "VERIFIER_SECRET_MISMATCH": "The body does not repeat the session's `verifier_secret`. Opaque: `AUTHORIZATION_FAILED`."
            => "As for `INVALID_SIGNATURE`.";
        "SCOPE_FIELD_MISSING": "The scope lacks a field, or a field breaks a rule of its own."
            => "Whoever mints has to mend it; tokens of `obol tqs` have all fields.";
        "TOKEN_REPLAYED": "The token was spent before."
            => "Draw another for each call. If nobody sent it twice, somebody else has it: see [incident.md](incident.md).";
        "EPOCH_EXPIRED": "The token was minted under an older policy."
            => "Draw another; the sidecar mints under the new one once it was told.";
        "PRIVILEGE_SIG_INVALID": "`priv_sig` does not cover the scope. Opaque: `AUTHORIZATION_FAILED`."
            => "As for `INVALID_SIGNATURE`.";
        "INSUFFICIENT_PRIVILEGE": "The scope does not allow the call, or is wider than the session's grants or the server's templates."
            => "Draw for the tool that is called, within action and resource of its grant; the server's log says what was too much.";
        "ORG_ID_MISMATCH": "The scope is of another organisation than its session."
            => "Provision both halves of one session.";
        "CHANNEL_ENCRYPTION_REQUIRED": "The scope asks for a sealed request and this one came in the clear."
            => "Seal the arguments with the token's channel keys.";
        "MALFORMED_REQUEST": "The request is not well-formed; 408 and 413 for a body that does not come or is too long."
            => "Put right what `detail` says. Behind a proxy: its settings are at fault.";
        "APPROVAL_DIGEST_MISMATCH": "What the human approved is not what the token allows."
            => "Ask for approval of this very scope.";
        "CIBA_APPROVAL_EXPIRED": "The human's approval is too old, or in the future."
            => "Ask for approval again.";
        "INTENT_INTEGRITY_FAILED": "`intent_hash` is not the hash of `user_raw_intent`."
            => "Whoever mints has to mend it.";
        "INTENT_PAYLOAD_TOO_LARGE": "`user_raw_intent` is longer than 4,096 bytes."
            => "Shorten the intent.";
        "POP_REQUIRED": "The scope asks for proof of possession and there is none."
            => "Draw with the call's arguments (`obol dequeue --arguments`, `popFor`), and send the proof along.";
        "POP_FAILED": "The proof of possession does not hold for this token and these arguments."
            => "Send the very arguments that the proof was drawn for; numbers beyond 2^53 as text.";
        "AUTHORIZATION_FAILED": "A cryptographic check failed; which one is not told."
            => "As for `INVALID_SIGNATURE`; the server's log has the code.";
        "UNAVAILABLE": "Not the token's fault: something the answer depends on cannot be reached or written. The token may be burned."
            => "Draw another and try again; if it lasts, `/readyz` and `obol_not_ready` say what is missing.";
    }

    /// Of the service.
    SERVICE {
        "OVERLOADED": "Too many requests or bodies at once. The token was not spent."
            => "Send the same request again after `Retry-After`.";
        "NOT_FOUND": "There is no such route."
            => "Ask `/v1/verify` or `/v1/authorize`; `/v1/spend` on the socket for that.";
        "METHOD_NOT_ALLOWED": "This route does not allow the method."
            => "`POST` to `/v1/verify` and `/v1/spend`; `GET` the others.";
        "FOREIGN_HOST": "`Host` or `Origin` names another machine, on a loopback address."
            => "Ask for a loopback address or `localhost`; a proxy in front sets `Host`.";
        "SEALING_FAILED": "The response to a sealed request could not be sealed, and was not sent. The call was made."
            => "Look at the server's log: the handler's response is too long, or took too long.";
        "GUARD_MISSING": "A handler asks for a token on a route without the layer."
            => "Put `TbacLayer` in front of the route.";
        "CALL_RUNNING": "The call that this `Idempotency-Key` names is being carried out."
            => "Ask again with the same key, after `Retry-After`.";
        "OUTCOME_UNKNOWN": "The call that this `Idempotency-Key` names was begun, and nobody knows what became of it. It is not carried out again."
            => "Look at what the call should have done; then make it anew with another key, or do not.";
        "ANSWER_NOT_KEPT": "The call that this `Idempotency-Key` names was carried out; its answer was too long to be kept."
            => "Look at what the call did, in another way.";
        "KEY_REUSED": "This `Idempotency-Key` names another call of the same agent."
            => "Use a key once, for one call and its repeats.";
        "ALREADY_SPENT": "The identifier that `POST /v1/spend` was asked for was spent before."
            => "Refuse what it came with: somebody presents it again.";
        "NOT_REMEMBERED": "Whether the identifier was spent before is not known any more: it has expired, or may be older than the time up to which marks were lost."
            => "Refuse what it came with, and have a fresh one made. Send `issued`, if it is signed: then only what is that old is refused.";
        "UPSTREAM_FAILED": "The gateway sent the call to its API, and no whole answer came. Whether it was carried out is not known; it is not sent again."
            => "Look at what the call should have done; then make it anew, or do not.";
        "UPSTREAM_TIMEOUT": "The gateway sent the call to its API, and the answer did not begin in time. Whether it was carried out is not known."
            => "As for `UPSTREAM_FAILED`; `timeout` in the API's file allows more.";
        "CREDENTIAL_REFUSED": "The API answered the gateway's own credential with 401. The caller's token was good, and is spent."
            => "Whoever runs the gateway gives it another credential: `obol gateway add --replace`.";
    }

    /// Of the steps of the cascade.
    CHECKS {
        "TOKEN_ABSENT": "Is there a token?";
        "FRAMING_CHECK": "Step 1, and the form of body and scope.";
        "CONFORMANCE_SCOPE": "`request_format`.";
        "SESSION_LOOKUP": "Step 2: is the session known?";
        "SESSION_VALIDITY": "Steps 2 and 4: is it active, and is it its time?";
        "TEMPORAL_VALIDATION": "Step 3, times.";
        "AUDIENCE_VALIDATION": "Step 3, audience; again in step 13.";
        "SCHNORR_VERIFICATION": "Step 6, the signature.";
        "AEAD_DECRYPTION": "Step 7.";
        "MUTUAL_AUTH_CHECK": "Step 8.";
        "VERIFIER_SECRET_CHECK": "Step 9.";
        "TBAC_SCOPE_EVALUATION": "Step 13, and the scope's required fields.";
        "REPLAY_CONSUME": "Steps 10 and 15: was it spent?";
        "POLICY_EPOCH_VALIDATION": "Step 11.";
        "PRIVILEGE_SIGNATURE": "Step 12.";
        "ORG_ID_VALIDATION": "Step 13, organisation.";
        "CHANNEL_ENCRYPTION_MISSING": "Step 13, channel encryption.";
        "REQUEST_FRAMING": "The form of the request.";
        "CIBA_DIGEST_VALIDATION": "Step 13, what was approved.";
        "CIBA_VALIDATION": "Step 13, when it was approved.";
        "INTENT_HASH_CHECK": "Step 13.7.";
        "INTENT_VALIDATION": "The length of the intent.";
        "POP_MISSING": "Step 14: is there a proof?";
        "POP_VERIFICATION": "Step 14: does it hold?";
        "CRYPTOGRAPHIC_VERIFICATION": "One of the cryptographic checks, of an opaque server.";
        "SPENT_SET": "Can it be told what was spent before?";
        "SESSION_TABLE": "Can it be told which sessions there are?";
        "AUDIT_LOG": "Can it be written down?";
    }

    /// Of the Agent Token Protocol.
    ATP {
        "invalid_request": "The form is wrong."
            => "Put right the field that `error_description` names.";
        "method_not_allowed": "This route does not allow the method."
            => "Use one that `Allow` names.";
        "request_too_large": "The body is longer than a body may be."
            => "Shorten it.";
        "unsupported_media_type": "The body is not `application/json`."
            => "Send JSON, and say so in `Content-Type`.";
        "invalid_signature": "Wrong signature, unknown agent, or retired secret."
            => "Compare the secret with the provider's (`obol atp secret`); sign the body that is sent.";
        "wrong_audience": "Signed for another endpoint."
            => "Sign for this one's URL.";
        "stale_timestamp": "Signed too long ago, or in the future."
            => "Sign anew; set the clock.";
        "replayed": "This very request was answered before."
            => "Sign a new one.";
        "invalid_master": "The master credential is unknown."
            => "Compare it with the provider's (`obol atp secret`).";
        "invalid_token": "No token, or one that is not valid any more."
            => "Ask for another (`obol atp request`).";
        "agent_disabled": "The operator disabled the agent."
            => "Ask the provider's operator.";
        "insufficient_scope": "The token is valid and lacks the scope."
            => "Ask for a token with the scope that `WWW-Authenticate` names.";
        "invalid_scope": "A scope that is not on offer, or above the agent's ceiling, or none at all."
            => "Ask for scopes that the discovery document lists.";
        "not_found": "There is no such route, or no such token of this master."
            => "Compare the address and the id.";
        "too_many_requests": "Too many requests of this address or agent."
            => "Wait as long as `Retry-After` says.";
        "unavailable": "The store, the audit log or a fence; nothing was issued."
            => "Try again after `Retry-After`; `/readyz` says what is missing.";
    }

    /// Of the SDKs, and of the proxy that is built on one.
    SDKS {
        "QUEUE_EMPTY": "No token was ready in time." => "Ask again after `retryAfterMs`.";
        "POLICY_DENY": "The session has no grant for the tool, or it is denied." => "Ask whoever grants the tool; `obol status` shows what is granted.";
        "APPROVAL_REQUIRED": "A human says yes to each call of the tool, and nobody was asked." => "Use the option `approval` of `fetch`, or `obol fetch --approval wait`.";
        "NO_SESSION": "There is no session." => "`obol authenticate`, or `obol session provision FILE`.";
        "SESSION_FLUSHED": "An operator flushed the session." => "Nothing, until the operator runs `obol resume` and there is another session.";
        "OVERLOADED": "Too much at once." => "Ask again after `retryAfterMs`, or `Retry-After`.";
        "UNAVAILABLE": "The daemon's store failed, or it is stopping." => "Ask again a little later; if it lasts, look at the daemon's log.";
        "METHOD_NOT_ALLOWED": "The daemon is older than the library and does not know the method." => "Use a daemon of the library's version.";
        "NOT_REGISTERED": "The agent is not registered." => "`obol register`, and have a human approve it.";
        "APPROVAL_PENDING": "A human has yet to decide: about the agent, or about the call." => "Wait, or ask them.";
        "APPROVAL_DENIED": "A human said no: to the agent, or to the call." => "Ask them before it is asked for again.";
        "APPROVAL_EXPIRED": "The human's approval of the agent is over." => "`obol register` again.";
        "SUSPENDED": "The service ended the agent until somebody enables it." => "`obol agent enable NAME` where the service runs.";
        "REVOKED": "The service ended the agent's key for good." => "Register the agent anew, if it is to come back at all.";
        "AUTHORITY_UNREACHABLE": "The Authentication Service does not answer." => "Nothing: it is tried again by itself. If it lasts, look at the service and the network.";
        "AUTHORITY_REFUSED": "The Authentication Service refused; the message begins with [its own code](#the-authentication-service)." => "Put right what the message names.";
        "CLOCK_SKEW": "The clocks of this machine and of the service are too far apart." => "Set the clock that is wrong, and keep both by NTP.";
        "INVALID_ARGUMENT": "An argument, or a part of the request, is missing, unknown or out of range. Nothing was sent." => "Put right what the message names.";
        "USER_NOT_SERVED": "The daemon, or the proxy, does not serve this user." => "The operator adds it: `tqs.agent_users`, or `--agent-user` of the proxy.";
        "UNSUPPORTED_VERSION": "The daemon speaks another version." => "Use a library of the daemon's version.";
        "MALFORMED_HELLO": "The daemon could not read the hello." => "Use a library of the daemon's version.";
        "UNKNOWN_CODEC": "The daemon does not speak JSON." => "Use a library of the daemon's version.";
        "INVALID_CLIENT_NAME": "The client's name breaks its rule." => "Use 1 to 128 bytes of visible ASCII without spaces.";
        "UNKNOWN_DESTINATION": "The session names no such destination, or not for this tool. Nothing was drawn." => "Compare the URL with the audience in `obol status`.";
        "TOOL_REQUIRED": "Several tools are granted there. Nothing was drawn." => "Say which: the option `tool`, or its place in the proxy's path.";
        "REDIRECT_REFUSED": "The answer leads to where the token must not follow. What the request asked for may have been done." => "Ask for the address that the answer names, if it is right.";
        "OUTCOME_UNKNOWN": "It was sent, and no whole answer came: it may have been carried out." => "Find out before it is sent again; an idempotency key makes that safe.";
        "UNREACHABLE": "The server could not be connected to. Nothing was sent." => "Try again; if it lasts, look at the server and the network.";
        "TIMEOUT": "The time was over, and nothing was carried out that changes anything." => "Try again, or allow more time.";
        "TOKEN_STOLEN": "Somebody else spent the token." => "Do [what an incident asks for](incident.md#a-token-was-stolen).";
        "CHANNEL_FAILED": "The answer was not sealed, or does not open. It may have been carried out." => "Find out who is on the way: a proxy that changes bodies, or an attacker.";
        "CHANNEL_UNSUPPORTED": "What seals bodies is not installed." => "Install what the message names.";
        "EXPIRED": "Nobody decided in time: about the registration, or about the call." => "Ask again when somebody is there.";
        "DAEMON_UNREACHABLE": "Nobody listens on the daemon's socket." => "Start the daemon, or name its socket.";
        "UNTRUSTED_DAEMON": "The socket, or the process behind it, is another user's." => "Find out whose it is; name the right socket.";
        "PROTOCOL_ERROR": "The daemon's answer makes no sense." => "Use a library of the daemon's version.";
        "CLOSED": "The agent was closed." => "Open another.";
        "FOREIGN_HOST": "Of the proxy alone: the request names a host that is not this machine, as a web page in a browser can bring about." => "Name `127.0.0.1` or `localhost`, and ask from a program.";
    }
}
