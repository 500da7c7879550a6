"""What others make of the same layers: a dense engine, alkaid, torch on this computer."""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from amaranth.back import rtlil

from bfthw import IntFactor, QFormat, cache
from rtl_gen.tech import ecp5

from . import flow
from .dense import Dense, DenseSpec

ROM_WORDS = 2 * ecp5.CHUNKS  # of 8 bits, in two block RAMs for each cell
THREADS = 2
BATCHES = (1, 4096)
SECONDS = 2  # that a figure of torch is measured for


def dense(n, multipliers, target="ecp5"):
    """A DenseSpec with random weights, whose ROMs hold those of n = 256 and 16 multipliers, or less."""
    rng = np.random.default_rng(0)
    q = QFormat(10, 8)
    values = rng.integers(-128, 128, (1, n, n, 1))
    factor = IntFactor(values=values, input=q, weights=QFormat(8, 10), output=q)
    return DenseSpec(factor=factor, multipliers=multipliers, target=target, rom_words=ROM_WORDS)


def dense_text(spec):
    return rtlil.convert(Dense(spec), name=flow.TOP, emit_src=False)


_WRAPPER = """\
module core(input clk, input [7:0] data, output folded);
  reg [{inputs}-1:0] x;
  wire [{outputs}-1:0] y;
  always @(posedge clk) x <= {{x, data}};
  rival layer(.clk(clk), .model_inp(x), .model_out(y));
{levels}
endmodule
"""


def alkaid(network, ternary=True, cutoff=1):
    """(SystemVerilog, latency in cycles) of alkaid's pipeline for a one-layer network, a register after every adder.

    ternary: whether it may add three values at a time (its default, made for LUTs of six inputs). It is compared with
    the golden model in alkaid's own interpreter. Inputs and outputs go through few pins as in `designs.Narrow`. None
    where alkaid is not installed; RuntimeError where the integers differ.
    (Sun et al., da4ml, arXiv 2507.04535, whose successor it is; its Verilog is LGPL and stays in the build folder.)
    """
    try:
        from alkaid.codegen.rtl.rtl_model import RTLModel
        from alkaid.trace import FVArrayInput, HWConfig, trace
        from alkaid.trace.ops import quantize
    except ImportError:
        return None

    def fixed(x, q, *modes):
        return quantize(x, 1, q.width - 1 - q.frac, q.frac, *modes)

    x = FVArrayInput((network.inputs,), hwconf=HWConfig(1, -1, -1))
    y = fixed(x, network.input)
    for f in network.factors:
        a, b, c, d = f.pattern
        blocks, w = y.reshape(a, c, d), f.values / 2.0**f.weights.frac
        sums = np.stack([blocks[i, :, l] @ w[i, :, :, l].T for i in range(a) for l in range(d)])
        y = fixed(sums.reshape(a, d, b).transpose((0, 2, 1)).reshape(a * b * d), f.output, "SAT", "RND")
    logic = trace(x, y)
    q_in, q_out = network.input, network.output
    vectors = np.random.default_rng(1).integers(q_in.lo, q_in.hi + 1, (1000, network.inputs))
    if not np.array_equal(logic.predict(vectors / 2.0**q_in.frac) * 2.0**q_out.frac, network(vectors)):
        raise RuntimeError("alkaid: its interpreter differs from the golden model")
    with cache.scratch() as place:
        model = RTLModel(logic, place, prj_name="rival", latency_cutoff=cutoff, ternary_fuse=ternary)
        model.write()
        parts = [p.read_text(encoding="utf-8") for p in sorted(place.rglob("src/**/*.v")) if p.stem != "rival_wrapper"]
    inputs, outputs = network.inputs * q_in.width, network.outputs * q_out.width
    parts.append(_WRAPPER.format(inputs=inputs, outputs=outputs, levels=_fold("y", outputs)))
    return "\n".join(parts), model.latency + 1  # and its output register


def _fold(name, bits):
    """SystemVerilog that folds a vector with XOR, four bits a level, each in registers."""
    lines = []
    while bits > 1:
        after, level = -(-bits // 4), f"folded{bits}"
        folds = (f"^{name}[{min(4 * n + 3, bits - 1)}:{4 * n}]" for n in reversed(range(after)))
        lines += [f"  reg [{after}-1:0] {level};", f"  always @(posedge clk) {level} <= {{{', '.join(folds)}}};"]
        name, bits = level, after
    return "\n".join([*lines, f"  assign folded = {name};"])


def processor():
    """The name of this computer's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def torch_layer(n, base=4, seconds=SECONDS):
    """Batch → vectors a second of bfthw.nn.Butterfly and of torch.nn.Linear (n, n), float32; None without torch."""
    try:
        import torch

        from bfthw.nn import Butterfly
    except ImportError:
        return None
    torch.set_num_threads(THREADS)
    found = {}
    layers = {"butterfly": Butterfly(n, base=base, residual=False), "dense": torch.nn.Linear(n, n, bias=False)}
    for name, layer in layers.items():
        for batch in BATCHES:
            x, times = torch.randn(batch, n), []
            with torch.inference_mode():
                for _ in range(3):
                    layer(x)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    begin = time.perf_counter()
                    layer(x)
                    times.append(time.perf_counter() - begin)
            found[name, batch] = batch / median(times)
    return found


def torch_version():
    return version("torch")
