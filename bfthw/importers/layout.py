"""What an importer is, and what it may ask for."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to store a layer as named arrays.

    telling: keys and shapes that tell it, for a person. knows: {part: array} of a layer -> bool, by names and shapes
    alone. parts: {part: array}, Hints -> fields of a `Layer` but its name; ValueError where they do not fit.
    """

    name: str
    telling: str
    knows: Callable
    layer: Callable


@dataclass(kw_only=True)
class Hints:
    """What a layer's arrays do not say: options, `<layer>.<key>` before `<key>`; notes on what is taken for granted.

    before: outputs of the layer before, None for the first; last: whether none follows. shapes: lines of a shapes file.
    format: the layout that the user named, None where it was recognised.
    asked: every key that was asked for, with the values that it may have.
    """

    name: str
    options: dict
    before: int | None = None
    last: bool = True
    shapes: object = None
    format: str | None = None
    notes: list = field(default_factory=list)
    asked: dict = field(default_factory=dict)

    def note(self, text):
        self.notes.append(text)

    def get(self, key, shared=True, values=()):
        """The option's value, None where it is not given; shared: whether it may go without the layer's name.

        values: those that it may have, the one taken without it first; none for a number.
        """
        for own in (f"{self.name}.{key}", key)[: 1 + shared]:
            self.asked[own] = values
            if own in self.options:
                return self.options[own]
        return None

    def choice(self, key, choices):
        """One of the choices, strings; None where the option is not given."""
        value = self.get(key, values=choices)
        if value is not None and str(value) not in choices:
            raise ValueError(f"{key} must be {' or '.join(choices)}, got {value!r}")
        return None if value is None else str(value)

    def size(self, key, most, least=1):
        """`inputs` or `outputs`: of the option, else of the layer before (inputs), else `most`."""
        value = self.get(key, shared=self.before is None if key == "inputs" else self.last)
        given = value is not None
        if not given:
            value = self.before if key == "inputs" and self.before is not None else most
        if not (isinstance(value, int) or str(value).isdecimal()) or not least <= int(value) <= most:
            owner = f"{key} = {value}" if given or key == "outputs" else f"the layer before gives {value} values, which"
            raise ValueError(f"{owner} does not fit: {key} are {least} to {most} here")
        if not given and (key != "inputs" or self.before is None) and least < most:
            self.note(f"{key} taken as {value}, {least} to {most} are possible; {self.name}.{key}=N says otherwise")
        return int(value)


def bias_of(arrays, outputs):
    """The bias, None where there is none; ValueError where it does not fit."""
    bias = arrays.get("bias")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"bias must have shape ({outputs},), got {bias.shape}")
    return bias


def only(arrays, *parts):
    """ValueError where a layer has arrays that nothing is known of."""
    for part in arrays:
        if part not in parts:
            raise ValueError(f"{part!r} is not known here; a layer has {', '.join(parts)}")


def entries(*arrays):
    """(arrays of the same shapes that say which entry of a flat vector stands where, that vector)."""
    flat = np.concatenate([array.ravel() for array in arrays])
    parts = np.split(np.arange(flat.size), np.cumsum([array.size for array in arrays])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays)], flat
