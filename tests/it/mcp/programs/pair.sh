#!/bin/bash
# A client for MCP's conformance tests, which put a server's address behind the command. What the client does comes on standard input.
# With PAIR, wrapper and guard stand in between; OBOL, AUDIENCE and PORT say which and where.
set -eu
here=$(dirname "$0") url=${!#}
if [ -z "${PAIR-}" ]; then exec node "$here/client.js" "$url" <<<"$STEPS"; fi
listen=127.0.0.1:$PORT
"$OBOL" mcp guard --sessions rs-sessions.json --first-start --spent memory --url "$url" --listen "$listen" &
guard=$!
trap 'kill $guard' EXIT
for _ in $(seq 600); do (: >"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && break; sleep 0.1; done
path=/${url#*//*/}
[ "$path" = "/$url" ] && path=/
node "$here/client.js" "$OBOL" mcp wrap --audience "$AUDIENCE" --url "http://$listen$path" <<<"$STEPS"
