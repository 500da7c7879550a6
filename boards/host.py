"""The host: vectors to a board over a serial line, and its answers back."""

import errno
import secrets
import time
from collections import Counter
from pathlib import Path

import numpy as np
import serial
from serial.tools import list_ports

from rtl_gen import load_design, read_manifest

from . import frames
from .frames import Counters, Damage, Info, Side, Splitter, wire_bytes

BAUDS = (1_000_000, 115_200, 3_000_000, 2_000_000)  # tried in turn where nobody says which
BITS = 10  # of a byte on the line: start, 8, stop
POLL = 0.05  # seconds of a single read
PATIENCE = 10  # of a reply that comes in drops: so many time-outs, all in all

_NAMES = {frames.INFO: "info", frames.RUN: "run", frames.COUNTERS: "counters", frames.RESET: "reset"}
_LATE = Damage(reason="no reply in time")
_FULL = Damage(reason="the port took no bytes")


class BoardError(RuntimeError):
    """A board, or the line to it, that does not do what docs/link.md says; the message says what to look at."""


class NoAnswer(BoardError):
    """No valid reply after the last retry. received: bytes that came meanwhile. reasons: what became of each try."""

    def __init__(self, port, request, failed, received):
        self.received, self.reasons = received, ", ".join(f"{count} x {reason}" for reason, count in failed.items())
        super().__init__(f"{port}: no valid reply to {request}, tries: {sum(failed.values())} ({self.reasons})")


class Link:
    """One request at a time over a serial line, sent again until its reply is right.

    line: an open object with pyserial's read, write and in_waiting. name: of the port, for messages.
    """

    def __init__(self, line, name):
        self.line, self.name = line, name
        # an answer to somebody else's last request should not look like one to ours
        self._sequence = secrets.randbelow(256)
        self._splitter = Splitter()
        self._unsure = True  # the board may have half a frame: a zero ends it
        self.repeated = 0  # requests sent again

    def ask(self, type, payload=b"", *, length, seconds, retries):
        """The payload of the reply; length: what it must have, None for any. seconds: of silence, before a retry.

        A reply counts if its CRC, type, sequence and length are right. A late one to an earlier request has another
        sequence, or the same question's answer. NoAnswer after the last retry; BoardError where the port is gone.
        """
        self._sequence = (self._sequence + 1) & 0xFF
        frame = frames.encode(type, self._sequence, payload)
        failed, received = Counter(), 0
        for attempt in range(retries + 1):
            self.repeated += attempt > 0
            try:
                found, count = self._try(frame, type, length, seconds)
            except OSError as error:  # pyserial's own errors are among them
                raise BoardError(f"{self.name}: lost; was the board unplugged? ({error})") from None
            received += count
            if not isinstance(found, Damage):
                return found.payload
            failed[found.reason] += 1
        raise NoAnswer(self.name, _NAMES[type], failed, received)

    def _try(self, frame, type, length, seconds):
        """Send once and listen; the right Frame or a Damage, and how many bytes came."""
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
        deadline = last + PATIENCE * seconds
        while time.monotonic() < min(last + seconds, deadline):
            chunk = self.line.read(max(1, self.line.in_waiting))
            if not chunk:
                continue
            received, last = received + len(chunk), time.monotonic()
            found = self._pick(list(self._splitter.feed(chunk)), type, length)
            if found:
                self._unsure = False
                return found, received
        return _LATE, received

    def _pick(self, items, type, length):
        """The right reply of what came, else a Damage, else None: replies to other requests are passed over."""
        damage = None
        for item in items:
            if isinstance(item, Damage):
                damage = item
            elif item.type == frames.DAMAGED:
                said = item.payload[0] if len(item.payload) == 1 else None
                damage = Damage(reason=f"the board got {frames.REASONS.get(said, 'damage of unknown kind')}")
            elif (item.type, item.sequence) == (type | frames.REPLY, self._sequence):
                if length in (None, len(item.payload)):
                    return item
                damage = Damage(reason=f"a reply of {len(item.payload)} bytes for {length}")
        return damage


class Board:
    """A board that runs the core of a manifest.

    port: a device (`/dev/ttyUSB0`, `COM3`), or an open object with pyserial's read (which must time out), write and
    in_waiting, which stays open at the end. manifest: path of NAME.json, or the Design that rtl_gen.write returned.
    baud: of the line; None tries the usual ones. timeout: seconds of silence, beside the time that line and core need
    by their own figures, after which a request is sent again; retries: how often it is sent again, at most.

    ValueError for a bad argument, FileNotFoundError and PermissionError for the port, BoardError for whatever the board
    or the line does wrong; a board that runs another configuration is refused.
    """

    def __init__(self, port, manifest, *, baud=None, timeout=1.0, retries=3):
        if not timeout > 0 or retries < 0 or (baud is not None and baud <= 0):
            raise ValueError(f"Board needs timeout > 0, retries >= 0 and baud > 0, got {timeout}, {retries} and {baud}")
        self.path = Path(getattr(manifest, "path", manifest))
        # the core's own files need not be here; alone, numbers and ports are vouched for by the board's configuration
        self.manifest = read_manifest(self.path, check=())
        if (self.path.parent / self.manifest.files.integers.name).exists():
            self.manifest = load_design(self.path, verilog=False).manifest
        self.timeout, self.retries = timeout, retries
        self.vectors_per_second = None  # of the latest run
        self._own = not hasattr(port, "read")
        self.port = str(port) if self._own else str(getattr(port, "port", None) or "the port")
        self.baud = baud or (BAUDS[0] if self._own else getattr(port, "baudrate", None) or BAUDS[0])
        self._line = open_port(self.port, self.baud) if self._own else port
        self._link = Link(self._line, self.port)
        try:
            self.info = self._find(BAUDS if self._own and baud is None else (self.baud,))
            self._check()
        except BaseException:
            self.close()
            raise

    def _find(self, bauds):
        """The board's Info, at the first baud rate that it answers to."""
        failures = {}
        for self.baud in bauds:
            if self._own:
                self._line.baudrate = self.baud
                self._line.write_timeout = self._seconds(frames.LONGEST_PAYLOAD, 0)
            try:
                # where rates are tried: twice each, as the zero at first may end half a frame, which has its reply
                payload = self._ask(frames.INFO, length=None, retries=1 if len(bauds) > 1 else self.retries)
            except NoAnswer as error:
                failures[self.baud] = error
                continue
            try:
                return Info.parse(payload)
            except ValueError as error:
                raise BoardError(f"{self.port}: not a board that this host knows: {error}") from None
        tried = f"{self.port}: {', '.join(map(str, failures))} baud"
        if not any(error.received for error in failures.values()):
            raise BoardError(
                f"{tried}: silent; is the board powered and flashed (`bfthw flash`), and is this the port of its UART?"
            )
        reasons = "; ".join(dict.fromkeys(error.reasons for error in failures.values()))
        raise BoardError(f"{tried}: bytes came, but no answer ({reasons}); wrong baud rate, or no bitstream of bfthw?")

    def _check(self):
        """BoardError unless the board runs what the manifest says."""
        info, m = self.info, self.manifest
        if info.configuration != m.configuration:
            raise BoardError(
                f"{self.port}: the board runs {info.name!r} (configuration {info.configuration[:12]}), {self.path} is "
                f"{m.name!r} ({m.configuration[:12]}); flash the bitstream of {m.name!r} (`bfthw flash`), or name the "
                f"manifest that the board's was built from"
            )
        for side in ("input", "output"):
            if (said := getattr(info, side)) != (wanted := Side.of(getattr(m, side))):
                raise BoardError(f"{self.port}: {side} is {said} on the board, {wanted} in {self.path}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the port, if it was opened here."""
        if self._own:
            self._line.close()

    @property
    def repeated(self):
        """Requests sent again since the board was opened."""
        return self._link.repeated

    def run(self, x, *, label=False, progress=None):
        """Vectors (N, inputs) through the board: integers give integers (N, outputs), floats give floats.

        Floats are quantised as the golden model does it (halves up, with saturation). label: the index (N,) of the
        largest output instead, ties to the lowest. progress(fraction) is called after each request. ValueError or
        TypeError for what is no such array; BoardError where an answer cannot be had.
        """
        m, x = self.manifest, np.asarray(x)
        if x.ndim != 2 or x.shape[1] != m.input.elements or not len(x):
            raise ValueError(f"vectors must have shape (N, {m.input.elements}), got {x.shape}")
        floats = x.dtype.kind == "f"
        if floats and not np.isfinite(x).all():
            raise ValueError("vectors must be finite, found NaN or infinity")
        q_format = m.input.format.qformat()
        y = self._run(q_format.quantise(x) if floats else q_format.check(x, "vectors"), progress)
        if label:
            return y.argmax(axis=1)
        return m.output.format.qformat().dequantise(y) if floats else y

    def classify(self, x):
        """The index (N,) of the largest output of each vector, ties to the lowest."""
        return self.run(x, label=True)

    def counters(self):
        """The board's Counters."""
        return Counters.parse(self._ask(frames.COUNTERS, length=Counters.BYTES))

    def reset(self):
        """Empty the core and put the counters to zero."""
        self._ask(frames.RESET, length=0)

    def _run(self, q, progress):
        """Integers (N, inputs) to integers (N, outputs), as many a request as the board's buffer holds."""
        sides, size, parts, begin = self.info, self.info.per_request, [], time.monotonic()
        for first in range(0, len(q), size):
            some = q[first : first + size]
            try:
                payload = self._ask(
                    frames.RUN, sides.input.pack(some), length=len(some) * sides.output.vector_bytes, vectors=len(some)
                )
                parts.append(sides.output.unpack(payload))
            except BoardError as error:
                raise BoardError(f"{error}; {first} of {len(q)} vectors were answered") from None
            except ValueError as error:
                raise BoardError(f"{self.port}: an answer that the core cannot give: {error}") from None
            if progress:
                progress(min(1.0, (first + size) / len(q)))
        self.vectors_per_second = len(q) / max(time.monotonic() - begin, 1e-9)
        return np.concatenate(parts)

    def _ask(self, type, payload=b"", *, length, vectors=0, retries=None):
        reply = frames.LONGEST_INFO if length is None else length
        seconds = self._seconds(len(payload) + reply, vectors)
        retries = self.retries if retries is None else retries
        return self._link.ask(type, payload, length=length, seconds=seconds, retries=retries)

    def _seconds(self, payload, vectors):
        """Time-out of a request: its bytes there and back on the line, the core's cycles, and what the user grants."""
        line = BITS * (wire_bytes(payload) + wire_bytes(0)) / self.baud
        core = vectors * self.manifest.interval / self.info.clock_hz if vectors else 0
        return line + core + self.timeout


def open_port(port, baud):
    """A serial.Serial of the device, for us alone; OSError or BoardError, with what to do, where there is none."""
    try:
        return serial.Serial(port, baud, timeout=POLL, exclusive=True)
    except serial.SerialException as error:
        number, reason = error.errno, str(error)
    except (ValueError, OSError) as error:
        number, reason = None, str(error)
    known = {found.device: found.description for found in list_ports.comports()}
    if number == errno.ENOENT or not (port in known or Path(port).exists()):
        there = ", ".join(f"{device} ({text})" for device, text in known.items()) or "none; is the board plugged in?"
        raise FileNotFoundError(f"{port}: no such port; there are: {there}")
    if number == errno.EACCES:
        raise PermissionError(
            f"{port}: no permission; usual cure: `sudo usermod -a -G {_group(port)} $USER` and log in again, or a udev "
            "rule for the board"
        )
    if number in (errno.EBUSY, errno.EAGAIN):
        raise BoardError(f"{port}: in use by another program")
    raise BoardError(f"{port}: not a serial port that can be opened at {baud} baud: {reason}")


def _group(port):
    """The group that owns a device; `dialout` where nobody can tell."""
    try:
        return {"root": "dialout"}.get(group := Path(port).group(), group)
    except (OSError, KeyError, NotImplementedError):
        return "dialout"
