"""A call with a token: find the destination, draw, send, and go on as the rules say.

Each attempt has a fresh token, and no token is sent twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol

from ._approval import Approval, required
from ._canonical import arguments_hash, is_json_object
from ._channel import MAX_SEALED_BYTES, SEALED_TYPE, Channel, failed, is_supported, unsupported
from ._deadline import Deadline
from ._destination import Destination, Wanted
from ._errors import AgentError, Unanswered, Unsent, wrong
from ._http import Answer, Headers, Prepared
from ._request import Request
from ._rules import ANSWER, BUSY, Decision, Rules
from ._token import Token
from ._url import Url, read_url, resolve

MAX_REDIRECTS = 5
MAX_PROBLEM_BYTES = 65_536
#: Refusals ahead of the action, by the guard or something before it.
NOT_SO_FAR = frozenset({401, 403, 429, 503})
_CHALLENGE = re.compile(r'TBAC (?:.*[ ,])?error="([A-Z_]{1,64})"')
STOLEN = "TOKEN_REPLAYED"


class Agent(Protocol):
    """What a call asks of its agent."""

    async def destination(self, wanted: Wanted, deadline: Deadline) -> Destination: ...

    async def draw(
        self, tool: str, audience: str | None, pop_for: str | None, deadline: Deadline, *,
        cannot_seal: Callable[[str], AgentError] | None,
    ) -> Token: ...

    async def draw_approved(
        self, tool: str, audience: str, pop_for: str | None, deadline: Deadline, approval_id: str, *,
        cannot_seal: Callable[[str], AgentError] | None,
    ) -> Token: ...

    async def ask_human(
        self, approval: Approval, tool: str, audience: str, body: Any, deadline: Deadline, *,
        cannot_seal: Callable[[str], AgentError] | None,
    ) -> str: ...

    async def send(self, request: Prepared, deadline: Deadline) -> Answer: ...

    async def pause(self, secs: float, deadline: Deadline) -> None: ...

    async def open_session(self, deadline: Deadline) -> None: ...

    def can_authenticate(self) -> bool: ...

    async def is_young(self, deadline: Deadline) -> bool: ...

    async def tell_stolen(self, tool: str, audience: str) -> None: ...


class Done:
    """What a call ends with: an answer's head, and its body whole where it was sealed."""

    def __init__(self, url: Url, redirected: bool, answer: Answer, headers: Headers, plain: bytes | None) -> None:
        self.url, self.redirected, self.answer, self.headers, self.plain = str(url), redirected, answer, headers, plain


class Call:
    def __init__(self, agent: Agent, request: Request, deadline: Deadline) -> None:
        self._agent, self._request, self._deadline = agent, request, deadline
        self._rules = Rules(request.method, request.stream, request.idempotent)
        self._url = read_url(request.url)
        self._redirects = 0
        #: It was sent before, and what came of that is not known.
        self._unresolved = False
        #: A token was drawn: no human is asked after that.
        self._drew = False

    async def run(self) -> Done:
        try:
            return self._settled(await self._run())
        except AgentError as error:
            if not self._unresolved or error.code == "OUTCOME_UNKNOWN":
                raise
            raise self._unknown(f"then {error.code}") from None

    def _settled(self, done: Done) -> Done:
        """What an earlier attempt may have done is not forgotten over a later one that did not get so far."""
        if self._unresolved and done.answer.status in NOT_SO_FAR:
            done.answer.drop()
            raise self._unknown(f"then status {done.answer.status}")
        return done

    async def _run(self) -> Done:
        request = self._request
        wanted = Wanted(request.method, self._url, request.tool, request.audience)
        self._destination = await self._agent.destination(wanted, self._deadline)
        while True:
            try:
                answer, channel = await self._attempt()
                done = await self._take(answer, channel)
            except (Unsent, Unanswered) as failure:
                await self._failed(failure)
                continue
            if done:
                return done

    async def _attempt(self) -> tuple[Answer, Channel | None]:
        token = await self._draw()
        channel = Channel(token.channel) if token.channel else None
        return await self._agent.send(self._prepared(token, channel), self._deadline), channel

    async def _draw(self) -> Token:
        """Draws; of a call that takes a human's yes, once one was said."""
        body, drawn_by = self._request.body, self._request.approval_id
        pop_for = arguments_hash(body) if body is None or isinstance(body, bytes) else None
        cannot_seal = None if is_supported() else unsupported
        tool, audience = self._destination.tool, self._destination.audience
        approval = None if self._drew else self._request.approval
        if drawn_by is None and not (approval and approval.always):
            try:
                token = await self._agent.draw(tool, audience, pop_for, self._deadline, cannot_seal=cannot_seal)
            except AgentError as error:
                if error.code != "APPROVAL_REQUIRED":
                    raise
            else:
                self._drew = True
                return token
        if drawn_by is None:
            if not approval or not self._agent.can_authenticate():
                raise required(tool)
            drawn_by = await self._agent.ask_human(approval, tool, audience, body, self._deadline, cannot_seal=cannot_seal)
            # The call's own time begins anew.
            self._deadline = Deadline(self._deadline.secs)
        # There is one token, so it is sent once.
        self._drew = True
        self._rules.once()
        return await self._agent.draw_approved(tool, audience, pop_for, self._deadline, drawn_by, cannot_seal=cannot_seal)

    def _prepared(self, token: Token, channel: Channel | None) -> Prepared:
        request = self._request
        body = request.body
        headers = [*request.headers, ("authorization", token.authorization())]
        if token.proof:
            headers.append(("tbac-pop", token.proof))
        if channel:
            if not (body is None or (isinstance(body, bytes) and is_json_object(body))):
                raise wrong(f"the body: {self._destination.tool} takes sealed arguments, a JSON object or nothing")
            headers = [(name, value) for name, value in headers if name != "content-type"]
            headers.append(("content-type", SEALED_TYPE))
            body = channel.seal(body if isinstance(body, bytes) else b"{}")
        return Prepared(self._destination.send, request.method, headers, body)

    async def _failed(self, failure: Unsent | Unanswered) -> None:
        """After a failure: waits where the call is to be made again, or says why it is not."""
        if isinstance(failure, Unsent):
            return await self._again(self._rules.unsent(), self._unreachable(failure))
        if failure.timed_out and self._rules.repeatable:
            raise AgentError(
                "TIMEOUT", f"the server did not answer within {self._deadline.secs:g} s; allow more with `timeout`"
            ) from None
        decision = ANSWER if failure.timed_out else self._rules.unanswered()
        await self._again(decision, self._unknown(failure.why))
        self._unresolved = not self._rules.repeatable

    async def _again(self, decision: Decision, otherwise: AgentError) -> None:
        if decision is ANSWER or decision.pause_secs >= self._deadline.left():
            raise otherwise from None
        await self._agent.pause(decision.pause_secs, self._deadline)

    def _unreachable(self, failure: Unsent) -> AgentError:
        origin = self._destination.send.origin
        return AgentError("UNREACHABLE", f"could not connect to {origin} ({failure}); nothing was sent. Check that it is up")

    def _unknown(self, why: str) -> AgentError:
        return AgentError(
            "OUTCOME_UNKNOWN",
            f"the request was sent and not answered ({why}); it may have been carried out. Check before repeating it, "
            "or give an `idempotency_key` where the server knows these",
        )

    async def _take(self, answer: Answer, channel: Channel | None) -> Done | None:
        """The end where this is the answer; None where the call is made again."""
        code = await _refusal_code(answer)
        decision = self._rules.answered(answer.status, code, answer.only("retry-after"))
        if decision.verb == "stolen":
            answer.drop()
            await self._agent.tell_stolen(self._destination.tool, self._destination.audience)
            raise _stolen()
        if decision.verb == "redirect":
            return await self._redirected(answer, channel)
        if answer.status == 409 and code == "OUTCOME_UNKNOWN" and self._request.idempotent:
            answer.drop()
            raise self._unknown("the server began it under this key, and does not know what became of it")
        pause = await self._wait(decision, answer)
        if pause is None or pause >= self._deadline.left():
            return await self._finished(answer, channel)
        answer.drop()
        # Still running under this key, or failed somewhere in it.
        began = answer.status == 409 or (answer.status >= 500 and code not in BUSY)
        self._unresolved = self._unresolved or (began and not self._rules.repeatable)
        await self._agent.pause(pause, self._deadline)
        return None

    async def _wait(self, decision: Decision, answer: Answer) -> float | None:
        """Seconds until the next attempt, after whatever must be done before; None where there is none."""
        if decision.verb == "young":
            if await self._agent.is_young(self._deadline) and self._rules.young():
                return decision.pause_secs
            decision = self._rules.ended()
        if decision.verb == "again":
            return decision.pause_secs
        if decision.verb != "authenticate" or not self._agent.can_authenticate():
            return None
        try:
            await self._agent.open_session(self._deadline)
        except BaseException:
            answer.drop()
            raise
        return 0.0

    async def _redirected(self, answer: Answer, channel: Channel | None) -> Done | None:
        """Follows within the audience and tool, with a fresh token; None then."""
        locations = answer.headers.get_all("location")
        if self._request.redirect == "manual" or not locations:
            return await self._finished(answer, channel)
        answer.drop()
        may = self._request.redirect == "follow" and not self._rules.is_once and self._request.method in ("GET", "HEAD") and self._redirects < MAX_REDIRECTS
        if not may or len(locations) > 1 or not await self._moved(locations[0]):
            raise AgentError(
                "REDIRECT_REFUSED",
                "the server redirects, and the token does not go with it: only GET and HEAD follow, five times at most, and only to where "
                'the session names the same audience and tool. Ask for the answer as it is with redirect="manual"',
            )
        self._redirects += 1
        return None

    async def _moved(self, location: str) -> bool:
        wanted_of = self._destination
        try:
            url = read_url(resolve(location, self._url) or "")
            wanted = Wanted(self._request.method, url, wanted_of.tool, wanted_of.audience)
            self._destination = await self._agent.destination(wanted, self._deadline)
        except AgentError as error:
            if error.code in ("INVALID_ARGUMENT", "UNKNOWN_DESTINATION"):
                return False
            raise
        self._url = url
        return True

    async def _finished(self, answer: Answer, channel: Channel | None) -> Done:
        headers, plain = answer.headers, None
        is_sealed = answer.only("content-type") == SEALED_TYPE
        if channel and not is_sealed and _must_be_sealed(answer.status):
            answer.drop()
            raise failed("is not sealed")
        if channel and is_sealed:
            sealed = await answer.whole(MAX_SEALED_BYTES)
            answer.drop()
            if sealed is None:
                raise failed("is longer than a sealed one may be")
            plain = channel.open(sealed)
            kind = headers.get("tbac-sealed-type", "application/octet-stream")
            headers = headers.replaced({"content-type": kind, "content-length": None})
        return Done(self._url, self._redirects > 0, answer, headers, plain)


def _must_be_sealed(status: int) -> bool:
    """A refusal comes from whoever stands in front as well, and 204 has no body."""
    return 200 <= status <= 299 and status != 204


def _stolen() -> AgentError:
    return AgentError(
        "TOKEN_STOLEN",
        "the server says that this token was spent, and this agent did not spend it: somebody else has it. Flush the sidecar "
        "(`obol flush --all`), and see the audit logs for what was done",
    )


def challenge(header: str | None) -> str | None:
    """The code in a challenge of the guard."""
    found = _CHALLENGE.match(header or "")
    return found[1] if found else None


async def _refusal_code(answer: Answer) -> str | None:
    """The code of a refusal, if it names one."""
    if answer.status not in (401, 409, 503):
        return None
    if answer.status == 401 and (challenged := challenge(answer.only("www-authenticate"))):
        return challenged
    if (answer.only("content-type") or "").partition(";")[0].strip().lower() != "application/problem+json":
        return None
    try:
        body = await answer.whole(MAX_PROBLEM_BYTES)
        problem = json.loads(body) if body else None
    except (ValueError, RecursionError, Unanswered):
        return None
    code = problem.get("code") if isinstance(problem, dict) else None
    return code if isinstance(code, str) else None
