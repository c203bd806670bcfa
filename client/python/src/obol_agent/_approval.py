"""A human's yes to a call that is granted with one alone: asked for, shown to whoever can fetch a human, and waited for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from ._canonical import arguments_hash, is_json_object
from ._deadline import Deadline
from ._errors import MAY_PASS, AgentError, Lost, wrong

#: Longer than somebody may decide.
WAIT_SECS = 6 * 60.0
#: How long the authenticator is to wait for news, each time it is asked, and how much later it is asked again.
POLL_SECS = 5.0
POLL_PAUSE_SECS = 0.1
_LABEL = re.compile(r"[\x21-\x7e]{1,128}")


class Authenticator(Protocol):
    async def call(self, method: str, params: dict[str, Any], deadline: Deadline, *, repeat: bool) -> dict[str, Any]: ...


Pause = Callable[[float, Deadline], Awaitable[None]]


class ApprovalPrompt(NamedTuple):
    #: What the human decides by: ``obol approve ID``.
    approval_id: str
    #: Until when they may.
    expires_at: str
    #: Where they decide in a browser; empty where there is no such page.
    page: str = ""


class Approval:
    """How a human is asked for a yes to a call. Without any argument the same as ``approval="wait"``."""

    def __init__(
        self, *, purpose: str | None = None, action: str | Sequence[str] | None = None, resource: str | None = None,
        constraints: Mapping[str, Any] | None = None, show_arguments: bool = True, always: bool = False, timeout: float = WAIT_SECS,
        on_prompt: Callable[[ApprovalPrompt], None] | None = None,
    ) -> None:
        """``purpose``: why, for the human to read. ``action``, ``resource``, ``constraints``: what the call takes of its grant.

        ``show_arguments=False``: the human does not see the arguments, as for a server that does not see bodies. ``always``: asks also
        where a token is to be had without, for what such tokens do not allow. ``timeout``: seconds to wait for the human; the call's own
        time begins after it. ``on_prompt`` shows a human what waits for them; it is printed to standard error if left out.
        """
        self.always, self.timeout = always, Deadline(timeout).secs
        self._purpose, self._shows, self._on_prompt = purpose, show_arguments, on_prompt
        narrowed = {
            "actions": [action] if isinstance(action, str) else action and list(action), "resource": resource,
            "constraints": _json(constraints),
        }
        self._call = {name: value for name, value in narrowed.items() if value is not None}

    def request(self, tool: str, audience: str, body: Any) -> dict[str, Any]:
        """What is asked for, for one call."""
        call = {"tool": tool, "audience": audience, **self._call}
        if self._shows and isinstance(body, bytes) and is_json_object(body) and arguments_hash(body) is not None:
            call["arguments"] = body.decode()
        return {"calls": [call], **({} if self._purpose is None else {"purpose": self._purpose})}

    def show(self, asked: dict[str, Any], tool: str) -> None:
        prompt = ApprovalPrompt(*(str(asked.get(name) or "") for name in ("approvalId", "expiresAt", "page")))
        if self._on_prompt:
            return self._on_prompt(prompt)
        how = f"Where the service runs:\n    obol approve {prompt.approval_id}"
        print(f"A human must approve a call of {tool} before {prompt.expires_at}. {how}", file=sys.stderr)


class Approved(NamedTuple):
    """A yes to calls."""

    approval_id: str
    #: What each call is drawn by, in the order in which they were asked for: the argument ``approval_id``.
    calls: list[str]
    #: Until when.
    expires_at: str


class ApprovedCall:
    """A call that a human is asked about; what is not said is as the grant has it."""

    def __init__(
        self, tool: str, *, audience: str | None = None, action: str | Sequence[str] | None = None, resource: str | None = None,
        constraints: Mapping[str, Any] | None = None, arguments: Mapping[str, Any] | None = None, count: int | None = None,
    ) -> None:
        """``arguments``: the human sees them, and a call with others is refused. ``count``: how often it may be made; once if left out."""
        said = {
            "tool": tool, "audience": audience, "actions": [action] if isinstance(action, str) else action and list(action),
            "resource": resource, "constraints": _json(constraints), "arguments": _json(arguments), "count": count,
        }
        self._said = {name: value for name, value in said.items() if value is not None}

    def wanted(self, count: int | None) -> dict[str, Any]:
        return self._said if count is None else {"count": count, **self._said}


class ApprovalRequest:
    """One yes for several calls, as it is asked for."""

    def __init__(
        self, calls: Sequence[ApprovedCall], *, purpose: str | None, lifetime: float | None, count: int | None, wait: float,
        on_prompt: Callable[[ApprovalPrompt], None] | None,
    ) -> None:
        if not calls or not all(isinstance(call, ApprovedCall) for call in calls):
            raise wrong("calls: at least one ApprovedCall")
        self.params: dict[str, Any] = {"calls": [call.wanted(count) for call in calls]}
        if purpose is not None:
            self.params["purpose"] = purpose
        if lifetime is not None:
            self.params["lifetimeSeconds"] = int(Deadline(lifetime).secs)
        self.asking = Approval(timeout=wait, on_prompt=on_prompt)
        self.what = ", ".join(str(call["tool"]) for call in self.params["calls"])


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


ApprovalLike = Literal["never", "wait"] | Approval


def read_approval(given: Any) -> Approval | None:
    """The option ``approval``; None where nobody is to be asked."""
    if given is None or given == "never":
        return None
    if given == "wait":
        return Approval()
    if not isinstance(given, Approval):
        raise wrong('approval: "never", "wait", or an Approval')
    return given


def read_approval_id(given: Any) -> str | None:
    if given is not None and not (isinstance(given, str) and _LABEL.fullmatch(given)):
        raise wrong("approval_id: what a call is drawn by, 1 to 128 visible ASCII characters")
    return given


async def ask_human(
    authenticator: Authenticator, pause: Pause, approval: Approval, tool: str, audience: str, body: Any, deadline: Deadline
) -> str:
    """Asks a human for a yes to one call, once, and waits; gives what its token is drawn by. ``deadline`` is for the asking alone."""
    approved = await _ask_once(authenticator, pause, approval.request(tool, audience, body), approval, tool, deadline)
    return approved.calls[0]


async def request_approval(authenticator: Authenticator, pause: Pause, request: ApprovalRequest, deadline: Deadline) -> Approved:
    """The same for several calls, each of which may be drawn as often as it says."""
    return await _ask_once(authenticator, pause, request.params, request.asking, request.what, deadline)


async def _ask_once(
    authenticator: Authenticator, pause: Pause, params: dict[str, Any], approval: Approval, what: str, deadline: Deadline
) -> Approved:
    asked = await _request(authenticator, pause, params, deadline)
    if not _is_label(asked.get("approvalId")):
        raise _nonsense()
    if asked.get("state") == "waiting":
        approval.show(asked, what)
    answer = await _decided(authenticator, pause, asked, Deadline(approval.timeout))
    if answer.get("state") != "approved":
        raise _failure(str(answer.get("state")), asked)
    calls = answer.get("calls")
    if not isinstance(calls, list) or len(calls) != len(params["calls"]) or not all(_is_label(call) for call in calls):
        raise _nonsense()
    return Approved(asked["approvalId"], calls, str(answer.get("expiresAt") or ""))


async def _request(authenticator: Authenticator, pause: Pause, params: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
    """Asks; again only where nobody can have heard of it."""
    while True:
        try:
            return await authenticator.call("requestApproval", params, deadline, repeat=False)
        except Lost:
            raise AgentError(
                "DAEMON_UNREACHABLE",
                "the authenticator went away while it was asking a human; nothing was sent, and the request may wait for them in vain. "
                "Ask again",
            ) from None
        except AgentError as error:
            asked = error.details.get("retryAfterMs")
            wait = max(0.01, asked / 1_000 if isinstance(asked, (int, float)) else POLL_PAUSE_SECS)
            if error.code != "OVERLOADED" or wait >= deadline.left():
                raise
        await pause(wait, deadline)


async def _decided(authenticator: Authenticator, pause: Pause, asked: dict[str, Any], until: Deadline) -> dict[str, Any]:
    """Waits until somebody decided, or the time is over."""
    away: AgentError | None = None
    answer = asked
    while answer.get("state") == "waiting":
        if until.left() <= POLL_PAUSE_SECS:
            raise away or _failure("waiting", asked)
        await pause(POLL_PAUSE_SECS, until)
        wait_ms = max(0, int((min(POLL_SECS, until.left()) - POLL_PAUSE_SECS) * 1_000))
        params = {"approvalId": asked["approvalId"], "waitMs": wait_ms}
        try:
            answer, away = await authenticator.call("approvalStatus", params, until, repeat=True), None
        except AgentError as error:
            if error.code == "INVALID_ARGUMENT":
                raise _failure("forgotten", asked) from None
            if error.code in MAY_PASS:
                away = error
            elif error.code != "TIMEOUT":
                raise
    return answer


def _failure(state: str, asked: dict[str, Any]) -> AgentError:
    if state == "waiting":
        found = asked["approvalId"]
        message = (
            f"a human has not yet approved the call: obol approve {found} where the service runs; nothing was sent. "
            "Wait longer, or ask again later"
        )
        return AgentError("APPROVAL_PENDING", message, {"approvalId": found})
    code, message = {
        "denied": ("APPROVAL_DENIED", "a human denied the call; nothing was sent. Ask them why before you ask again"),
        "expired": ("EXPIRED", "nobody approved the call in time, or the approval has expired; nothing was sent. Ask again"),
        "forgotten": (
            "EXPIRED",
            "the authenticator no longer knows the request: it was restarted, or the time is over; nothing was sent. Ask again",
        ),
    }.get(state, ("PROTOCOL_ERROR", "the authenticator's answer cannot be understood; check its version"))
    return AgentError(code, message)


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and _LABEL.fullmatch(value) is not None


def _nonsense() -> AgentError:
    return AgentError("PROTOCOL_ERROR", "the authenticator's answer cannot be understood; check its version")


def required(tool: str) -> AgentError:
    return AgentError(
        "APPROVAL_REQUIRED",
        f"a human must approve each call of {tool}, and nobody was asked; nothing was sent. The option approval=\"wait\" asks and waits",
    )


def used_up() -> AgentError:
    return AgentError(
        "DAEMON_UNREACHABLE",
        "the sidecar went away while the token of the approved call was drawn; nothing was sent, and the yes may be used up. "
        "Ask for another",
    )
