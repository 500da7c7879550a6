"""Version 2 of a description in a file: any graph, float or integer, node by node as `bfthw.fields` takes them apart.

{"version": 2, "shape": [height, width, channels], "nodes": [...]}, of floats with "formats" where they were trained for
some, of integers with "kind": "integers" and "input", a format. Rows of layers over vectors with no activation
but ReLU are of version 1 still.
"""

from typing import Annotated, Literal

from pydantic import Field

from . import storage
from .archive import ARRAYS
from .fields import Assembly, taken_apart
from .golden import IntLayer, IntNetwork, IntNode
from .graph import Node
from .network import Network
from .qformat import QFormat
from .reading import CheckpointError, StrPath, short
from .window import Shape

VERSION = 2
MAP, WINDOWS = 1 << 24, 1 << 27  # numbers of a map, and of all its windows, at most


class _Description(storage.Strict):
    version: Literal[2]
    kind: Literal["integers"] | None = None
    shape: list[int]
    input: list | None = None
    nodes: Annotated[list[dict], Field(max_length=ARRAYS)]
    formats: dict | None = None


def described(path: StrPath, network: Network | IntNetwork) -> tuple[dict, dict]:
    """(arrays, description) of a float or integer network; ValueError where no file, that of the path, can hold it."""
    arrays, integers = {}, isinstance(network, IntNetwork)
    try:
        check_sizes(network)
        nodes = [taken_apart(node, arrays, node.name) for node in network.nodes]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    table = {"version": VERSION, "shape": list(network.shape)}
    if integers:
        table |= {"kind": "integers", "input": network.input.to_list()}
    elif network.formats is not None:
        table["formats"] = network.formats.to_dict()
    return arrays, table | {"nodes": nodes}


def read(path, contents):
    """(nodes, Shape, description) of a file's contents; CheckpointError for what is none.

    Integer files have nodes of integers alone, all others none of them.
    """
    description = storage.parse(path, _Description, contents.description)
    assembly = Assembly(path, contents.arrays)
    integers, nodes = description.kind == "integers", []
    for number, data in enumerate(description.nodes):
        inner = data.get("node")
        owner = data.get("name", inner.get("name") if isinstance(inner, dict) else None)
        owner = owner if isinstance(owner, str) else str(number)
        node = assembly.value(Node, data, owner)
        if isinstance(node, IntLayer | IntNode) != integers:
            what = "a file of integers has kinds" if integers else "a file of floats has no kinds"
            raise assembly.fault(f"{what} {IntLayer.kind!r} and {IntNode.kind!r}, got {node.kind!r}", owner, ("kind",))
        nodes.append(node)
    assembly.end()
    for key, belongs in (("input", integers), ("formats", not integers and description.formats is not None)):
        if (getattr(description, key) is not None) != belongs:
            raise CheckpointError(f"{path}: bfthw.{key}: {'is missing' if belongs else 'is not of this kind of file'}")
    try:
        return nodes, Shape.of(description.shape), description
    except ValueError as error:
        raise CheckpointError(f"{path}: bfthw.shape: {error}") from None


def read_integers(path, contents):
    """The IntNetwork of a file's contents."""
    nodes, shape, description = read(path, contents)
    try:
        network = IntNetwork(nodes, shape, input=QFormat.of(description.input))
        check_sizes(network)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return network


def check_sizes(network):
    """ValueError where a map or its windows are larger than any that files have."""
    shapes = network.shape, *network.shapes
    for name, shape in zip(("input", *(node.name for node in network.nodes)), shapes):
        if shape.size > MAP:
            raise ValueError(f"{name!r} gives more than {MAP} numbers, the limit of files: {short(tuple(shape))}")
    for node, own in zip(network.nodes, network.sources):
        if node.room(*(shapes[k] for k in own)) > WINDOWS:
            raise ValueError(f"{node.name!r} works on more than {WINDOWS} numbers at once, the limit of files")
