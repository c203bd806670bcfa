"""The HTTP/1.1 of this package: what is an answer, what is none, and where one ends. Piece by piece, in every size."""

from __future__ import annotations

import gzip
import random
import unittest

from obol_agent._blocking import run
from obol_agent._deadline import Deadline
from obol_agent._errors import Unanswered
from obol_agent._http import MAX_HEAD_BYTES, READ_BYTES, Answer, Prepared, exchange, write_head
from obol_agent._url import read_url

URL = read_url("https://api.example:8443/x?q=1")


class Scripted:
    """A stream that gives these bytes in pieces of this size, and then ends."""

    def __init__(self, answer: bytes, size: int) -> None:
        self.rest, self.size, self.sent = answer, size, b""
        self.closed = self.kept = False

    async def read(self, secs: float) -> bytes:
        piece, self.rest = self.rest[: self.size], self.rest[self.size :]
        return piece

    async def write(self, data: bytes, secs: float) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def keep(self) -> None:
        self.kept = True


def answered(text: bytes, size: int = 10_000, method: str = "GET") -> tuple[Answer, Scripted, bytes | None]:
    stream = Scripted(text, size)
    answer = run(exchange(stream, Prepared(URL, method, [], None), Deadline(5.0)))
    return answer, stream, run(answer.whole(1 << 20))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    (b"HTTP/1.1 200\r\ncontent-length:2\r\n\r\nok", b"ok", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", b"ok", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"", True),
    (b"HTTP/1.1 304 Not Modified\r\n\r\n", b"", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok", True),
    (CHUNKED + b"1\r\no\r\n1;name=value\r\nk\r\n000\r\nTrailer: x\r\n\r\n", b"ok", True),
    (CHUNKED.replace(b"chunked", b"Chunked") + b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", True),
    # What follows an answer belongs to nobody: the connection is not used again.
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", b"ok", False),
]
NO_ANSWERS = [
    b"",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\n\nok",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 99 Low\r\n\r\n",
    b"HTTP/1.1 2000 High\r\n\r\n",
    b"HTTP/1.1 +20 OK\r\n\r\n",
    b" HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: x\r\n\tfolded\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nBlank before : x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: nul\0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: bare\rreturn\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 600 Beyond\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 11 + WHOLE[0][0],
    b"HTTP/1.1 200 OK\r\nA: " + b"x" * (MAX_HEAD_BYTES + 10_000) + b"\r\n\r\n",
]
CUT = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
    CHUNKED + b"2\r\nok\r\n",
    CHUNKED + b"2\r\nokX\r\n0\r\n\r\n",
    CHUNKED + b"g\r\nok\r\n0\r\n\r\n",
    CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    CHUNKED + b"2 2\r\nok\r\n0\r\n\r\n",
    CHUNKED + b"2\nok\n0\n\n",
    CHUNKED + b"fffffffffffffffff\r\nok\r\n0\r\n\r\n",
    CHUNKED + b"2" + b" " * 2_000 + b"\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\nnot gzip!",
]


class Http(unittest.TestCase):
    def test_an_answer_is_read_whole_in_pieces_of_any_size(self) -> None:
        for text, body, again in WHOLE:
            for size in (1, 2, 3, 7, 10_000):
                with self.subTest(text=text, size=size):
                    _, stream, found = answered(text, size)
                    self.assertEqual(found, body)
                    # In pieces, what comes too much has not come yet.
                    if size == 10_000 or again or b"okHTTP" not in text:
                        self.assertEqual((stream.kept, stream.closed), (again, not again))

    def test_what_is_no_answer_is_told_and_its_connection_closed(self) -> None:
        for text in NO_ANSWERS:
            for size in (1, 10_000):
                with self.subTest(text=text[:80], size=size):
                    stream = Scripted(text, size)
                    with self.assertRaises(Unanswered):
                        run(exchange(stream, Prepared(URL, "GET", [], None), Deadline(5.0)))
                    self.assertTrue(stream.closed)
                    self.assertFalse(stream.kept)

    def test_a_body_that_is_cut_or_spoilt_is_told(self) -> None:
        for text in CUT:
            with self.subTest(text=text[:100]), self.assertRaises(Unanswered):
                answered(text)

    def test_a_head_has_no_body(self) -> None:
        _, stream, body = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", method="HEAD")
        self.assertEqual((body, stream.kept), (b"", True))

    def test_what_is_compressed_is_opened_and_bounded(self) -> None:
        packed = gzip.compress(b"rows" * 1_000)
        text = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
        for size in (1, 10_000):
            self.assertEqual(answered(text, size)[2], b"rows" * 1_000)
        stream = Scripted(text, 10_000)
        answer = run(exchange(stream, Prepared(URL, "GET", [], None), Deadline(5.0)))
        self.assertIsNone(run(answer.whole(1_000)), "longer than it may be")

    def test_little_that_unpacks_to_much_is_never_much_at_once(self) -> None:
        packed = gzip.compress(bytes(64 << 20))
        text = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
        stream = Scripted(text, 1 << 20)
        answer = run(exchange(stream, Prepared(URL, "GET", [], None), Deadline(5.0)))
        pieces, most = 0, 0
        while piece := run(answer.read()):
            pieces, most = pieces + len(piece), max(most, len(piece))
        self.assertEqual((pieces, stream.kept), (64 << 20, True))
        self.assertLessEqual(most, READ_BYTES)

    def test_what_is_compressed_and_cut_is_told_though_its_framing_is_whole(self) -> None:
        packed = gzip.compress(b"rows" * 1_000)
        for cut in (1, 12, len(packed) - 9, len(packed) - 1):
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % cut
            with self.subTest(cut=cut), self.assertRaises(Unanswered):
                answered(head + packed[:cut])
        for text in (b"HTTP/1.1 204 No\r\nContent-Encoding: gzip\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"):
            self.assertEqual(answered(text)[2], b"", "there is nothing to unpack")

    def test_a_request_is_written_in_one_form(self) -> None:
        head = write_head(Prepared(URL, "POST", [("a", "b")], b"{}"))
        self.assertEqual(head, b"POST /x?q=1 HTTP/1.1\r\nHost: api.example:8443\r\na: b\r\nContent-Length: 2\r\n\r\n")
        self.assertIn(b"\r\nContent-Length: 0\r\n", write_head(Prepared(URL, "POST", [], None)))
        self.assertNotIn(b"Content-Length", write_head(Prepared(URL, "GET", [], None)))
        stream = Scripted(WHOLE[0][0], 100)
        run(exchange(stream, Prepared(URL, "PUT", [], iter([b"ab", b"", b"c"])), Deadline(5.0)))
        self.assertTrue(stream.sent.endswith(b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"))

    def test_no_bytes_do_anything_else(self) -> None:
        chance = random.Random(7)
        seeds = [text for text, _, _ in WHOLE] + NO_ANSWERS[:-1] + CUT
        for _ in range(20_000):
            text = bytearray(chance.choice(seeds))
            for _ in range(chance.randrange(1, 4)):
                if text:
                    text[chance.randrange(len(text))] = chance.choice(b"\r\n :;0129afxX,\0\xff")
            try:
                answer, stream, _ = answered(bytes(text), chance.choice((1, 5, 10_000)))
            except Unanswered:
                continue
            self.assertTrue(200 <= answer.status <= 599)
            self.assertTrue(stream.kept or stream.closed)


if __name__ == "__main__":
    unittest.main()
