//! What the Authentication Service's codes mean and what to do about them.

use super::meanings::{Meaning, meanings};

meanings! {
    /// Of what it says inside a handshake, to its operators, and on its pages.
    REFUSED {
        "NOT_REGISTERED": "No agent has this key." => "Run `obol register`.";
        "PENDING_APPROVAL": "A human has not yet decided about the agent." => "Run `obol approve` with its code, where the service runs.";
        "APPROVAL_EXPIRED": "The agent's approval has expired." => "Run `obol register` again; the human sees what changed.";
        "SUSPENDED": "The agent must not open a session." => "Find out why; then run `obol agent enable NAME`.";
        "REVOKED": "The agent, or its key, has ended for good." => "If the agent is to come back, make a new key and register it again.";
        "NO_GRANTS": "Policy grants the agent nothing." => "`obol policy explain` says why; ask the person who writes the policies.";
        "SUITE_REQUIRED": "The suite is too weak for the agent, or a resource server cannot read it." => "Use the suite that the answer names.";
        "CLOCK_SKEW": "The clocks of agent and service are too far apart." => "Set the clock that is wrong, and keep both synchronised by NTP.";
        "TOO_MANY_PENDING": "Too many registrations are waiting for a human." => "Decide those first, or wait ten minutes.";
        "APPROVAL_DENIED": "Policy does not let this human approve this agent or this call." => "Ask somebody who may; `obol policy explain` says why.";
        "OWNER_DISABLED": "The agent's owner is disabled: they may no longer answer for agents." => "Log in again once that is settled, or give the agent another owner.";
        "NAME_TAKEN": "Another agent has this name." => "Choose another name.";
        "TOO_MANY_APPROVALS": "Too many agents were approved within an hour." => "Wait.";
        "INVITATION": "The invitation is unknown, used up or expired, or its author may not decide about this agent." => "Ask for a new one.";
        "ASSERTION": "The signed assertion in place of a human's approval is refused; the message says why." => "Correct that, and get a fresh assertion.";
        "ASSERTION_USED": "This assertion has already registered an agent." => "Get a fresh one. If it was not you, somebody else has it.";
        "JOIN_CODE": "The join code is unknown, used or expired." => "Make a new one with `obol rs invite`.";
        "NOT_JOINED": "No copy of a resource server has this key, or it was removed." => "Run `obol rs invite`, then `obol rs join`.";
        "WRONG_CODE": "This is not the return code that the page showed." => "Type it again; the message says how many tries are left.";
        "NO_SUCH_CODE": "No registration with this code is waiting; codes are valid for ten minutes." => "Register again to get a new code.";
        "NOT_OFFERED": "Policy does not offer the agent this call, even with a human's approval." => "`obol policy explain` says why.";
        "TOO_MANY": "The agent has asked for approvals as often as it may within an hour." => "Wait.";
        "NO_SUCH_APPROVAL": "No request with this ID is waiting: it was decided, or it has expired." => "Have the agent ask again.";
        "CHANGED": "The registration changed after it was shown." => "Look at it again.";
        "POLICY_IN_FORCE": "This version of the policy is already in force." => "Nothing needs doing.";
        "POLICY_TAKES_TOO_MUCH": "The policy takes away most of what is granted." => "Look at the change with `obol policy activate --dry-run`; if it is intended, add `--yes`.";
        "NOT_LOGGED_IN": "This key does not admit an operator from another machine." => "Run `obol login`.";
        "NO_REMOTE_OPERATORS": "This service does not admit operators from other machines." => "Name the roles that may operate it in `as.operator_roles`.";
        "MAY_NOT_LOG_IN": "This human has none of the roles that may operate the service from other machines." => "Ask the person who assigns the roles.";
        "LOGIN_DENIED": "A human denied this login." => "Ask them why.";
        "MAY_NOT_OPERATE": "Policy does not let this human do that." => "The message names the command; `obol policy explain` says why.";
        "UNKNOWN": "There is no such agent, session, tool or resource server." => "Compare the name with the list.";
        "MALFORMED": "A part of the request is malformed." => "Correct what the message names.";
        "SEK_PROOF": "The proof for the SEK is not valid, or the agent registered another SEK." => "Register again.";
        "KEY_IN_USE": "The key is already in use." => "Make a new one.";
        "FULL": "A limit is reached." => "Remove what is no longer needed.";
        "UNAVAILABLE": "The service cannot decide now. Nothing was done." => "Ask again; if it keeps failing, look at `/readyz` and the service's log.";
    }

    /// Of its routes.
    PROBLEMS {
        "MALFORMED": "The message does not belong to a handshake with this service, was changed on its way, or is malformed." => "Start again; if it keeps failing, look at what is on the way.";
        "POLL_TOKEN": "The header `Authorization: Obol-Poll` is missing or malformed." => "Send the token that came with the registration or the request.";
        "UNAUTHORIZED": "No receiver of events has this token." => "Compare it with the file of `as.events`.";
        "NOT_FOUND": "There is no such route." => "Compare the address with `/.well-known/obol-configuration`.";
        "NO_SUCH_REGISTRATION": "There is no such registration, or the token belongs to another; registrations are forgotten an hour after they end." => "Register again.";
        "NO_SUCH_APPROVAL": "There is no such request for approval, or the token belongs to another." => "Ask again.";
        "NO_SUCH_STREAM": "There is no such stream, or it has ended." => "Start another.";
        "METHOD": "The route does not allow this method." => "Fix the client.";
        "TOO_SLOW": "The message took too long." => "Send it again; if it keeps failing, look at the network.";
        "SUITE": "The service does not speak the suite." => "Use one of those that `suites` lists.";
        "COOKIE_EXPIRED": "The handshake took too long, or the service was restarted." => "Start a new handshake.";
        "HANDSHAKE_USED": "The handshake was used for another message." => "Start a new handshake.";
        "TOO_MANY_STREAMS": "The receiver already has a stream." => "Use that one, or remove it first.";
        "TOO_LARGE": "The message is too long for its kind." => "Fix the client.";
        "CONTENT_TYPE": "A handshake message has the wrong content type." => "Send the one that the message names.";
        "UNKNOWN_AUTHORITY_KEY": "The message is for a key that this service does not have." => "Compare the pinned key with `/.well-known/obol-configuration`, over a connection that you trust.";
        "FOREIGN_HOST": "On a loopback address, `Host` or `Origin` names another machine." => "Use a loopback address, `localhost` or the service's own name; a proxy in front must set `Host`.";
        "TOO_MANY": "Too many requests come from this address." => "Wait as long as `Retry-After` says.";
        "SLOW_DOWN": "The client asked again too soon." => "Wait as long as `Retry-After` says.";
        "OVERLOADED": "The service has too much to do. Nothing was done." => "Ask again after `Retry-After`.";
        "UNAVAILABLE": "The service cannot do this now. Nothing was done." => "Ask again; if it keeps failing, look at `/readyz` and the service's log.";
    }
}
