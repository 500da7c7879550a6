"""From the trained digits to verified Verilog: float, integer and simulated accuracy on every held-out image."""

import sys
from pathlib import Path

import numpy as np

import bfthw
import rtl_gen
import sim

HERE = Path(__file__).resolve().parent


def run(directory, *, simulator, console, progress):
    """Write the core into `directory`, simulate it on all held-out images; returns whether everything agreed."""
    sys.path.insert(0, str(HERE))
    try:
        from data import load
    except ImportError as error:
        raise ValueError(f"the demo's images come with scikit-learn: pip install 'bfthw[examples]' ({error})") from None
    *_, images, labels = load()

    network = bfthw.load(HERE / "digits.safetensors").network
    weights = sum(layer.chain.weights for layer in network.layers)
    console.print(f"[bold]1[/] checkpoint digits.safetensors: {weights} weights; {len(images)} held-out images")

    integers = bfthw.compile(network)
    console.print(f"[bold]2[/] integers: input {integers.input.width} bits, output {integers.output.width} bits")

    settings = bfthw.make_settings(HERE / "hardware.toml")
    design = rtl_gen.write(integers, directory, name="digits", settings=settings)
    m = design.manifest
    console.print(
        f"[bold]3[/] Verilog {directory}/digits.v: {m.resources.multipliers} multipliers, {m.resources.rom_bits} ROM bits, "
        f"latency {m.latency}, interval {m.interval} cycles an image",
        soft_wrap=True,
    )

    with progress(f"[bold]4[/] {simulator}: building and running") as step:
        result = sim.simulate(design, inputs=images, vectors=16, simulator=simulator, progress=step)
    console.print(f"[bold]4[/] simulation ({simulator}): {result.cycles} cycles, {result.cycles / result.seconds:.0f} a second")
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
    console.print(f"  bit-exact  {'[green]ok[/]' if exact else '[red]NO[/]'}: every output of every image, simulated = golden")
    return exact
