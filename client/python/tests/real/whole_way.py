"""Registers, calls, and calls again at each line of its input: after its agent was disabled, and after it was enabled."""

from __future__ import annotations

import json
import sys
import time

from obol_agent import Agent, AgentError

agent = Agent()


def call() -> str:
    # The header is what a reverse proxy says to the resource server.
    try:
        return str(agent.fetch("https://api.example/v1/authorize", method="POST", headers={"X-Obol-Tool": "search"}).status)
    except AgentError as error:
        return error.code


agent.register(name="builder", roles=["dev"], on_prompt=lambda prompt: print(json.dumps(prompt._asdict()), flush=True))
print(call(), call(), call(), flush=True)
sys.stdin.readline()
print(call(), flush=True)
sys.stdin.readline()
# For a second the last refusal is what whoever asks is told.
end = time.monotonic() + 20
while (outcome := call()) != "200" and time.monotonic() < end:
    time.sleep(0.2)
print(outcome)
