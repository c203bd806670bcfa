"""A tool in the form that OpenAI's and compatible APIs take: a schema for the model, a function for its calls."""

import json
import os
from typing import Any

from obol_agent import Agent, AgentError

API = os.environ.get("API", "https://api.example")
agent = Agent(routes=[{"audience": API, "tools": ["search"]}])

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Searches the documents.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}},
                "required": ["query"],
                "additionalProperties": False,
            },
        },
    }
]


def answer(call: dict[str, Any]) -> dict[str, str]:
    """The message that answers a tool call of the model."""
    try:
        arguments = json.loads(call["function"]["arguments"])
        content = agent.fetch(f"{API}/v1/search", method="POST", tool=call["function"]["name"], json=arguments).text
    except AgentError as error:
        # The model may be told: there is no secret in it.
        content = str(error)
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


if __name__ == "__main__":
    asked = {"id": "call-1", "type": "function", "function": {"name": "search", "arguments": '{"query": "rows of march"}'}}
    print(answer(asked)["content"])
    forbidden = {"id": "call-2", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
    print(answer(forbidden)["content"])
