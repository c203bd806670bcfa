"""requests: each request draws a token, and a redirect carries none."""

import os

import requests

from obol_agent import Agent, ObolAuth

API = os.environ.get("API", "https://api.example")

with Agent(routes=[{"audience": API, "tools": ["search"]}]) as agent, requests.Session() as session:
    session.auth = ObolAuth(agent)
    print(session.post(f"{API}/v1/search", json={"query": "rows"}).text)
