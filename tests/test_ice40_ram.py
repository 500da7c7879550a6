"""Block RAMs of iCE40 by our map, as Yosys' own has them."""

import json

import numpy as np
from tech_bench import synthesise

from boards.families.ice40 import MAP_RAM

# to read, to write, edge of the clock to read at
BLOCKS = (2, 16, 1), (4, 8, 1), (8, 4, 1), (16, 2, 1), (16, 16, 1), (8, 8, 0)
OWN = "techmap -map +/ice40/brams_map.v"


def blocks():
    """RTLIL of a module with these blocks, of random contents."""
    rng, wires, cells, place = np.random.default_rng(0), [], [], 0
    for r, w, edge in BLOCKS:
        name, contents = f"ram_{r}_{w}_{edge}", "".join(rng.choice(["0", "1", "x"], 4096, p=[0.45, 0.45, 0.1]))
        ports = {
            "R_CLK": 1, "R_RD_EN": 1, "R_ADDR": 11, "W_CLK": 1, "W_WR_EN": 1, "W_ADDR": 11, "W_WR_DATA": w,
            "W_WR_BE": 16 if w == 16 else 1, "R_RD_DATA": r,
        }
        values = {
            "OPTION_HAS_BE": w == 16, "PORT_R_WIDTH": r, "PORT_W_WIDTH": w, "PORT_W_WR_BE_WIDTH": ports["W_WR_BE"],
            "PORT_R_CLK_POL": edge, "PORT_W_CLK_POL": 1,
        }
        cells += [f"cell $__ICE40_RAM4K_ \\{name}", f"parameter \\INIT 4096'{contents}"]
        cells += [f"parameter \\{key} {int(value)}" for key, value in values.items()]
        for port, width in ports.items():
            place += 1
            wires.append(f"wire width {width} {'output' if 'RD_DATA' in port else 'input'} {place} \\{name}_{port}")
            cells.append(f"connect \\PORT_{port} \\{name}_{port}")
        cells.append("end")
    return "\n".join(["attribute \\top 1", "module \\top", *wires, *cells, "end", ""])


def mapped(directory, lines):
    """Name of a cell → its type, parameters, and the top's bits at its ports."""
    synthesise(directory, blocks(), [*lines, "opt_clean"], "top")
    top = json.loads((directory / "top.json").read_text())["modules"]["top"]
    bits = {bit: (name, n) for name, port in top["ports"].items() for n, bit in enumerate(port["bits"])}
    rams = {name: cell for name, cell in top["cells"].items() if name.startswith("ram")}
    for cell in top["cells"].values():  # masks of words of 16 bits
        if cell["type"] == "$not":
            ports = cell["connections"]
            bits |= {y: ("not", bits[a]) for y, a in zip(ports["Y"], ports["A"])}
    return {
        name: (
            cell["type"],
            {key: value for key, value in cell["parameters"].items() if key.startswith(("INIT", "READ", "WRITE"))},
            {pin: [bits.get(b, isinstance(b, str) and b) for b in at] for pin, at in cell["connections"].items()},
        )
        for name, cell in rams.items()
    }


def test_blocks_are_those_of_yosys(tmp_path):
    """Of every width, and contents of three values; the clock's other edge is left to Yosys' own."""
    lines = MAP_RAM.splitlines()
    ours, own = mapped(tmp_path, lines), mapped(tmp_path, [OWN])
    assert {name for name, (kind, *_) in ours.items() if kind.startswith("$")} == {"ram_8_8_0"}
    ours = mapped(tmp_path, [*lines, OWN])
    assert len(own) == len(BLOCKS) and ours == own
