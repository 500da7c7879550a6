"""A network's pointwise convolutions and dense layers as butterflies: with new weights, or the nearest ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace as changed
from shutil import get_terminal_size
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from .. import chain as chains
from .. import project as projection
from ..chain import Chain, Factor, support
from ..network import Layer
from ..reading import nearest, owned
from ..structures import side_by_side, way
from ..table import Table
from .butterfly import Butterfly, ButterflyPointwise
from .hooks import copied, is_plain, refresh, unwrapped
from .watch import Samples, inputs_of, samples, taken

Asked = str | chains.Patterns  # a chain: by name, or as patterns
ROWS, ENOUGH = 1024, 4  # vectors of a layer that are fitted, and how many there are for each input at least
READERS = nn.MultiheadAttention, nn.TransformerEncoderLayer  # these take the weights and do not call the layers


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A layer that was replaced, or left, for the reason `why`. dense: its weights before.

    errors: of a projection, relative: of the weights, or of the outputs on the rows fitted and on those held out.
    """

    name: str
    inputs: int
    outputs: int
    dense: int
    patterns: tuple[chains.Pattern, ...] = ()
    errors: tuple[float, ...] = ()
    why: str = ""

    @property
    def weights(self) -> int:
        return sum(p.weights for p in self.patterns)


def replace(
    model: nn.Module, x: Samples | None = None, *, linear: bool = False, leave: str | Iterable[str] = (),
    chain: Asked | dict[str, Asked] | None = None, residual: bool | None = None, project: bool = False, seed: int = 0,
    show: bool = True, **how: Any,
) -> nn.Module:
    """A copy of a model with every 1x1 convolution a butterfly; its attribute `replaced` has a `Replaced` of each.

    linear: nn.Linear too. leave: names of modules that stay, with all that is in them, wherever else they stand.
    chain: None, `structures.way`; a name as `bfthw project --chain` takes, patterns, or {layer: one of these}, the
    others by `structures.way`; of grouped convolutions, each group's. residual: whether layers with as many outputs as
    inputs have one; None: with new weights they do.
    Weights are new ones, as of Butterfly; with project=True those nearest to the layer's, `how` (method, sweeps, ridge)
    as of `bfthw.project.project`. With samples x, a tensor or a tuple of the model's arguments, they are nearest in
    what the layer gives when the model sees these, a fifth of the samples held out by seed.
    Groups, stride, padding with zeros, bias, dtype and device stay. A layer of which no chain is cheaper stays dense.
    show: print the costs before and after, and the errors.
    Raises ValueError, with the name, for a layer that computes something else than its kind does, for an unknown name,
    for a chain that does not fit, and where there is nothing to replace.
    """
    if x is not None and not project:
        raise ValueError("replace: x goes with project=True; new weights need no samples")
    if how and not project:
        raise ValueError(f"replace: {next(iter(how))} goes with project=True")
    model = copied(unwrapped(model))
    rows, layers, shapes = _plan(model, linear, leave, chain)
    how, before = {"seed": seed, **how}, _parameters(model)
    vectors = {} if x is None else _vectors(model, layers, x, seed)
    new, console = {}, Console(width=get_terminal_size((1 << 16, 25)).columns, highlight=False)  # whole lines in a file
    hidden = not (show and console.is_terminal)
    for at, row in track(list(enumerate(rows)), "replacing", console=console, transient=True, disable=hidden):
        if row.why:
            continue
        module, square = layers[row.name], row.inputs == row.outputs
        butterfly = _butterfly(module, row.patterns, square and (not project if residual is None else residual))
        if project:
            given = vectors.get(row.name, (None, ()))
            rows[at] = changed(row, errors=_project(butterfly, _matrices(module), shapes[row.name], given, how))
        new[id(module)] = _placed(module, butterfly)
    model = _with(model, new)
    model.replaced = tuple(rows)
    if show:
        console.print(_table(rows, before, _parameters(model)))
    return model


def _table(rows, *parameters):
    """What was replaced; parameters: of the whole model, before and after."""
    done = [row for row in rows if not row.why]
    pair = any(len(row.errors) == 2 for row in done)
    errors = ([">fitted", ">held out"] if pair else [">error"]) if any(row.errors for row in done) else []
    table = Table(
        "Replaced; a weight is a multiplication a vector, of a pixel for example",
        "layer", ">in", ">out", ">factors", *errors, ">before", ">after", ">of dense",
    )

    def add(name, figures, before, after, total=False):
        table.add_row(name, *figures, str(before), str(after), f"{100 * after / before:.1f} %", total=total)

    for row in done:
        found = [f"{error:.3f}" for error in row.errors] + [""] * (len(errors) - len(row.errors))
        add(row.name, [str(row.inputs), str(row.outputs), str(len(row.patterns)), *found], row.dense, row.weights)
    table.add_section()
    empty = [""] * (3 + len(errors))
    add("all", empty, sum(row.dense for row in done), sum(row.weights for row in done), total=True)
    add("parameters", empty, *parameters, total=True)
    left = ", ".join(f"{row.name} ({row.why})" for row in rows if row.why)
    table.caption = f"left as they are: {left}" if left else ""
    return table


def _plan(model, linear, leave, chain):
    """(Replaced of every layer, {name: module} of those to replace, {name: patterns of each group})."""
    rows, layers, shapes, names = [], {}, {}, _names(model)
    if isinstance(chain, dict):
        chain = {names.get(name, [name])[0]: asked for name, asked in chain.items()}
    for name, module, why in _candidates(model, linear, leave, names):
        row = _row(name, module, why)
        if not why:
            shape, asked = _shape(name, module, chain)
            row = changed(row, patterns=side_by_side(shape, getattr(module, "groups", 1)))
            if asked or row.weights < row.dense:
                layers[name], shapes[name] = module, shape
            else:
                row = changed(row, why="no chain is cheaper", patterns=())
        rows.append(row)
    _check_names("chain", chain if isinstance(chain, dict) else (), layers)
    if not layers:
        why = "no 1x1 convolution" + (" or Linear" if linear else "; linear=True takes Linear too")
        if rows:
            why = f"all {len(rows)} layers stay" + "".join(f"; {row.name or '0'!r}: {row.why}" for row in rows[:3])
        raise ValueError(f"replace: there is nothing to replace: {why}")
    return rows, layers, shapes


def _parameters(model):
    return sum(p.numel() for p in model.parameters())


def _check_names(what, given, known):
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"replace: {what}: there is no {unknown[0]!r}{nearest(unknown[0], known)}")


def _names(model):
    """{name: all names, in the model's order, of the module that has it}."""
    names, found = {}, dict(model.named_modules(remove_duplicate=False))
    for name, module in found.items():
        names.setdefault(id(module), []).append(name)
    return {name: names[id(module)] for name, module in found.items()}


def _candidates(model, linear, leave, names):
    """(name, module, why it stays, or nothing) of every layer that might be replaced; names: as of `_names`."""
    modules, leave = dict(model.named_modules()), [leave] if isinstance(leave, str) else leave
    _check_names("leave", leave, names)
    left = tuple(f"{name}." for name in leave)
    readers = {id(child) for module in modules.values() if isinstance(module, READERS) for child in module.children()}
    for name, module in modules.items():
        pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
        of_sequences = isinstance(module, nn.Conv1d) and module.kernel_size == (1,)
        if not pointwise and not of_sequences and not (linear and isinstance(module, nn.Linear)):
            continue
        if any(f"{one}.".startswith(left) for one in names[name]):
            yield name, module, "asked"
        elif id(module) in readers:
            yield name, module, "attention takes its weights"
        elif of_sequences:
            yield name, module, "an nn.Conv1d"
        else:
            _check(name, module)
            yield name, module, ""


def _check(name, module):
    """ValueError for a layer that is not as its kind is, and refreshes weights that hooks make."""
    try:
        refresh(module)
        if not is_plain(module, nn.Conv2d, nn.Linear):
            raise ValueError(f"a {type(module).__name__} has a forward of its own")
        if isinstance(module, nn.Conv2d) and any(_padding(module)) and module.padding_mode != "zeros":
            raise ValueError(f"it pads with padding_mode={module.padding_mode!r}, only zeros can be kept")
    except ValueError as error:
        hint = f"; leave=[{name!r}] leaves it as it is" if name else ""
        raise ValueError(f"replace: layer {name or '0'!r}: {error}{hint}") from None


def _padding(module):
    """(left, right, top, bottom) of a convolution of kernel 1."""
    top, left = (0, 0) if isinstance(module.padding, str) else module.padding
    return left, left, top, top


def _matrices(module):
    """The weights of each group, numpy float64 (groups, outputs, inputs)."""
    weight = module.weight.detach().cpu().double().numpy()
    groups = getattr(module, "groups", 1)
    return weight.reshape(groups, len(weight) // groups, -1)


def _row(name, module, why):
    groups, m, n = _matrices(module).shape
    return Replaced(name=name, inputs=groups * n, outputs=groups * m, dense=groups * m * n, why=why)


def _shape(name, module, chain):
    """(patterns of each group, whether they were asked for)."""
    _, m, n = _matrices(module).shape
    chosen = chain.get(name) if isinstance(chain, dict) else chain
    with owned(f"replace: layer {name or '0'!r}", error=ValueError):
        if chosen is None:
            shape = way(n, m).patterns
        else:
            shape = projection.named(chosen, m, n) if isinstance(chosen, str) else chains.patterns(chosen)
        if (shape[0].inputs, shape[-1].outputs) != (n, m):
            raise ValueError(f"the patterns map {shape[0].inputs} -> {shape[-1].outputs}, the layer {n} -> {m}")
    return shape, chosen is not None


def _butterfly(module, shape, residual):
    """A new layer in the place of another, with its bias, dtype, device and mode."""
    how = {"residual": residual, "bias": module.bias is not None}
    if isinstance(module, nn.Linear):
        made = Butterfly(shape, **how)
    else:
        made = ButterflyPointwise(shape[0].inputs, shape[-1].outputs, patterns=shape, **how)
    made.to(module.weight).train(module.training)
    if module.bias is not None:
        with torch.no_grad():
            made.bias.copy_(module.bias)
    return made


def _placed(module, butterfly):
    """The butterfly with the padding and stride of the convolution, done before it."""
    if isinstance(module, nn.Linear):
        return butterfly
    before = [nn.ZeroPad2d(_padding(module))] if any(_padding(module)) else []
    if module.stride != (1, 1):
        before.append(nn.AvgPool2d(1, module.stride))  # of one value each
    return nn.Sequential(*before, butterfly).train(module.training) if before else butterfly


def _vectors(model, layers, x, seed):
    """{name: (vectors to fit to, vectors held out)} of what the layers get for samples x."""
    rows = {name: max(ROWS, ENOUGH * module.weight.shape[1]) for name, module in layers.items()}
    fitted, held = (torch.from_numpy(part) for part in projection.split(np.arange(samples(x)), seed))
    found = inputs_of(model, layers, taken(x, fitted), rows, seed)
    others = inputs_of(model, layers, taken(x, held), rows, seed) if len(held) else {}
    if missing := [name for name in layers if name not in found]:
        raise ValueError(f"replace: layer {missing[0]!r} sees nothing of x; leave=[{missing[0]!r}] leaves it as it is")
    return {name: (found[name], others.get(name, ())) for name in layers}


def _project(butterfly, matrices, shape, vectors, how):
    """Puts the weights nearest to each group's matrix into a butterfly; the relative errors, as of `Replaced`."""
    (fitted, held), parts = vectors, []
    _, m, n = matrices.shape
    for g, matrix in enumerate(matrices):
        inputs = None if fitted is None else fitted[:, g * n : (g + 1) * n]
        wanted = matrix - np.eye(m, n) * butterfly.residual
        parts.append(projection.project(wanted, shape, inputs=inputs, **how)[0])
    values = [np.concatenate([part.factors[f].values for part in parts]) for f in range(len(shape))]
    with torch.no_grad():
        for own, found in zip(butterfly.factors, values):
            own.copy_(torch.from_numpy(found))
    whole = Layer(chain=Chain([Factor(matrices[..., None])]))
    found = Layer(chain=Chain(map(Factor, values, map(support, butterfly.patterns))), residual=butterfly.residual)
    given = [None] if fitted is None else [part for part in (fitted, held) if len(part)]
    return tuple(projection.layer_error(whole, found, part) for part in given)


def _with(model, new):
    """The model with new modules in the place of those with these ids, wherever they stand."""
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if id(child) in new:
                setattr(module, name, new[id(child)])
    return new.get(id(model), model)
