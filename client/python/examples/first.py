"""A call, as short as it gets."""

import os

from obol_agent import Agent

API = os.environ.get("API", "https://api.example")

# A session from the Authentication Service names its destinations itself, and `Agent()` is enough.
with Agent(routes=[{"audience": API, "tools": ["search"]}]) as agent:
    response = agent.fetch(f"{API}/v1/search?q=rows")
    print(response.status, response.text)
