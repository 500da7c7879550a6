"""The command that replaces dense layers by chains."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ... import save
from ...calibrate import check_vectors, unusual
from ...files import check_place
from ...network import Layer, Network
from ...project import (
    FEW,
    HELD,
    LOSSY,
    is_dense,
    layer_error,
    may_have_residual,
    named,
    project_layer,
    split,
    suggestions,
)
from ...reading import owned
from ...storage import FLOAT, check_suffix, read_vectors
from .. import options as given
from .. import tables
from ..console import console, progress, say
from ..networks import read

MOST = 1 << 16  # vectors of a layer that are kept of calibration maps


@given.takes(file=given.FOREIGN)
def project(
    ckpt: given.Checkpoint,
    chain: Annotated[
        list[str],
        typer.Option(
            metavar="[LAYER=]CHAIN",
            help="bft4, bft2, monarch:BLOCKS, debut, lowrank:RANK or patterns 'a,b,c,d a,b,c,d ...', first applied "
            "first; for all dense layers or for one; may be repeated. Without it: a table to choose from",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT.safetensors", help="Checkpoint to write, with --chain")
    ] = None,
    residual: Annotated[
        bool, typer.Option("--residual", help="Square layers get a first-to-last residual: the chain is near W - I")
    ] = False,
    calibration: Annotated[
        Path,
        typer.Option(
            metavar="X.npy",
            help="Inputs (N, n) of the network: keep the outputs on them, not the weights; a fifth is held out",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="svd (hierarchical), als (least squares), or auto: svd where there is one")
    ] = "auto",
    sweeps: Annotated[
        int,
        typer.Option(min=0, help="Of least squares, at most", show_default="100; 0 where svd is optimal or n >= 256"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the rows held out, and of the start where there is no svd")] = 0,
    *,
    file,
):
    """Replace dense layers by the nearest butterflies, or show how near the chains would come."""
    wanted = _wanted(chain)
    if bool(wanted) != (output is not None):
        raise ValueError(
            "--chain and -o OUT.safetensors belong together; without both, a table shows how near the chains come"
        )
    if output is not None:  # before minutes are spent
        check_suffix(output, FLOAT)
        check_place(output)
    network, integers = read(ckpt, **file)
    if integers is not None:
        raise ValueError(f"{ckpt}: holds integers; projection takes the float network they were made of")
    dense = _dense(ckpt, network, wanted)
    vectors = {} if calibration is None else _vectors(network, calibration, seed)
    how = {"residual": residual, "method": method, "sweeps": sweeps, "seed": seed}
    if wanted:
        save(_projected(network, dense, wanted, vectors, how), output)
        console.print(f"wrote {output}; next: bfthw report {output} --calibration X.npy", markup=False, soft_wrap=True)
    else:
        _compare(ckpt, dense, vectors, how)


def _wanted(chains):
    """{layer, or None for all: chain} of the option's values."""
    wanted = {}
    for text in chains or ():
        layer, _, name = text.rpartition("=")
        if (layer or None) in wanted:
            raise ValueError(f"--chain {text}: {f'layer {layer!r}' if layer else 'all layers'} got a chain already")
        wanted[layer or None] = name
    return wanted


def _dense(ckpt, network, wanted):
    """{name: Layer} of the dense layers; ValueError where there is none, or one that is wanted is not among them."""
    dense = {layer.name: layer for layer in network.layers if is_dense(layer)}
    if not dense:
        raise ValueError(
            f"{ckpt}: nothing to project: no layer is one dense matrix (a factor of pattern (1, m, n, 1)); "
            "`bfthw inspect` shows what they are"
        )
    if unknown := [name for name in wanted if name not in (None, *dense)]:
        raise ValueError(f"{ckpt}: no dense layer {unknown[0]!r}; there are {', '.join(dense)}")
    return dense


def _vectors(network, path, seed):
    """{layer: (its inputs to fit to, those held out)} for the network's inputs in a file."""
    x = check_vectors(read_vectors(path), network.shape.dims, f"{path}: inputs")
    warnings, notes = unusual(x.reshape(len(x), -1))
    say(notes, warnings)
    fitted, held = (_seen(network, part, seed) for part in split(x, seed))
    return {name: (vectors, held.get(name, ())) for name, vectors in fitted.items()}


def _seen(network, x, seed):
    """{layer: the vectors that its chain sees of inputs x}, in slices: of maps, each position's, MOST or so at most."""
    found, rng, most = {}, np.random.default_rng(seed), max(MOST, len(x))

    def step(node, *xs):
        if isinstance(node, Layer):
            vectors = node.vectors(xs[0])
            vectors, count = vectors.reshape(-1, vectors.shape[-1]), max(1, most * len(xs[0]) // len(x))
            if len(vectors) > count:
                vectors = vectors[np.sort(rng.choice(len(vectors), count, replace=False))]
            found.setdefault(node.name, []).append(vectors)
        return node(*xs)

    for start in range(0, len(x), network.batch):
        for _ in network.walk(x[start : start + network.batch], step):
            pass
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _run(tasks, vectors, how):
    """[((layer, chain's name, patterns), Layer, errors)] of such tasks, with a progress bar.

    errors: (of the weights,), or of the outputs: (on the rows that were fitted, on those held out).
    """
    done = []
    with progress("projecting") as bar:
        for n, (layer, name, shape) in enumerate(tasks):
            fitted, held = vectors.get(layer.name, (None, ()))
            settings = how | {"residual": how["residual"] and may_have_residual(layer)}
            settings |= {"inputs": fitted, "progress": lambda f, n=n: bar((n + f) / len(tasks))}
            with owned(f"layer {layer.name!r}, {name}", error=ValueError):
                found, error = project_layer(layer, shape, **settings)
            errors = (error, layer_error(layer, found, held)) if len(held) else (error,)
            done.append(((layer, name, shape), found, errors))
    return done


def _show(title, done, vectors):
    """The table, and a warning where there are few rows."""
    title += "; error: " + ("of the outputs on the calibration data" if vectors else "of the weights")
    console.print(tables.projections(title, [(layer, *task, errors) for (layer, *task), _, errors in done]))
    if not vectors:
        return
    rows, size = len(vectors[done[0][0][0].name][0]), max(layer.chain.inputs for (layer, *_), *_ in done)
    if rows < FEW * size:
        few = (
            f"{rows} row{'s are' if rows > 1 else ' is'} fitted, few for {size} inputs: the error on other data may be "
            f"far above; {FEW} for each input and a fifth to hold out are {FEW * size * HELD // (HELD - 1)} rows"
        )
        say([], [few])


def _shape(layer, name):
    try:
        return named(name, layer.chain.outputs, layer.chain.inputs)
    except ValueError as error:
        raise ValueError(
            f"layer {layer.name!r}: {error}; --chain LAYER=CHAIN projects one layer and leaves the others dense"
        ) from None


def _projected(network, dense, wanted, vectors, how):
    """The network with the chains that are wanted, what they cost printed."""
    chosen = {name: wanted.get(name, wanted.get(None)) for name in dense}
    tasks = [(dense[name], chain, _shape(dense[name], chain)) for name, chain in chosen.items() if chain is not None]
    done = _run(tasks, vectors, how)
    new = {layer.name: found for (layer, *_), found, _ in done}
    _show("Projected", done, vectors)
    notes = []
    if network.formats is not None:
        notes.append("the formats the network was trained for are left out: they belong to the dense layers")
    if left := [name for name in dense if name not in new]:
        notes.append(f"still dense: {', '.join(left)}")
    lossy = [
        f"layer {layer.name!r}: the chain holds {100 * max(0, 1 - error**2):.0f} % of the energy, "
        f"{min(100, 100 * error**2):.0f} % are lost"
        for (layer, *_), _, (*_, error) in done
        if error > LOSSY
    ]
    say(notes, lossy)
    if lossy:
        instead = "" if vectors else "keep its outputs instead (--calibration), "
        console.print(
            f"a matrix without structure loses most of its energy on any chain this small: {instead}take more weights, "
            "and train the result before it is generated, on the answers of the dense network (docs/projection.md, "
            "examples/digits/distill.py)",
            soft_wrap=True,
        )
    return Network((new.get(node.name, node) for node in network.nodes), network.shape)


def _compare(ckpt, dense, vectors, how):
    names = [(layer, name) for layer in dense.values() for name in suggestions(layer.chain.outputs, layer.chain.inputs)]
    if not names:
        raise ValueError(f"{ckpt}: no layer is large enough for a chain with fewer weights than it has")
    done = _run([(layer, name, _shape(layer, name)) for layer, name in names], vectors, how)
    _show(ckpt.name, done, vectors)
    console.print(
        "nothing is written; --chain CHAIN -o OUT.safetensors does it, --chain LAYER=CHAIN for a layer of its own",
        soft_wrap=True,
    )
