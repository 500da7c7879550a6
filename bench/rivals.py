"""What others make of the same layers: a dense engine, da4ml and its successor alkaid; and this computer."""

import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from amaranth.back import rtlil

from bfthw import IntFactor, QFormat, cache
from rtl_gen.tech import ecp5

from . import flow
from .dense import Dense, DenseSpec

ROM_WORDS = 2 * ecp5.CHUNKS  # of 8 bits, in two block RAMs for each cell


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


def da4ml(network):
    """(SystemVerilog, latency in cycles) of da4ml's pipeline for a one-layer network, a register after every adder.

    It is compared with the golden model in da4ml's own interpreter. Inputs and outputs go through few pins as in
    `designs.Narrow`. None where da4ml is not installed; RuntimeError where the integers differ.
    (Sun et al., da4ml, arXiv 2507.04535; its Verilog is LGPL and stays in the build folder.)
    """
    try:
        import da4ml as package
        from da4ml.codegen.rtl.verilog import pipeline_logic_gen
        from da4ml.trace import FixedVariableArrayInput, HWConfig, comb_trace, to_pipeline
        from da4ml.trace.ops import quantize
    except ImportError:
        return None

    x = FixedVariableArrayInput((network.inputs,), hwconf=HWConfig(1, -1, -1))
    logic = comb_trace(x, _traced(x, network, quantize))
    _check("da4ml", logic, network)
    pipeline = to_pipeline(logic, 1, verbose=False)
    static = Path(package.__file__).parent / "codegen/rtl/verilog/source"
    # lookup_table.v reads a file that is not there
    parts = [path.read_text(encoding="utf-8") for path in sorted(static.glob("*.v")) if path.stem != "lookup_table"]
    return _narrow([*parts, *pipeline_logic_gen(pipeline, "rival").values()], network), len(pipeline.solutions) + 1


def alkaid(network):
    """The same of alkaid, da4ml's successor; None where it is not installed.

    Adders of three values are left out, which it makes by default, for tables of six inputs: with them, on an ECP5 and
    seed 1, it took 6,268 COMB at 99 MHz instead of 5,714 at 105, and registers 0.7 of its units of delay apart instead
    of 1 gave 103.
    """
    try:
        from alkaid.codegen.rtl.rtl_model import RTLModel
        from alkaid.trace import FVArrayInput, HWConfig, trace
        from alkaid.trace.ops import quantize
    except ImportError:
        return None

    x = FVArrayInput((network.inputs,), hwconf=HWConfig(1, -1, -1))
    logic = trace(x, _traced(x, network, quantize))
    _check("alkaid", logic, network)
    with cache.scratch() as place:
        model = RTLModel(logic, place, prj_name="rival", latency_cutoff=1, ternary_fuse=False)
        model.write()
        files = [path for path in sorted(place.rglob("src/**/*.v")) if path.stem != "rival_wrapper"]
        text = _narrow([path.read_text(encoding="utf-8") for path in files], network)
    return text, model.latency + 1  # and its output register


def _traced(x, network, quantize):
    """The network's outputs, of the symbolic array x; the two packages have the same operations."""

    def fixed(x, q, *modes):
        return quantize(x, 1, q.width - 1 - q.frac, q.frac, *modes)

    y = fixed(x, network.input)
    for f in network.factors:
        a, b, c, d = f.pattern
        blocks, w = y.reshape(a, c, d), f.values / 2.0**f.weights.frac
        sums = np.stack([blocks[i, :, l] @ w[i, :, :, l].T for i in range(a) for l in range(d)])
        y = fixed(sums.reshape(a, d, b).transpose((0, 2, 1)).reshape(a * b * d), f.output, "SAT", "RND")
    return y


def _check(name, logic, network):
    q_in, q_out = network.input, network.output
    vectors = np.random.default_rng(1).integers(q_in.lo, q_in.hi + 1, (1000, network.inputs))
    if not np.array_equal(logic.predict(vectors / 2.0**q_in.frac) * 2.0**q_out.frac, network(vectors)):
        raise RuntimeError(f"{name}: its interpreter differs from the golden model")


def _narrow(parts, network):
    inputs, outputs = network.inputs * network.input.width, network.outputs * network.output.width
    return "\n".join([*parts, _WRAPPER.format(inputs=inputs, outputs=outputs, levels=_fold("y", outputs))])


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


def torch_version():
    return version("torch")
