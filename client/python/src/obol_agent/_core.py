"""What an agent does, apart from how it waits: blocking and asyncio share every line of it.

All that waits is behind ``Io``, whose functions are awaited. The blocking one does not really wait when it is awaited, so that
such a coroutine runs through without an event loop (``_blocking.run``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from ._approval import Approval, ApprovalRequest, Approved, ask_human, request_approval, used_up
from ._call import Call, Done
from ._channel import is_supported, unsupported
from ._deadline import Deadline, Pause
from ._destination import Destination, Route, Wanted, find_destination, read_routes, unknown_destination
from ._endpoint import agent_socket, auth_socket, user_number
from ._errors import MAY_PASS, AgentError, Lost, wrong
from ._http import Answer, Prepared
from ._register import Registering
from ._request import Request
from ._token import Token, read_token

CLIENT = "obol-agent-python/0.1.0"
DEFAULT_TIMEOUT_SECS = 30.0
#: As long as a human has to decide.
REGISTER_TIMEOUT_SECS = 15 * 60.0
MAX_WAIT_MS = 30_000
#: How much earlier than the deadline the sidecar is to answer.
ANSWER_SECS = 0.1
DEFAULT_RETRY_MS = 100
UNAVAILABLE_PATIENCE_SECS = 5.0
YOUNG_SESSION_SECS = 2.0
ROUTES_LIFE_SECS = 60.0
ROUTES_PAUSE_SECS = 1.0
#: How long a call waits for newer routes where it has some, and how much later they are asked for again.
ROUTES_PATIENCE_SECS = 1.0
ROUTES_RETRY_SECS = 5.0
#: How long a call waits to tell that a token of its was stolen, before it ends with that error.
TELL_SECS = 1.0
MAX_PAGES = 10_000
MAX_TOOL_CHARACTERS = 256


class Daemon(Protocol):
    path: str

    async def call(self, method: str, params: dict[str, Any], deadline: Deadline, *, repeat: bool) -> dict[str, Any]:
        """Asks, within the deadline. ``repeat``: whether to ask again where the answer was lost; else that is ``Lost``."""

    def close(self) -> None: ...


#: Refuses a tool whose bodies cannot be sealed.
CannotSeal = Callable[[str], AgentError]


class Io(Protocol):
    """How an agent waits."""

    @property
    def sidecar(self) -> Daemon: ...

    @property
    def authenticator(self) -> Daemon: ...

    async def send(self, request: Prepared, deadline: Deadline) -> Answer: ...

    async def pause(self, secs: float, deadline: Deadline) -> None: ...

    async def shared(self, what: str, act: Callable[[Deadline], Awaitable[Any]], deadline: Deadline) -> Any:
        """One such act under way for all who ask."""

    def close(self) -> None: ...


class Places:
    """Where the daemons are, from arguments and environment."""

    def __init__(self, socket: str | None, auth: str | None, user: str | int | None) -> None:
        self.agent = agent_socket(socket, os.environ)
        self.auth = auth_socket(auth, os.environ, self.agent)
        self.user = user_number(user, os.environ)


class Core:
    def __init__(self, io: Io, routes: Any, timeout: float) -> None:
        self._io = io
        self._timeout = Deadline(timeout).secs
        self._named: list[Route] | None = None if routes is None else read_routes(routes, strict=True)
        self._routes: list[Route] = []
        self._asked_at = float("-inf")
        self._authenticator_seen = False
        #: Why the authenticator is waited for; None while it is asked.
        self._away: AgentError | None = None
        #: Whether the bodies of a tool at an audience are sealed, and when the sidecar said so.
        self._sealed: dict[tuple[str, str | None], tuple[bool, float]] = {}

    def deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    async def fetch(self, request: Request, deadline: Deadline) -> Done:
        return await Call(self, request, deadline).run()

    async def register(self, registering: Registering, timeout: float | None) -> dict[str, Any]:
        deadline = self.deadline(REGISTER_TIMEOUT_SECS if timeout is None else timeout)
        ask = self._io.authenticator.call
        answer = await ask("register", registering.params, deadline, repeat=True)
        if answer.get("state") == "waiting" and registering.wait:
            registering.show(answer)
            while answer.get("state") == "waiting" and deadline.left() > registering.POLL_SECS:
                await self._io.pause(registering.POLL_SECS, deadline)
                try:
                    answer = await ask("registrationStatus", {}, deadline, repeat=True)
                except AgentError as error:
                    if error.code not in MAY_PASS:
                        raise  # Else a human has to look at it all the same.
        return registering.result(answer)

    async def authenticate(self, deadline: Deadline) -> dict[str, Any]:
        return await self._shared("authenticate", deadline)

    async def ensure_authenticated(self, registering: Registering, timeout: float | None) -> dict[str, Any]:
        if not self.can_authenticate():
            return await self.session_info(self.deadline(timeout))
        try:
            return await self._shared("ensureAuthenticated", self.deadline(timeout))
        except AgentError as error:
            if error.code != "NOT_REGISTERED":
                raise
        await self.register(registering, timeout)
        return await self._shared("ensureAuthenticated", self.deadline(timeout))

    async def open_session(self, deadline: Deadline) -> None:
        await self._shared("ensureAuthenticated", deadline)

    async def session_info(self, deadline: Deadline) -> dict[str, Any]:
        return await self._io.sidecar.call("sessionInfo", {}, deadline, repeat=True)

    async def token_status(self, tool: str | None, deadline: Deadline) -> dict[str, Any]:
        ask = self._io.sidecar.call
        if tool is not None:
            return await ask("tokenStatus", {"tool": tool}, deadline, repeat=True)
        status = await ask("tokenStatus", {}, deadline, repeat=True)
        following = status.pop("next", None)
        for _ in range(MAX_PAGES):
            if following is None:
                break
            page = await ask("tokenStatus", {"from": following}, deadline, repeat=True)
            status.setdefault("tools", {}).update(page.get("tools", {}))
            following = page.get("next")
        return status

    def can_authenticate(self) -> bool:
        self._authenticator_seen = self._authenticator_seen or os.path.exists(self._io.authenticator.path)
        return self._authenticator_seen

    async def is_young(self, deadline: Deadline) -> bool:
        from datetime import datetime

        established = (await self.session_info(deadline)).get("establishedAt", "")
        try:
            age = time.time() - datetime.fromisoformat(str(established).replace("Z", "+00:00")).timestamp()
        except ValueError:
            return False
        return abs(age) < YOUNG_SESSION_SECS

    async def send(self, request: Prepared, deadline: Deadline) -> Answer:
        return await self._io.send(request, deadline)

    async def pause(self, secs: float, deadline: Deadline) -> None:
        await self._io.pause(min(secs, deadline.left()), deadline)

    async def _shared(self, method: str, deadline: Deadline) -> dict[str, Any]:
        async def act(until: Deadline) -> dict[str, Any]:
            return await self._open(method, until)

        opened: dict[str, Any] = await self._together(method, act, deadline)
        return opened

    async def _together(self, what: str, act: Callable[[Deadline], Awaitable[Any]], deadline: Deadline) -> Any:
        """What the authenticator is asked once for all who wait. Who has no more time hears why it is waited for."""
        try:
            return await self._io.shared(what, act, deadline)
        except AgentError as error:
            away = self._away
            if error.code != "TIMEOUT" or away is None:
                raise
        raise AgentError(away.code, away.message, away.details)

    async def _open(self, method: str, deadline: Deadline) -> dict[str, Any]:
        opened = await self._patiently(method, {}, deadline)
        self._asked_at = float("-inf")
        self._sealed.clear()
        return {**opened, "establishedAt": (await self.session_info(deadline)).get("establishedAt")}

    async def _patiently(self, method: str, params: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Asks the authenticator until it answers, or refuses for good, or the time is over: then why it has not answered until now."""
        pause = Pause()
        self._away = None
        while True:
            try:
                answered = await self._io.authenticator.call(method, params, deadline, repeat=True)
                self._away = None
                return answered
            except AgentError as error:
                if error.code == "TIMEOUT" and self._away is not None:
                    raise self._away from None
                wait = pause.next(error.details.get("retryAfterMs"))
                if error.code not in MAY_PASS or wait >= deadline.left():
                    raise
                self._away = AgentError(error.code, error.message, error.details)
            await self.pause(wait, deadline)

    async def destination(self, wanted: Wanted, deadline: Deadline) -> Destination:
        found = await self._find(wanted, deadline)
        if found is None:
            raise unknown_destination(wanted.url)
        if found.sealed and not is_supported():
            raise unsupported(found.tool)
        return found

    async def _find(self, wanted: Wanted, deadline: Deadline) -> Destination | None:
        if self._named is not None:
            return find_destination(self._named, wanted)
        if time.monotonic() - self._asked_at > ROUTES_LIFE_SECS:
            await self._renew_routes(deadline)
        found = find_destination(self._routes, wanted)
        if found is None and time.monotonic() - self._asked_at > ROUTES_PAUSE_SECS:
            await self._ask_routes(deadline)
            found = find_destination(self._routes, wanted)
        return found

    async def _renew_routes(self, deadline: Deadline) -> None:
        """Asks for newer routes. While the authenticator is away, those of the session stay what they are."""
        if not self._routes:
            return await self._ask_routes(deadline)
        try:
            await self._ask_routes(Deadline(max(0.001, min(ROUTES_PATIENCE_SECS, deadline.left()))))
        except AgentError:
            self._asked_at = time.monotonic() - ROUTES_LIFE_SECS + ROUTES_RETRY_SECS

    async def _ask_routes(self, deadline: Deadline) -> None:
        """The session's routes from the authenticator; once for all who wait."""
        if not self.can_authenticate():
            raise AgentError(
                "UNKNOWN_DESTINATION",
                "no destinations are known: there is no authenticator; for a session made by hand give `routes`",
            )
        await self._together("routes", self._read_routes, deadline)

    async def _read_routes(self, deadline: Deadline) -> None:
        routes = await self._read_pages(deadline)
        if not routes and self._asked_at == float("-inf"):
            await self.open_session(deadline)
            routes = await self._read_pages(deadline)
        self._routes, self._asked_at = read_routes(routes, strict=False), time.monotonic()

    async def _read_pages(self, deadline: Deadline) -> list[Any]:
        routes: list[Any] = []
        params: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            answer = await self._patiently("authStatus", params, deadline)
            routes += answer.get("routes") or []
            if answer.get("next") is None:
                break
            params = {"from": answer["next"]}
        return routes

    async def draw(
        self, tool: str, audience: str | None, pop_for: str | None, deadline: Deadline, *, alone: bool = False,
        cannot_seal: CannotSeal | None = None, approval_id: str | None = None,
    ) -> Token:
        """Draws a token as the rules say.

        ``alone``: for a caller who wants a token, and decides what follows a lost answer. ``cannot_seal``: what a tool with sealed
        bodies is refused with, before anything is drawn.
        """
        if not isinstance(tool, str) or not 1 <= len(tool) <= MAX_TOOL_CHARACTERS or not all("!" <= sign <= "~" for sign in tool):
            raise wrong("tool: 1 to 256 visible ASCII characters")
        began, may_authenticate = time.monotonic(), self.can_authenticate()
        refusal: AgentError | None = None
        while True:
            wait_ms = int(min(MAX_WAIT_MS, max(0.0, deadline.left() - ANSWER_SECS) * 1_000))
            said = {"audience": audience, "popFor": pop_for, "approvalId": approval_id}
            params = {"tool": tool, "waitMs": wait_ms, **said}
            params = {name: value for name, value in params.items() if value is not None}
            if cannot_seal and await self._is_sealed(tool, audience, deadline):
                raise cannot_seal(tool)
            try:
                token = read_token(await self._io.sidecar.call("dequeueToken", params, deadline, repeat=not alone))
                if cannot_seal and token.channel:
                    self._sealed[tool, audience] = True, time.monotonic()
                    raise cannot_seal(tool)
                return token
            except Lost:
                raise _ambiguous_draw() from None
            except AgentError as error:
                # The time is over while it was asked once more: why there was none until now says more.
                if error.code == "TIMEOUT" and refusal is not None:
                    raise refusal from None
                opens = may_authenticate and error.code in ("NO_SESSION", "SESSION_FLUSHED")
                wait = 0.0 if opens else _draw_again_after(error, time.monotonic() - began)
                if wait is None or wait >= deadline.left():
                    raise
                refusal = None if opens else error
            if opens:
                may_authenticate = False
                await self.open_session(deadline)
            else:
                await self.pause(wait, deadline)

    async def draw_approved(
        self, tool: str, audience: str, pop_for: str | None, deadline: Deadline, approval_id: str, *, cannot_seal: CannotSeal | None
    ) -> Token:
        """The token of a call that a human said yes to. There is one, so it is not drawn again where the answer was lost."""
        try:
            return await self.draw(tool, audience, pop_for, deadline, alone=True, cannot_seal=cannot_seal, approval_id=approval_id)
        except AgentError as error:
            raise used_up() if error.code == "OUTCOME_UNKNOWN" else error from None

    async def request_approval(self, request: ApprovalRequest, deadline: Deadline) -> Approved:
        return await request_approval(self._io.authenticator, self.pause, request, deadline)

    async def ask_human(
        self, approval: Approval, tool: str, audience: str, body: Any, deadline: Deadline, *, cannot_seal: CannotSeal | None
    ) -> str:
        """What a human said yes to is drawn by. Nobody is asked for what could not be sent."""
        if cannot_seal and await self._is_sealed(tool, audience, deadline):
            raise cannot_seal(tool)
        return await ask_human(self._io.authenticator, self.pause, approval, tool, audience, body, deadline)

    async def tell_stolen(self, tool: str, audience: str) -> None:
        """Tells the authenticator that somebody else spent a token. Nothing depends on whether that arrives."""
        if not self.can_authenticate():
            return
        params = {"tool": tool, "audience": audience}
        with suppress(AgentError, KeyError):
            params["sessionId"] = (await self.session_info(Deadline(TELL_SECS / 2)))["sessionId"]
        with suppress(AgentError, Lost):
            await self._io.authenticator.call("tokenStolen", params, Deadline(TELL_SECS / 2), repeat=False)

    async def _is_sealed(self, tool: str, audience: str | None, deadline: Deadline) -> bool:
        """Whether a tool's bodies are sealed, as the sidecar says: asked once for all who wait, and not for each draw."""
        sealed, said_at = self._sealed.get((tool, audience), (False, float("-inf")))
        if time.monotonic() - said_at < ROUTES_LIFE_SECS:
            return sealed
        params = {"tool": tool} if audience is None else {"tool": tool, "audience": audience}

        async def ask(until: Deadline) -> bool:
            status = await self._io.sidecar.call("tokenStatus", params, until, repeat=True)
            is_sealed = status.get("sealed") is True
            # Without a session nothing is known yet.
            if status.get("sessionActive") is True:
                self._sealed[tool, audience] = is_sealed, time.monotonic()
            return is_sealed

        try:
            found: bool = await self._io.shared(f"tokenStatus {tool} {audience}", ask, deadline)
            return found
        except AgentError:
            return False  # The draw says what is wrong.


def _retry_ms(error: AgentError) -> float:
    asked = error.details.get("retryAfterMs")
    return float(asked) if isinstance(asked, (int, float)) and asked > 0 else DEFAULT_RETRY_MS


def _draw_again_after(error: AgentError, since_secs: float) -> float | None:
    """Seconds until it is worth asking again; None where it is not."""
    if error.code in ("QUEUE_EMPTY", "OVERLOADED"):
        return max(0.01, _retry_ms(error) / 1_000)
    return DEFAULT_RETRY_MS / 1_000 if error.code == "UNAVAILABLE" and since_secs < UNAVAILABLE_PATIENCE_SECS else None


def _ambiguous_draw() -> AgentError:
    return AgentError(
        "OUTCOME_UNKNOWN",
        "the connection ended after a token was requested; the token may have been handed out and lost. Asking again draws another",
    )
