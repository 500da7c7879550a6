"""The cycles of a program, and those from a turn to what follows from it."""

from dataclasses import dataclass
from functools import cached_property

from ...tech import MULTIPLY
from ...tech import READ as STORED  # cycles from a request of the store to its data
from .code import Code
from .program import HALVES, ROUND

TO_OPERANDS = 7
TO_HOLD = TO_OPERANDS + MULTIPLY + 1  # from an output's last turn to the cycle in which its sums are whole
TO_JOINED = TO_HOLD + 1 - MULTIPLY  # to that in which what is added to its first sums goes into multipliers
TO_ROW = TO_JOINED - 3 - STORED  # to the request of its row, those of what is added behind it
TO_LIMITED = TO_HOLD + 5  # to its first numbers, rounded and limited
TO_RESULT = TO_LIMITED + ROUND  # to the cycle in which all of it is there
SETUP = 5  # cycles from an instruction to that before its first turn
DRAIN = TO_RESULT + 2  # cycles from a last turn until all is stored
GIVEN = STORED + 1  # from a number's grant to the number


@dataclass(frozen=True, eq=False)
class Timing:
    """Of a Code.

    Members
    -------
    fetched
        cycles in which an instruction is read and made ready.
    between
        cycles from the last number of a frame that comes in to the first that goes out.
    interval
        cycles from frame to frame.
    """

    code: Code

    @property
    def fetched(self) -> int:
        return self.code.beats + STORED + SETUP + 1

    @cached_property
    def between(self) -> int:
        cycles = self.fetched + STORED + 1
        for layer in self.code.layers:
            load = self.fetched + layer.load.groups * layer.load.words * HALVES + STORED + 1
            cycles += layer.blocks * (load + len(layer.passes) * (self.fetched + DRAIN))
            cycles += sum(one.cycles(block) for one in layer.passes for block in range(layer.blocks))
        return cycles

    @property
    def interval(self) -> int:
        numbers = self.code.layers[0].shape.size + self.code.layers[-1].after.size
        return numbers + self.between + self.fetched + STORED + 2
