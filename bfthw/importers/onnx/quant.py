"""Operators that round: QONNX's Quant, Quantize- and DequantizeLinear. Steps that are powers of two are formats."""

from dataclasses import replace

import numpy as np

from ...choose import choose_formats
from ...formats import Formats, apply_formats, formats_of, row_exponents
from ...formats import quantise as to_integers
from ...graph import INPUT
from ...network import Layer, Network
from ...qformat import QFormat
from ...reading import some
from ...settings import Settings
from .registry import Call, operator
from .values import Tensor

ROUNDINGS = {"ROUND": np.rint, "ROUND_HALF_EVEN": np.rint, "FLOOR": np.floor, "CEIL": np.ceil}
ROUNDINGS |= {"ROUND_TO_ZERO": np.trunc, "DOWN": np.trunc, "HALF_UP": lambda x: np.floor(x + 0.5)}


def _format(scale, zero, bits, signed, narrow=False):
    """The QFormat of a scale 2**-frac without a zero point, the coarsest one of many, or None."""
    mantissa, exponent = np.frexp(scale)
    if np.any(mantissa != 0.5) or np.any(zero) or narrow or not 1 <= bits <= 62:
        return None
    return QFormat(bits, 1 - int(exponent.max()), signed)


@operator("Quant", domain="qonnx.custom_op.general")
def quant(call: Call) -> Tensor:
    """Quant(x, scale, zero point, bits): of QONNX, see https://github.com/fastmachinelearning/qonnx (docs)."""
    scale, zero, bits = (call.constant(k) for k in (1, 2, 3))
    signed, narrow = bool(call.given.get("signed", 1)), bool(call.given.get("narrow", 0))
    mode = call.given.get("rounding_mode", b"ROUND").decode().upper()
    if (
        mode not in ROUNDINGS
        or bits.size != 1
        or bits != np.floor(bits)
        or not 1 <= bits <= 62
        or not (scale > 0).all()
    ):
        raise ValueError(f"rounds by {mode} to {bits} bits in steps {scale}; 1 to 62 bits, steps above zero, are read")
    bits, t = int(bits.ravel()[0]), call.input(0)
    fmt = _format(scale, zero, bits, signed)
    if t.node is not None:
        return call.made.rounded(t, fmt if scale.size == 1 and not narrow else None)
    high = 2 ** (bits - signed) - 1 - (narrow and not signed)
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    q = np.clip(ROUNDINGS[mode](t.array / scale + zero), low, high)
    return replace(t, array=(q - zero) * scale, format=fmt)


@operator("QuantizeLinear")
def quantize(call: Call) -> Tensor:
    """A format where its step is a power of two; the integers go to DequantizeLinear alone."""
    t, (scale, zero) = call.input(0), _steps(call)
    signed, bits = call.kinds.get(2, (False, 8))
    if t.node is None:
        info = QFormat(bits, 0, signed)
        q = np.clip(np.rint(t.array / scale) + zero, info.lo, info.hi)
        return replace(t, array=q, format=None, step=None)
    t = call.made.rounded(t, _format(scale, zero, bits, signed) if scale.size == 1 else None)
    return replace(t, step=(scale.tobytes(), zero.tobytes()))


@operator("DequantizeLinear")
def dequantize(call: Call) -> Tensor:
    """The way back from the integers of QuantizeLinear, or constants from integers of the file."""
    t, (scale, zero) = call.input(0), _steps(call)
    if t.node is None:
        signed, bits = call.kinds.get(0, (True, 0))
        return replace(t, array=(t.array - zero) * scale, format=_format(scale, zero, bits, signed))
    if t.step != (scale.tobytes(), zero.tobytes()):
        raise ValueError("takes integers of other steps than those that its scale and zero point say")
    return replace(t, step=None)


def _steps(call):
    """(scale, zero point), arrays that broadcast against the first input; ValueError for steps that are none."""
    t, scale, zero = call.input(0), call.constant(1), call.constant(2)
    zero = np.zeros(()) if zero is None else zero
    if not (scale > 0).all() or zero.size not in (1, scale.size) or call.given.get("block_size", 0):
        raise ValueError("its scale must be above zero, with a zero point for each, one for all or for each channel")
    if scale.size == 1:
        return scale.ravel()[0].astype(np.float64), np.float64(zero.ravel()[0])
    axis = call.given.get("axis", 1)
    axis += t.array.ndim * (axis < 0)
    if not 0 <= axis < t.array.ndim or scale.ndim != 1 or scale.size != t.array.shape[axis]:
        raise ValueError(f"its scale of {scale.shape} does not fit axis {axis} of {t.array.shape}")
    ones = (-1, *[1] * (t.array.ndim - 1 - axis))
    return scale.reshape(ones), np.broadcast_to(zero.ravel(), scale.shape).reshape(ones)


def with_formats(network: Network, formats: dict, weights: dict) -> tuple[Network, list[str]]:
    """(the network with the formats that the file says, where it says all of them, notes).

    formats: {node: QFormat}, None for steps that are none; weights: those of layers' weights.
    """
    if not formats and not any(weights.values()):
        return network, []
    outputs = _outputs(network, formats)
    rows = {n.name: _rows(n.scaled[0].values, weights.get(n.name)) for n in network.layers}
    unsaid = [name for name, fmt in outputs.items() if fmt is None]
    unsaid += [f"the weights of {name}" for name, count in rows.items() if count is None]
    unsaid += [f"the factors of {node.name}" for node in network.layers if len(node.chain.factors) > 1]
    added = {n.name: _holding(n.add_scale) for n in network.layers if n.add_scale is not None}
    unsaid += [f"the weights of what is added in {name}" for name, fmt in added.items() if fmt is None]
    if unsaid:
        where = some(unsaid, str)
        note = (
            f"the file rounds, but not in one step that is a power of two at {where}: values are taken without rounding"
        )
        return network, [f"{note}, `quantize` chooses formats"]
    layers = []
    for node, own in zip(network.layers, choose_formats(network, Settings()).layers):
        name = node.name
        factor = replace(own.factors[0], weights=weights[name], rows=rows[name], output=outputs[name])
        layers.append(replace(own, factors=(factor,), bias_width=None, skip=added.get(name)))
    joins = {n.name: outputs[n.name] for n in network.nodes if not isinstance(n, Layer)}
    chosen = Formats(input=outputs[INPUT], layers=tuple(layers), joins=joins)
    integers = to_integers(network, chosen, apply_formats)
    # a bias below half of the last bit of the sums is there so that no half is rounded: bfthw.to_qonnx
    none = {whole.name for whole in integers.weighted if (b := whole.factors[-1].bias) is not None and not b.any()}
    nodes = [replace(node, bias=None) if node.name in none else node for node in network.nodes]
    chosen = formats_of(to_integers(Network(nodes, network.shape), chosen, apply_formats))
    return Network(nodes, network.shape, formats=chosen), [
        "formats are those that the file rounds to; a half is rounded up"
    ]


def _outputs(network, formats):
    """{node: format of what it gives, None where the file does not say}; who computes nothing gives what it takes."""
    found = {INPUT: formats.get(INPUT)}

    def step(node, *given):
        passes = not isinstance(node, Layer) and not node.computes and len({*given}) == 1
        found[node.name] = fmt = formats.get(node.name, given[0] if passes else None)
        return fmt

    for _ in network.walk(found[INPUT], step):
        pass
    return found


def _rows(values, fmt):
    """The least extra bits of a row with which a format holds weights exactly; None where none do."""
    if fmt is None:
        return None
    return next((rows for rows in range(9) if _exact(np.ldexp(values, _extra(values, fmt, rows)), fmt)), None)


def _extra(values, fmt, rows):
    exponents = row_exponents(values, fmt, rows)
    return 0 if exponents is None else exponents[:, :, None]


def _exact(values, fmt):
    return np.array_equal(fmt.dequantise(fmt.quantise(values)), values)


def _holding(values):
    """The narrowest format, of 8 bits or more, that holds numbers exactly; None where 24 bits do not."""
    formats = (QFormat.covering(bits, values.min(), values.max()) for bits in range(8, 25))
    return next((fmt for fmt in formats if _exact(values, fmt)), None)
