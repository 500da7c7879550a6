"""Graphs in files: exact round trips of every node, the format itself by hand, and everything else refused by name."""

import json

import numpy as np
import pytest
from checkpoint_files import npz, refused, safetensors
from graphs import WILD, Made, dense, made_integers

import bfthw
from bfthw import Act, Chain, Factor, Layer, Network, Pick, Window, each, load, load_integers, save, save_integers
from bfthw.chain import Indexed
from bfthw.formats import formats_of
from bfthw.graph import Node
from bfthw.reading import CheckpointError
from bfthw.storage import read


def description(path):
    return json.loads(read(path).description)


def fields(node):
    """All that a node is made of, as nested plain data."""
    if isinstance(node, np.ndarray):
        return node.dtype.kind, node.tolist()
    if isinstance(node, tuple) and not hasattr(node, "_fields"):
        return [fields(one) for one in node]
    if isinstance(node, Indexed):
        return node.index.tolist(), node.inputs
    own = getattr(node, "__dataclass_fields__", None)
    return node if own is None else [type(node).__name__, *((name, fields(getattr(node, name))) for name in own)]


@pytest.mark.parametrize("seed", [*range(4), *range(WILD, WILD + 4)], ids="seed-{}".format)
def test_random_graphs_come_back_from_files(tmp_path, seed):
    made, x, integers = made_integers(seed)
    trained = Network(made.nodes, made.shape, formats=formats_of(integers))
    assert {type(node).__name__ for node in trained.nodes} >= {"Layer", "Max", "Pick"} or seed >= WILD
    for name in ("net.safetensors", "net.npz"):
        save(trained, tmp_path / name)
        again = load(tmp_path / name)
        assert fields(again.network.nodes) == fields(trained.nodes) and again.network.formats == trained.formats
        assert np.array_equal(again.network(x), trained(x)) and not again.notes
        save(again.network, tmp_path / f"again-{name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()
    save_integers(integers, tmp_path / "q.npz")
    again = load_integers(tmp_path / "q.npz")
    assert fields(again.nodes) == fields(integers.nodes) and (again.input, again.shape) == (integers.input, made.shape)
    q = integers.input.quantise(x)
    assert all(np.array_equal(*pair) for pair in zip(again.taps(q), integers.taps(q), strict=True))
    refused(tmp_path / "q.npz", "holds an integer network")


def test_tame_graphs_have_every_kind_of_node():
    kinds = {node.kind for node in Made(0).nodes}
    assert kinds == {kind for kind, cls in Node.KINDS.items() if cls.__module__.startswith("bfthw.")} - {
        "integer layer", "rounded"
    }


def by_hand():
    """(arrays, description) of a float graph, written without the code under test."""
    layer = {"kind": "layer", "name": "conv", "chain": {"factors": [{"values": [1, 1, 4, 1]}]}, "bias": [1]}
    window = {"size": [2, 2], "stride": [1, 1], "padding": [0, 0, 1, 1], "outside": [2.5]}
    index = {"kind": "pick", "name": "twice", "inputs": ["conv", "input"], "index": [3]}
    last = {"kind": "layer", "name": "last", "chain": {"factors": [{"values": [1, 1, 2, 1], "support": {}}]}}
    last["chain"]["factors"][0]["support"] = {"index": [1, 2], "inputs": 3}
    pool = {"kind": "max", "name": "top", "window": {"size": [2, 2]}}
    nodes = [layer | {"window": window, "act": "relu"}, index, pool, last]
    arrays = {
        "conv/chain.factors.0.values": np.array([1.0, 2, 3, 4]).reshape(1, 1, 4, 1),
        "conv/bias": np.array([-30.0]),
        "twice/index": np.array([1, 0, 0]),
        "last/chain.factors.0.values": np.array([1.0, 100]).reshape(1, 1, 2, 1),
        "last/chain.factors.0.support.index": np.array([[0, 2]]),
    }
    return arrays, {"version": 2, "shape": [2, 2, 1], "nodes": nodes}


def test_the_format_by_hand(tmp_path):
    arrays, table = by_hand()
    network = load(safetensors(tmp_path / "x.safetensors", arrays, {"bfthw": json.dumps(table)})).network
    x = np.array([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1)
    # windows of [1 2; 3 4] with 2.5 below and on the right: 30, 2+5+12+10, 3+8+7.5+10, 4+5+7.5+10; less 30: 0, -1 ...
    # the largest of (x, conv, conv) is (4, 0, 0); 4 * 1 + 0 * 100
    assert network(x) == [[4.0]]
    assert network(x + 1) == [[5 + 100 * 10.0]]  # 2+6+12+20 = 40


def integer_file(path, change=lambda arrays, table: None, seed=0):
    return changed(path, change, lambda p: save_integers(made_integers(seed)[2], p))


def float_file(path, change=lambda arrays, table: None, seed=0):
    return changed(path, change, lambda p: save(Made(seed).network, p))


def changed(path, change, write):
    """A file with something of its arrays and its description changed."""
    write(path)
    with np.load(path) as file:
        arrays = dict(file)
    table = json.loads(arrays.pop("bfthw").tobytes())
    change(arrays, table)
    return npz(path, arrays | {"bfthw": np.frombuffer(json.dumps(table).encode(), np.uint8)})


def node(owner, /, **new):
    """A change of one node's data; None takes a key away."""

    def change(arrays, table):
        (own,) = (n for n in table["nodes"] if n.get("name", n.get("node", {}).get("name")) == owner)
        own.update(new)
        for key in [key for key, value in new.items() if value is None]:
            del own[key]

    return change


FLOATS = {
    "kind": (node("pool", kind="maxx"), ["node 'pool'", "no kind of node 'maxx'; did you mean 'max'"]),
    "kind-unsaid": (node("pool", kind=None), ["node 'pool'", "no kind of node None; there are layer, "]),
    "kind-base": (node("pool", kind="Pool"), ["node 'pool'", "no kind of node 'Pool'"]),
    "kind-of-integers": (node("gated", kind="rounded", node={}), ["node 'gated'"]),
    "key": (node("a", windows={}), ["node 'a': 'windows': there is no such key; did you mean 'window'"]),
    "missing": (node("pool", window=None), ["node 'pool': window: is missing"]),
    "act": (node("a", act="rellu"), ["node 'a': act: unknown activation 'rellu'; did you mean 'relu'"]),
    "act-list": (node("a", act=["relu"]), ["node 'a': act: must be a word or null"]),
    "size": (node("pool", window={"size": [3, 0]}), ["node 'pool': window: Window.size must be 2 integers of 1"]),
    "size-deep": (node("pool", window={"size": [[3, 3]]}), ["node 'pool': window.size: must be numbers or words"]),
    "size-huge": (node("pool", window={"size": [1 << 40, 1]}), ["window.size: must be finite, integers below 2.31"]),
    "size-true": (node("pool", window={"size": [True, True]}), ["Window.size must be 2 integers"]),
    "not-finite": (node("b", window={"size": 1, "outside": [float("inf")]}), ["node 'b': window.size: must be a list"]),
    "name": (node("pool", name="po/ol"), ["node 'po/ol'", "a layer's name must be words"]),
    "name-number": (node("pool", name=5), ["node '5': name: must be a word, got 5"]),
    "inputs": (node("gated", inputs=["e"]), [r"node 'gated' \(Gate\) takes 2 inputs, got 1"]),
    "unknown-input": (node("gated", inputs=["e", "squeezed"]), ["there is no node 'squeezed'; did you mean 'squeeze'"]),
    "circle": (node("gated", inputs=["gated", "squeeze"]), ["node 'gated' takes itself: a circle"]),
    "shape": (lambda a, t: t.update(shape=[7, 7]), ["bfthw.shape: a shape is"]),
    "shape-does-not-fit": (lambda a, t: t.update(shape=[8, 8, 3]), ["layers do not chain|node 'a'", "in channels"]),
    "input": (lambda a, t: t.update(input=[8, 7]), ["bfthw.input: is not of this kind of file"]),
    "more": (lambda a, t: t.update(more=1), ["bfthw.more"]),
    "formats": (lambda a, t: t.update(formats={"input": [8, 7]}), ["formats are malformed"]),
    "no-nodes": (lambda a, t: (t.update(nodes=[]), a.clear()), ["at least one layer"]),
    "node-list": (lambda a, t: t.update(nodes=[[]]), ["bfthw.nodes.0"]),
    "twice": (lambda a, t: t["nodes"].append(t["nodes"][0]), ["two nodes share the key 'a/chain.factors.0.values'"]),
    "array-missing": (lambda a, t: a.pop("a/bias"), ["missing key 'a/bias', which the description asks for"]),
    "array-unexpected": (lambda a, t: a.update({"a/bais": a["a/bias"]}), ["unexpected key 'a/bais'.*'a/bias'"]),
    "array-unasked": (node("a", bias=None), ["unexpected key 'a/bias'"]),
    "array-shape": (lambda a, t: a.update({"a/bias": np.zeros(7)}), [r"'a/bias' has shape \(7,\).*says \[8\]"]),
    "array-nan": (lambda a, t: a.update({"a/bias": np.full(8, np.nan)}), ["'a/bias' must be finite real numbers"]),
    "array-complex": (lambda a, t: a.update({"a/bias": np.zeros(8, complex)}), ["'a/bias' must be finite.*complex"]),
    "array-bool": (lambda a, t: a.update({"a/bias": np.zeros(8, bool)}), ["'a/bias' must be finite real numbers"]),
    "array-floats": (lambda a, t: a.update({"shuffle/index": np.ones(12)}), ["node 'shuffle'.*index must be integers"]),
    "array-wraps": (
        lambda a, t: a.update({"shuffle/index": np.full(12, 2**64 - 1, np.uint64)}),
        ["'shuffle/index': integers must fit 64 bits with a sign, got 18446744073709551615"],
    ),
    "index-beyond": (lambda a, t: a.update({"shuffle/index": np.full(12, 24)}), ["the index must be 0 to 23.*got 24"]),
    "scale-without": (node("b", add_scale=[8]), ["missing key 'b/add_scale'"]),
}


@pytest.mark.parametrize("name", FLOATS)
def test_malformed_graphs(tmp_path, name):
    change, texts = FLOATS[name]
    refused(float_file(tmp_path / "w.npz", change), *texts)


def factor(name, **new):
    def change(arrays, table):
        (own,) = (n for n in table["nodes"] if n.get("name") == name)
        own["factors"][-1].update(new)

    return change


INTEGERS = {
    "floats": (lambda a, t: a.update({"a/factors.0.bias": np.ones(8)}), ["node 'a': factors.0: .*must be integers"]),
    "weights": (factor("a", weights=[4, 3]), ["node 'a': factors.0: IntFactor.values must fit 4 bits"]),
    "format": (factor("a", weights=[4]), [r"node 'a': factors.0.weights: a format is \[width, frac\]"]),
    "format-width": (factor("a", weights=[63, 3]), ["factors.0.weights: QFormat.width must be 1 to 62 bits, got 63"]),
    "format-word": (factor("a", weights="8.7"), ["factors.0.weights: must be a list, got '8.7'"]),
    "relu": (factor("a", relu=1), ["factors.0.relu: must be true or false, got 1"]),
    "top-true": (factor("a", top=True), ["factors.0.top: must be an integer or null, got True"]),
    "top": (factor("a", top=1 << 20), ["factors.0: IntFactor.top goes with relu"]),
    "table": (
        lambda a, t: a.update({"b/factors.0.table.values": a["b/factors.0.table.values"] + 100}),
        ["node 'b': factors.0: IntFactor.table must fit"],
    ),
    "input": (lambda a, t: t.update(input=[9, 5]), ["gives another format than 'a' takes: 9 bits"]),
    "input-missing": (lambda a, t: t.pop("input"), ["bfthw.input: is missing"]),
    "trained": (lambda a, t: t.update(formats={}), ["bfthw.formats: is not of this kind of file"]),
    "floats-node": (
        lambda a, t: t["nodes"].__setitem__(5, t["nodes"][5]["node"]),
        ["node 'pool': kind: a file of integers has kinds 'integer layer' and 'rounded', got 'max'"],
    ),
    "rounded-twice": (
        lambda a, t: t["nodes"][5].update(node=json.loads(json.dumps(t["nodes"][5]))),
        ["node .*: a node without weights is rounded, not a rounded"],
    ),
    "formats": (node("pool", formats=[]), ["node 'pool'.*1 inputs, formats of 0"]),
    "wide": (node("turned", formats=[[50, 3], [50, 5]]), ["node 'turned'.*integer overflow"]),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_malformed_integer_graphs(tmp_path, name):
    change, texts = INTEGERS[name]
    refused(integer_file(tmp_path / "w.npz", change), *texts, read=load_integers)


def test_a_float_file_takes_no_integers_and_the_other_way_round(tmp_path):
    integers = description(integer_file(tmp_path / "q.npz"))
    rounded = next(n for n in integers["nodes"] if n["kind"] == "rounded" and n["node"]["name"] == "pool")
    path = float_file(tmp_path / "w.npz", lambda a, t: t["nodes"].__setitem__(5, rounded))
    refused(path, "node 'pool': kind: a file of floats has no kinds 'integer layer' and 'rounded', got 'rounded'")
    refused(float_file(tmp_path / "w.npz"), "not marked as an integer network", read=load_integers)


def doubled(times):
    """A file of few bytes, whose last node gives 2**times channels."""
    picks = [{"kind": "pick", "name": f"n{k}", "inputs": [None, None]} for k in range(times)]
    return {"version": 2, "shape": [1, 1, 1], "nodes": picks}


def hostile(path, table):
    return safetensors(path, {}, {"bfthw": json.dumps(table)})


def test_small_files_of_huge_networks_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    assert load(hostile(path, doubled(24))).network.outputs == 1 << 24
    refused(hostile(path, doubled(25)), "'n24' gives more than 16777216 numbers, the limit of files")
    refused(hostile(path, doubled(15000)), "gives more than 16777216 numbers")
    huge = {"version": 2, "shape": [4096, 4097, 1], "nodes": [{"kind": "pick", "name": "a"}]}
    refused(hostile(path, huge), "'input' gives more than 16777216 numbers")
    pool = {"kind": "sum", "name": "a", "window": {"size": [2000, 2000]}}
    refused(hostile(path, huge | {"shape": [4000, 4000, 1], "nodes": [pool]}), "'a' works on more than 134217728 n")
    refused(hostile(path, huge | {"nodes": doubled(16385)["nodes"]}), "bfthw.nodes", "at most 16384 items")


def test_rows_of_vector_layers_are_written_as_before(tmp_path):
    rng = np.random.default_rng(0)
    first = dense(4, 6, "a", bias=rng.normal(size=6), inputs="input", relu=True)
    row = Network([first, dense(6, 3, "b", inputs="a")], 4)
    save(row, tmp_path / "x.npz")
    assert description(tmp_path / "x.npz") == {"version": 1, "layers": ["a", "b"]}
    save_integers(bfthw.compile(row), tmp_path / "q.npz")
    assert description(tmp_path / "q.npz")["version"] == 1
    for act in ("relu6", "tanh"):
        save(Network([dense(4, 6, "a", act=act)], 4), tmp_path / "x.npz")
        assert description(tmp_path / "x.npz")["version"] == 2
        assert load(tmp_path / "x.npz").network.layers[0].act == Act(act)


def test_versions_from_later_are_refused(tmp_path):
    text = "bfthw.version: versions 1 to 2 are read here, got 3, which a newer bfthw wrote"
    refused(float_file(tmp_path / "w.npz", lambda a, t: t.update(version=3)), text)
    refused(integer_file(tmp_path / "w.npz", lambda a, t: t.update(version=3)), text, read=load_integers)


class Unsaid(Pick):
    """A node of a class that has no word of its own."""


@pytest.mark.parametrize(
    "nodes, text",
    [
        ([dense(4, 4, "a"), dense(4, 4, "b", act=Act("sine", np.sin))], "node 'b': the activation 'sine' is a func"),
        ([dense(4, 4, "a"), Unsaid(name="b")], "node 'b': no file holds a Unsaid: its class needs a `kind` of its own"),
    ],
    ids=["function", "kind"],
)
def test_what_no_file_holds_is_named_and_nothing_written(tmp_path, nodes, text):
    with pytest.raises(ValueError, match=f"x.npz: {text}"):
        save(Network(nodes, 4), tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "outside",
    [np.random.default_rng(0).normal(size=1 << 18), np.ones(1 << 18)],
    ids=["bytes", "values"],
)
def test_descriptions_too_long_to_be_read_are_not_written(tmp_path, outside):
    layer = Layer(
        chain=Chain([Factor(np.ones((1, 1, 1, 1 << 18)))]), window=Window(1, padding=1, outside=outside), name="a"
    )
    with pytest.raises(CheckpointError, match="x.npz: bfthw: what the description would say is too much: more than"):
        save(Network([layer], (1, 1, 1 << 18)), tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_a_graph_is_read_as_a_whole(tmp_path):
    path = float_file(tmp_path / "w.npz")
    refused(path, "a graph says its wiring itself; no order", order=["a", "b"])
    refused(path, "no order, format, shapes or options go with it", options={"stride": "decreasing"})
    with pytest.raises(CheckpointError, match="w.npz: a graph is read as a whole, without --each"):
        each.parts(path)


def test_no_two_words_for_one_class_and_no_two_classes_for_one_word():
    with pytest.raises(TypeError, match="Max is of the kind 'max' already"):
        type("Other", (Pick,), {"kind": "max"})
    assert Node.KINDS["max"] is bfthw.Max
