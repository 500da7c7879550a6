"""From the trained digits to verified Verilog and bitstreams: accuracy on every held-out image, resources and
clocks.
"""

import queue
import re
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import bfthw
import rtl_gen
import sim
from bfthw import child

HERE = Path(__file__).resolve().parent
BOARDS = "icebreaker", "ulx3s-85f", "tang-nano-9k"
STEP = re.compile(r" *[0-9.]+ s  ")  # of a build, its time first


def run(directory, *, simulator, console, progress, bitstreams=True):
    """Write the core into `directory`, simulate it on all held-out images, build; returns whether everything agreed."""
    sys.path.insert(0, str(HERE))
    try:
        from data import load
    except ImportError as error:
        raise ValueError(f"the demo's images come with scikit-learn: pip install 'bfthw[examples]' ({error})") from None
    *_, images, labels = load()

    Path(directory).mkdir(parents=True, exist_ok=True)
    checkpoint = Path(shutil.copy(HERE / "digits.safetensors", directory))  # for whoever goes on from here
    network = bfthw.load(checkpoint).network
    weights = sum(layer.chain.weights for layer in network.layers)
    console.print(
        f"[bold]1[/] checkpoint {checkpoint}: {weights} weights; {len(images)} held-out images", soft_wrap=True
    )

    integers = bfthw.compile(network)
    console.print(f"[bold]2[/] integers: input {integers.input.width} bits, output {integers.output.width} bits")

    settings = bfthw.make_settings(HERE / "hardware.toml")
    design = rtl_gen.write(integers, directory, name="digits", settings=settings)
    m = design.manifest
    console.print(
        f"[bold]3[/] Verilog {directory}/digits.v: {m.resources.multipliers} multipliers, {m.resources.rom_bits} ROM "
        f"bits, latency {m.latency}, interval {m.interval} cycles an image",
        soft_wrap=True,
    )

    with progress("reading the core") as step:
        result = sim.simulate(
            design, inputs=images, vectors=16, simulator=simulator, progress=step, begin=step.begin
        )
    console.print(
        f"[bold]4[/] simulation ({simulator}): {result.cycles} cycles, {result.cycles / result.seconds:.0f} a second"
    )
    for problem in result.problems:
        console.print(f"  differs: {problem}", markup=False)

    simulated = result.outputs.argmax(axis=1) if len(result.outputs) == len(labels) else np.full(len(labels), -1)
    accuracies = {
        "float": network(images).argmax(axis=1),
        "integer": integers.classify(images),
        "simulated": simulated,
    }
    console.print(f"\naccuracy on {len(labels)} held-out images")
    for name, answers in accuracies.items():
        console.print(f"  {name:10} {100 * np.mean(answers == labels):6.2f} %")
    exact = result.ok and np.array_equal(result.outputs, integers(integers.input.quantise(images)))
    console.print(
        f"  bit-exact  {'[green]ok[/]' if exact else '[red]NO[/]'}: every output of every image, simulated = golden"
    )
    if exact and bitstreams:
        build({board: (design, None) for board in BOARDS}, Path(directory), console=console, progress=progress)
    return exact


def build(designs, directory, *, console, progress):
    """A bitstream for each board, all at once, each by `bfthw build`; prints what they take and how fast they may run.

    designs: board → (design, clock in MHz or None for the board's own). Raises ValueError where one is not built.
    """
    from boards.report import read_report

    console.print("\n[bold]5[/] bitstreams (a tool's first run here takes longer: its WebAssembly is compiled)")
    width, lines, said = max(map(len, designs)), queue.SimpleQueue(), {board: [] for board in designs}

    def listen(board, output):
        for line in output:
            lines.put((board, line.rstrip()))
        lines.put((board, None))

    with progress(f"building for {', '.join(designs)}"), ExitStack() as stack:
        running = {}
        for board, (design, mhz) in designs.items():
            command = [sys.executable, "-m", "bfthw", "build", design.path, "--board", board, "-o", directory / board]
            command += ["--clock", str(mhz)] if mhz else []
            pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            running[board] = stack.enter_context(child.start(command, **pipe))
            threading.Thread(target=listen, args=(board, running[board].stdout), daemon=True).start()
        while running:
            board, line = lines.get()
            if line is None:
                if running.pop(board).wait():
                    raise ValueError("\n".join([f"there is no bitstream for {board}:", *said[board]]))
            elif STEP.match(line):
                console.print(f"  {board:{width}} {line}", markup=False)
            else:
                said[board].append(line)
    console.print("\nresources and clocks after place and route (FF of iCE40: after synthesis)")
    for board in designs:
        report = read_report(directory / board / "report.json")
        taken = ", ".join(
            f"{r['synthesised'] if r['routed'] is None else r['routed']} of {r['available']} {name}"
            for name, r in report["resources"].items()
        )
        slowest = min(report["clocks"].values(), key=lambda clock: clock["maximum"] / clock["used"])
        console.print(
            f"  {directory / board / report['bitstream']}\n    {taken}\n    {slowest['maximum']:.1f} MHz possible, "
            f"{slowest['used']:.4g} used; {report['netlist']}",
            markup=False, soft_wrap=True,
        )
