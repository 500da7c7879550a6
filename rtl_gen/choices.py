"""The table of what is chosen for the hardware: layer → {"engine": kind, option: value}, in Python, TOML and manifest.

A value holds for all factors of the layer; a list has an entry for each, None where the factor's engine has no such
option.
"""

from collections import Counter
from itertools import groupby
from operator import itemgetter

from .engines import ENGINES


def by_stage(stages, choices):
    """A table as a dict of what is given, for each stages.Stage; ValueError for what fits no layer or engine."""
    layers = Counter(stage.owner for stage in stages)
    known = {"engine"}.union(*(cls.options for cls in ENGINES.values()))
    for name, table in choices.items():
        if name not in layers:
            raise ValueError(f"the network has no layer {name!r}; its layers are {', '.join(map(repr, layers))}")
        for key in table.keys() - known:
            raise ValueError(f"layer {name!r}: no engine has an option {key!r}; there are {', '.join(sorted(known))}")
    chosen = []
    for name, count in layers.items():
        own = [{} for _ in range(count)]
        for key, value in choices.get(name, {}).items():
            values = list(value) if isinstance(value, (list, tuple)) else [value] * count
            if len(values) != count:
                raise ValueError(
                    f"{key} of layer {name!r} needs an entry for each of {count} factors, got {len(values)}"
                )
            for entry, one in zip(own, values):
                if one is not None:
                    entry[key] = one
        chosen += own
    return chosen


def by_layer(owners, chosen):
    """The table of a dict for each stage; owners: the layers of each."""
    table = {}
    for name, run in groupby(zip(owners, chosen), key=itemgetter(0)):
        own = [one for _, one in run]
        lists = {key: [one.get(key) for one in own] for key in dict.fromkeys(key for one in own for key in one)}
        table[name] = {key: v[0] if all(x == v[0] for x in v) else v for key, v in lists.items()}
    return table


def options_of(cls, chosen):
    """The options of an engine's class that are given for the factors it serves; ValueError where they differ."""
    given = {}
    for option in cls.options:
        values = {one[option] for one in chosen if option in one}
        if len(values) > 1:
            shown = " and ".join(sorted(map(repr, values)))
            raise ValueError(f"{option}: factors that share an engine need one value, got {shown}")
        given |= dict.fromkeys([option] * len(values), *values)
    return given
