"""httpx, blocking and with asyncio: each request draws a token, and a redirect carries none."""

import asyncio
import os

import httpx

from obol_agent import Agent, AsyncAgent, ObolAuth

API = os.environ.get("API", "https://api.example")
ROUTES = [{"audience": API, "tools": ["search"]}]

with Agent(routes=ROUTES) as agent, httpx.Client(auth=ObolAuth(agent)) as client:
    print(client.post(f"{API}/v1/search", json={"query": "rows"}).text)


async def main() -> None:
    async with AsyncAgent(routes=ROUTES) as agent, httpx.AsyncClient(auth=ObolAuth(agent)) as client:
        print((await client.post(f"{API}/v1/search", json={"query": "rows"})).text)


asyncio.run(main())
