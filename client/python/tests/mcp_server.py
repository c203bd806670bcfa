"""An MCP server on standard input and output, without any SDK. It spends the token of a call's `_meta` at the API whose origin is its
argument before it answers."""

import json
import sys
import urllib.error
import urllib.request

KEY = "io.modelcontextprotocol/tbac"
TOOL = {"name": "search", "description": "Searches.", "inputSchema": {"type": "object", "properties": {"query": {"type": "string"}}}}


def is_spent(token):
    request = urllib.request.Request(sys.argv[1] + "/v1/verify", headers={"Authorization": f"TBAC {token}"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status == 200
    except urllib.error.HTTPError:
        return False


def call(params):
    carried = params.get("_meta", {}).get(KEY, {})
    if carried.get("format") != "opaque" or not is_spent(carried.get("token")):
        return {"isError": True, "content": [{"type": "text", "text": "denied"}]}
    return {"content": [{"type": "text", "text": f"found {params['arguments']['query']}"}]}


def initialize(params):
    return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "test", "version": "1"}}


ANSWERS = {"initialize": initialize, "ping": lambda _: {}, "tools/list": lambda _: {"tools": [TOOL]}, "tools/call": call}
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] in ANSWERS:
            answer["result"] = ANSWERS[message["method"]](message.get("params") or {})
        else:
            answer["error"] = {"code": -32601, "message": "no such method"}
        print(json.dumps(answer), flush=True)
