"""Calls of all kinds to the API at BASE, then one after another until its input ends; says how many these were."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

from obol_agent import Agent, AsyncAgent

URL = os.environ["BASE"]
ROUTES = [{"audience": os.environ["AUDIENCE"], "url": URL, "tools": ["list", "sign", "seal"]}]
SAID: list[tuple[str, dict[str, Any]]] = [
    ("sign", {"to": "ann", "amount": 5.5, "note": "\U0001f4b6 ü", "nested": [{"b": 1, "a": None}]}),
    ("sign", {}),
    ("seal", {"q": "rows of march"}),
]


async def with_asyncio() -> int:
    async with AsyncAgent(routes=ROUTES) as agent:
        for tool, value in SAID:
            response = await agent.fetch(f"{URL}/v1/{tool}", method="POST", tool=tool, json=value)
            assert response.status == 200, await response.text()
            assert await response.json() == {"got": value}
        response = await agent.fetch(f"{URL}/v1/list", tool="list")
        assert await response.text() == "listed"
        return 1


calls = asyncio.run(with_asyncio())
agent = Agent(routes=ROUTES)
for tool, value in SAID:
    answer = agent.fetch(f"{URL}/v1/{tool}", method="POST", tool=tool, json=value)
    assert answer.status == 200 and answer.json() == {"got": value}, answer.text
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("ready", flush=True)
while not ended.is_set():
    assert agent.fetch(f"{URL}/v1/list", tool="list").text == "listed"
    calls += 1
status = agent.token_status("list")
assert status.session_active and status.queue_depth >= 0
assert agent.session_info().agent_instance_id == "agent-1"
assert "seal" in (agent.token_status().tools or {})
print(calls)
