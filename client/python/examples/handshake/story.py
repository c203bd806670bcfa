"""Registers, waits for a human, and opens a session in each suite: `story.py ORIGIN#KEY`. Prints JSON, a line for each step."""

import json
import sys
import time

from client import Identity, Service, keys_for

service, identity = Service(sys.argv[1]), Identity()
wanted = {"name": "second", "class": "example", "roles": ["dev"]}
registered = service.register(identity, 4, wanted)
print(json.dumps({"code": registered["user_code"], "words": identity.words()}), flush=True)
while (found := service.registration(registered))["state"] == "pending":
    time.sleep(1.1)
print(json.dumps(found), flush=True)

chain = None
for suite in (1, 2, 3, 4):
    finished = service.authenticate(identity, suite, chain)
    chain = finished.chain
    keys = {audience: keys_for(finished, audience) for audience in finished.answer["audiences"]}
    print(json.dumps({"suite": suite, "session_id": finished.answer["session_id"], "sek": identity.sek_public.hex(), "keys": keys}), flush=True)
