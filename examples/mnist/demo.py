"""A whole convolutional network, from a trained checkpoint to verified Verilog and bitstreams of two boards: every unseen
digit, pixel by pixel, through the cores that are built.
"""

import runpy
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

import bfthw
import rtl_gen
import sim
from boards import tools
from boards.families import FAMILIES
from boards.fit import on_board
from boards.table import find_board

HERE = Path(__file__).resolve().parent
# board → cycles an image, at most, its clock in MHz, and how many of the digits are simulated
BOARDS = {"icebreaker": (12_400, 18, 1000), "ulx3s-85f": (2_500, 25, 1000)}


def prepare_all(needed):
    with suppress(ValueError, OSError):  # whoever needs them will say so
        for tool in needed:
            tools.prepare(tool)


def run(directory, *, simulator, console, progress, bitstreams=True):
    """Write the cores into `directory`, simulate them on unseen digits, build; returns whether everything agreed."""
    sys.path.insert(0, str(HERE))
    from data import load

    try:
        images, labels = load("test")
    except FileNotFoundError as error:
        raise ValueError(f"the demo's images: {error}") from None
    if bitstreams:  # tools that were never used compile themselves while the cores are simulated
        needed = "yosys", *(FAMILIES[find_board(board).device.family].pnr for board in BOARDS)
        threading.Thread(target=prepare_all, args=(needed,), daemon=True).start()
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = Path(shutil.copy(HERE / "mnist.safetensors", directory))
    network = bfthw.load(checkpoint).network
    weights = sum(layer.chain.weights for layer in network.layers)
    integers, exact, designs = bfthw.compile(network), True, {}
    console.print(f"[bold]1[/] checkpoint {checkpoint}: {weights} weights, {integers.work} products an image")
    accuracies = {
        "float": network(images / 256).argmax(axis=1),
        "integer": integers(images.astype(np.int64)).argmax(axis=1),
    }
    for board, (interval, mhz, count) in BOARDS.items():
        settings, room, _ = on_board(board, bfthw.make_settings(**({} if board == "icebreaker" else {"roms": "blocks"})))
        plan = rtl_gen.choose_for(integers, settings, interval=interval, room=room).plan
        design = rtl_gen.write_plan(plan, directory, name=f"mnist_{plan.target}", clock_mhz=mhz)
        designs[board] = design, mhz
        console.print(
            f"[bold]2[/] {board}: {design.path.with_suffix('.v')}, {plan.multipliers} multipliers, {plan.interval} "
            f"cycles an image: {1e6 * mhz / plan.interval:.0f} a second at {mhz} MHz",
            soft_wrap=True,
        )
        with progress("reading the core") as step:
            result = sim.simulate(
                design, inputs=images[:count].astype(np.int64), vectors=8, simulator=simulator, progress=step,
                begin=step.begin,
            )
        console.print(
            f"[bold]3[/] simulation ({simulator}): {count} images, {result.cycles} cycles, "
            f"{result.cycles / result.seconds:.0f} a second",
            soft_wrap=True,
        )
        for problem in result.problems:
            console.print(f"  differs: {problem}", markup=False)
        exact &= result.ok
        accuracies[f"simulated, {plan.target}"] = result.outputs.argmax(axis=1)
    console.print("\naccuracy on unseen digits")
    for name, answers in accuracies.items():
        right = answers == labels[: len(answers)]
        console.print(f"  {name:17} {100 * right.mean():6.2f} % of {len(answers)}")
    console.print(f"  bit-exact  {'[green]ok[/]' if exact else '[red]NO[/]'}: every output, simulated = golden")
    if exact and bitstreams:
        build = runpy.run_path(str(HERE.parent / "digits" / "demo.py"))["build"]
        build(designs, directory, console=console, progress=progress)
    return exact
