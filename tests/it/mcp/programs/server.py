"""A server that knows nothing of tokens, and writes down each line that reaches it: the file is its first argument."""

import json
import sys

with open(sys.argv[1], "a", encoding="utf-8") as seen:
    for line in sys.stdin:
        seen.write(line)
        seen.flush()
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        result = {
            "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}},
            "tools/list": {"tools": [{"name": name, "n": 1.0} for name in ("add", "pay", "open", "secret")]},
            "tools/call": {"content": [{"type": "text", "text": json.dumps(message.get("params"))}]},
        }.get(message["method"], {})
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
