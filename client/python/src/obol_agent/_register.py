"""Registration: what is asked for, how a human is shown what to do, and what an answer means."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ._errors import AgentError


class Prompt(NamedTuple):
    #: What the human types.
    code: str
    #: The agent's key; the human must see the same.
    words: str
    expires_at: str
    #: Where they decide in a browser on this machine; empty where whoever runs the service decides.
    page: str = ""


def _print(prompt: Prompt) -> None:
    print(
        f"A human must approve this agent before {prompt.expires_at}:\n    {prompt.page or f'obol approve {prompt.code}'}\n"
        f"The key they see must read: {prompt.words}",
        file=sys.stderr,
    )


class Registering:
    POLL_SECS = 1.0

    def __init__(
        self, *, name: str | None = None, agent_class: str | None = None, roles: Sequence[str] | None = None,
        tools: Sequence[str] | None = None, ticket: str | None = None, on_prompt: Callable[[Prompt], None] | None = None,
        wait: bool = True,
    ) -> None:
        wishes = {"name": name, "class": agent_class, "roles": roles and list(roles), "tools": tools and list(tools), "ticket": ticket}
        self.params: dict[str, Any] = {wish: value for wish, value in wishes.items() if value is not None}
        self._on_prompt = on_prompt or _print
        self.wait = wait

    def show(self, answer: dict[str, Any]) -> None:
        self._on_prompt(_prompt(answer))

    def result(self, answer: dict[str, Any]) -> dict[str, Any]:
        state = answer.get("state")
        if state == "active":
            return answer
        if state == "waiting":
            prompt = _prompt(answer)
            raise AgentError("APPROVAL_PENDING", f"a human has not yet approved this agent: obol approve {prompt.code}", prompt._asdict())
        code, message = {
            "denied": ("APPROVAL_DENIED", "a human denied the agent; ask them why, then register again"),
            "expired": ("EXPIRED", "nobody decided about the registration in time; register again"),
            "none": ("NOT_REGISTERED", "the registration is gone; register again"),
        }.get(str(state), ("PROTOCOL_ERROR", "the authenticator's answer cannot be understood; check its version"))
        raise AgentError(code, message)


def _prompt(answer: dict[str, Any]) -> Prompt:
    return Prompt(*(str(answer.get(name, "")) for name in ("code", "words", "expiresAt", "page")))
