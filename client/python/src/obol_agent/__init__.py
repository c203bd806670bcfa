"""An agent that calls APIs with single-use tokens.

    from obol_agent import Agent

    agent = Agent()
    response = agent.fetch("https://api.example/v1/search")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._agent import Agent, AsyncAgent, Registration, SessionInfo, TokenStatus
from ._approval import Approval, ApprovalPrompt, Approved, ApprovedCall
from ._errors import AgentError
from ._http import Headers
from ._register import Prompt
from ._response import AsyncResponse, Response
from ._token import Token

if TYPE_CHECKING:
    from ._auth import ObolAuth
    from ._tools import tool

__all__ = [
    "Agent", "AgentError", "Approval", "ApprovalPrompt", "Approved", "ApprovedCall", "AsyncAgent", "AsyncResponse", "Headers", "ObolAuth", "Prompt", "Registration",
    "Response", "SessionInfo", "Token", "TokenStatus", "tool",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What takes long to import, once it is asked for."""
    if name == "ObolAuth":
        from ._auth import ObolAuth

        return ObolAuth
    if name == "tool":
        from ._tools import tool

        return tool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
