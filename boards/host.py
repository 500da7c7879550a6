"""The host: vectors to a board over a serial line, and its answers back."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import serial
from numpy.typing import ArrayLike
from serial.tools import list_ports

from bfthw.reading import StrPath, owned
from rtl_gen import Design, load_design, read_manifest
from sim.scenarios import to_integers

from . import frames
from .frames import Counters, Info, Measured, Side, wire_bytes
from .link import BoardError, Link, NoAnswer, Request, RunLost
from .parts import Parts

BAUDS = (1_000_000, 115_200, 3_000_000, 2_000_000)  # tried in turn where nobody says which
BITS = 10  # of a byte on the line: start, 8, stop
POLL = 0.05  # seconds of a single read
OPENING = 2.0  # seconds that a baud rate is given, at least
LONGEST_WORK = 60.0  # seconds granted to the core for a request, whatever board and manifest say
LONGEST_MEASURED = 0xFFFF  # frames
LOST = 5  # times that a board may lose a run before it has answered a single frame of it


class Board:
    """A board that runs the core of a manifest.

    port: a device (`/dev/ttyUSB0`, `COM3`), or an open object with pyserial's read (which must time out), write and
    in_waiting, which stays open at the end. manifest: path of NAME.json, or the Design that rtl_gen.write returned.
    baud: of the line; None tries the usual ones. timeout: seconds of silence, beside the time that line and core need
    by their own figures, after which requests are sent again, in smaller parts. patience: seconds without a valid
    reply, beside the same, after which the board is given up.

    ValueError for a bad argument, FileNotFoundError and PermissionError for the port, BoardError for whatever the board
    or the line does wrong; a board that runs another configuration is refused.
    """

    def __init__(
        self, port: object, manifest: StrPath | Design, *, baud: int | None = None, timeout: float = 0.1,
        patience: float = 30.0,
    ) -> None:
        if not timeout > 0 or not patience > 0 or (baud is not None and baud <= 0):
            raise ValueError(f"Board needs timeout, patience and baud > 0, got {timeout}, {patience} and {baud}")
        self.path = Path(getattr(manifest, "path", manifest))
        # the core's own files need not be here; alone, numbers and ports are vouched for by the board's configuration
        self.manifest, self._shape = read_manifest(self.path, check=()), None
        if (self.path.parent / self.manifest.files.integers.name).exists():
            design = load_design(self.path, verilog=False)
            self.manifest, self._shape = design.manifest, design.plan.network.shape
        self.timeout, self.patience = timeout, patience
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
                self._line.write_timeout = self._seconds(frames.LONGEST_PAYLOAD) + self.timeout
            try:
                # the short form at first: boards of every version understand it and say theirs
                self._parse(self._ask_info(short=True))
                return self._parse(self._ask_info())
            except NoAnswer as error:
                failures[self.baud] = error
        tried = f"{self.port}: {', '.join(map(str, failures))} baud"
        if not any(error.received for error in failures.values()):
            raise BoardError(
                f"{tried}: silent; is the board powered and flashed (`bfthw flash`), and is this the port of its UART?"
            )
        reasons = "; ".join(dict.fromkeys(error.reasons for error in failures.values()))
        raise BoardError(f"{tried}: bytes came, but no answer ({reasons}); wrong baud rate, or no bitstream of bfthw?")

    def _ask_info(self, *, short=False):
        seconds = self._seconds(frames.LONGEST_INFO)
        request = Request(type=frames.INFO, length=None, seconds=seconds, short=short)
        patience = min(self.patience, max(OPENING, 2 * self.timeout))
        return self._link.ask(request, timeout=self.timeout, patience=patience)

    def _parse(self, payload):
        """The Info of a reply; BoardError, with the cure, where it is none or of another version."""
        if payload and (version := payload[0]) != frames.VERSION:
            raise BoardError(
                f"{self.port}: the board's bitstream speaks version {version} of the link, this host version "
                f"{frames.VERSION}: build and flash it with this version of bfthw (`bfthw build`, `bfthw flash`)"
            )
        with owned(f"{self.port}: not a board that this host knows", error=BoardError):
            return Info.parse(payload)

    def _check(self):
        """BoardError unless the board runs what the manifest says."""
        info, m = self.info, self.manifest
        if info.configuration != m.configuration:
            raise BoardError(
                f"{self.port}: the board runs {info.name!r} (configuration {info.configuration[:12]}), {self.path} is "
                f"{m.name!r} ({m.configuration[:12]}); flash the bitstream of {m.name!r} (`bfthw flash`), or name the "
                f"manifest that the board's was built from"
            )
        wanted = {"input": Side.of(m.input), "output": Side.of(m.output), "interval": m.interval}
        for name, value in wanted.items():
            if (said := getattr(info, name)) != value:
                raise BoardError(f"{self.port}: {name} is {said} on the board, {value} in {self.path}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the port, if it was opened here."""
        if self._own:
            self._line.close()

    @property
    def repeated(self) -> int:
        """Requests sent again since the board was opened."""
        return self._link.repeated

    def run(
        self, x: ArrayLike, *, label: bool = False, progress: Callable[[float], object] | None = None
    ) -> np.ndarray:
        """Vectors (N, inputs), or maps (N, H, W, C), through the board: integers give integers (N, outputs), floats
        give floats.

        Floats are quantised as the golden model does it (halves up, with saturation). label: the index (N,) of the
        largest output instead, ties to the lowest. progress(fraction) is called after each part. ValueError or
        TypeError for what is no such array; BoardError where an answer cannot be had.
        """
        x = np.asarray(x)
        if x.ndim == 4 and len(x):
            if self._shape and x.shape[1:] != self._shape:
                raise ValueError(f"maps must have shape (N, {', '.join(map(str, self._shape))}), got {x.shape}")
            x = x.reshape(len(x), -1)
        m = self.manifest
        y = self._run(to_integers(x, m.input.elements, m.input.format.qformat(), "vectors"), progress)
        if label:
            return y.argmax(axis=1)
        return m.output.format.qformat().dequantise(y) if x.dtype.kind == "f" else y

    def classify(self, x: ArrayLike) -> np.ndarray:
        """The index (N,) of the largest output of each vector, ties to the lowest."""
        return self.run(x, label=True)

    def counters(self) -> Counters:
        """The board's Counters."""
        return Counters.parse(self._ask(frames.COUNTERS, Counters.BYTES))

    def reset(self) -> None:
        """Empty the core and put the counters to zero."""
        self._ask(frames.RESET, 0)

    def measure(self, count: int) -> Measured:
        """Let the core take `count` frames (docs/link.md, "Measuring") as fast as it can; any run ends.

        ValueError for fewer than 2, or for more than it could take in a minute.
        """
        most = int(min(LONGEST_MEASURED, LONGEST_WORK * self.info.clock_hz // self.manifest.interval))
        if not 2 <= count <= most:
            raise ValueError(f"{self.manifest.name}: 2 to {most} frames can be measured, got {count}")
        payload, work = Measured.REQUEST.pack(count), self._work(count)
        request = Request(
            type=frames.MEASURE, payload=payload, length=Measured.BYTES,
            seconds=self._seconds(len(payload) + Measured.BYTES) + work,
        )
        return Measured.parse(self._link.ask(request, timeout=self.timeout, patience=self.patience))

    def _run(self, q, progress):
        """Integers (N, inputs) to integers (N, outputs)."""
        done, lost, begin = [], 0, time.monotonic()
        while (first := sum(map(len, done))) < len(q):
            parts = Parts(q[first:], self.info.input, self.info.output, self._part)
            limits = {"timeout": self.timeout, "patience": self.patience, "window": parts.window}
            try:
                for request, reply in self._link.exchange(parts.requests(), **limits):
                    parts.take(request, reply, self.repeated)
                    if progress:
                        progress((first + parts.answered) / len(q))
                if parts.answered < len(q) - first:
                    raise ValueError(f"{parts.answered} outputs for {len(q) - first} inputs")
                done.append(parts.outputs())
            except RunLost as error:
                # on from the first frame without an answer
                lost = 0 if parts.answered else lost + 1
                if lost > LOST:
                    raise self._failed(error, first, q) from None
                done.append(parts.outputs())
            except BoardError as error:
                raise self._failed(error, first + parts.answered, q) from None
            except ValueError as error:
                raise BoardError(f"{self.port}: an answer that the core cannot give: {error}") from None
        self.vectors_per_second = len(q) / max(time.monotonic() - begin, 1e-9)
        return np.concatenate(done)

    @staticmethod
    def _failed(error, answered, q):
        return BoardError(f"{error}; {answered} of {len(q)} vectors were answered")

    def _part(self, payload, offset, frames_inside):
        """The Request for bytes of a run; frames_inside: of which they may be."""
        seconds = self._seconds(len(payload) + frames.PART) + self._work(frames_inside)
        return Request(type=frames.RUN, payload=payload, offset=offset, seconds=seconds)

    def _work(self, count):
        """Seconds that the core is granted for so many frames."""
        return min((self.manifest.latency + count * self.manifest.interval) / self.info.clock_hz, LONGEST_WORK)

    def _ask(self, type, length):
        request = Request(type=type, length=length, seconds=self._seconds(length))
        return self._link.ask(request, timeout=self.timeout, patience=self.patience)

    def _seconds(self, payload):
        """Time on the line of a request and its reply with so many bytes of payload in all."""
        return BITS * (wire_bytes(payload) + wire_bytes(0)) / self.baud


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
        raise BoardError(f"{port}: in use by another program; close it (`fuser {port}` shows which), and try again")
    raise BoardError(f"{port}: not a serial port that can be opened at {baud} baud: {reason}")


def _group(port):
    """The group that owns a device; `dialout` where nobody can tell."""
    try:
        return {"root": "dialout"}.get(group := Path(port).group(), group)
    except (OSError, KeyError, NotImplementedError):
        return "dialout"
