"""A model that asks for a tool, then for one that it was not offered, then says what came of both: chat completions, as OpenAI's client
speaks them, on loopback. It prints its address, and answers nothing that has a token in it."""

import http.server
import json
import sys

CALLS = [("search", '{"query":"rows of march"}'), ("pay", "{}")]


def said(messages):
    answers = [message["content"] for message in messages if message["role"] == "tool"]
    if len(answers) < len(CALLS):
        name, arguments = CALLS[len(answers)]
        call = {"id": f"call-{len(answers)}", "type": "function", "function": {"name": name, "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    asked = [message["tool_calls"][0]["id"] for message in messages if message["role"] == "assistant"]
    answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    return {"role": "assistant", "content": "\n".join(answers) if asked == answered else f"{asked} {answered}"}, "stop"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body)
        is_good = self.path == "/v1/chat/completions" and [tool["function"]["name"] for tool in asked["tools"]] == ["search"]
        if not is_good or b"tok_" in body or "TBAC" in str(self.headers):
            self.answer(400, {"error": {"message": "no request of the example"}})
            return
        message, reason = said(asked["messages"])
        choice = {"index": 0, "message": message, "finish_reason": reason}
        self.answer(200, {"id": "chat-1", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice]})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    sys.stdin.close()
    server.serve_forever()
