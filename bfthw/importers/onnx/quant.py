"""Operators that round: QONNX's Quant, Quantize- and DequantizeLinear. Steps that are powers of two are formats."""

from dataclasses import replace

import numpy as np

from ...choose import choose_formats
from ...formats import apply_formats, formats_of
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
    """The QFormat of one scale 2**-frac without a zero point, or None."""
    if np.size(scale) != 1 or np.any(zero) or narrow or not 1 <= bits <= 62:
        return None
    mantissa, exponent = np.frexp(np.ravel(scale)[0])
    return QFormat(bits, 1 - int(exponent), signed) if mantissa == 0.5 else None


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
        return call.made.rounded(t, None if narrow else fmt)
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
    t = call.made.rounded(t, _format(scale, zero, bits, signed))
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
    wanted = [INPUT, *(node.name for node in network.nodes if isinstance(node, Layer) or node.computes)]
    unsaid = [name for name in wanted if formats.get(name) is None]
    unsaid += [f"the weights of {node.name}" for node in network.layers if weights.get(node.name) is None]
    unsaid += [f"the factors of {node.name}" for node in network.layers if len(node.chain.factors) > 1]
    if unsaid:
        where = some(unsaid, str)
        note = (
            f"the file rounds, but not in one step that is a power of two at {where}: values are taken without rounding"
        )
        return network, [f"{note}, `quantize` chooses formats"]
    chosen = choose_formats(network, Settings())
    layers = []
    for node, own in zip(network.layers, chosen.layers):
        factor = replace(own.factors[0], weights=weights[node.name], output=formats[node.name])
        layers.append(replace(own, factors=(factor,), bias_width=None))
    joins = {name: formats.get(name) or fmt for name, fmt in chosen.joins.items()}
    chosen = replace(chosen, input=formats[INPUT], layers=tuple(layers), joins=joins)
    chosen = formats_of(to_integers(network, chosen, apply_formats))
    return Network(network.nodes, network.shape, formats=chosen), [
        "formats are those that the file rounds to; a half is rounded up"
    ]
