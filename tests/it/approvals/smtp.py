"""A mail server for one test: aiosmtpd, on a port of loopback. It prints its port, then each message that it takes as a line of JSON.

Arguments: how it is spoken with (plain, starttls or tls), a folder with as.crt and as.key, the user and password it wants, and its
answers to messages, one after the other; the last holds from then on.
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

WAY, FOLDER, USER, PASSWORD = sys.argv[1:5]
ANSWERS = sys.argv[5:]


class Taking:
    async def handle_DATA(self, server, session, envelope):
        answer = ANSWERS.pop(0) if len(ANSWERS) > 1 else ANSWERS[0]
        told = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.content.decode(),
            "user": getattr(session.auth_data, "login", b"").decode(),
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "answer": answer,
        }
        print(json.dumps(told), flush=True)
        return answer


def authenticate(server, session, envelope, mechanism, data):
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right, auth_data=data)


def protocol(context):
    options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
    if WAY == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    return SMTP(Taking(), hostname="localhost", **options)


async def serve():
    context = None
    if WAY != "plain":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{FOLDER}/as.crt", f"{FOLDER}/as.key")
    outer = context if WAY == "tls" else None
    server = await asyncio.get_running_loop().create_server(lambda: protocol(context), "127.0.0.1", 0, ssl=outer)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(serve())
