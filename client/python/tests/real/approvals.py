"""Calls at each line of its input, which says whether a human is asked; says what they decide by, and what came of it."""

from __future__ import annotations

import json
import sys

from obol_agent import Agent, AgentError, Approval

agent = Agent()
asking = Approval(
    purpose="invoice 7", action="pay", resource="accounts/7",
    on_prompt=lambda prompt: print(json.dumps(prompt._asdict()), flush=True),
)
for word in sys.stdin:
    try:
        approval = asking if word.strip() == "wait" else "never"
        response = agent.fetch("https://api.example/v1/pay", method="POST", json={"amount": "12.50"}, approval=approval)
        print(response.status, response.text, flush=True)
    except AgentError as error:
        print(error.code, flush=True)
