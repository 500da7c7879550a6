"""For the tests of the host: a board in Python, which can be told to speak docs/link.md badly, and bad lines."""

import os
import threading
import time
import tty
import zlib
from contextlib import contextmanager

import numpy as np

from boards import frames
from boards.frames import Counters, Frame, Info, Measured, Splitter
from boards.generator import generated


class FakeBoard:
    """An open port, as pyserial's, with a board behind it. mangle(request, reply) -> bytes: what goes out, if given."""

    def __init__(self, design, *, mangle=None, info=None):
        self.network, self.mangle = design.plan.network, mangle
        own = Info.of(design, clock_hz=12_000_000, baud=1_000_000)
        self.info = own if info is None else info
        self.reset()
        self.splitter, self.requests, self.out, self.closed = Splitter(), [], b"", False

    @property
    def in_waiting(self):
        return len(self.out)

    def read(self, size=1):
        if not self.out:
            time.sleep(0.002)
        chunk, self.out = self.out[:size], self.out[size:]
        return chunk

    def write(self, data):
        for item in self.splitter.feed(data):
            if isinstance(item, Frame):
                self.requests.append(item)
                kind, payload = item.type | frames.REPLY, self.answer(item)
                if payload is None:
                    kind, payload = frames.REFUSED, self.following.to_bytes(4, "little")
                reply = frames.encode(kind, item.number, payload)
            else:
                item, reply = None, frames.encode(frames.DAMAGED, None, bytes([frames.WRONG_CRC]))
            self.out += self.mangle(item, reply) if self.mangle else reply

    def close(self):
        self.closed = True

    def reset(self):
        """As without power: it knows of no run."""
        self.following, self.replies, self.taken, self.outputs = None, {}, b"", b""

    def part(self, request):
        """The outputs of a part and how much of it was taken; None where it is not the next one."""
        if request.number in self.replies:
            return self.replies[request.number]
        if request.offset == 0:
            self.reset()
        elif request.number != self.following:
            self.following = self.following or 0
            return None
        self.following = (request.number + 1) % frames.NUMBERS
        size, data = self.info.input.frame_bytes, self.taken + request.payload
        ends = len(data) // size * size
        whole = self.info.input.unpack(data[:ends])
        outputs = self.outputs + (self.info.output.pack(self.network(whole)) if ends else b"")
        self.taken, self.outputs = data[ends:], outputs[frames.OUTPUTS :]
        self.replies[request.number] = outputs[: frames.OUTPUTS] + bytes([len(request.payload)])
        for number in [*self.replies][: -frames.WINDOW]:
            del self.replies[number]
        return self.replies[request.number]

    def answer(self, request):
        if request.type == frames.INFO:
            return self.info if isinstance(self.info, bytes) else self.info.to_bytes()
        if request.type == frames.RUN:
            return self.part(request)
        if request.type == frames.MEASURE:
            count = Measured.REQUEST.unpack(request.payload)[0]
            outputs = self.info.output.pack(self.network(np.concatenate([*generated(count, self.info.input)])))
            return Measured(cycles=(count - 1) * self.info.interval, crc=zlib.crc32(outputs)).to_bytes()
        if request.type == frames.RESET:
            self.reset()
        numbers = {"wrong_crc": 0, "framing": 0, "too_long": 0, "saturated": 7, "busy": 1}
        return Counters(answered=len(self.requests), **numbers).to_bytes() if request.type == frames.COUNTERS else b""


@contextmanager
def behind_terminal(board, *, gone_after=None):
    """The path of a pseudo-terminal with a FakeBoard behind it, unplugged after so many requests."""
    master, slave = os.openpty()
    tty.setraw(slave)
    held = [slave]

    def serve():
        while gone_after is None or len(board.requests) < gone_after:
            try:
                board.write(os.read(master, 4096))
                if gone_after is None or len(board.requests) < gone_after:
                    os.write(master, board.read(1 << 20))
            except OSError:
                return
        os.close(held.pop())
        os.close(master)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        if held:
            # wakes the reader, which then finds nothing to decode
            os.write(held[0], b"\0")
            os.close(held.pop())
        thread.join(2)


class Damaged:
    """A line that damages what goes through it, each byte with probability `rate`, in one of the ways of `kinds`."""

    def __init__(self, line, kinds, seed, rate=0):
        self.line, self.kinds, self.rng, self.rate, self.done = line, kinds, np.random.default_rng(seed), rate, 0

    in_waiting = property(lambda self: self.line.in_waiting)

    def read(self, size=1):
        return self._damage(self.line.read(size))

    def write(self, data):
        self.line.write(self._damage(data))

    def _damage(self, data):
        hits = np.flatnonzero(self.rng.random(len(data)) < self.rate)
        self.done += len(hits)
        data = bytearray(data)
        for at in hits[::-1]:  # from the end, so that the places before stay where they are
            kind = self.kinds[int(self.rng.integers(len(self.kinds)))]
            if kind == "flipped":
                data[at] ^= 1 << int(self.rng.integers(8))
            elif kind == "zeroed":
                data[at] = 0
            else:
                data[at:] = {
                    "lost": data[at + 1 :],
                    "repeated": data[at : at + 1] + data[at:],
                    "cut": b"",
                    "twice": 2 * data[at:],
                }[kind]
        return bytes(data)
