"""Deformable butterflies, DeBut (RuiLin0212/DeBut, jasonli0707/All-DeBut): flat weights, shapes in a text file.

`twiddle` holds the factors one after the other, first applied first; that of shape (out, in, r, s, t) is out*s numbers
of order (in/(s t), t, r, s), a factor of pattern (in/(s t), r, s, t) (Lin et al., "Deformable Butterfly", NeurIPS 2021,
section 3). The shapes file has a line for each layer, five integers `out in r s t` for each factor.
"""

from typing import NamedTuple

from ..chain import Chain, Factor
from ..reading import CheckpointError, read_text, reader, short
from .layout import Layout, bias_of, only

LIMIT = 1 << 20  # bytes of a shapes file


@reader
def read_shapes(path):
    """[(line number, [(out, in, r, s, t), ...]), ...] of a shapes file; CheckpointError names line and factor."""
    found = []
    for number, line in enumerate(read_text(path, LIMIT, "shapes file").splitlines(), 1):
        words = line.split()
        bad = [word for word in words if not (word.isascii() and word.isdigit() and len(word) < 10)]
        if bad or len(words) % 5:
            what = f"found {short(bad[0])}" if bad else f"found {len(words)} integers"
            raise CheckpointError(f"{path}: line {number}: must be five integers a factor, out in r s t; {what}")
        factors = [tuple(map(int, words[k : k + 5])) for k in range(0, len(words), 5)]
        for m, (out, q, r, s, t) in enumerate(factors):
            owner, before = f"{path}: line {number}, factor {m}: {out} {q} {r} {s} {t}", factors[m - 1][0] if m else q
            if not all((out, q, r, s, t)) or q % (s * t) or q // s * r != out:
                raise CheckpointError(f"{owner}: s*t must divide in, and out be in / s * r")
            if before != q:
                raise CheckpointError(f"{owner}: takes {q} values, the factor before gives {before}")
        if factors:
            found.append((number, factors))
    return found


class Lines(NamedTuple):
    """Of the shapes file at `path`: every line as `read_shapes` has it, and that of a layer where order tells it."""

    path: object
    every: list
    ordered: dict

    def of(self, name, parts, given):
        """(line number, factors) of a layer: the given number's, else the layer's in order, else the one that fits.

        ValueError where none fits, or lines of several shapes do.
        """
        twiddle, bias = parts["twiddle"], parts.get("bias")
        numbers = {str(number): (number, factors) for number, factors in self.every}
        if given is not None:
            if str(given) not in numbers:
                raise ValueError(f"line = {given}: {self.path} has shapes in the lines {', '.join(numbers)}")
            return numbers[str(given)]
        if name in self.ordered:
            return self.ordered[name]
        fitting = [line for line in self.every if fits(line[1], parts)]
        if len({tuple(factors) for _, factors in fitting}) == 1:
            return fitting[0]
        outputs = "" if bias is None else f" and {bias.size} outputs"
        listed = ", ".join(f"{number}" for number, _ in fitting)
        which = f"lines {listed} have: {name}.line=N says which" if fitting else f"none of {len(numbers)} lines has"
        raise ValueError(f"of {self.path}, for {twiddle.size} weights{outputs}, {which}")


def _count(factors):
    """Weights of a layer."""
    return sum(out * s for out, _, _, s, _ in factors)


def fits(factors, parts):
    """Whether a layer of these shapes has as many weights, and as many outputs as a bias has entries."""
    bias = parts.get("bias")
    return _count(factors) == parts["twiddle"].size and (bias is None or bias.shape == (factors[-1][0],))


def layer(parts, hints):
    only(parts, "twiddle", "bias")
    twiddle = parts["twiddle"]
    if hints.shapes is None:
        raise ValueError(
            "the sizes of DeBut factors are in no checkpoint: name their text file with --shapes (shapes=)"
        )
    fitting = tuple(str(number) for number, factors in hints.shapes.every if fits(factors, parts))
    values = fitting if len(fitting) > 1 else ()
    number, factors = hints.shapes.of(hints.name, parts, hints.get("line", shared=False, values=values))
    if twiddle.shape != (_count(factors),):
        nearest = f"; line {fitting[0]} would fit: {hints.name}.line={fitting[0]}" if fitting else ""
        raise ValueError(
            f"line {number} of the shapes needs {_count(factors)} weights, twiddle has shape {twiddle.shape}{nearest}"
        )
    values, start = [], 0
    for out, q, r, s, t in factors:
        part = twiddle[start : start + out * s].reshape(q // (s * t), t, r, s)
        values.append(Factor(part.transpose(0, 2, 3, 1)))
        start += out * s
    hints.note(f"shapes of line {number}; of a convolution it takes patches, kernel position first, then channel")
    return {"chain": Chain(values), "bias": bias_of(parts, factors[-1][0])}


def knows(parts):
    return "twiddle" in parts and parts["twiddle"].ndim == 1


LAYOUTS = (Layout(name="debut", telling="twiddle of one dimension, and a shapes file", knows=knows, layer=layer),)
