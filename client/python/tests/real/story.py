"""Registers, authenticates, and calls the API at BASE one after another until its input ends; says how many these were."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading

from obol_agent import Agent, AsyncAgent

URL = os.environ["BASE"]
ROUTES = [{"audience": os.environ["AUDIENCE"], "url": URL, "tools": ["search"]}]

agent = Agent(routes=ROUTES)
registered = agent.register(name="builder", roles=["dev"], on_prompt=lambda prompt: print(json.dumps(prompt._asdict()), flush=True))
assert registered.expires_at
assert agent.register() == registered, "an active identity returns at once"
print(registered.agent_id, flush=True)


async def together() -> None:
    async with AsyncAgent(routes=ROUTES) as other:
        sessions = await asyncio.gather(*(other.ensure_authenticated() for _ in range(50)))
        assert len({session.session_id for session in sessions}) == 1
        assert sessions[0].agent_instance_id == registered.agent_id and sessions[0].established_at


asyncio.run(together())
agent.authenticate()
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("ready", flush=True)
calls = 0
while not ended.is_set():
    assert agent.fetch(f"{URL}/search", method="POST").text == "found"
    calls += 1
print(calls)
