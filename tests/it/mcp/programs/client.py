"""An MCP client of the official SDK that knows nothing of tokens: does what each line of standard input says."""

import asyncio
import json
import os
import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import ElicitResult


async def agree(context: object, params: object) -> ElicitResult:
    return ElicitResult(action="accept", content={"sure": True})


async def main() -> None:
    mode, command, *arguments = sys.argv[1:]
    server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    # Without anything in between a server over HTTP is its address.
    server = command if command.startswith("http://") else server
    async with Client(server, mode=mode, elicitation_callback=agree) as client:
        print(json.dumps({"version": client.protocol_version}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            step = json.loads(line)
            try:
                if "call" in step:
                    answer = await client.call_tool(step["call"], step["arguments"])
                elif "read" in step:
                    answer = await client.read_resource(step["read"])
                else:
                    answer = await client.list_tools()
                said = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
            except Exception as error:  # what the SDK makes of an error is all the same here
                said = {"error": str(error)}
            print(json.dumps(said), flush=True)


asyncio.run(main())
