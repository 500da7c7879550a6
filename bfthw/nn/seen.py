"""What a module does with places, as nodes: what the rules of torch's functions have in common."""

import re
import sys
import traceback
from dataclasses import dataclass, replace
from itertools import takewhile
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..fuse import alone, fused
from ..graph import INPUT, Node
from ..network import Network
from ..nodes import Max
from . import foreign, places
from .places import Places, absorbed

OURS, TORCH = str(Path(__file__).parent), str(Path(torch.__file__).parent)
UNARRANGED = (
    "what it takes is not arranged as any map: numbers of several maps, or zeros, stand among numbers that moved "
    "between channels and positions; one map alone may be rearranged so, channels move, a map be flattened, cut or "
    "padded with zeros"
)
ALONG = {foreign.LAST: (places.last, None), foreign.POINTS: (places.first, 2), foreign.CHANNELS: (places.first, 3)}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Ending(Node):
    """What may stand at the end of a network alone, where it is left out. function: of its numbers (N, C)."""

    function: object

    def shape(self, shape):
        return shape


class Seen(TorchFunctionMode):
    """Turns calls with Places into nodes of `table`. rules: name of a function -> (seen, its arguments) -> its result.

    order: of the module's input, see `places.Table`. rearranges: whether maps may be, at a cost on a chip. stack:
    (path, module) of what runs. func: torch's function, now.
    ending: what was left out at the end, a function of outputs. notes: lines. refusal: the error that was raised.
    """

    def __init__(self, order, rules, rearranges=False):
        super().__init__()
        self.rules, self.table, self.rearranges = rules, places.Table(order, INPUT), rearranges
        self.stack, self.func, self.notes, self.refusal = [], None, [], None
        self.ending = lambda y: y
        self._names = {INPUT}

    def around(self, path, module):
        """The hooks that keep `stack`: what an error left there is let go when a module around it ends."""

        def leave(*_):
            while self.stack.pop()[1] is not module:
                pass

        return lambda *_: self.stack.append((path, module)), leave

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not any(isinstance(t, Places) for t in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        return self.asked(func.__name__.strip("_"), self._called, func, args, kwargs)

    def _called(self, func, args, kwargs):
        """What a function of torch makes of Places, in its first argument where it writes there."""
        written, self.func = _written(func, args, kwargs), func
        if written and not isinstance(args[0], Places):
            places.become(args[0])
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        y = self.rules(func.__name__.strip("_"))(self, *args, **kwargs)
        if written and y is not args[0] and y is not None:
            args[0].copy_(y)
            return args[0]
        return y

    def asked(self, name, rule, *args, **kwargs):
        """What a rule makes; its errors say where."""
        try:
            return rule(*args, **kwargs)
        except (ValueError, TypeError) as error:
            self.refusal = type(error)(f"to_network: {self.where(name)}: {error}")
        raise self.refusal

    def where(self, name="", error=None):
        """The module that runs, what it calls, and the line of the caller's code: of an error, or where we are."""
        path, module = self.stack[-1] if self.stack else ("", None)
        kind = "" if module is None else type(module).__name__
        text = f"module {path or '0'!r}" + f" ({kind})" * bool(kind)
        text += f", {name}" * (name.replace("_", "") not in kind.lower())
        if error is not None:
            frames = reversed(list(traceback.walk_tb(error.__traceback__)))
        else:
            frames = traceback.walk_stack(sys._getframe(1))
        inside = takewhile(lambda one: one[0].f_code.co_name != "to_network", frames)
        lines = ((frame.f_code.co_filename, line) for frame, line in inside)
        found = next((one for one in lines if not one[0].startswith((OURS, TORCH))), None)
        return text + (f" at {Path(found[0]).name}:{found[1]}" if found else "")

    def name(self, what=None):
        """A new node's name: of the module that runs, and of `what`, or of the function where it is a caller's own."""
        path, module = self.stack[-1] if self.stack else ("", None)
        own = what or not type(module).__module__.startswith("torch.nn") and "forward" not in vars(module)
        what = what or self.func.__name__.strip("_")
        known = re.sub(r"[^A-Za-z0-9_.]", "_", ".".join([path] * bool(path) + [what] * bool(own)) or "0")
        text = known = known[-180:].strip(".")
        count = 1
        while text in self._names:
            count += 1
            text = f"{known}_{count}"
        self._names.add(text)
        return text

    def take(self, at, what="pick"):
        """The name of the node that gives places (H, W, C), new ones where that has to be; None where none can."""
        return self.table.take(at, lambda: self.name(what))

    def taken(self, at):
        """The same; ValueError where none can."""
        name = self.take(at)
        if name is None and self.rearranges:
            name = self.table.rearranged(at, lambda: self.name("rearranged"))
        if name is None:
            raise ValueError(UNARRANGED)
        return name

    def give(self, node, order, dims):
        """Places (2, *dims) of what a new node gives; order: integers (H, W, C), which of them make its map."""
        out = np.empty(prod(dims), np.int64)
        out[order] = self.table.add(node).reshape(order.shape)
        return places.tensor(out.reshape(dims))

    def each(self, xs, make, constants=()):
        """What works on each number of tensors of one shape, one or two that are added: an `alone` layer.

        constants: arrays that broadcast to the tensors. make: their numbers (C,) -> the layer's fields.
        """
        numbers = [places.read(x) for x in xs]
        dims = numbers[0].shape
        own = [self.table.own(number) for number in numbers]
        orders = own[:1] * all(o is not None and np.array_equal(o, own[0]) for o in own)
        orders += [layout(dims) for layout in (places.first, places.last)]
        orders = [self.table.gridded(order, numbers[0]) for order in orders if order is not None]
        moved = [[np.broadcast_to(constant, dims).ravel()[order] for constant in constants] for order in orders]
        fit = [(order, own) for order, own in zip(orders, moved) if all((c == c[:1, :1]).all() for c in own)]
        if not fit and constants:
            raise ValueError("its numbers differ from position to position; a network has one for each channel")
        if not fit:
            raise ValueError(UNARRANGED)
        # the first way in which all are arranged, or else most are, the others rearranged
        ways = []
        for order, own in fit:
            ways.append((order, own, [self.take(number.ravel()[order]) for number in numbers]))
            if None not in ways[-1][2]:
                break
        order, own, names = min(ways, key=lambda way: way[2].count(None))
        names = [name or self.taken(number.ravel()[order]) for name, number in zip(names, numbers)]
        return self.give(alone(self.name(), names, order.shape[2], **make(*(c[0, 0] for c in own))), order, dims)

    def windowed(self, x, node):
        """What a node with a window makes of a tensor, channels first. node: (name, name of its input) -> Node."""
        number = places.read(x)
        if number.ndim not in (2, 3):
            raise ValueError(f"it takes sequences (N, C, L) or images (N, C, H, W), got {number.ndim + 1} axes")
        at, name = number.ravel()[places.first(number.shape)], self.name()
        made, around, lies = node(name, "0"), self.table.around(at, lambda: self.name("pick")), False
        if around is not None and made.window is not None and not isinstance(made, Max):  # that has no zeros there
            source, more = around
            padding = tuple(own + other for own, other in zip(made.window.padding, more))
            made = replace(made, inputs=source, window=replace(made.window, padding=padding))
        else:
            source = self.take(at) or self.take(at.transpose(1, 0, 2))
            made = replace(made, inputs=source or self.taken(at))
            lies = self.take(at) is None  # rows are columns there
        if lies and made.window is not None:
            made = replace(made, window=made.window.turned())
        out = self.table.add(made)
        out = np.moveaxis(out.transpose(1, 0, 2) if lies else out, -1, 0)
        return places.tensor(out if number.ndim == 3 else out[:, :, 0])

    def vectors(self, x, layer, layout):
        """What a layer over vectors, of no window, makes of a tensor whose vectors lie as in `layout`."""
        number = places.read(x)
        order = layout(number.shape)
        if order is None or order.shape[2] != layer.chain.inputs:
            raise ValueError(f"it takes vectors of {layer.chain.inputs}, got (N, {', '.join(map(str, number.shape))})")
        order = self.table.gridded(order, number)
        at = number.ravel()[order]
        found = self.table.find(at) if at.shape[:2] == (1, 1) and not layer.adds else None
        if found is not None and found.layered:
            (source,) = found.sources
            layer, name = absorbed(layer, found, self.table.shapes[source].size), self.table.names[source]
        else:
            name = self.taken(at)
        out = self.table.add(replace(layer, name=self.name(), inputs=(name,) * len(layer.inputs)))
        if layout is places.last:
            return places.tensor(out.reshape(*number.shape[:-1], -1))
        return places.tensor(np.moveaxis(out, -1, 0).reshape(-1, *number.shape[1:]))

    def leaf(self, layer, over, x):
        """A butterfly, or a layer of another project, that works along `over`; None: along either."""
        if over is None:
            over = foreign.CHANNELS if x.ndim > 2 else foreign.LAST
        layout, rank = ALONG[over]
        if rank not in (None, x.ndim - 1):
            raise ValueError(f"works along {over}, of {rank + 1} axes, what it takes has {x.ndim}")
        return self.vectors(x, layer, layout)

    def network(self, y):
        """(Network, integers (H, W, C): which numbers of the output its own are, notes) with the output Places y."""
        if not isinstance(y, Places):
            raise TypeError("to_network: the output does not depend on the input")
        number = places.read(y)
        orders = [places.first(number.shape), self.table.own(number), places.flat(number.shape)]
        for order in orders:
            if order is not None and (name := self.take(number.ravel()[order], "output")) is not None:
                break
        else:
            raise ValueError(f"to_network: the output: {UNARRANGED}")
        nodes, notes = fused(self.table.nodes, self._without_ending(name))
        if not nodes:
            raise ValueError("to_network: the module computes nothing")
        return Network(nodes, self.table.shapes[0]), order, [*self.notes, *self.table.notes, *notes]

    def _without_ending(self, name):
        """The node that gives the output once an `Ending` is left out; TypeError for one that stands elsewhere."""
        endings = {node.name: node for node in self.table.nodes if isinstance(node, Ending)}
        if name in endings:
            self.ending = endings[name].function
            self.notes.append(f"{name}: left out at the end, the order of the outputs is the same without")
            name = endings[name].inputs[0]
        for node in self.table.nodes:
            for source in node.inputs:
                if source in endings:
                    raise TypeError(
                        f"to_network: {source!r}, in front of {node.name!r}, is taken at the end of a network alone, "
                        "where it is left out; a sigmoid or a batch norm would be taken here"
                    )
        return name


def _written(func, args, kwargs):
    """Whether a function writes what it gives into its first argument."""
    name = func.__name__
    if name.endswith("_") and not name.startswith("__") or name == "__setitem__":
        return True
    code = getattr(func, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()
    return bool(dict(zip(names, args), **kwargs).get("inplace"))
