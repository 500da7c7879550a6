"""Tables at every width: no number cropped, no word broken, nothing lost."""

import io
from collections import Counter

import numpy as np
import pytest
from graphs import made_integers
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

import bfthw
from bfthw import chain, noise, search, sweep
from bfthw.cli import console, doctor, tables
from bfthw.cli.commands.models import _table as model_table
from bfthw.models import model
from boards.report import Clock, Report, Resource
from rtl_gen import make_plan

WIDTHS = 40, 60, 80, 120


def shown(table, width):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def words(text):
    return Counter(text.replace("─", " ").split())


def every_table():
    """One of each kind, of real things: name → Table."""
    shapes = [chain.bft(64, 4), chain.dense(10, 64)]
    layers = [
        bfthw.Layer(chain=bfthw.Chain.random(shape, seed=n), residual=not n, bias=np.ones(shape[-1].outputs), name=name)
        for n, (shape, name) in enumerate(zip(shapes, ("body.first", "head")))
    ]
    network = bfthw.Network(layers=tuple(layers))
    x = np.random.default_rng(3).uniform(-1, 1, (50, 64))
    integers = bfthw.compile(network, calibration=x)
    points = [sweep.Point(bits=n, sqnr=6.02 * n, accuracy=0.9) for n in (4, 8)]
    found = search.search(network, x, rom_bits=12000)
    report = Report(
        name="core", configuration="", board="ulx3s-85f", bitstream="core.bit", sha256="", clock_mhz=25.0, baud=1000000,
        resources={"LUT": Resource(synthesised=123456, routed=100001, available=83640)},
        clocks={"core clock": Clock(used=25.0, routed=80.123, limit=None, maximum=80.123, reason="nextpnr")},
        seed=1, seeds={1: 80.1}, tools={}, notes=(), netlist="",
    )
    from boards.fit import fit
    from boards.table import BOARDS

    return {
        "doctor": tables.doctor(doctor.tools()),
        "network": tables.network("net", tables.float_layers(network)),
        "integers": tables.network("net", tables.integer_layers(integers)),
        "formats": tables.formats(integers, noise.report(network, integers, x)),
        "hardware": tables.hardware(make_plan(integers, bfthw.make_settings(lanes=2))),
        "build": tables.build(report),
        "fits": tables.fits([fit(integers, board) for board in BOARDS.values()]),
        "sweeps": tables.sweeps(points, points),
        "searched": tables.searched(network, found),
        "projections": tables.projections(
            "nearest", [(layers[1], "bft4", shapes[0], (0.5,)), (layers[1], "x", shapes[1], (0,))]
        ),
        "models": model_table(model("mobilenetv1"), "mobilenetv1"),
        "graph": tables.graph("net", made_integers(0)[2]),
        "formats of a graph": tables.formats(made_integers(0)[2]),
    }


@pytest.fixture(scope="module")
def real():
    return every_table()


@pytest.mark.parametrize("width", WIDTHS)
def test_real_tables_lose_nothing(real, width):
    for name, table in real.items():
        text = shown(table, width)
        assert max(map(len, text.splitlines())) <= width, name
        cells = Counter()
        columns, _ = table._columns()
        for row, _ in table.rows:
            for n in columns:
                cells += words(row[n].plain)
        assert not cells - words(text), f"{name} at {width}: {cells - words(text)} are broken or lost"
        assert not words(table.title) - words(text) and not words(table.caption) - words(text), name


def test_hardware_names_every_figure(real):
    """What a reader looks for, at a width where it does not fit side by side."""
    text = shown(real["hardware"], 40)
    assert "body.first:2" in text and "(1, 10, 64, 1)" in text and "in every row: engine pipelined" in text
    assert text.count("body.first:0") > 1 and ".factors." not in text


CELL = st.text("abc ", max_size=12).map(lambda text: " ".join(text.split())) | st.integers(-(10**9), 10**9).map(str)


@given(
    columns=st.lists(st.booleans(), min_size=1, max_size=9),
    rows=st.integers(1, 5),
    data=st.data(),
    width=st.integers(28, 130),
)
def test_random_tables(columns, rows, data, width):
    """Rows of any cells; the names are words that fit."""
    table = tables.Table("t", "name", *(">" * numeric + f"head{n}" for n, numeric in enumerate(columns)))
    given = [(f"r{r}", *(data.draw(CELL) for _ in columns)) for r in range(rows)]
    for row in given:
        table.add_row(*row)
    text = shown(table, width)
    assert max(map(len, text.splitlines())) <= width
    same = {n for n in range(1, len(columns) + 1) if rows > 1 and len({row[n] for row in given}) == 1}
    for row in given:
        for n, cell in enumerate(row):
            if n not in same:
                assert not words(cell) - words(text)
    for n in same:
        cell = given[0][n]
        assert not cell or f"head{n - 1} {cell}" in " ".join(text.split()).replace(", ", ",").replace(",", ", ")


def test_a_column_that_says_the_same_goes():
    table = tables.Table("t", "name", ">a", ">b", ">c", ">d")
    table.add_row("one", "1", "7", "", "3")
    table.add_row("two", "2", "7", "", "3")
    table.add_row("all", "3", "", "", "6", total=True)
    text = shown(table, 80)
    assert text.splitlines()[1].split() == ["name", "a", "d"], "b says 7, c nothing; the sum of d is its own"
    assert "in every row: b 7\n" in text


def test_names_that_leave_no_room_stand_alone():
    table = tables.Table("t", "name", ">figure", "what")
    table.add_row("n" * 35, "1234567890", "")
    table.add_row("m" * 60, "9876543210", "it is")
    lines = shown(table, 40).split("\n")
    figures = "  figure 1234567890", "  figure 9876543210"
    assert lines == ["t", "n" * 35, figures[0], "m" * 40, "m" * 20, figures[1], "  what it is", "", ""]


def test_cells_are_text_not_markup():
    table = tables.Table("t", "name", "what")
    table.add_row("[red]x[/]", Text("y", "bold"))
    assert "[red]x[/]" in shown(table, 80)


def test_a_pipe_gets_whole_lines(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console._Console(file=io.StringIO()).width > 10000
    assert console._Console(file=io.StringIO(), _environ={"COLUMNS": "60"}).width == 60
