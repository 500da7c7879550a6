"""What a program is in memory: weights, rows, instructions, and the words that say where operands are."""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from bfthw.window import Shape

from ..arithmetic import Arithmetic, End
from ..sequential.code import OfReads, Words
from ..sequential.gather import Reads
from ..sequential.program import onward
from .program import BEAT, HALVES, LANES, ROWS, Layer, Pass, groups_of

WIDTH = 8  # bits of a number, and of a weight
BEAT_BITS = BEAT * WIDTH
STORE_BITS = 14
STORE = 1 << STORE_BITS  # beats of the store, and pairs of weights
OFFSET = 1 << WIDTH - 1  # what is taken off an operand without sign, so that it has one
FLASH = 1 << 20  # first byte of what a flash has of it, behind the configuration


@dataclass(frozen=True, eq=False)
class Code(OfReads):
    """Of Layers and their Reads. ValueError where it has no room.

    Members
    -------
    instructions, groups, words, turns
        Words: of what is done one after the other, of each group of a pass that fetches, of each read, of each turn.
    weights
        numbers, pass by pass; pairs: (N, 2), as they are stored.
    rows
        of each output of each pass: (what is added to its sum, half of what is rounded off too; its left shift).
    joins
        of each pass that joins what was loaded: the left shift of that, up to where all are rounded.
    row_beats
        a row behind the other, `rows_of_beat` in each; where something is joined, one, and its weight at the upper end;
        and of each pass the number of its first row, if all beats had so many.
    store
        beats as they are before the first frame: rows and instructions behind the room of all maps.
    flash
        bytes: pairs, then the store from its first row on.
    """

    layers: tuple[Layer, ...]
    reads: Reads

    def __post_init__(self):
        for what, has, most, of in (
            ("weights", len(self.weights), 2 * STORE, "weights"),
            ("rows", sum(self.row_bits), BEAT_BITS - WIDTH * bool(self.joins), "bits of a word"),
            ("maps, rows and instructions", len(self.store), STORE, f"words of {BEAT} numbers"),
        ):
            if has > most:
                raise ValueError(f"its {what} take {has} of {most} {of}; narrower layers would take fewer")

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        return tuple(one for layer in self.layers for one in layer.passes)

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(tuple(one.factor for one in self.passes), 1, 1)

    @cached_property
    def weights(self) -> np.ndarray:
        return np.concatenate([one.weights.ravel() for one in self.passes]).astype(np.int64)

    @property
    def pairs(self) -> np.ndarray:
        return np.pad(self.weights, (0, len(self.weights) % 2)).reshape(-1, 2)

    @cached_property
    def sum_bits(self) -> int:
        """Of a sum of products by these weights."""
        return (OFFSET * int(max(np.abs(one.weights).sum(1).max() for one in self.passes))).bit_length() + 1

    @cached_property
    def rows(self) -> np.ndarray:
        found = []
        for one in self.passes:
            f, outputs = one.factor, one.factor.pattern.outputs
            shift, sums = np.broadcast_to(f.dot_shift, outputs), np.broadcast_to(one.weights.sum(1), outputs)
            added = (not f.input.signed) * (OFFSET * sums << shift) + (1 << f.shift >> 1 if f.shift > 0 else 0)
            if one.joined is not None:
                added += (not f.skip_input.signed) * (OFFSET * one.joined << f.skip_shift)
            found.append(np.stack([added if f.bias is None else added + f.bias, shift], 1))
        return np.concatenate(found)

    @cached_property
    def row_bits(self) -> tuple[int, int]:
        """Of what is added, and of a shift."""
        added, shifts = self.rows.T
        return int(max(added.max(), ~added.min(), 0)).bit_length() + 1, max(1, int(shifts.max()).bit_length())

    @property
    def most_shift(self) -> int:
        """Of a sum, up to where all are rounded."""
        return int(self.rows[:, 1].max()) + max(self.arithmetic.lifts)

    @cached_property
    def joins(self) -> tuple[int, ...]:
        lifts = zip(self.passes, self.arithmetic.lifts)
        return tuple(one.factor.skip_shift + lift for one, lift in lifts if one.joined is not None)

    @property
    def rows_of_beat(self) -> int:
        """A power of two."""
        return 1 << max(1, BEAT_BITS // sum(self.row_bits)).bit_length() - 1

    @cached_property
    def row_beats(self) -> tuple[list[int], list[int]]:
        (bits, _), each, beats, firsts = self.row_bits, self.rows_of_beat, [], []
        words = iter([int(added) % (1 << bits) | int(shift) << bits for added, shift in self.rows])
        for one in self.passes:
            firsts.append(len(beats) * each)
            own = list(islice(words, one.factor.pattern.outputs))
            if one.joined is not None:
                beats += [word | int(w) % (1 << WIDTH) << BEAT_BITS - WIDTH for word, w in zip(own, one.joined)]
                continue
            for at in range(0, len(own), each):
                beats.append(sum(word << n * (BEAT_BITS // each) for n, word in enumerate(own[at : at + each])))
        return beats, firsts

    @cached_property
    def maps(self) -> tuple[int, ...]:
        """First beat of each map, the network's input first: at the lower end, and at the upper end, in turn; and how
        many they take together.
        """
        shapes = self.layers[0].shape, *(layer.after for layer in self.layers)
        sizes = [groups_of(shape) * shape.channels * HALVES for shape in shapes]
        room = max(map(sum, zip(sizes, sizes[1:])))
        return (*(room - size if n % 2 else 0 for n, size in enumerate(sizes)), room)

    @property
    def first_row(self) -> int:
        return self.maps[-1]

    @property
    def first_instruction(self) -> int:
        return self.first_row + len(self.row_beats[0])

    @property
    def beats(self) -> int:
        """Of an instruction."""
        return -(-self.instructions.width // BEAT_BITS)

    @property
    def row_slots(self) -> int:
        """Rows, if all beats had as many as they have room for."""
        return len(self.row_beats[0]) * self.rows_of_beat

    @cached_property
    def store(self) -> list[int]:
        found = [0] * self.first_row + self.row_beats[0]
        for word in self.instructions.words:
            found += [word >> n * BEAT_BITS & (1 << BEAT_BITS) - 1 for n in range(self.beats)]
        return found

    @property
    def flash(self) -> bytes:
        behind = b"".join(word.to_bytes(BEAT, "little") for word in self.store[self.first_row :])
        return (self.pairs % (1 << WIDTH)).astype(np.uint8).tobytes() + behind

    @cached_property
    def instructions(self) -> Words:
        rows, at = [self._walk(self.layers[0].shape, 0, takes=1)], {"table": 0, "weight": 0}
        own = zip(self.arithmetic.lifts, self.row_beats[1])
        for layer, source, target in zip(self.layers, self.maps, self.maps[1:]):
            rows += self._layer(layer, source, target, at, own)
        rows.append(self._walk(self.layers[-1].after, self.maps[len(self.layers)], gives=1))
        names = dict.fromkeys(name for row in rows for name in row)
        return Words(tuple({name: row.get(name, 0) for name in names} for row in rows))

    @staticmethod
    def _walk(shape: Shape, target: int, **kind):
        """All numbers of a map, position by position."""
        groups = groups_of(shape)
        return {
            "d": shape.channels - 1, "groups": groups - 1, "stride": shape.channels * HALVES, "target": target,
            "tail": _tail(shape), **kind,
        }

    def _layer(self, layer, source, target, at, rest):
        load, beats, outputs = layer.load, layer.shape.channels * HALVES, layer.after.channels
        # of a group, in a block
        own = load.words if layer.chunk else outputs
        yield {
            "loads": 1, "d": load.words - 1, "groups": load.groups - 1, "stride": beats, "alone": load.alone,
            "target": (source + load.first * beats) % STORE,
        }
        for number, one in enumerate(layer.passes):
            (a, b, d, _), (lift, first_row), f = one.sizes, next(rest), one.factor
            row = {
                "computes": 1, "groups": one.groups - 1, "a": a - 1, "b": b - 1, "d": d - 1, "bank": one.bank,
                "fetches": one.fetches is not None, "again": one.again, "unsigned": not f.input.signed,
                "lift": lift, "end": self.arithmetic.ends.index(End.of(f)), "row": first_row,
                "blocks": layer.blocks - 1, "every": layer.chunk, "tail": _tail(layer.after), **_steps(one), **at,
            }
            if one.joined is not None:
                shift = f.skip_shift + lift - min(self.joins)
                row |= {"joins": 1, "joined": shift, "joined_unsigned": not f.skip_input.signed}
            if one is layer.passes[-1]:
                row |= {
                    "last": 1, "back": number, "stores": 1, "target": target, "over": (outputs - own) * HALVES,
                    "further_in": (load.further * layer.shape.channels + load.channels) * HALVES % STORE,
                    "further_out": own * (1 if layer.chunk else one.groups) * HALVES,
                    "further_weight": one.weights.size // layer.blocks if layer.chunk and not one.again else 0,
                    "further_row": own if layer.chunk else 0,
                    "further_table": 0 if layer.chunk or one.fetches is None else one.groups,
                }
            yield row
            at["table"] += len(one.fetches or ())
            at["weight"] += one.weights.size

    @cached_property
    def groups(self) -> Words:
        """Of each group of the passes that fetch: its reads. Of none, one that nobody looks at."""
        rows = [
            {"start": fetch.start, "turns": fetch.reads - 1, "base": one.channels * fetch.row % ROWS}
            for one in self.passes
            for fetch in one.fetches or ()
        ]
        return Words(tuple(rows or [{"start": 0, "turns": 0, "base": 0}]))


def _tail(shape):
    """The last lane of a map's last group."""
    return (shape.positions - 1) % LANES


def _steps(one):
    """The turns of an output, which of them have a term, at the end, 7: all; and what is added to an operand's row
    behind each.
    """
    a, _, _, c = one.sizes
    steps = onward(one, c)
    steps["step_g"] = one.row - one.steps[0] * (a - 1) + steps["step_b"]
    own = {"turns": 0, "terms": 7}
    if one.fetches is None:
        own = {"turns": one.turns - 1, "terms": 7 if c == one.turns else c - 1}
    return own | {name: step % ROWS for name, step in steps.items()}
