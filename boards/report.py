"""What a build found out: resources, clocks, seeds. Every figure says whether it is synthesised or routed."""

import json
from dataclasses import asdict, dataclass, field
from statistics import median

from bfthw.reading import CheckpointError, read_json, reader, short
from rtl_gen import check_name

from .tools import KINDS

CORE_CLOCK = "core clock"  # among the clocks: core, shell and UART run at it
MARKED = 128 << 20  # bytes of a file that a patch starts from


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A kind of cell: how many synthesis made, how many place and route took (None: it does not count them), of all."""

    synthesised: int
    routed: int | None
    available: int


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A clock in MHz: `used` is what it runs at, `routed` nextpnr's maximum, `limit` the primitives' (None: unknown).

    `reason` says what sets `maximum`, the smaller of the two.
    """

    used: float
    routed: float
    limit: float | None
    maximum: float
    reason: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """A build that met its timing; see docs/boards.md for the keys of report.json.

    seeds: seed → routed maximum of the slowest clock in MHz, None where it could not be routed. netlist: what was
    simulated of the mapped netlist, in words. structure: hash of the hardware without its ROMs' contents, where those
    can be patched, and marked: file → sha256 of what that needs. steps: (step, seconds).
    """

    name: str
    configuration: str
    board: str
    bitstream: str
    sha256: str
    clock_mhz: float
    baud: int
    resources: dict
    clocks: dict
    seed: int
    seeds: dict
    tools: dict
    notes: tuple
    netlist: str
    structure: str | None = None
    marked: dict = field(default_factory=dict)
    steps: tuple = field(default=())

    def __repr__(self):
        core = self.clocks.get(CORE_CLOCK)
        reached = f", {core.maximum:g} reached" if core else ""
        return f"<Report {self.bitstream} on {self.board}: core clock {self.clock_mhz:g} MHz{reached}>"

    @property
    def median(self):
        """Of the seeds that routed, MHz."""
        return median(mhz for mhz in self.seeds.values() if mhz is not None)

    def to_json(self):
        table = asdict(self)
        fmax = {str(seed): mhz for seed, mhz in self.seeds.items()}
        table["seeds"] = {"fmax": fmax, "median": self.median, "label": "routed"}
        return json.dumps({"format": "bfthw build report", "version": 1, **table}, indent=2) + "\n"


_TEXTS = ("board", "bitstream", "sha256", "configuration")
# key: whether a value is right, and what is
_RULES = {key: (lambda value: isinstance(value, str), "a text") for key in _TEXTS} | {
    "name": (lambda value: isinstance(value, str) and check_name(value), "a name"),  # of files, beside the report
    "clock_mhz": (lambda value: type(value) in (int, float) and 0 < value < 10_000, "a frequency"),
    "tools": (lambda value: isinstance(value, dict) and value.get("from") in KINDS, f"of {' or '.join(KINDS)}"),
    "structure": (lambda value: value is None or isinstance(value, str), "a text or null"),
    "marked": (
        lambda value: isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values()),
        "files and their hashes",
    ),
}


@reader
def read_report(path, keys=(*_TEXTS, "name", "clock_mhz", "tools")):
    """The table of a report.json; CheckpointError where one of the keys is missing, or one that is used is wrong."""
    report = read_json(path, what="build report")
    if not isinstance(report, dict):
        raise CheckpointError(f"{path}: not a build report: must be a table, got {short(report)}")
    for key, (right, what) in _RULES.items():
        if (key in keys or key in report) and not right(report.get(key)):
            raise CheckpointError(f"{path}: not a build report: {key} must be {what}, got {short(report.get(key))}")
    return report
