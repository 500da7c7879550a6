"""The contract of an engine: hardware that serves a factor, or some neighbours in a layer.

An engine is a file: a subclass of `Engine` says all of it before anything is built, its component beside it builds it.
Between engines go links (stream.Link): beats of some elements in natural order, each of them once for every vector.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from bfthw import IntFactor, Pattern, QFormat
from bfthw.chain import divisors
from bfthw.window import Shape

from ..stages import Stage

ENGINES, SPANNING = {}, {}  # kind → class, in the order in which they were defined; those that span a network apart
_Kind = TypeVar("_Kind")
PRODUCTS = "dsp", "lut"  # of multipliers, or of tables and carry chains


def figure(kind: type[_Kind], get: Callable[[Any], _Kind]) -> _Kind:
    """A property in a line, of a type."""
    get.__annotations__["return"] = kind
    return property(get)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What is true of every engine; all cycles are of one clock, from the arrival or grant that is named.

    Fields: factors, the numbers, IntFactors in order. vectors: whole vectors side by side, which share weights and
    control. target: of the technology layer. flight: cycles between the moment an input beat is granted room and its
    arrival. positive: inputs are never negative, behind a ReLU. prompt: input beats come as fast as they are granted.
    whole: the factors are all of their layer's.
    Raises TypeError for factors that are none, ValueError, which says what would fit, for what they cannot have.

    Members
    -------
    kind, options, left_open, shares (of the class)
        its name; the names of its own fields, which a table of choices may give; those of them that follow from the
        rest of the network where nobody gives them; whether neighbours in a layer that have this kind are one engine.
    lanes_in, lanes_out, beats_in, beats_out
        elements of a vector in a beat; beats of a frame (`vectors` vectors).
    interval
        cycles from frame to frame, in steady state, where nobody else is slower.
    last_resort (of the class)
        whether a wish takes it only where nothing else will do.
    sees_map (of the class)
        whether its frame is a whole map; else it is a position of one, a vector.
    spans_network (of the class)
        whether it serves all stages of a network, or none.
    serves(stages) (of the class)
        the fields that follow from neighbouring stages.Stages, None where it is not for them.
    takes, gives, adds, relu
        QFormats of its inputs and outputs, and of what comes by the stream `skip`; whether outputs are never negative.
    burst, known_flight
        beats that it takes, and gives, in a row once it has begun, 0 where they come evenly; whether beats must arrive
        exactly `flight` cycles after they are granted, so that a FIFO has to stand in front.
    sudden (of the class)
        whether its beats come at the end of its frame alone, and the next frame waits until they have gone.
    depth, output_flight
        cycles from an output's turn to its arrival, and from the grant of room for a beat to its arrival.
    output_times(arrivals, skip), skip_times(arrivals, outputs), holds
        the schedule of a first frame: cycles of output beats, int64 (beats_out,), given those of its input beats and of
        its residual's, and of the beats that it takes of the residual; frames inside at once, at most.
    rounds
        numbers that it rounds at once, at most, and so may clip.
    takes_skip
        whether what it adds, or multiplies by, comes from outside, by a stream `skip` that may stall.
    multipliers, rom_bits, buffer_bits
    parts, words, digits
        what building it takes: multipliers and elements of beats, for each vector; words of memories; signed digits of
        each block of constants in logic, (blocks,).
    cost(tally)
        adds what it takes to a cost.Tally.
    outside
        further members of its component, which become the core's: name → In or Out of bits.
    component()
        the wiring.Component: links `i`, in, and `o`, out; with `takes_skip` a stream `skip`; `saturated`, out: values
        of a beat that were clipped, some cycles later. It never stalls but by `i.ready`, and frames do not mix.
    menu(**fields) (of the class)
        engines worth a thought that have these fields, each faster or smaller than the others; may be empty.
    """

    factors: tuple[IntFactor, ...]
    vectors: int = 1
    target: str = "plain"
    flight: int = 0
    positive: bool = False
    prompt: bool = True
    whole: bool = True

    kind: ClassVar[str] = ""
    options: ClassVar[tuple] = ()
    left_open: ClassVar[tuple] = ()
    shares: ClassVar[bool] = False
    last_resort: ClassVar[bool] = False
    sees_map: ClassVar[bool] = False
    spans_network: ClassVar[bool] = False
    burst: ClassVar[int] = 0
    known_flight: ClassVar[bool] = False
    outside: ClassVar[dict] = {}
    sudden: ClassVar[bool] = False
    digits: ClassVar[np.ndarray] = np.zeros(0, int)

    def __init_subclass__(cls):
        if cls.kind:
            (SPANNING if cls.spans_network else ENGINES)[cls.kind] = cls

    def __post_init__(self):
        for factor in self.factors:
            if not isinstance(factor, IntFactor):
                raise TypeError(f"an engine's factors must be IntFactors, got {type(factor).__name__}")
        if self.vectors < 1:
            raise ValueError(f"vectors must be 1 or more, got {self.vectors}")
        for field in fields(self):
            name, value, kind = field.name, getattr(self, field.name), field.type
            # True is no number
            if name in self.options and not (isinstance(value, kind) and isinstance(value, bool) == (kind is bool)):
                raise ValueError(f"{name} must be of type {getattr(kind, '__name__', kind)}, got {value!r}")
        if (products := getattr(self, "products", "dsp")) not in PRODUCTS:
            raise ValueError(f"products must be one of {', '.join(PRODUCTS)}, got {products!r}")

    @property
    def factor(self) -> IntFactor:
        """The last one, which a residual joins."""
        return self.factors[-1]

    @cached_property
    def pattern(self) -> Pattern:
        return self.factor.pattern

    takes = figure(QFormat, lambda self: self.factors[0].input)
    gives = figure(QFormat, lambda self: self.factor.output)
    relu = figure(bool, lambda self: self.factor.relu)
    adds = figure(QFormat, lambda self: self.factor.skip_input)
    takes_skip = figure(bool, lambda self: self.factor.skip_input is not None)
    rounds = figure(int, lambda self: self.lanes_out * self.vectors)

    @property
    def lut(self) -> bool:
        """Whether its products are of tables."""
        return getattr(self, "products", "dsp") == "lut"

    @property
    def chosen(self) -> dict:
        """What a table of choices says of it."""
        return {"engine": self.kind, **{option: getattr(self, option) for option in self.options}}

    @classmethod
    def lacks(cls, stage: Stage) -> str | None:
        """Of one that spans a network: what it has no way to compute of a Stage, None for nothing."""
        return None

    def shown(self, stage: Stage) -> tuple[Pattern, int, int]:
        """What tables say of it for a Stage: pattern, lanes, SIMD."""
        pattern = stage.work.pattern if isinstance(stage.work, IntFactor) else self.pattern
        return pattern, self.lanes_out, self.chosen.get("simd", pattern.c)

    @classmethod
    def serves(cls, stages: tuple[Stage, ...]) -> dict | None:
        # one that takes no stream beside its input adds its layer's own at most
        if cls.takes_skip is False and any(stage.takes[1:] and not stage.residual for stage in stages):
            return None
        if all(isinstance(stage.work, IntFactor) and stage.window is None for stage in stages):
            return {"factors": tuple(stage.work for stage in stages)}
        return None

    @classmethod
    def menu(cls, **fields: Any) -> Iterator[Self]:
        yield cls(**fields)


@dataclass(frozen=True, kw_only=True)
class ByChannels(Engine):
    """Base of engines without factors that take a map as it comes, some channels after the other.

    shape: of the map. input, output: QFormats. lanes: channels of a beat, a divisor of the map's.
    """

    factors: tuple = ()
    shape: Shape
    input: QFormat
    output: QFormat
    lanes: int = 1

    sees_map: ClassVar[bool] = True
    rom_bits: ClassVar[int] = 0
    relu: ClassVar[bool] = False
    takes = figure(QFormat, lambda self: self.input)
    gives = figure(QFormat, lambda self: self.output)
    lanes_in = lanes_out = figure(int, lambda self: self.lanes)

    @classmethod
    def menu(cls, **fields: Any) -> Iterator[Self]:
        for lanes in [fields["lanes"]] if "lanes" in fields else divisors(fields["shape"].channels):
            yield cls(**{**fields, "lanes": lanes})

    def __post_init__(self):
        super().__post_init__()
        if self.shape.channels % self.lanes:
            raise ValueError(f"lanes must divide {self.shape.channels} channels, got {self.lanes}")


@dataclass(frozen=True, kw_only=True)
class InTurn(Engine):
    """Base of engines whose work is all stages of a network, one after the other; a number a beat.

    stages: of the whole network.
    """

    factors: tuple = ()
    stages: tuple[Stage, ...]

    sees_map: ClassVar[bool] = True
    spans_network: ClassVar[bool] = True
    takes_skip: ClassVar[bool] = False
    sudden: ClassVar[bool] = True
    holds: ClassVar[float] = 2.0
    lanes_in: ClassVar[int] = 1
    lanes_out: ClassVar[int] = 1
    takes = figure(QFormat, lambda self: self.stages[0].input)
    gives = figure(QFormat, lambda self: self.stages[-1].output)
    relu = figure(bool, lambda self: getattr(self.stages[-1].work, "relu", False))
    beats_in = figure(int, lambda self: self.stages[0].shape.size)
    beats_out = figure(int, lambda self: self.stages[-1].after.size)

    @classmethod
    def serves(cls, stages: tuple[Stage, ...]) -> dict | None:
        return None if any(map(cls.lacks, stages)) else {"stages": stages}

    @classmethod
    def lacks(cls, stage: Stage) -> str | None:
        work, window = stage.work, stage.window
        found = {
            "an index": work.support is not None, "a table": work.table is not None,
            "numbers outside of a map but zeros": window is not None and bool(window.outside),
        }
        return next((what for what, there in found.items() if there), None)


def serving(stage: Stage) -> list[type[Engine]]:
    """The classes that serve a Stage alone; ValueError where there are none."""
    found = [cls for cls in ENGINES.values() if cls.serves((stage,)) is not None]
    if not found:
        raise ValueError(f"stage {stage.name}: no engine serves a {type(stage.work.node).__name__}")
    return found


def engine_class(kind: str) -> type[Engine]:
    """The class of a kind; ValueError for a name that is none."""
    if kind not in (known := ENGINES | SPANNING):
        raise ValueError(f"engine must be one of {', '.join(known)}, got {kind!r}")
    return known[kind]
