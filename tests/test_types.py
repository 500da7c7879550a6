"""Public functions say what they take and give; components say what their ports mean."""

import inspect
import re
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from amaranth.lib import wiring
from engine_cases import ENGINES, spec_of
from rtl_bench import factor_of

from bfthw import IntLayer, IntNetwork, QFormat
from bfthw.chain import Indexed
from bfthw.window import Shape, Window
from boards import cobs, feed, receiver, shell, uart
from rtl_gen import AxiStream, Design, Network, emit, fifo, manifest, stream, top
from rtl_gen.engines import Gating, Maximum, Pipelined, Reduction, Sequential, Tiled, Turned
from rtl_gen.engines.readers.reader import Buffered
from rtl_gen.engines.sequential.entry import Entry
from rtl_gen.engines.tiled.boot import Boot
from rtl_gen.stages import stages_of

ROOT = Path(__file__).resolve().parent.parent
OURS = "bfthw", "rtl_gen", "sim", "boards"
PUBLIC = (
    "bfthw", "bfthw.nn", "bfthw.models", "rtl_gen", "rtl_gen.engines", "rtl_gen.engines.readers", "rtl_gen.handover",
    "rtl_gen.tech", "sim", "boards",
)
# these have no __all__; what is asked for in quantize stands in other files too
MORE = (
    "bfthw.chain", "bfthw.checkpoint", "bfthw.importers", "bfthw.models.costs", "bfthw.project", "bfthw.qat",
    "bfthw.quantize", "bfthw.search", "bfthw.sweep",
)
METHODS = "__init__", "__new__", "__call__", "__enter__", "__exit__"


def public(name):
    """(name, object) of the functions and classes of ours that a module is for."""
    module = import_module(name)
    for key in getattr(module, "__all__", None) or [key for key in vars(module) if not key.startswith("_")]:
        found = getattr(module, key)
        home = getattr(found, "__module__", "")
        if home.split(".")[0] in OURS and (name in PUBLIC or home == name or name == "bfthw.quantize"):
            yield key, found


def functions(name):
    """{place: function} of those that a module's users call, methods and properties among them."""
    result = {}
    for key, found in public(name):
        kinds = found.__mro__ if inspect.isclass(found) else ()
        classes = [cls for cls in kinds if cls.__module__.split(".")[0] in OURS]
        members = {f"{key}.{k}": v for cls in classes for k, v in vars(cls).items() if k in METHODS or k[0] != "_"}
        for place, member in (members or {key: found}).items():
            if isinstance(member, property | cached_property | classmethod | staticmethod):
                member = next(getattr(member, part) for part in ("fget", "func", "__func__") if hasattr(member, part))
            # a dataclass writes methods of its own
            if inspect.isfunction(member) and Path(inspect.unwrap(member).__code__.co_filename).is_relative_to(ROOT):
                result[place] = inspect.unwrap(member)
    return result


@pytest.mark.parametrize("name", PUBLIC + MORE)
def test_public_functions_have_types(name):
    for place, function in functions(name).items():
        hints, places = get_type_hints(function), list(inspect.signature(function).parameters)
        own = places[:1] if "." in place and places[:1] in (["self"], ["cls"]) else []
        missing = [key for key in (*places, "return") if key not in hints and key not in own]
        assert not missing, f"{name}: {place} says no type of {', '.join(missing)}"


def test_they_are_found():
    """What the check has to see."""
    found = {name: functions(name) for name in PUBLIC + MORE}
    assert sum(map(len, found.values())) > 400
    assert {"compile", "Chain.inverse", "Chain.patterns", "QFormat.covering"} <= found["bfthw"].keys()
    assert {"Folded.size", "Folded.interval", "Spatial.bounds", "Engine.menu"} <= found["rtl_gen.engines"].keys()
    assert {"choose_formats", "quantise"} <= found["bfthw.quantize"].keys() and "bft" in found["bfthw.chain"]
    assert "load" in found["bfthw.checkpoint"] and "Board.run" in found["boards"]


def test_types_are_for_others_too():
    assert all((ROOT / package / "py.typed").is_file() for package in OURS)


def components():
    """All kinds of components of ours, each made at least once, small."""
    plans = [spec_of(*case) for case in ENGINES.values()]
    for engine in (engine for plan in plans for engine in plan.engines):
        yield engine.component()
        if isinstance(getattr(engine, "reader", None), Buffered):
            yield engine.reader.buffer()
    turned = np.arange(256).reshape(16, 16).T.reshape(-1, 1)
    yield Pipelined(factors=(factor_of(Indexed(turned, 256), 0),), lanes=1).reader.buffer()
    maps = dict(input=QFormat(4, 0), shape=Shape(2, 2, 1))
    maximum = Maximum(**maps, window=Window(2))
    yield from (maximum.component(), maximum.reader.buffer(), Reduction(**maps, output=QFormat(4, 0)).component())
    yield Gating(**maps, gate=QFormat(4, 0), output=QFormat(4, 0)).component()
    layer = IntLayer(factors=(factor_of((1, 2, 2, 1), 0, out=8),), name="layer")
    yield from (Tiled(stages=stages_of(IntNetwork([layer], (2, 2, 2))), target="ice40").component(), Boot(4, 0))
    layers = Sequential(stages=plans[0].stages)
    yield from (layers.component(), Entry(layers))
    yield Turned(**maps, matrix=QFormat(4, 0), outputs=1, output=QFormat(4, 0)).component()
    file = {"sha256": "0" * 64}
    files = manifest.Files(verilog={"name": "x.v", **file}, integers={"name": "x.npz", **file})
    design = Design(plan=plans[0], manifest=emit.make_manifest(plans[0], "x", files), path=Path("x.json"))
    yield from (AxiStream(plans[0]), AxiStream(plans[0], clock=False), Network(plans[0]), Network(plans[0]).pipeline)
    yield from (top.Framer(8, 2), stream.FromStream(8), stream.Fork(8), stream.Skid(8))
    yield from (fifo.Queue(8, 2), fifo.LinkFifo(8, 2), fifo.Pad(8), stream.Gearbox(8, 2, 3))
    yield from (cobs.CobsDecoder(), cobs.CobsEncoder(), uart.UartRx(8))
    yield from (uart.UartTx(8), receiver.Receiver(), receiver.Waiting(), feed.Feed(design))
    yield shell.Shell(design, clock_hz=8_000_000, baud=1_000_000)


def told(cls):
    """{port: (direction, whether it may be missing)} of the list of Members in a docstring."""
    section = re.search(r"Members\n-------\n(.*?)(\n\n|$)", inspect.getdoc(cls), re.DOTALL)
    lines = [line for line in section[1].splitlines() if not line.startswith(" ")] if section else []
    return {k: (way, ", where" in line) for line in lines for k, way in re.findall(r"(\w+) : (In|Out)\b", line)}


def test_components_list_their_members():
    kinds = set()
    for component in components():
        kinds.add(kind := type(component))
        listed = told(next((cls for cls in kind.__mro__ if "Members" in (cls.__doc__ or "")), kind))
        ports = {name: member.flow.name for name, member in component.signature.members.items()}
        assert {name: way for name, (way, _) in listed.items() if name in ports} == ports, kind
        assert all(name in ports or may_miss for name, (_, may_miss) in listed.items()), kind
    link = {name: member.flow.name for name, member in stream.Link(8).members.items()}
    assert {name: way for name, (way, _) in told(stream.Link).items()} == link
    every, seen = [wiring.Component], set()
    while every:
        seen |= set(every)
        every = [kind for cls in every for kind in cls.__subclasses__()]
    ours = {cls for cls in seen if cls.__module__.split(".")[0] in OURS and not cls.__subclasses__()}
    assert ours <= kinds, "components that are not looked at"
