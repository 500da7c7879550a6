"""The manifest beside the Verilog: everything that simulation, boards and host need to know. Format:
docs/manifest.md.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, ValidationError, model_serializer

from bfthw import QFormat
from bfthw.files import settled
from bfthw.reading import StrPath, check_shape, first_fault, owned, read_text, reader, sha256, short
from bfthw.storage import Strict

from .choices import by_layer
from .engines import ENGINES

VERSION = 2
FILES = {"verilog": "v", "integers": "npz"}  # beside the manifest: kind → suffix
# the first where all outputs have a sign and there is no activation but ReLU
SATURATION = (
    "to the two's complement range of the output, then max(0, y) where relu",
    "to the range of the output, or of the table's input, then max(0, y) where relu, min(y, top), the table",
)
MOST = 512  # stages of a core
FILE = 64 << 20  # bytes of a file beside a manifest
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}\.(v|npz|[A-Za-z0-9_]{1,99}\.mem)$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=1 << 40)]
Positive = Annotated[int, Field(ge=1, le=1 << 40)]


Choice = bool | Annotated[int, Field(ge=1, le=1 << 16)] | Identifier
Table = dict[Identifier, Choice | Annotated[list[Choice | None], Field(max_length=MOST)]]


class Sparse(Strict):
    """Base of what has keys, `UNSAID`, that are written only where they say other than their defaults."""

    UNSAID: ClassVar = {}

    @model_serializer(mode="wrap")
    def _said(self, serialise):
        return {key: value for key, value in serialise(self).items() if self.UNSAID.get(key, ...) is not value}


class Format(Sparse):
    UNSAID: ClassVar = {"signed": True}

    width: Annotated[int, Field(ge=1, le=62)]
    frac: Annotated[int, Field(ge=-1000, le=1000)]
    signed: bool = True

    @classmethod
    def of(cls, q):
        return None if q is None else cls(width=q.width, frac=q.frac, signed=q.signed)

    def qformat(self):
        return QFormat(self.width, self.frac, self.signed)


class File(Strict):
    name: FileName
    sha256: Digest


class Files(Strict):
    """memories: what the Verilog reads, contents of ROMs."""

    verilog: File
    integers: File
    memories: Annotated[list[File], Field(max_length=4 * MOST)] = []

    @classmethod
    def of(cls, directory, name, memories=()):
        """Those of a name in a folder, with their hashes; memories: names of files."""

        def one(file):
            return File(name=file, sha256=sha256(directory / file, FILE))

        files = {kind: one(f"{name}.{suffix}") for kind, suffix in FILES.items()}
        return cls(**files, memories=[one(file) for file in memories])

    def named(self, name):
        """The same hashes under the names that files of `name` have."""
        files = {k: File(name=f"{name}.{s}", sha256=getattr(self, k).sha256) for k, s in FILES.items()}
        renamed = [f"{name}.{file.name.partition('.')[2]}" for file in self.memories]
        return Files(**files, memories=[File(name=n, sha256=f.sha256) for n, f in zip(renamed, self.memories)])

    def of_kinds(self, kinds):
        """Files of some kinds, and with the Verilog what it reads."""
        found = [getattr(self, kind) for kind in kinds]
        return [*found, *self.memories] if "verilog" in kinds else found


class Port(Strict):
    """A side of the core: elements a vector, or an image, their format, lanes, bytes of an element in a lane, beats a
    frame.

    Where E vectors share a frame, a beat has lanes * E elements.
    """

    prefix: Literal["s_axis", "m_axis"]
    elements: Positive
    format: Format
    lanes: Positive
    lane_bytes: Annotated[int, Field(ge=1, le=8)]
    beats: Positive


class Over(Sparse):
    """A map, and the windows over it that a stage sees. kind: what it is where that is not a factor."""

    UNSAID: ClassVar = {"window": None, "kind": "factor"}

    map: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    window: Annotated[str, Field(max_length=100)] | None = None
    kind: Literal["factor", "sum", "max", "gate", "product"] = "factor"


class Stage(Sparse):
    """A factor's numbers, or a sum's or a maximum's, whose pattern adds up a window. index_of: the stage's inputs where an
    index in the integers names them, else None.

    shift_dot: left shifts of the dot product, or None where the row exponents set them. top: what an output is at most,
    where that is less than its format holds. table: what is rounded to where a table gives the output. over: the map
    where there are more positions than one.
    """

    UNSAID: ClassVar = {"top": None, "table": None, "over": None}

    name: str
    pattern: list[Positive]
    index_of: Positive | None
    input: Format
    weights: Format | None
    output: Format
    shift_dot: int | None
    residual: bool
    shift_residual: int | None
    residual_weights: Format | None
    bias_width: int | None
    shift: int
    relu: bool
    top: int | None = None
    table: Format | None = None
    over: Over | None = None


class Engine(Strict):
    """Hardware that serves one factor or, folded, some neighbours; lanes: elements of a vector in a beat that
    leaves.
    """

    instance: str
    stages: Annotated[list[str], Field(min_length=1)]
    lanes: Positive
    latency: Positive
    interval: Positive
    multipliers: Count
    rom_bits: Count
    buffer_bits: Count


class Estimate(Strict):
    """What the core will take of an FPGA of its target, without board and line: DSP and RAM exact, LUT and FF
    estimated. For the target "plain" that is a 7-series part, as Yosys maps it, and all four are estimates.
    """

    LUT: Count
    FF: Count
    DSP: Count
    RAM: Count


class Resources(Strict):
    multipliers: Count
    rom_bits: Count
    buffer_bits: Count
    estimated: Estimate | None


class Manifest(Strict):
    format: Literal["bfthw manifest"]
    version: Literal[2]
    name: Identifier
    configuration: Digest
    files: Files
    clock: Literal["aclk"]
    reset: Literal["aresetn"]
    input: Port
    output: Port
    target: Identifier
    vectors: Annotated[int, Field(ge=1, le=1 << 12)]
    choices: Annotated[dict[str, Table], Field(max_length=MOST)]
    roms: Identifier
    count_beats: bool
    latency: Positive
    interval: Positive
    stages: Annotated[list[Stage], Field(max_length=MOST)]
    engines: Annotated[list[Engine], Field(max_length=MOST)]
    resources: Resources
    rounding: Literal["floor((acc + 2^(shift-1)) / 2^shift), a left shift where shift <= 0"]
    saturation: Literal[SATURATION]
    tools: dict[str, str]

    def __repr__(self):
        return f"<Manifest {self.name}: {len(self.stages)} stages, configuration {self.configuration[:12]}>"


def configuration(integers_sha256, input, output, vectors=1):
    """Hash of the numbers, their order, the ports and the vectors a frame: equal for two cores that answer alike."""
    text = json.dumps(
        [integers_sha256, vectors, input.model_dump(), output.model_dump()], sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def check_same(manifest, wanted):
    """ValueError that names the first key of a manifest which differs from `wanted`, what the integers and choices
    give. Tools and estimates may differ: another version of them makes the same core.
    """
    sides = [m.model_dump(exclude={"tools": True, "resources": {"estimated"}}) for m in (manifest, wanted)]
    for side in sides:
        side["configuration"] = side.pop("configuration")  # last: it follows from the rest
    if found := _difference(*sides):
        key, there, value = found
        raise ValueError(
            f"{key} is {there!r}, but {manifest.files.integers.name} and the manifest's choices give {value!r}; run "
            "`bfthw generate` again"
        )


def _difference(a, b, key=""):
    """(dotted key, value, value) where two trees of dicts and lists differ first; None where they do not."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return next(filter(None, (_difference(a[k], b[k], f"{key}.{k}".lstrip(".")) for k in a)), None)
    return None if type(a) is type(b) and a == b else (key, a, b)


def lifted(text):
    """JSON of version 1, where each stage said what was chosen for it, as JSON of version 2; other text as it is."""
    try:
        table = json.loads(text)
        if table["version"] != 1:
            return text
        stages, names = table["stages"], [stage["name"] for stage in table["stages"]]
        paired, chosen = table.pop("paired"), []
        for stage in stages:
            own = {key: stage.pop(key) for key in ("engine", "lanes", "simd", "products")} | {"paired": paired}
            options = ("engine", *ENGINES[own["engine"]].options)
            chosen.append({key: own[key] for key in options})
        if "choices" in table or paired and not any("paired" in own for own in chosen):
            return text
        owners = [name.rpartition(".factors.")[0] for name in names]
        table |= {"version": 2, "choices": by_layer(owners, chosen), "roms": table.get("roms", "initial")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return text  # what is wrong with it is said of the text itself
    return json.dumps({"count_beats": False} | table)


@reader
@settled
def read_manifest(path: StrPath, *, check: Collection[str] = FILES) -> Manifest:
    """A manifest from a file; ValueError names file, key and rule, also where a file beside it is missing or changed.

    check: the kinds of files that must be there, with their hashes.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name the manifest, the .json file in it")
    text = read_text(path, what="manifest")
    with owned(f"{path}: not a manifest", error=ValueError):
        check_shape(text)
    try:
        manifest = Manifest.model_validate_json(lifted(text))
    except ValidationError as error:
        first = first_fault(error)
        where = ".".join(map(str, first["loc"])) or "the file"
        shown = "" if first["type"] in ("missing", "json_invalid") else f" (got {short(first['input'])})"
        raise ValueError(f"{path}: not a manifest of version {VERSION}: {where}: {first['msg']}{shown}") from None
    for file in manifest.files.of_kinds(check):
        beside = path.parent / file.name
        if not beside.exists():
            raise ValueError(f"{path}: {file.name} is missing beside it; run `bfthw generate` again")
        if sha256(beside, FILE) != file.sha256:
            raise ValueError(
                f"{beside}: not the file that {path.name} was made with (its sha256 differs); run `bfthw generate` "
                f"again"
            )
    if manifest.configuration != configuration(
        manifest.files.integers.sha256, manifest.input, manifest.output, manifest.vectors
    ):
        raise ValueError(f"{path}: configuration: the hash does not fit the manifest's own numbers and ports")
    return manifest
