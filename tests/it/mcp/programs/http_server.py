"""A server of the official SDK over HTTP that knows nothing of tokens. It writes down each call: port and file are its first arguments."""

import sys
from typing import Annotated

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel

port, seen, *flags = sys.argv[1:]
server = MCPServer("tools")


def note(what: str) -> str:
    with open(seen, "a", encoding="utf-8") as file:
        file.write(f"{what}\n")
    return what


@server.tool()
def add(a: int, b: int) -> str:
    """Adds."""
    return note(f"add {a} {b}")


@server.tool()
async def slow(n: int, ctx: Context) -> str:
    """Tells how far it has got."""
    for step in range(n):
        await ctx.report_progress(step, n)
    return note(f"slow {n}")


class Sure(BaseModel):
    sure: bool


def ask() -> Elicit[Sure]:
    return Elicit("Is that meant?", Sure)


@server.tool()
def pay(cents: int, answer: Annotated[Sure, Resolve(ask)]) -> str:
    """Asks back before it does anything."""
    return note(f"pay {cents} {answer.sure}")


server.run(
    "streamable-http",
    host="127.0.0.1",
    port=int(port),
    json_response="json" in flags,
    stateless_http="stateless" in flags,
)
