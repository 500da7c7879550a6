"""A model seen at work: the vectors that go into chosen layers, and what is done with those that come out."""

from contextlib import ExitStack

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..line import affine
from .butterfly import Butterfly, ButterflyPointwise
from .convert import numbers
from .hooks import evaluated

Samples = torch.Tensor | tuple[torch.Tensor, ...]  # of a model's arguments
BATCH = 64  # samples at once
RELUS = {F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
PASSED = {F.dropout, F.dropout1d, F.dropout2d, torch.Tensor.contiguous}  # without training=True these change nothing
FACTS = int, str, torch.Size, torch.dtype, torch.device, torch.layout  # about a tensor, not of what is in it


def samples(x: Samples) -> int:
    """Samples of a model's arguments, a tensor or a tuple of them; ValueError where they have none, or not as many."""
    parts = x if isinstance(x, tuple) else (x,)
    if wrong := [part for part in parts if not isinstance(part, torch.Tensor) or not part.ndim]:
        raise TypeError(f"x must be a tensor of samples, or a tuple of them, got {type(wrong[0]).__name__}")
    sizes = {len(part) for part in parts}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"x must have as many samples in each tensor, and one at least, got {sorted(sizes)}")
    return sizes.pop()


def taken(x: Samples, which: slice | torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Those samples of x, a tuple of tensors."""
    return tuple(part[which] for part in (x if isinstance(x, tuple) else (x,)))


def run(model, x):
    """A forward of all samples, in eval mode and without gradients; the model is as before afterwards."""
    count = samples(x)
    with evaluated(model), torch.no_grad():
        for start in range(0, count, BATCH):
            model(*taken(x, slice(start, start + BATCH)))


def axis(module, x):
    """Along which axis of its input or output the vectors of a Butterfly, Structured, Linear or Conv2d lie."""
    over = {nn.Linear: Butterfly.over, nn.Conv2d: ButterflyPointwise.over}
    own = next((over[kind] for kind in over if isinstance(module, kind)), getattr(module, "over", None))
    channels = own == ButterflyPointwise.over or own is None and x.ndim > 2
    return x.ndim - (3 if channels else 1)


class _Rows:
    """At most `most` of the vectors that were seen, (N, n) float64, all with the same chance, in the order of sight."""

    def __init__(self, most, seed):
        self.most, self.chance = most, torch.Generator().manual_seed(seed)
        self.vectors, self.keys = None, None

    def see(self, module, x):
        if isinstance(module, nn.Conv2d):
            x = x[..., :: module.stride[0], :: module.stride[1]]
        x = x.movedim(axis(module, x), -1)
        new, keys = x.reshape(-1, x.shape[-1]).cpu(), torch.rand(x.numel() // x.shape[-1], generator=self.chance)
        if self.vectors is not None:
            new, keys = torch.cat([self.vectors, new]), torch.cat([self.keys, keys])
        kept = keys.argsort()[: self.most].sort().values
        self.vectors, self.keys = new[kept], keys[kept]


def inputs_of(model, modules, x, rows, seed=0):
    """{name: vectors (N, n), numpy float64} that go into modules {name: module} for samples x; drawn by seed.

    rows: {name: at most so many}. A module that sees nothing is left out.
    """
    seen = {name: _Rows(rows[name], seed) for name in modules}
    with ExitStack() as stack:
        for name, module in modules.items():

            def see(module, args, kwargs, name=name):
                seen[name].see(module, args[0] if args else next(iter(kwargs.values())))

            stack.callback(module.register_forward_pre_hook(see, with_kwargs=True).remove)
        run(model, x)
    return {name: one.vectors.double().numpy() for name, one in seen.items() if one.vectors is not None}


class _Value:
    """A tensor that a layer gave, or what was made of it. uses: (what it is, (gain, shift) or None, the next value)."""

    def __init__(self):
        self.uses = []

    def steps(self):
        """What alone is done with it: batch norms, then perhaps a ReLU; as far as one follows the other."""
        if len(self.uses) != 1 or self.uses[0][0] is None:
            return []
        kind, numbers, after = self.uses[0]
        return [(kind, numbers), *(after.steps() if kind == "norm" else [])]


class _Watch(TorchFunctionMode):
    """Follows the values given by layers through every call of a torch function."""

    def __init__(self):
        super().__init__()
        self.values, self.kept = {}, []

    def add(self, tensor, value=None):
        self.kept.append(tensor)  # so that no other one gets its id
        self.values[id(tensor)] = value = value or _Value()
        return value

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [self.values[id(t)] for t in tree_leaves((args, kwargs)) if id(t) in self.values]
        y = func(*args, **kwargs)
        if not given or all(isinstance(t, FACTS) for t in tree_leaves(y)):
            return y
        if func in PASSED and not kwargs.get("training"):
            self.add(y, given[0])
            return y
        kind, numbers = "relu" if func in RELUS else None, None
        if func is F.batch_norm and not kwargs.get("training"):
            kind, numbers = "norm", _normed(*args, **kwargs)
        after = self.add(y) if kind else None
        for value in given:
            value.uses.append((kind, numbers, after))
        return y

    def leave(self, y):
        """What a model gives is used by whoever called it."""
        for t in tree_leaves(y):
            if id(t) in self.values:
                self.values[id(t)].uses.append((None, None, None))


def _normed(_input, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """(gain, shift) of a call of F.batch_norm."""
    return affine(*map(numbers, (mean, var, weight, bias)), eps)


def followers(model, modules, x):
    """{name: [("norm", (gain, shift)) ..., ("relu", None)]} behind modules {name: module}: what alone happens

    to their outputs when the model sees the first two samples of x. None where it differs from call to call; a module
    that sees nothing is left out. A norm of another axis than the vectors' ends the steps.
    """
    watch, found = _Watch(), {}
    with ExitStack() as stack:
        for name, module in modules.items():

            def see(module, _args, y, name=name):
                found.setdefault(name, []).append((watch.add(y), axis(module, y)))

            stack.callback(module.register_forward_hook(see).remove)
        stack.callback(model.register_forward_hook(lambda _module, _args, y: watch.leave(y)).remove)
        stack.enter_context(watch)
        run(model, taken(x, slice(0, 2)))
    return {name: _common([_along(value.steps(), at) for value, at in calls]) for name, calls in found.items()}


def _along(steps, axis):
    """The steps as far as they work along the axis; batch norms do along the second."""
    return steps if axis == 1 or steps[:1] == [("relu", None)] else []


def _common(steps):
    """The steps of all calls where they are the same, with the same numbers, else None."""
    told = [[(kind, numbers and [v.tolist() for v in numbers]) for kind, numbers in one] for one in steps]
    return steps[0] if all(one == told[0] for one in told) else None
