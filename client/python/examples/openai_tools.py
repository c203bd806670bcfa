"""A model behind OpenAI's client asks for a tool, and each of its calls carries a token of its own. The model never sees one."""

import json
import os
from typing import Any

from openai import OpenAI

from obol_agent import Agent, AgentError

API = os.environ.get("API", "https://api.example")
MAX_TURNS = 8

agent = Agent(routes=[{"audience": API, "tools": ["search"]}])
# OPENAI_API_KEY, and OPENAI_BASE_URL for another service that speaks like it.
client = OpenAI()

TOOLS: Any = [
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


def answer(call: Any) -> dict[str, str]:
    """The message that answers a tool call of the model."""
    try:
        arguments = json.loads(call.function.arguments)
        content = agent.fetch(f"{API}/v1/search", method="POST", tool=call.function.name, json=arguments).text
    except (AgentError, ValueError) as error:
        # The model may be told: there is no secret in it.
        content = str(error)
    return {"role": "tool", "tool_call_id": call.id, "content": content}


def ask(question: str) -> str | None:
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(MAX_TURNS):
        said = client.chat.completions.create(model="gpt-5.1", messages=messages, tools=TOOLS).choices[0].message
        if not said.tool_calls:
            return said.content
        messages.append(said)
        messages += [answer(call) for call in said.tool_calls]
    return None


if __name__ == "__main__":
    print(ask("What do the documents say about March?"))
