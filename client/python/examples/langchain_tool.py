"""A LangChain tool whose calls each carry a token of their own. Neither the model nor its trace sees one."""

import os

from langchain_core.tools import tool

from obol_agent import Agent

API = os.environ.get("API", "https://api.example")
agent = Agent(routes=[{"audience": API, "tools": ["search"]}])


@tool
def search(query: str) -> str:
    """Searches the documents."""
    return agent.fetch(f"{API}/v1/search", method="POST", json={"query": query}).text


if __name__ == "__main__":
    # What a model's answer leads to.
    call = {"name": "search", "args": {"query": "rows of march"}, "id": "call-1", "type": "tool_call"}
    print(search.invoke(call).content)
