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


class RunLost(BoardError):
    """The board knows nothing of the run that a part belongs to: it was reset, or lost its power."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked. length: of the reply's payload, None for any. seconds: that line and core need for it, at most.

    short: in the form that boards of every version understand.
    """

    type: int
    payload: bytes = b""
    offset: int = 0
    length: int | None = None
    seconds: float
    short: bool = False


class Link:
    """Requests over a serial line, sent again until their replies are right.

    line: an open object with pyserial's read, write and in_waiting. name: of the port, for messages.
    """

    def __init__(self, line, name):
        self.line, self.name = line, name
        # no reply to an earlier host, nor one as old as the numbers go around, looks like one to us
        self._number = secrets.randbelow(frames.NUMBERS)
        self._splitter = Splitter()
        self._unsure = True  # the board may have half a frame: a zero ends it
        self._again = False  # what waits behind the latest that was answered
        self.repeated = 0  # times that something was sent again

    def ask(self, request, **limits):
        """The payload of the reply to a single Request; limits, and what is raised, as in `exchange`."""
        return next(self.exchange([request], **limits))[1]

    def exchange(self, requests, *, timeout, patience, window=1):
        """Yield (Request, payload of its reply) for each, in their order.

        Up to `window` requests are on their way at once; one is taken from the iterable when there is room, after what
        was yielded before. timeout: seconds of silence, beside what they need, before all of them are sent again; twice
        as many after each. patience: seconds, beside what they need, that nothing valid comes until no more is tried. A
        reply counts if its CRC, type, number, offset and length are right. NoAnswer without one in time; RunLost;
        BoardError where the port is gone.
        """
        requests, waiting, found = iter(requests), {}, {}
        while True:
            new = {}
            while len(waiting) + len(new) < window and (request := next(requests, None)):
                self._number = (self._number + 1) % frames.NUMBERS
                new[None if request.short else self._number] = request
            waiting |= new
            if not waiting:
                return
            try:
                payload = self._answer(waiting, new, found, timeout, patience)
            except OSError as error:  # pyserial's own errors are among them
                raise BoardError(f"{self.name}: lost; was the board unplugged? ({error})") from None
            yield waiting.pop(next(iter(waiting))), payload

    def _answer(self, waiting, new, found, timeout, patience):
        """The payload of the reply to the first of the requests that wait, number → Request; some of them are new."""
        number, request = next(iter(waiting.items()))
        failed, received, begin = Counter(), 0, time.monotonic()
        seconds = sum(request.seconds for request in waiting.values())
        end = begin + patience + seconds
        sent = waiting if self._again else new
        while sent or number not in found:
            damage, count = self._try(waiting, sent, found, seconds + timeout, end)
            received += count
            self._again, sent = bool(damage), waiting if damage else {}
            if not damage:
                continue
            self.repeated += 1
            failed[damage.reason] += 1
            if number in found:
                break
            if time.monotonic() >= end:
                raise NoAnswer(self.name, _NAMES[request.type], time.monotonic() - begin, failed, received)
            if damage is _LATE:
                timeout *= 2
        if (payload := found.pop(number)) is None:
            raise RunLost(f"{self.name}: the board has lost what it was sent; was it reset?")
        return payload

    def _try(self, waiting, new, found, silence, end):
        """Send what is new and listen, for so many seconds of silence, at most till `end`, until the first that waits
        is answered; a Damage where something went wrong, and how many bytes came. Replies go to `found`.
        """
        # a second zero, should the first be lost: else there is a silence, which lasts
        parts = [frames.encode(r.type, n, r.payload, offset=r.offset) + frames.END for n, r in new.items()]
        if parts and self._unsure:
            parts[0] = frames.END + parts[0]
        self._unsure = True  # also where this is interrupted
        try:
            self.line.write(b"".join(parts))
        except serial.SerialTimeoutException:
            return _FULL, 0
        received, last, first = 0, time.monotonic(), next(iter(waiting))
        # a board that never stops talking is not listened to forever
        end = min(end, last + DROPS * silence)
        damage = None
        while first not in found and not damage:
            bytes_there, now = self.line.in_waiting, time.monotonic()
            # what waits is read though we were late
            if now >= end or (now >= last + silence and not bytes_there):
                self._splitter = Splitter()
                return _LATE, received
            chunk = self.line.read(min(max(1, bytes_there), CHUNK))
            if not chunk:
                continue
            received, last = received + len(chunk), time.monotonic()
            damage = self._sort(self._splitter.feed(chunk), waiting, found)
        self._unsure = bool(damage)
        return damage, received

    def _sort(self, items, waiting, found):
        """The right replies of what came to `found`; a Damage where something else came behind that to the first that
        waits. Replies to other requests are passed over.
        """
        damage, first = None, next(iter(waiting))
        for item in items:
            if isinstance(item, Damage):
                damage = item
            elif item.type == frames.DAMAGED:
                said = item.payload[0] if len(item.payload) == 1 else None
                damage = Damage(reason=f"the board got {frames.REASONS.get(said, 'damage of unknown kind')}")
            elif item.type == frames.REFUSED and item.number == next((n for n in waiting if n not in found), None):
                found[item.number] = None  # though those before it were taken
            elif (request := waiting.get(item.number)) and (item.type, item.offset) == (request.type | frames.REPLY, 0):
                if request.length in (None, len(item.payload)):
                    found.setdefault(item.number, item.payload)
                    damage = None if item.number == first else damage
                else:
                    damage = Damage(reason=f"a reply of {len(item.payload)} bytes for {request.length}")
        return damage
