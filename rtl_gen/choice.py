"""A plan that was chosen: what it is, takes and leaves, in words and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bfthw.golden import short_stage

from .cost import Tally
from .plan import Plan, costed
from .tech import technology
from .top import estimate

SPARE = 0.6  # of the tables, which may be taken where some products are made of them


@dataclass(frozen=True, kw_only=True, repr=False)
class Choice:
    """A Plan that meets a wish. why: a sentence that says what it costs."""

    plan: Plan
    why: str = ""

    def __repr__(self):
        return f"<Choice {self}>"

    @property
    def interval(self) -> float:
        """Cycles a vector; those side by side share a frame's."""
        return self.plan.interval / self.plan.vectors

    @cached_property
    def what(self) -> str:
        """The engines in words."""
        found = {}
        for engine in self.plan.engines:
            for option, value in engine.chosen.items():
                found.setdefault(engine.kind, {}).setdefault(option, {})[value] = True
        parts = []
        for kind, options in found.items():
            own = [f"{option} {_shown(values)}" for option, values in options.items() if option != "engine"]
            parts.append(" ".join([kind, *([f"({', '.join(own)})"] if own else [])]))
        many = self.plan.vectors
        return " and ".join(parts) + (f", {many} vectors side by side" if many > 1 else "")

    @cached_property
    def needs(self) -> dict[str, int]:
        """Resource → number, estimated; in plain HDL as if it were for ECP5."""
        return estimate(self.plan, priced(self.plan.target))

    def short(self, room: Mapping[str, int] | None) -> str:
        """What is missing of resource → number, as text; empty where it fits."""
        room = self.needs if room is None else room
        return ", ".join(f"{n} {r} of {room.get(r, 0)}" for r, n in self.needs.items() if n > room.get(r, 0))

    def fits(self, room: Mapping[str, int] | None) -> bool:
        """Whether it does; with products of tables and of multipliers side by side, SPARE of the tables are enough."""
        mixed = len({engine.lut for engine in self.plan.engines if engine.multipliers}) > 1
        return not self.short(room) and not (room and mixed and self.needs["LUT"] > SPARE * room.get("LUT", 0))

    @property
    def slowest(self) -> str:
        """The stage whose engine is never idle."""
        plan = self.plan
        cycles = [engine.interval * n for engine, n in zip(plan.engines, plan.positions)]
        return short_stage(plan.stages[plan.spans[cycles.index(max(cycles))][0]].name)

    def scarcest(self, room: Mapping[str, int]) -> str:
        """What a room has least of beside what is needed."""
        return max(self.needs, key=lambda r: self.needs[r] / max(room.get(r, 0), 0.5))

    def binds(self, room: Mapping[str, int]) -> str:
        """The scarcest resource, as text."""
        most = self.scarcest(room)
        return f"{most} binds, {self.needs[most]} of {room[most]}"

    def lacking(self, room: Mapping[str, int]) -> str:
        """The scarcest resource, and the stage whose engine takes most of it, as text."""
        worst = self.scarcest(room)
        plan, taken = self.plan, []
        for engine in plan.engines:
            tally = Tally(technology(costed(priced(plan.target), plan.roms)))
            engine.cost(tally)
            taken.append(tally.total()[worst])
        most = taken.index(max(taken))
        return f"of {worst} {short_stage(plan.stages[plan.spans[most][0]].name)} takes most, {taken[most]}"

    def __str__(self):
        frame = "an image" if self.plan.over_maps else "a vector"
        return f"{self.what}: interval {self.interval:g} cycles {frame}, {self.plan.multipliers} multipliers"


class Impossible(ValueError):
    """No plan meets the wishes. nearest: the Choice that comes nearest, None where nothing can be built at all."""

    def __init__(self, message: str, nearest: Choice | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest


def priced(target):
    """The target whose costs are compared: plain HDL is taken for ECP5's."""
    return "ecp5" if target == "plain" else target


def _shown(values):
    return " ".join(str(value).lower() for value in values)
