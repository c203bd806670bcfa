"""Makes CALLS calls to the API at BASE, each under a key of its own, and finds each answered."""

from __future__ import annotations

import os

from obol_agent import Agent

URL = os.environ["BASE"]

with Agent(routes=[{"audience": os.environ["AUDIENCE"], "url": URL, "tools": ["pay"]}]) as agent:
    for order in range(int(os.environ["CALLS"])):
        response = agent.fetch(f"{URL}/pay", method="POST", json={"order": order}, idempotency_key=f"order-{order}")
        assert (response.status, response.json()) == (200, {"order": order})
