"""What a build found out: resources, clocks, seeds. Every figure says whether it is synthesised or routed."""

import json
from dataclasses import asdict, dataclass, field
from statistics import median


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


@dataclass(frozen=True, kw_only=True)
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

    @property
    def median(self):
        """Of the seeds that routed, MHz."""
        return median(mhz for mhz in self.seeds.values() if mhz is not None)

    def to_json(self):
        table = asdict(self)
        fmax = {str(seed): mhz for seed, mhz in self.seeds.items()}
        table["seeds"] = {"fmax": fmax, "median": self.median, "label": "routed"}
        return json.dumps({"format": "bfthw build report", "version": 1, **table}, indent=2) + "\n"
