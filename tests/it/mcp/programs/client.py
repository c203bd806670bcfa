"""An MCP client of the official SDK that knows nothing of tokens: does what each line of standard input says."""

import asyncio
import json
import os
import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters


async def main() -> None:
    mode, command, *arguments = sys.argv[1:]
    server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    async with Client(server, mode=mode) as client:
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
