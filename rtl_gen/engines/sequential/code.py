"""The words of a program's memories: passes, groups whose operands are put together, reads, turns, and numbers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arithmetic import Arithmetic, End
from .gather import NOTHING, Reads
from .places import Places
from .program import Layer, onward
from .timing import Timing


@dataclass(frozen=True)
class Words:
    """Of a memory: a row of numbers a word; fields: name → (first bit, bits), lists of bits one number each."""

    rows: tuple[dict, ...]

    @cached_property
    def fields(self) -> dict[str, tuple[int, int]]:
        found, at = {}, 0
        for name in self.rows[0]:
            bits = max(1, max(int(row[name]) for row in self.rows).bit_length())
            found[name] = at, bits
            at += bits
        return found

    @property
    def width(self) -> int:
        return sum(bits for _, bits in self.fields.values())

    @cached_property
    def words(self) -> list[int]:
        words = [sum(int(row[name]) << at for name, (at, _) in self.fields.items()) for row in self.rows]
        return words if len(words) > 1 else words * 2  # no memory has a single word


class OfReads:
    """The words of Reads, `reads`."""

    reads: Reads

    @cached_property
    def words(self) -> Words:
        """Of the reads."""
        rows = ({"offset_0": o[0], "offset_1": o[1], "turn": turn, "last": last} for o, turn, last in self.reads.words)
        return Words(tuple(rows))

    @cached_property
    def steps(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(turn.step for turn in self.reads.turns))

    @cached_property
    def turns(self) -> Words:
        rows = []
        for turn in self.reads.turns:
            row = {f"turn_{bank}": amount for bank, amount in enumerate(turn.turns)}
            row |= {"step": self.steps.index(turn.step)}
            row |= {f"takes_{lane}": bank != NOTHING for lane, bank in enumerate(turn.banks)}
            rows.append(row | {f"bank_{lane}": bank == 1 for lane, bank in enumerate(turn.banks)})
        return Words(tuple(rows))


@dataclass(frozen=True, eq=False)
class Code(OfReads):
    """Of Layers in Places of so many words of a bank, and their Reads."""

    layers: tuple[Layer, ...]
    places: tuple[Places, ...]
    reads: Reads
    depth: int
    timing: Timing

    @cached_property
    def factors(self) -> tuple:
        """Of all passes that compute."""
        return tuple(one.factor for layer in self.layers for one in layer.passes if one.factor is not None)

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(self.factors, 1, 1)

    @cached_property
    def largest(self) -> bool:
        """Whether any pass looks for the largest term."""
        return any(one.largest for layer in self.layers for one in layer.passes)

    @cached_property
    def numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, shifts beyond the least of a pass, and biases, in the order of passes; at least two of each."""
        passes = [one for layer in self.layers for one in layer.passes if one.factor is not None]
        weights = [one.weights.ravel() for one in passes]
        shifts = [np.ravel(one.factor.dot_shift) - np.min(one.factor.dot_shift) for one in passes if _shifts(one)]
        biases = [one.factor.bias for one in passes if one.factor.bias is not None]
        found = (np.concatenate([[], *some]).astype(np.int64) for some in (weights, shifts, biases))
        return tuple(np.pad(some, (0, max(0, 2 - len(some)))) for some in found)

    @cached_property
    def passes(self) -> Words:
        rows, at = [], {"table": 0, "weight": 0, "shift": 0, "bias": 0}
        lifts = iter(self.arithmetic.lifts)
        for n, (layer, places, waits) in enumerate(zip(self.layers, self.places, self.timing.waits)):
            for number, (one, wait) in enumerate(zip(layer.passes, waits)):
                row = self._pass(layer, places, number, one) | at
                row |= {"wait": wait, "opens": not number and n == self.timing.opens[0]}
                row |= self._arithmetic(one, next(lifts) if one.factor is not None else 0)
                rows.append(row)
                if one.fetches is not None:
                    at = at | {"table": at["table"] + layer.groups}
                if one.factor is not None:
                    at = at | {
                        "weight": at["weight"] + one.weights.size,
                        "shift": at["shift"] + one.outputs * _shifts(one),
                        "bias": at["bias"] + one.outputs * (one.factor.bias is not None),
                    }
        return Words(tuple(rows))

    def _pass(self, layer, places, number, one):
        a, b, d, c = one.sizes
        turns, last = one.turns(0), number == len(layer.passes) - 1
        return {
            "a": a - 1, "b": b - 1, "d": d - 1, "c": 0 if one.fetches is not None else turns - 1,
            "fetches": one.fetches is not None, "each": one.each > 0, "gives": one.factor is None,
            **{name: step % (1 << self.address) for name, step in onward(one, turns).items()},
            "source": places.targets[number - 1] if number else places.source, "moves_in": number == 0,
            "added": places.added,
            "target": places.targets[number] if one.factor is not None else 0, "moves_out": last,
            "joins": one.joined, "again": one.weights is not None and len(one.weights) < one.outputs,
            "last": last, "back": number, "groups": layer.groups - 1, "tail": layer.tail,
            "row_in": layer.shape.channels, "row_out": layer.outputs,
        }

    @property
    def address(self) -> int:
        """Bits of an address."""
        return max(1, (self.depth - 1).bit_length())

    @property
    def turn_bits(self) -> int:
        """Bits of the turns of an output, less one."""
        most = max(one.turns(group) for layer in self.layers for one in layer.passes for group in range(layer.groups))
        return max(1, (most - 1).bit_length())

    @property
    def read_bits(self) -> int:
        """Bits of the number of a read."""
        return max(1, (len(self.words.rows) - 1).bit_length())

    def _arithmetic(self, one, lift):
        f = one.factor
        if f is None:
            names = "lift", "dot", "joined", "signed", "joined_signed", "end", "shifts", "biased", "largest"
            return dict.fromkeys(names, 0)
        return {
            "lift": lift, "dot": int(np.min(f.dot_shift)) + lift,
            "joined": f.skip_shift + lift if one.joined else 0, "signed": f.input.signed,
            "joined_signed": one.joined and f.skip_input.signed, "end": self.arithmetic.ends.index(End.of(f)),
            "shifts": _shifts(one), "biased": f.bias is not None, "largest": one.largest,
        }

    @cached_property
    def groups(self) -> Words:
        """Of each group of the passes that fetch: its reads, and what they need of the input."""
        rows = []
        for n, (layer, places) in enumerate(zip(self.layers, self.places)):
            for one in layer.passes:
                for group, fetch in enumerate(one.fetches or ()):
                    base = places.source + fetch.row * layer.shape.channels
                    turns = one.each or fetch.reads
                    row = {"start": fetch.start, "turns": turns - 1, "base": base}
                    rows.append(row | {"needs": self.timing.needs(group) if n == 0 else 0})
        return Words(tuple(rows))

    @cached_property
    def number_bits(self) -> tuple[int, int, int]:
        """Of a weight, a shift and a bias."""
        shift = max(1, int(self.numbers[1].max()).bit_length())
        return self.arithmetic.w_width, shift, max([1, *(f.bias_width or 0 for f in self.factors)])

    @cached_property
    def operand_bits(self) -> int:
        """Of a weight that is shifted, at most."""
        bits = [1]
        for factor, row in zip(self.factors, (row for row in self.passes.rows if not row["gives"])):
            bits.append(factor.weights.operand + int(np.max(factor.dot_shift)) + row["lift"])
            if factor.skip_input is not None:
                weight = 2 if factor.skip is None else factor.skip_weights.operand
                bits.append(weight + row["joined"])
        return max(bits)


def _shifts(one):
    """Whether the dot products of a pass are shifted differently."""
    return one.factor is not None and np.ndim(one.factor.dot_shift) > 0 and np.ptp(one.factor.dot_shift) > 0
