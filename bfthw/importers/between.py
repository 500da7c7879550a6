"""What no state_dict keeps: modules without arrays, seen by the numbers that they leave out, and where ReLUs stand."""

import re
from itertools import islice

from ..reading import some

RELU = ("none", "hidden", "all", "gaps")
NORM = ("before", "behind")


class Numbers:
    """The numbers in a file's names: which of them skip."""

    def __init__(self, names):
        self._taken = {}  # what stands in front of a number -> the numbers there
        for name in names:
            pieces = re.split("([0-9]+)", name)
            for k in range(1, len(pieces), 2):
                self._taken.setdefault("".join(pieces[:k]), set()).add(int(pieces[k]))

    def skipped(self, before, after):
        """Numbers between two names that no name of the file has, the first 7 among 1,000: (1,) for '0' and '2'.

        None where they do not tell: for 'body.5' and 'head'.
        """
        one, two = (re.split("([0-9]+)", name) for name in (before, after))
        k = next((k for k, (a, b) in enumerate(zip(one, two)) if a != b), 0)
        if k % 2 == 0:  # they differ in letters
            return None
        taken, low, high = self._taken["".join(one[:k])], int(one[k]), int(two[k])
        return tuple(islice((n for n in range(low + 1, min(high, low + 1001)) if n not in taken), 7))

    def start(self, name):
        """Numbers below the first one, where names are numbers between dots that begin above 0."""
        first = re.match(r"((?:[A-Za-z_][^.]*\.)*)([0-9]+)(?:\.|$)", name)
        return tuple(range(min(7, *self._taken[first[1]]))) if first else ()


class Between:
    """Which layers end in a ReLU, and on which side of it their batch norms stand.

    names: layers and norms in the order of use; norms: those that are norms; every: all names of the file. By options
    (LAYER.relu, relu, NORM.norm, norm), else by the numbers that skip. asked: key -> values, is added to.
    """

    def __init__(self, names, norms, every, options, asked):
        self.names, self.options, self.asked = names, options, asked
        self.layers = [name for name in names if name not in norms]
        numbers = Numbers(every)
        between = {a: numbers.skipped(a, b) for a, b in zip(names, names[1:])}
        self.gaps = {a: found for a, found in between.items() if found}
        self.unknown = {names[-1], *(a for a, found in between.items() if found is None)}  # what follows them
        self.start = numbers.start(names[0])
        # layer -> itself and the norms behind it
        self.groups = {}
        for name in names:
            if name not in norms:
                self.groups[name] = last = [name]
            elif self.groups:
                last.append(name)
        self.sides = {"before": [], "behind": []}  # norms of layers with a ReLU
        self.relus = dict.fromkeys(name for name in self.layers if self._relu(name))
        self.ends = {self._end(name) for name in self.relus}

    def _option(self, name, key, own, shared):
        self.asked |= {f"{name}.{key}": own, key: shared}
        for given, values in ((f"{name}.{key}", own), (key, shared)):
            if given in self.options:
                if str(self.options[given]) not in values:
                    raise ValueError(
                        f"layer {name!r}: {key} must be {' or '.join(values)}, got {self.options[given]!r}"
                    )
                return str(self.options[given])
        return None

    def _relu(self, name):
        which = self._option(name, "relu", ("yes", "no"), RELU)
        gap = any(one in self.gaps for one in self.groups[name])
        return which in ("yes", "all") or which == "hidden" and name != self.layers[-1] or which == "gaps" and gap

    def _end(self, name):
        """The last of a layer and its norms that stands before the layer's ReLU."""
        end, *norms = self.groups[name]
        behind = False
        for norm in norms:
            side = self._option(norm, "norm", NORM, NORM)
            gap, known = end in self.gaps, norm not in self.unknown and norm not in self.gaps
            if side is None and gap and not known and not behind:
                raise ValueError(
                    f"batch norm {norm!r} may stand before the ReLU of layer {name!r} or behind it, as modules without "
                    f"arrays may be on both sides of it: {norm}.norm=before or {norm}.norm=behind says which"
                )
            if behind and side == "before":
                raise ValueError(
                    f"batch norm {norm!r} cannot stand before the ReLU of layer {name!r}: one before it doesn't"
                )
            behind = behind or side == "behind" or side is None and gap
            self.sides["behind" if behind else "before"].append(norm)
            end = end if behind else norm
        return end

    def notes(self, own=""):
        """What was seen and what was taken for granted; own: of activations, which of them the file does say."""
        found = [f"{_numbers(self.start)} in front of {self.names[0]!r}"] if self.start else []
        found += [
            f"{_numbers(self.gaps[a])} between {a!r} and {b!r}"
            for a, b in zip(self.names, self.names[1:])
            if a in self.gaps
        ]
        notes = []
        if found:
            notes.append(
                f"numbers are left out, {some(found, str)}: modules without arrays stood there, activations perhaps; "
                "nothing but the ReLUs of the next note is taken to be there"
            )
        if self.relus:
            notes.append(f"activations{own} are in no such file: a ReLU is taken behind {some(self.relus, repr)} alone")
        else:
            gaps = "relu=gaps, " if self.gaps else ""
            notes.append(
                f"activations{own} are in no such file: taken without any; {gaps}relu=hidden, relu=all or "
                "LAYER.relu=yes says otherwise"
            )
        notes += [
            f"of the ReLU, batch norms stand {side} it: {some(of, repr)}; NORM.norm={other} says otherwise"
            for (side, of), other in zip(self.sides.items(), reversed(NORM))
            if of
        ]
        return notes


def _numbers(numbers):
    return ", ".join(map(str, numbers[:6])) + (" and more" if len(numbers) > 6 else "")
