//! What the Authentication Service's codes mean and what to do about them.

use super::meanings::{Meaning, meanings};

meanings! {
    /// Of what it says inside a handshake, to its operators, and on its pages.
    REFUSED {
        "NOT_REGISTERED": "No agent has this key." => "`obol register`.";
        "PENDING_APPROVAL": "A human has yet to decide about the agent." => "`obol approve` with its code, where the service runs.";
        "APPROVAL_EXPIRED": "The agent's approval is over." => "`obol register` again; the human sees what changed.";
        "SUSPENDED": "The agent may open no session." => "`obol agent enable NAME`, once it is known why.";
        "REVOKED": "The agent, or its key, has ended for good." => "Make a new key and register the agent anew, if it is to come back.";
        "NO_GRANTS": "Policy grants the agent nothing." => "`obol policy explain` says why; ask whoever writes the policies.";
        "SUITE_REQUIRED": "The suite is too weak for the agent, or a resource server cannot read it." => "Use the suite that the answer names.";
        "CLOCK_SKEW": "The clocks of agent and service are too far apart." => "Set the clock that is wrong, and keep both by NTP.";
        "TOO_MANY_PENDING": "Too many registrations wait for a human." => "Decide those first, or wait ten minutes.";
        "APPROVAL_DENIED": "Policy does not let this human approve such an agent, or say yes to this call." => "Ask somebody who may; `obol policy explain`.";
        "OWNER_DISABLED": "Whoever knows the human who answers for the agent said that they may not any more." => "Log in anew once that is settled; or give the agent another owner.";
        "NAME_TAKEN": "Another agent has this name." => "Choose one of its own.";
        "TOO_MANY_APPROVALS": "Too many agents were approved within an hour." => "Wait.";
        "INVITATION": "The invitation is unknown, used up, over, or of somebody who does not decide about this agent." => "Ask for a new one.";
        "ASSERTION": "The signed word that stands in for a human is not taken; the message says why." => "Put that right, and get a fresh one.";
        "ASSERTION_USED": "That word has registered an agent before." => "Get a fresh one. If it was not you, somebody else has it.";
        "JOIN_CODE": "The code to join with is unknown, used or over." => "`obol rs invite` makes a new one.";
        "NOT_JOINED": "No copy of a resource server has this key, or it was removed." => "`obol rs invite`, then `obol rs join`.";
        "WRONG_CODE": "That is not the return code that the page showed." => "Type it again; how often is left stands in the message.";
        "NO_SUCH_CODE": "No registration with this code waits; codes are good for ten minutes." => "Register again for a new one.";
        "NOT_OFFERED": "Policy offers the agent no such call with a human's yes." => "`obol policy explain`.";
        "TOO_MANY": "The agent has asked for a human's yes as often as it may within an hour." => "Wait.";
        "NO_SUCH_APPROVAL": "No request of this id waits: it was decided, or is over." => "Have the agent ask again.";
        "CHANGED": "The registration changed since it was shown." => "Look at it again.";
        "POLICY_IN_FORCE": "This version of the policy is in force already." => "Nothing.";
        "POLICY_TAKES_TOO_MUCH": "The policy takes away most of what is granted." => "Look at it with `obol policy activate --dry-run`, and say `--yes` if it is meant.";
        "NOT_LOGGED_IN": "No operator of another machine is let in by this key." => "`obol login`.";
        "NO_REMOTE_OPERATORS": "Nobody operates this service from elsewhere." => "`as.operator_roles` names the roles that may.";
        "MAY_NOT_LOG_IN": "This human has none of the roles that may operate it from elsewhere." => "Ask who gives the roles.";
        "LOGIN_DENIED": "A human said no to this login." => "Ask them.";
        "MAY_NOT_OPERATE": "Policy does not let this human do that." => "`obol policy explain`; the message names the verb.";
        "UNKNOWN": "There is no such agent, session, tool or resource server." => "Compare the name with the list.";
        "MALFORMED": "A part of the request is not as it must be." => "Put right what the message names.";
        "SEK_PROOF": "The proof for the SEK does not hold, or it is another one than the agent registered." => "Register again.";
        "KEY_IN_USE": "The key is in use already." => "Make a new one.";
        "FULL": "There are as many as there may be." => "Remove what is not needed any more.";
        "UNAVAILABLE": "It cannot be decided now. Nothing was done." => "Ask again; if it lasts, look at `/readyz` and the service's log.";
    }

    /// Of its routes.
    PROBLEMS {
        "MALFORMED": "The message belongs to no handshake with this service, was changed on its way, or is not as it must be." => "Begin anew; if it lasts, look at what is on the way.";
        "POLL_TOKEN": "The header `Authorization: Obol-Poll` is missing or malformed." => "Send the token that the registration, or the request, came with.";
        "UNAUTHORIZED": "No receiver of events has this token." => "Compare it with the file of `as.events`.";
        "NOT_FOUND": "There is no such route." => "Compare the address with `/.well-known/obol-configuration`.";
        "NO_SUCH_REGISTRATION": "There is no such registration, or the token is another's; it is forgotten an hour after its end." => "Register again.";
        "NO_SUCH_APPROVAL": "There is no such request for a human's yes, or the token is another's." => "Ask again.";
        "NO_SUCH_STREAM": "There is no such stream, or it is over." => "Begin another.";
        "METHOD": "The route knows no such method." => "Mend the client.";
        "TOO_SLOW": "The message took too long." => "Send it again; look at the network.";
        "SUITE": "The service does not speak the suite." => "Use one of those that `suites` lists.";
        "COOKIE_EXPIRED": "The handshake took too long, or the service was restarted." => "Begin anew.";
        "HANDSHAKE_USED": "The handshake was used for another message." => "Begin anew.";
        "TOO_MANY_STREAMS": "The receiver has a stream already." => "Use that one, or remove it first.";
        "TOO_LARGE": "The message is longer than one of its kind may be." => "Mend the client.";
        "CONTENT_TYPE": "A handshake's message has another content type." => "Send the one that the message names.";
        "UNKNOWN_AUTHORITY_KEY": "The message is for a key that this service does not have." => "Compare the pinned key with `/.well-known/obol-configuration`, over a way that you trust.";
        "FOREIGN_HOST": "`Host` or `Origin` names another machine, on a loopback address." => "Ask for a loopback address, `localhost`, or the service's own name; a proxy in front sets `Host`.";
        "TOO_MANY": "Too many requests come from there." => "Wait for as long as `Retry-After` says.";
        "SLOW_DOWN": "It was asked again too soon." => "Wait for as long as `Retry-After` says.";
        "OVERLOADED": "The service has too much to do. Nothing was done." => "Ask again after `Retry-After`.";
        "UNAVAILABLE": "It cannot be done now. Nothing was done." => "Ask again; if it lasts, look at `/readyz` and the service's log.";
    }
}
