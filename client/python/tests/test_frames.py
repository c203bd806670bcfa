"""The golden frames of tests/vectors/ipc, read and written; and frames that are none."""

from __future__ import annotations

import json
import unittest

from world import VECTORS

from obol_agent import AgentError
from obol_agent._frames import MAX_FRAME_BYTES, Decoder, encode

LINES = [line for name in ("hello", "agent", "auth") for line in json.loads((VECTORS / "ipc" / f"{name}.json").read_text())]


class Frames(unittest.TestCase):
    def test_golden_frames_are_read_as_their_messages(self) -> None:
        self.assertGreater(len(LINES), 40)
        for line in LINES:
            with self.subTest(line["what"]):
                self.assertEqual(list(Decoder().push(bytes.fromhex(line["json"]))), [line["message"]])

    def test_what_is_written_reads_as_the_message(self) -> None:
        for line in LINES:
            with self.subTest(line["what"]):
                self.assertEqual(list(Decoder().push(encode(line["message"]))), [line["message"]])

    def test_all_of_them_behind_each_other_in_pieces_of_every_size(self) -> None:
        everything = b"".join(bytes.fromhex(line["json"]) for line in LINES)
        for size in (1, 2, 3, 5, 7, 64, 1000, len(everything)):
            decoder = Decoder()
            found = [
                message
                for place in range(0, len(everything), size)
                for message in decoder.push(everything[place : place + size])
            ]
            self.assertEqual(found, [line["message"] for line in LINES], f"pieces of {size}")

    def test_lengths_that_no_frame_has_and_what_is_no_json_are_refused(self) -> None:
        for text in ("00000000", "00010001", "ffffffff", "0000000178", "00000002ff22", "000000025b5d"):
            with self.subTest(text), self.assertRaises(AgentError) as raised:
                list(Decoder().push(bytes.fromhex(text)))
            self.assertEqual(raised.exception.code, "PROTOCOL_ERROR")
        self.assertEqual(list(Decoder().push(b"\0\0")), [])

    def test_a_message_that_does_not_fit_a_frame_is_not_written(self) -> None:
        text = "x" * (MAX_FRAME_BYTES - len('{"text":""}'))
        self.assertEqual(len(encode({"text": text})), 4 + MAX_FRAME_BYTES)
        with self.assertRaises(AgentError):
            encode({"text": text + "x"})


if __name__ == "__main__":
    unittest.main()
