"""One request at a time over a serial line, again and again until its reply is right."""

import secrets
import time
from collections import Counter
from dataclasses import dataclass

import serial

from . import frames
from .frames import Damage, Splitter

CHUNK = 1 << 16  # bytes of a single read, at most
DROPS = 10  # a reply that comes in drops: so many time-outs, all in all

_NAMES = {frames.INFO: "info", frames.RUN: "run", frames.COUNTERS: "counters", frames.RESET: "reset"}
_LATE = Damage(reason="no reply in time")
_FULL = Damage(reason="the port took no bytes")


class BoardError(RuntimeError):
    """A board, or the line to it, that does not do what docs/link.md says; the message says what to look at."""


class NoAnswer(BoardError):
    """No valid reply in time. received: bytes that came meanwhile. reasons: what became of the tries."""

    def __init__(self, port, request, seconds, failed, received):
        self.received, self.tries = received, sum(failed.values())
        self.reasons = ", ".join(f"{count} x {reason}" for reason, count in failed.most_common(4))
        super().__init__(
            f"{port}: no valid reply to {request} for {seconds:.3g} s, tries: {self.tries} ({self.reasons})"
        )


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked. length: of the reply's payload, None for any. seconds: that line and core need for it, at most.

    short: in the form that boards of every version understand.
    """

    type: int
    payload: bytes = b""
    length: int | None
    seconds: float
    short: bool = False


class Link:
    """One request at a time over a serial line, sent again until its reply is right.

    line: an open object with pyserial's read, write and in_waiting. name: of the port, for messages.
    """

    def __init__(self, line, name):
        self.line, self.name = line, name
        # no reply to an earlier host, nor one as old as the numbers go around, looks like one to us
        self._number = secrets.randbelow(frames.NUMBERS)
        self._splitter = Splitter()
        self._unsure = True  # the board may have half a frame: a zero ends it
        self.repeated = 0  # requests sent again

    def ask(self, request_for, *, timeout, patience):
        """The payload of the reply to a Request: request_for(n) gives the one to send after n tries have failed.

        timeout: seconds of silence, beside what the request needs, before it is sent again; twice as many after each.
        patience: seconds, beside what the first request needs, until nothing more is tried. A reply counts if its CRC,
        type, number, offset and length are right. NoAnswer without one in time; BoardError where the port is gone.
        """
        request, failed, received, begin = None, Counter(), 0, time.monotonic()
        while True:
            wanted = request_for(failed.total())
            if wanted != request:  # each other question has another number
                request, self._number = wanted, (self._number + 1) % frames.NUMBERS
            if not failed:
                end = begin + patience + request.seconds
            try:
                found, count = self._try(request, request.seconds + timeout, end)
            except OSError as error:  # pyserial's own errors are among them
                raise BoardError(f"{self.name}: lost; was the board unplugged? ({error})") from None
            received += count
            if not isinstance(found, Damage):
                return found.payload
            failed[found.reason] += 1
            if time.monotonic() >= end:
                raise NoAnswer(self.name, _NAMES[request.type], time.monotonic() - begin, failed, received)
            self.repeated += 1
            if found is _LATE:
                timeout *= 2

    def _try(self, request, silence, end):
        """Send once and listen, for so many seconds of silence, at most till `end`; the right Frame or a Damage, and
        how many bytes came.
        """
        # a second zero, should the first be lost: else there is a silence, which lasts
        frame = frames.encode(request.type, None if request.short else self._number, request.payload) + frames.END
        if self._unsure:
            self._splitter = Splitter()
            frame = frames.END + frame
        self._unsure = True  # also where this is interrupted
        try:
            self.line.write(frame)
        except serial.SerialTimeoutException:
            return _FULL, 0
        received, last = 0, time.monotonic()
        # a board that never stops talking is not listened to forever
        end = min(end, last + DROPS * silence)
        while True:
            waiting, now = self.line.in_waiting, time.monotonic()
            # what waits is read though we were late
            if now >= end or (now >= last + silence and not waiting):
                return _LATE, received
            chunk = self.line.read(min(max(1, waiting), CHUNK))
            if not chunk:
                continue
            received, last = received + len(chunk), time.monotonic()
            found = self._pick(list(self._splitter.feed(chunk)), request)
            if found:
                self._unsure = False
                return found, received

    def _pick(self, items, request):
        """The right reply of what came, else a Damage, else None: replies to other requests are passed over."""
        damage, number = None, None if request.short else self._number
        for item in items:
            if isinstance(item, Damage):
                damage = item
            elif item.type == frames.DAMAGED:
                said = item.payload[0] if len(item.payload) == 1 else None
                damage = Damage(reason=f"the board got {frames.REASONS.get(said, 'damage of unknown kind')}")
            elif (item.type, item.number, item.offset) == (request.type | frames.REPLY, number, 0):
                if request.length in (None, len(item.payload)):
                    return item
                damage = Damage(reason=f"a reply of {len(item.payload)} bytes for {request.length}")
        return damage
