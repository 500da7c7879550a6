"""From the trained digits to verified Verilog and bitstreams: accuracy on every held-out image, resources and
clocks.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

import bfthw
import rtl_gen
import sim

HERE = Path(__file__).resolve().parent


BOARDS = "icebreaker", "ulx3s-85f", "tang-nano-9k"


def run(directory, *, simulator, console, progress, steps, bitstreams=True):
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
        build({board: (design, None) for board in BOARDS}, directory, console=console, steps=steps)
    return exact


def build(designs, directory, *, console, steps):
    """A bitstream for each board, with what it takes and how fast it may run; board → (design, clock in MHz)."""
    from boards.build import build

    console.print("\n[bold]5[/] bitstreams (a tool's first run here takes longer: its WebAssembly is compiled)")
    lines = []
    for board, (design, mhz) in designs.items():
        console.print(f"[bold]{board}[/]")
        with steps() as step:
            report = build(design, board, directory / board, clock_mhz=mhz, progress=step)
        taken = ", ".join(
            f"{r.synthesised if r.routed is None else r.routed} of {r.available} {name}"
            for name, r in report.resources.items()
        )
        slowest = min(report.clocks.values(), key=lambda clock: clock.maximum / clock.used)
        lines.append(
            f"  {directory / board / report.bitstream}\n    {taken}\n    {slowest.maximum:.1f} MHz possible, "
            f"{slowest.used:.4g} used; {report.netlist}"
        )
    console.print("\nresources and clocks after place and route (FF of iCE40: after synthesis)")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
