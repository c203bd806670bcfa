"""Registers, and calls the API at BASE with what the session says alone."""

from __future__ import annotations

import json
import os

from obol_agent import Agent, AgentError

URL = os.environ["BASE"]


def refused(path: str, method: str) -> str:
    try:
        return str(agent.fetch(URL + path, method=method).status)
    except AgentError as error:
        return error.code


with Agent() as agent:
    agent.register(name="builder", roles=["dev"], on_prompt=lambda prompt: print(json.dumps(prompt._asdict()), flush=True))
    for _ in range(2):
        print(agent.fetch(f"{URL}/v1/search?q=rows").text)
    print(refused("/v2/search", "GET"))
    print(refused("/v1/search", "POST"))
