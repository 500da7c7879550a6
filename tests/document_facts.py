"""Figures that stand in more than one place: fact → {place: what says it}, all of which must agree.

A place is a file with a regular expression, of which every match gives the value in its group (one of several, where
alternatives have one each), line ends read as spaces; or a name with a function, for what the code says.
"""

import inspect
import re
from functools import cache

import numpy as np
from documents import ROOT, read

import bfthw
import rtl_gen
from bfthw import IntFactor, IntLayer, IntNetwork, QFormat, check, integers, settings, system
from bfthw.archive import ARRAYS
from bfthw.reading import LIMIT
from boards import host
from boards.table import BOARDS, ECP5_5G_85F, ECP5_85F, GW1NR9, UP5K
from rtl_gen import manifest, size
from rtl_gen.tech import technology

WORDS = "no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()


def worked_example():
    """The network that docs/manifest.md works out, and whose bytes docs/link.md shows."""
    factor = IntFactor(
        values=np.array([[[[3], [-2]], [[1], [4]]]]),
        input=QFormat(8, 4),
        weights=QFormat(4, 2),
        output=QFormat(8, 3),
        skip_input=QFormat(8, 4),
        bias=np.array([5, -40]),
        bias_width=8,
        relu=True,
    )
    return IntNetwork(layers=(IntLayer(factors=(factor,)),))


@cache
def digits():
    """(Plan of the shipped network as the demo builds it, its IntNetwork)."""
    network = bfthw.compile(bfthw.load(ROOT / "examples/digits/digits.safetensors").network)
    return rtl_gen.make_plan(network, bfthw.make_settings(ROOT / "examples/digits/hardware.toml")), network


def weights():
    return sum(f.values.size for f in digits()[1].factors)


def limit(device, resource):
    return next(mhz for name, mhz, _ in device.limits if name == resource)


def default(function, name):
    return inspect.signature(function).parameters[name].default


def waived():
    return len(set(re.findall(r"^lint_off -rule (\w+)", read("rtl_gen/handover/waivers.vlt"), re.MULTILINE)))


def available(device, *names):
    return lambda: " ".join(str(getattr(device, name)) for name in names)


def clocks(*keys):
    return lambda: " ".join(f"{BOARDS[key].clock_mhz:g}" for key in keys)


DEMO = "icebreaker", "ulx3s-85f", "tang-nano-9k"
FACTS = {
    "digits, float accuracy": {
        "README.md": r"held-out accuracy \| float ([\d.]+) %",
        "examples/digits/README.md": r"shipped\) \| ([\d.]+) %",
    },
    "digits, accuracy of integers": {
        "README.md": r"integers and simulation ([\d.]+) %",
        "examples/digits/README.md": r"shipped\) \| [\d.]+ % \| ([\d.]+) %",
    },
    "digits, held-out images": {
        "examples/digits/README.md": r"on (\d+) held-out",
        "examples/digits/data.py": r"and (\d+) real 8x8 images",
        "docs/ablations.md": r"and (\d+) held-out",
        "docs/projection.md": r"(?:the digits: |of )(\d+) held-out",
        "docs/quantisation.md": r"the (\d+) held-out",
        "docs/two-structures.md": r"and (\d+) are held out",
    },
    "digits, points of one image": {
        "examples/digits/README.md": r"One image is ([\d.]+) points",
        "docs/ablations.md": r"one image is ([\d.]+) %",
        "docs/projection.md": r"One image is ([\d.]+) points",
        "docs/quantisation.md": r"an image is ([\d.]+);",
        "docs/two-structures.md": r"one image is ([\d.]+) points",
        "100 / 355": lambda: f"{100 / 355:.2f}",
    },
    "digits, weights": {
        "examples/digits/README.md": r": (\d+) weights of 8 bits",
        "docs/ablations.md": r"Equal multiplications, (\d+) an image",
        "network": weights,
    },
    "digits, cycles": {
        "README.md": r"(\d+) multipliers, latency (\d+), interval (\d+) cycles an image",
        "specification": lambda: "{0.multipliers} {0.latency} {0.interval}".format(digits()[0]),
    },
    "iCEBreaker, what it has": {
        "README.md": r"of (\d+) cells, \d+ of (\d+) multipliers, \d+ of (\d+) block RAMs",
        "boards/table.py": available(UP5K, "lut", "dsp", "ram"),
    },
    "ULX3S-85F, what it has": {"README.md": r"of (83\d+) LUT", "boards/table.py": available(ECP5_85F, "lut")},
    "Tang Nano 9K, what it has": {"README.md": r"of (8\d\d\d) LUT", "boards/table.py": available(GW1NR9, "lut")},
    "clocks of the demo's boards": {
        "README.md": r"possible, (12) used.*?possible, (\d+) used.*?untimed\), (\d+) used",
        "boards/table.py": clocks(*DEMO),
    },
    "boards": {
        "README.md": r"iCEBreaker, ULX3S-85F, Tang Nano 9K and (\w+) more",
        "boards/table.py": lambda: len(BOARDS) - len(DEMO),
    },
    "limit of block RAMs, grade 6": {
        "docs/boards.md": r"(\d+) MHz \(speed grade 6\)",
        "docs/benchmark.md": r"ECP5 block RAM: (\d+) MHz at speed grade 6",
        "boards/table.py": lambda: limit(ECP5_85F, "RAM"),
    },
    "limit of block RAMs, grade 8": {
        "docs/boards.md": r"(\d+) MHz \(grade 8\)",
        "docs/benchmark.md": r"at speed grade 6, (\d+) at 8",
        "boards/table.py": lambda: limit(ECP5_5G_85F, "RAM"),
    },
    "limit of the UP5K's multipliers": {
        "docs/boards.md": r"(\d+) MHz for the UP5K's multipliers",
        "boards/table.py": lambda: limit(UP5K, "DSP"),
    },
    "nextpnr": {
        "README.md": r"nextpnr (\d+\.\d+)",
        "docs/benchmark.md": r"nextpnr-\w+ (\d+\.\d+)\.",
    },
    "waived kinds of warnings": {"docs/hardware.md": r"(\w+) kinds are waived", "rtl_gen/handover/waivers.vlt": waived},
    "factors of a core": {
        "docs/checkpoints.md": r"factors of a core \| (\d+)",
        "docs/hardware.md": r"memories, (\d+) factors",
        "rtl_gen/manifest.py": lambda: manifest.MOST,
    },
    "multipliers and elements, words": {
        "docs/hardware.md": r"more than ([\d,]+) multipliers and .*?, ([\d,]+) words of memories",
        "rtl_gen/size.py": lambda: f"{size.PARTS} {size.WORDS}",
    },
    "bits of the operand that a pair takes": {
        "docs/hardware.md": r"w_x \+ 2·w_w ≤ (\d+)",
        "docs/quantisation.md": r"\((\d+) - bits of the input\)",
        "rtl_gen/tech": lambda: technology("ecp5").operand + 1,
    },
    "bits of an accumulator": {
        "docs/numbers.md": r"accumulator has (\d+) bits",
        "bfthw/intfactor.py": r"acc_width > (\d+)",
    },
    "bits of weights": {
        "README.md": r"weights and activations of (\d+) to (\d+) bits",
        "bfthw/settings.py": lambda: "{0.ge} {1.le}".format(*settings.Bits.__metadata__[0].metadata),
    },
    "n = 1024, k = 4, one lane: block RAMs": {
        "docs/hardware.md": lambda: sum(
            map(int, re.search(r"one lane takes (\d+) block RAMs .*? and (\d+) for", text("docs/hardware.md")).groups())
        ),
        "docs/benchmark.md": r"\| n = 1024, k = 4, 1 lane; ecp5-85f \| 20 \| [\d,]+ \| \d+ \| [\d,]+ \| (\d+) ",
    },
    "58 channels, padded": {
        "docs/checkpoints.md": r"(\d+) multiplications for 58 channels",
        "docs/layers.md": r"`ways\(n\)\[0\]\.patterns` \| (\d+) \|",
    },
    "dB below which there is a warning": {
        "docs/quantisation.md": r"below (\d+) dB",
        "bfthw/check.py": lambda: check.LIMIT,
    },
    "timeout of the link": {
        "docs/link.md": r"`timeout` \(([\d.]+) s\)",
        "boards/host.py": lambda: default(host.Board, "timeout"),
    },
    "patience of the link": {
        "docs/link.md": r"`patience` \(([\d.]+) s\)",
        "boards/host.py": lambda: default(host.Board, "patience"),
    },
    "memory that reading takes, GiB": {
        "docs/checkpoints.md": r"and (\d+) GiB in all",
        "bfthw/reading.py": lambda: LIMIT >> 30,
    },
    "arrays of a file": {"docs/checkpoints.md": r"arrays of a file \| ([\d,]+)", "bfthw/archive.py": lambda: ARRAYS},
    "inputs of an index": {
        "docs/checkpoints.md": r"inputs of a layer with an index \| ([\d,]+)",
        "bfthw/integers.py": lambda: integers.MOST_INPUTS,
    },
    "the oldest Python": {
        "README.md": r"Python (3\.\d+) or newer",
        "pyproject.toml": r'requires-python = ">=(3\.\d+)"',
        "bfthw/system.py": lambda: "{}.{}".format(*system.OLDEST),
    },
    "Icarus": {"README.md": r"Icarus Verilog (\d+)", "docs/hardware.md": r"Yosys, Icarus (\d+)"},
    "training of the digits": {
        "README.md": r"does all of it in (.*?)\.",
        "examples/digits/README.md": r"`digits.safetensors` in about (.*?)\.",
    },
}


def text(name):
    return " ".join(read(name).split("\n"))


def plain(value):
    """A value as it may be compared: numbers without commas and trailing zeros, number words as numbers."""
    value = str(value).replace(",", "")
    value = str(WORDS.index(value)) if value in WORDS else value
    return re.sub(r"(\d)\.0+$", r"\1", value)


def found(fact):
    """Place and match → value."""
    values = {}
    for place, what in FACTS[fact].items():
        if callable(what):
            values[place] = plain(what())
            continue
        matches = list(re.finditer(what, text(place)))
        assert matches, f"{place} no longer says it: {what}"
        values |= {f"{place}: {m[0]}": " ".join(plain(v) for v in m.groups() if v is not None) for m in matches}
    return values
