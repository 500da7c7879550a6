"""Objects as plain data and arrays, by what their classes say of their fields, and back: one way for all of them.

A class is a dataclass, or has FIELDS, {name: type}. The types say it all: bool, int, float, str and a bare tuple of
such are plain; numpy.ndarray is an array of its own, of which the data say the shape; tuple[X, ...], X | None and
other classes with fields are taken apart in their turn. A class with a PLAIN type has a method `plain` and a
classmethod `of` in the place of fields; of classes in KINDS, {kind: class}, the data say the `kind`. Fields that are
as their default says are left out.

An array's key is OWNER/FIELD.FIELD..., which no name of a node can be.
"""

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

import numpy as np

from .reading import CheckpointError, nearest, short

SCALARS = NoneType, bool, int, float, str
MOST = 1 << 31  # no integer of a description is as large


@cache
def fields_of(cls):
    """{name: (type, default or MISSING)} of what an object is made of; TypeError for a class that does not say it."""
    if hasattr(cls, "FIELDS"):
        return {name: (kind, MISSING) for name, kind in cls.FIELDS.items()}
    if not is_dataclass(cls):
        raise TypeError(f"no file holds a {cls.__name__}: it is no dataclass, nor has it FIELDS")
    kinds = get_type_hints(cls)  # also where annotations are text
    return {field.name: (kinds[field.name], field.default) for field in fields(cls) if field.init}


def taken_apart(value, arrays, owner, *path):
    """A value as data that JSON has; its arrays are put into `arrays`. TypeError names what no file holds."""
    if type(value) in SCALARS:
        return value
    if isinstance(value, np.ndarray):
        arrays[key_of(owner, path)] = _narrow(value)
        return list(value.shape)
    cls = type(value)
    if hasattr(cls, "PLAIN"):
        try:
            return value.plain()
        except TypeError as error:
            raise TypeError(f"node {owner!r}: {error}") from None
    if cls is tuple:
        return [taken_apart(one, arrays, owner, *path, str(n)) for n, one in enumerate(value)]
    data = {}
    if hasattr(cls, "KINDS"):
        data["kind"] = value.kind
        if cls.KINDS.get(value.kind) is not cls:
            raise TypeError(f"node {owner!r}: no file holds a {cls.__name__}: its class needs a `kind` of its own")
    for name, (_, default) in fields_of(cls).items():
        one = getattr(value, name)
        if isinstance(one, np.ndarray) or default is MISSING or one != default:
            data[name] = taken_apart(one, arrays, owner, *path, name)
    return data


def key_of(owner, path):
    """Of an array of a node: what owns it, and the fields that lead there."""
    return f"{owner}/{'.'.join(path)}"


def _narrow(values):
    """The same numbers in float32 where that is exact, in the smallest signed type of integers that holds them."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        return narrow if np.array_equal(narrow, values) else values
    if values.dtype.kind not in "iu":
        raise TypeError(f"files hold arrays of real numbers, got dtype {values.dtype}")
    lo, hi = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kinds = ((kind, np.iinfo(kind)) for kind in (np.int8, np.int16, np.int32, np.int64))
    return values.astype(next(kind for kind, ends in kinds if ends.min <= lo and hi <= ends.max))


class Assembly:
    """Objects put together from a file's data and arrays; CheckpointError names file, node, field, rule and value."""

    def __init__(self, path, arrays):
        self.path, self.arrays, self.used = path, arrays, set()

    def end(self):
        """CheckpointError where the file has arrays that nothing asked for."""
        for key in self.arrays:
            if key not in self.used:
                hint = nearest(key, self.used)
                raise CheckpointError(f"{self.path}: unexpected key {key!r}: the description has no such array{hint}")

    def value(self, kind, given, owner, *path):
        """A value of a type, from the data for it."""
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if given is None and NoneType in kinds:
            return None
        found = [one for one in kinds if isinstance(given, _data(one)) and (one is bool or type(given) is not bool)]
        if not found:
            wanted = " or ".join(dict.fromkeys(_WORDS.get(_data(one), _data(one).__name__) for one in kinds))
            raise self.fault(f"must be {wanted}, got {short(given)}", owner, path)
        return self._of(found[0], given, owner, path)

    def _of(self, kind, given, owner, path):
        if kind is np.ndarray:
            return self._array(given, owner, path)
        if kind is tuple:
            return tuple(self._scalar(one, owner, path) for one in given)
        if get_origin(kind) is tuple:
            return tuple(self.value(get_args(kind)[0], one, owner, *path, str(n)) for n, one in enumerate(given))
        if kind in SCALARS:
            return self._scalar(given, owner, path)
        if hasattr(kind, "PLAIN"):
            return self._made(kind.of, (given,), {}, owner, path)
        kind, given = self._named(kind, given, owner, path)
        own, values = fields_of(kind), {}
        for name, one in given.items():
            if name not in own:
                hint = nearest(name, own) or f"; there are {', '.join(own)}"
                raise self.fault(f"there is no such key{hint}", owner, (*path, short(name)))
            values[name] = self.value(own[name][0], one, owner, *path, name)
        if missing := [name for name, (_, default) in own.items() if default is MISSING and name not in values]:
            raise self.fault("is missing", owner, (*path, missing[0]))
        return self._made(kind, (), values, owner, path)

    def _named(self, kind, given, owner, path):
        """The class, of those that are one, which the data name as their `kind`, and the other data."""
        if not hasattr(kind, "KINDS"):
            return kind, given
        name = given.get("kind")
        if not isinstance(name, str) or name not in kind.KINDS:
            hint = nearest(name, kind.KINDS) or f"; there are {', '.join(kind.KINDS)}"
            raise self.fault(f"there is no kind of node {short(name)}{hint}", owner, (*path, "kind"))
        return kind.KINDS[name], {key: value for key, value in given.items() if key != "kind"}

    def _made(self, make, given, values, owner, path):
        try:
            return make(*given, **values)
        except (ValueError, TypeError) as error:
            raise self.fault(error, owner, path) from None

    def _scalar(self, given, owner, path):
        if not isinstance(given, SCALARS):
            raise self.fault(f"must be numbers or words, got {short(given)}", owner, path)
        if isinstance(given, int) and abs(given) >= MOST or isinstance(given, float) and not np.isfinite(given):
            raise self.fault(f"must be finite, integers below 2^31, got {short(given)}", owner, path)
        return given

    def _array(self, given, owner, path):
        key = key_of(owner, path)
        if key not in self.arrays or key in self.used:
            what = "missing key" if key not in self.arrays else "two nodes share the key"
            raise CheckpointError(f"{self.path}: {what} {key!r}, which the description asks for")
        self.used.add(key)
        array = self.arrays[key]
        if given != list(array.shape):
            raise CheckpointError(f"{self.path}: {key!r} has shape {array.shape}, its description says {short(given)}")
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise CheckpointError(f"{self.path}: {key!r} must be finite real numbers, got dtype {array.dtype}")
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise CheckpointError(f"{self.path}: {key!r}: integers must fit 64 bits with a sign, got {array.max()}")
        return array

    def fault(self, rule, owner, path):
        place = f"{'.'.join(path)}: " if path else ""
        return CheckpointError(f"{self.path}: node {short(owner)}: {place}{rule}")


def _data(kind):
    """The type that the data of a type have."""
    if kind in SCALARS:
        return int | float if kind is float else kind
    if hasattr(kind, "PLAIN"):
        return kind.PLAIN
    return list if kind in (tuple, np.ndarray) or get_origin(kind) is tuple else dict


_WORDS = {NoneType: "null", bool: "true or false", int: "an integer", int | float: "a number", str: "a word"}
_WORDS |= {list: "a list", dict: "a table"}
