"""A client of the official MCP SDK: each tool call has a token in its `_meta` (docs/protocol.md, "MCP").

    python mcp_client.py SERVER ARGUMENT...
"""

import asyncio
import sys
from typing import Any

from mcp import ClientSession, StdioServerParameters, stdio_client

from obol_agent import AsyncAgent

KEY = "io.modelcontextprotocol/tbac"


async def call_tool(session: ClientSession, agent: AsyncAgent, tool: str, arguments: dict[str, Any]) -> Any:
    """Calls a tool with a fresh token, and a proof of possession where the tool asks for one."""
    async with agent.token(tool, arguments=arguments) as token:
        meta: dict[str, Any] = {"token": token.reveal(), "format": "opaque"}
        if token.proof:
            meta["pop"] = {"alg": "Ed25519", "sig": token.proof}
        return await session.call_tool(tool, arguments, meta={KEY: meta})


async def main(command: str, *arguments: str) -> None:
    server = StdioServerParameters(command=command, args=list(arguments))
    async with AsyncAgent() as agent, stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        for query in ("rows of march", "rows of may"):
            result = await call_tool(session, agent, "search", {"query": query})
            print(result.content[0].text)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
