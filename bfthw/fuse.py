"""Nodes as a reader makes them, one for every operation, to the fewest that compute the same.

A reader says norms, activations, constants and additions as layers of their own whose chain multiplies by one. Those
go into their neighbours where that is exact; what is left, and why, is noted.
"""

from dataclasses import replace

import numpy as np

from .act import KNOWN, Act
from .chain import Chain, Factor
from .line import before
from .network import Layer
from .nodes import Sum


def alone(name, inputs, channels, **rest):
    """A Layer y = act(scale * x + add_scale * add + bias), the chain of which multiplies by one."""
    return Layer(name=name, inputs=inputs, chain=Chain([Factor(np.ones((1, 1, 1, channels)))]), **rest)


def is_alone(node):
    """Whether it is as `alone` makes them."""
    if not isinstance(node, Layer) or node.window is not None or len(node.chain.factors) > 1:
        return False
    values = node.chain.factors[0].values
    return node.chain.factors[0].support is None and values.shape[:3] == (1, 1, 1) and bool((values == 1).all())


def of_numbers(node):
    """The function of a number that an `alone` layer is for every channel; None where it is no such."""
    if not is_alone(node) or node.adds:
        return None
    gain, shift = (k if v is None else v for v, k in ((node.scale, np.ones(1)), (node.bias, np.zeros(1))))
    if np.ptp(gain) or np.ptp(shift):
        return None
    return lambda x: (node.act or np.asarray)(x * gain[0] + shift[0])


def back(nodes, name):
    """Along layers that do the same to every number, (name of a node, what the given node is of it as a function, the
    activations between, the last one first); nodes: by name.
    """
    function, acts = (lambda x: x), []
    while True:
        yield name, function, acts
        node = nodes.get(name)
        own = node and of_numbers(node)
        if own is None:
            return
        acts = acts + [node.act] * (node.act is not None)
        name, function = node.inputs[0], lambda x, own=own, function=function: function(own(x))


def known(function, name):
    """The Act of a function of float64 arrays; one of `act.KNOWN` where it is that."""
    x = np.concatenate([np.linspace(-12, 12, 769), [-1e6, -1e3, 1e3, 1e6]])
    with np.errstate(all="ignore"):
        y = function(x)
        for key, (other, _) in KNOWN.items():
            if np.allclose(y, other(x), rtol=1e-12, atol=1e-12):
                return Act(key)
    return Act(name, function)


def fused(nodes, output):
    """(nodes, notes): those that the node named `output`, the last one of the result, needs; see the module."""
    made = _Fused(nodes, output)
    made.leave_out()
    for node in nodes:
        made.into_the_one_before(node.name)
    for node in nodes:
        made.into_the_one_behind(node.name)
    for node in nodes:
        made.into_a_sum(node.name)
        made.into_an_activation(node.name)
    made.explain()
    return list(made.nodes.values()), made.notes


class _Fused:
    """nodes: {name: node}, in order. notes: lines. why: {name: why a layer is one of its own}."""

    def __init__(self, nodes, output):
        self.nodes, self.output, self.notes, self.why = {node.name: node for node in nodes}, output, [], {}

    def leave_out(self):
        needed = {self.output}
        for name, node in reversed(self.nodes.items()):
            needed |= {*node.inputs} if name in needed else set()
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}

    def uses(self, name):
        """The nodes that take what a node gives, one that takes it twice counts twice."""
        return [node for node in self.nodes.values() for source in node.inputs if source == name]

    def _put(self, old, new, dropped):
        """A node in the place of `old`, which the consumers of `dropped` take as well."""
        table = {old: new.name, dropped: new.name}
        self.output = table.get(self.output, self.output)
        made = {}
        for name, node in self.nodes.items():
            if name == old:
                made[new.name] = new
            elif name != dropped:
                inputs = tuple(table.get(source, source) for source in node.inputs)
                made[name] = node if inputs == node.inputs else replace(node, inputs=inputs)
        self.nodes = made

    def into_the_one_before(self, name):
        """y = act(scale * x + add + bias) of the x, or the add, that a layer without activation gives it alone."""
        node = self.nodes.get(name)
        if node is None or not is_alone(node):
            return
        reasons = []
        for own in (node, _turned(node))[: len(node.inputs)]:
            first = self.nodes.get(own.inputs[0])
            if not isinstance(first, Layer):
                reasons.append(f"behind {own.inputs[0]!r}, which has no weights")
            elif len(self.uses(first.name)) > 1 or first.name == self.output:
                reasons.append(f"others take what {first.name!r} gives, too")
            elif first.act is not None:
                reasons.append(f"behind the activation {first.act.name} of {first.name!r}")
            elif first.adds and own.adds:
                reasons.append(f"{first.name!r} adds something already")
            else:
                self._put(name, _joined(first, own), first.name)
                self.notes.append(f"{name}: in {first.name!r}")
                return
        self.why[name] = "; ".join(reasons)

    def into_the_one_behind(self, name):
        """A norm, or a constant, goes into the columns of the only layer that takes it, or into what that adds."""
        node = self.nodes.get(name)
        if node is None or not is_alone(node) or node.act is not None or node.adds or name == self.output:
            return
        users = self.uses(name)
        if len(users) > 1:
            self.why[name] = "in front of more than one, or of a residual"
        elif not isinstance(users[0], Layer):
            self.why[name] = f"in front of {users[0].name!r}, which has no weights"
        else:
            try:
                layer = _before(users[0], name, node)
            except ValueError as error:
                self.why[name] = f"it {error}"
                return
            self._put(users[0].name, replace(layer, name=users[0].name), name)
            self.notes.append(f"{name}: in {users[0].name!r} behind it")

    def into_a_sum(self, name):
        """A sum and what is left behind it are a layer of ones with a window."""
        node = self.nodes.get(name)
        first = self.nodes.get(node.inputs[0]) if node is not None and is_alone(node) else None
        if not isinstance(first, Sum) or len(self.uses(first.name)) > 1 or first.name == self.output:
            return
        taps, channels = first.window.taps, node.chain.inputs
        inputs = (first.inputs[0], *node.inputs[1:])
        chain = Chain([Factor(np.ones((1, 1, taps, channels)))])
        self._put(name, replace(node, name=first.name, chain=chain, window=first.window, inputs=inputs), first.name)
        self.notes.append(f"{name}: with {first.name!r} a layer of {taps} weights a channel")

    def into_an_activation(self, name):
        """A function of a number behind an activation is another activation."""
        node = self.nodes.get(name)
        first = self.nodes.get(node.inputs[0]) if node is not None else None
        own = of_numbers(node) if node is not None else None
        if own is None or not isinstance(first, Layer) or first.act is None or len(self.uses(first.name)) > 1:
            return
        if first.name != self.output:
            act = first.act
            what = f"{act.name}_{node.act.name if node.act else 'scaled'}"
            self._put(name, replace(first, act=known(lambda x: own(act(x)), what)), first.name)
            self.notes.append(f"{name}: with {act.name} a table, in {first.name!r}")

    def explain(self):
        for node in self.nodes.values():
            if is_alone(node):
                self.notes.append(f"{node.name}: a layer of its own, {self.why[node.name]}")


def _turned(node):
    """The layer with x and add, if it adds, in each other's places."""
    if not node.adds:
        return node
    scale = np.ones(node.chain.outputs)
    x, add = (scale if own is None else own for own in (node.scale, node.add_scale))
    plain = node.scale is None and node.add_scale is None
    scales = {"scale": None, "add_scale": None} if plain else {"scale": add, "add_scale": x}
    return replace(node, inputs=node.inputs[::-1], **scales)


def _joined(first, node):
    """The layer `first` with all that the `alone` layer behind it does."""

    def scaled(value, none=None):
        return none if value is None else value if node.scale is None else value * node.scale

    bias = scaled(first.bias)
    if node.bias is not None:
        bias = node.bias if bias is None else bias + node.bias
    first = replace(
        first, scale=scaled(first.scale, node.scale), bias=bias, act=node.act,
        add_scale=scaled(first.add_scale, node.scale) if first.adds else None,
    )
    return replace(first, inputs=(first.inputs[0], node.inputs[1]), add_scale=node.add_scale) if node.adds else first


def _before(layer, name, norm):
    """The layer behind a norm with it inside; ValueError, "cannot be ...", where that is not exact."""
    channels = norm.chain.outputs
    gain, shift = (np.full(channels, k) if v is None else v for v, k in ((norm.scale, 1.0), (norm.bias, 0.0)))
    if layer.inputs[0] == name:
        own = before(replace(layer, inputs=layer.inputs[:1], add_scale=None), gain, shift)
        bias = own.bias if shift.any() else layer.bias
        return replace(own, inputs=(norm.inputs[0], *layer.inputs[1:]), add_scale=layer.add_scale, bias=bias)
    scale = np.ones(channels) if layer.add_scale is None else layer.add_scale
    bias = scale * shift if layer.bias is None else layer.bias + scale * shift
    return replace(layer, inputs=(layer.inputs[0], *norm.inputs), add_scale=scale * gain, bias=bias)
