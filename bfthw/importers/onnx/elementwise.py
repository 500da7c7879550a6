"""Operators that work number by number: activations, and sums, products and quotients."""

from dataclasses import replace
from itertools import islice
from math import erf, prod

import numpy as np

from ...act import KNOWN, Act
from ...fuse import back, known
from ...nodes import Gate
from .registry import Call, operator, spread, unlike
from .values import Tensor, Varies


def _softplus(x):
    return np.logaddexp(0, x)


_erf = np.vectorize(erf, otypes=[np.float64])
PLAIN = {"Relu": "relu", "HardSwish": "hswish", "Sigmoid": "sigmoid", "Tanh": "tanh"}
# name -> function of the attributes to a function of arrays
TABLES = {
    "LeakyRelu": lambda alpha=0.01: lambda x: np.where(x < 0, alpha * x, x),
    "Elu": lambda alpha=1.0: lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
    "Celu": lambda alpha=1.0: lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0) / alpha), x),
    "Selu": lambda alpha=1.6732632423543772, gamma=1.0507009873554805: (
        lambda x: gamma * np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)
    ),
    "ThresholdedRelu": lambda alpha=1.0: lambda x: np.where(x > alpha, x, 0),
    "Softplus": lambda: _softplus,
    "Softsign": lambda: lambda x: x / (1 + np.abs(x)),
    "Mish": lambda: lambda x: x * np.tanh(_softplus(x)),
    "Swish": lambda alpha=1.0: lambda x: x * KNOWN["sigmoid"][0](alpha * x),
    "Gelu": lambda approximate=b"none": (
        lambda x: (
            0.5
            * x
            * (
                1
                + (_erf(x / 2**0.5) if approximate == b"none" else np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
            )
        )
    ),
    "Erf": lambda: _erf,
    "Exp": lambda: np.exp,
    "Abs": lambda: np.abs,
    "Sin": lambda: np.sin,
    "Cos": lambda: np.cos,
    "Floor": lambda: np.floor,
    "Ceil": lambda: np.ceil,
    "Round": lambda: np.rint,
    "Sign": lambda: np.sign,
    "Sqrt": lambda: np.sqrt,
    "Log": lambda: np.log,
    "Reciprocal": lambda: np.reciprocal,
}


@operator(*PLAIN, *TABLES, "HardSigmoid", pointwise=True)
def function(call: Call) -> Tensor:
    """A function of one number: an activation, of constants a constant."""
    t, op, given = call.input(0), call.op, call.given
    if op in PLAIN:
        act = Act(PLAIN[op])
    elif op == "HardSigmoid":
        alpha, beta = given.get("alpha", 0.2), given.get("beta", 0.5)
        act = Act("hsigmoid") if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5 else None
        act = act or Act(f"hsigmoid_{alpha:g}_{beta:g}", lambda x: np.clip(alpha * x + beta, 0, 1))
    else:
        act = Act("_".join([op.lower(), *(f"{v:g}" for v in given.values() if type(v) is float)]), TABLES[op](**given))
    if t.node is None:
        with np.errstate(all="ignore"):
            return replace(t, array=np.asarray(act(t.array), np.float64))
    return call.made.active(t, act)


@operator("Clip", pointwise=True)
def clip(call: Call) -> Tensor:
    """ReLU, ReLU6, or any two ends as a table; min and max are attributes in opsets below 11."""
    least, most = (
        float(call.given.get(key, default) if call.input(k) is None else call.constant(k).ravel()[0])
        for k, key, default in ((1, "min", -np.inf), (2, "max", np.inf))
    )
    t = call.data()
    if not least <= most:
        raise ValueError(f"from {least:g} to {most:g}: nothing lies between")
    if (least, most) == (-np.inf, np.inf):
        return t
    known = {(0, np.inf): "relu", (0, 6): "relu6"}.get((least, most))
    return call.made.active(
        t, Act(known) if known else Act(f"clip_{least:g}_{most:g}", lambda x: np.clip(x, least, most))
    )


@operator("Neg", pointwise=True)
def negative(call: Call) -> Tensor:
    """A scale of -1."""
    t = call.input(0)
    return replace(t, array=-t.array) if t.node is None else call.made.scaled(t, gain=np.full(t.array.shape, -1.0))


@operator("PRelu", pointwise=True)
def prelu(call: Call) -> Tensor:
    """One slope for all channels, as a table."""
    slope = call.constant(1)
    if np.unique(slope).size != 1:
        raise ValueError("has a slope for each channel; one slope for all is read, as a table")
    alpha = float(slope.ravel()[0])
    return call.made.active(call.data(), Act(f"leakyrelu_{alpha:g}", TABLES["LeakyRelu"](alpha)))


def _quotient(a, b):
    if b.dtype.kind == a.dtype.kind == "i":
        return np.trunc(a / np.where(b, b, 1)).astype(np.int64)
    return a / b


FOLDED = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _quotient}


@operator(*FOLDED, pointwise=True)
def arithmetic(call: Call) -> Tensor:
    """Two constants make one; a constant goes into a layer as scale or bias; two tensors of data by OF_DATA."""
    a, b = call.inputs
    if a.node is None and b.node is None:
        if prod(np.broadcast_shapes(a.array.shape, b.array.shape)) > call.made.most:
            raise ValueError(f"makes a constant of more than {call.made.most} numbers")
        with np.errstate(all="ignore"):
            return Tensor(array=np.asarray(FOLDED[call.op](a.array, b.array)))
    if a.node is not None and b.node is not None:
        if call.batched and a.array.ndim != b.array.ndim:
            raise ValueError(f"shapes {a.array.shape} and {b.array.shape} would mix the vectors of a batch")
        return OF_DATA[call.op](call, a, b)
    k = 0 if a.node is None else 1  # of the constant
    t, what = (a, b)[1 - k], "bias" if call.op in ("Add", "Sub") else "scale"
    try:
        return _by_constant(call, t, spread(call, k, t, what), turned=k == 0)
    except Varies:
        raise unlike(call, k, t, what) from None


def _by_constant(call, t, c, turned):
    """A tensor and numbers of its shape, or, turned, the other way round."""
    made, one = call.made, np.full(c.shape, -1.0)
    if call.op == "Add":
        return made.scaled(t, shift=c)
    if call.op == "Sub":
        return made.scaled(t, one, c) if turned else made.scaled(t, shift=-c)
    if call.op == "Mul":
        return made.scaled(t, gain=c)
    if turned:
        if np.unique(c).size != 1:
            raise ValueError("divides a number for each channel by the data; one number for all is read, as a table")
        top = float(c.ravel()[0])
        return made.active(t, Act(f"reciprocal_{top:g}", lambda x: top / x))
    if not c.all():
        raise ValueError("divides by zero")
    return made.scaled(t, gain=1 / c)


def _sum(call, a, b, sign=1):
    full, other = (b, a) if a.array.size < b.array.size and sign == 1 else (a, b)
    try:
        repeated = np.broadcast_to(other.array, full.array.shape)
    except ValueError:
        shapes = f"shapes {a.array.shape} and {b.array.shape}"
        raise ValueError(f"{shapes}: data is added to data of the same shape, or repeated to it") from None
    return call.made.summed(full, replace(other, array=repeated), sign)


def _gate(call, a, b):
    """A map times a vector of its channels; or x * f(x), which is a function of x."""
    made = call.made
    a, b = made.settled(a), made.settled(b)
    for x, y in ((a, b), (b, a)):
        if (t := _function(call, x, y, np.multiply)) is not None:
            return t
    if made.shapes[b.node].positions > 1:
        a, b = b, a
    try:
        shape = np.broadcast_shapes(a.array.shape, b.array.shape)
    except ValueError:
        shape = None
    if shape != a.array.shape or made.shapes[b.node].positions > 1:
        raise ValueError(
            f"multiplies {a.array.shape} by {b.array.shape}; what is read is a map times a vector of its channels, or "
            "x * f(x)"
        )
    wanted, places = made.shapes[a.node], np.empty(a.array.size, np.int64)
    places[a.array.ravel()] = np.broadcast_to(b.array, shape).ravel()
    rows = places.reshape(wanted.positions, wanted.channels)
    if (rows != rows[0]).any():
        raise ValueError("multiplies positions by other numbers; a map times a vector of its channels is read")
    return replace(a, node=made.add(Gate(inputs=(a.node, made.pick((b.node,), rows[0])))))


def _function(call, x, y, what):
    """what(x, f(x)), f being what layers that work number by number make of x; None where y is something else."""
    steps = islice(back(call.made.nodes, y.node), 9)
    function, acts = next((own for name, *own in steps if name == x.node), (None, ()))
    if not acts or not np.array_equal(x.array, y.array):
        return None
    name = "_".join([what.__name__, *(act.name for act in acts)])
    return call.made.active(x, known(lambda v: what(v, function(v)), name))


OF_DATA = {"Add": _sum, "Sub": lambda call, a, b: _sum(call, a, b, -1), "Mul": _gate}


def _ratio(call, a, b):
    """x / f(x), which is a function of x."""
    a, b = call.made.settled(a), call.made.settled(b)
    if (t := _function(call, a, b, np.divide)) is None:
        raise ValueError("divides data by data; products with a gate, x / f(x), and quotients by constants, are read")
    return t


OF_DATA["Div"] = _ratio


@operator("Sum", pointwise=True)
def summed(call: Call) -> Tensor:
    """Any number of tensors of data, one shape."""
    first, *rest = call.inputs
    if any(t.node is None for t in call.inputs):
        raise ValueError("adds constants; an Add does that")
    for t in rest:
        first = _sum(call, first, t)
    return first


@operator("Softmax", "LogSoftmax")
def softmax(call: Call) -> Tensor:
    """Left out at the end, where it keeps the order of the outputs."""
    if not call.last:
        raise ValueError("is read as the last node alone, where it is dropped: it keeps the order of the outputs")
    call.made.notes.append(f"the last {call.op} is left out: outputs are what goes into it, in the same order of size")
    return call.data()
