"""What torch's functions make of places: a rule for each, by its name, whether called as a function or as a method.

A rule takes `Seen` and the function's own arguments, and gives Places. One more function of torch is one more rule.
"""

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from ..fuse import back, known
from ..nodes import Gate
from . import places
from .convert import affine
from .places import ZERO, Places

RULES = {}
# what would do in the place of functions that have no rule
INSTEAD = {
    "layer_norm": "a batch norm",
    "group_norm": "a batch norm",
    "instance_norm": "a batch norm",
    "rms_norm": "a batch norm",
    "normalize": "a batch norm",
    "local_response_norm": "a batch norm",
    "conv_transpose1d": "a convolution, and the map as large as it is",
    "conv_transpose2d": "a convolution, and the map as large as it is",
    "conv3d": "Conv2d",
    "interpolate": "the map as large as it is",
    "scaled_dot_product_attention": "convolutions or butterflies over the positions",
    "multi_head_attention_forward": "convolutions or butterflies over the positions",
    "lstm": "convolutions over the sequence",
    "gru": "convolutions over the sequence",
    "rnn_tanh": "convolutions over the sequence",
    "embedding": "its rows as inputs",
    "argmax": "leaving it out: `classify` of the integers does it",
    "topk": "leaving it out: `classify` of the integers does it",
    "maximum": "a maximum over positions, or relu(a - b) + b",
    "where": "an activation",
    "glu": "a gate with a number for each channel",
    "fft_fft": "a fixed transform as a FixedButterfly, a circulant matrix as a Circulant of bfthw.nn",
    "fft_rfft": "a fixed transform as a FixedButterfly, a circulant matrix as a Circulant of bfthw.nn",
    "bilinear": "Linear of both side by side",
    "addmm": "F.linear",
    "baddbmm": "torch.bmm, and an addition",
    **dict.fromkeys(
        ("bool", "item", "tolist", "gt", "lt", "ge", "le", "eq", "ne", "int", "index"),
        "one way for all inputs, where this depends on the data,",
    ),
    "numpy": "torch's functions alone",
}


def rule(*names):
    """Registers a function for torch's functions of these names."""

    def register(function):
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def rule_of(name):
    """The rule of a function; TypeError that says what would do."""
    if name in RULES:
        return RULES[name]
    what = f"{INSTEAD[name]} would be" if name in INSTEAD else "docs/graph.md has what is"
    raise TypeError(f"is not taken; {what}")


# what is no change of numbers


@rule(
    "size", "dim", "numel", "nelement", "ndimension", "len", "stride", "is_floating_point", "is_complex", "get_device",
    "is_contiguous", "element_size", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "zeros_like",
    "ones_like", "full_like", "empty_like",
)
def fact(seen, *args, **kwargs):
    return seen.func(*args, **kwargs)


@rule("float", "double", "half", "bfloat16", "to", "type", "type_as", "cpu", "cuda", "detach", "requires_grad")
def same(seen, x, *args, **kwargs):
    wrong = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype) and not a.is_floating_point]
    if wrong:
        raise ValueError(f"makes {wrong[0]} of real numbers; floats would be taken")
    return x


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
def dropped(seen, x, p=0.5, training=True):
    if training:
        raise ValueError("drops by chance in eval mode too; training=self.training would be taken")
    return x


@rule(
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis",
    "t", "squeeze", "unsqueeze", "chunk", "split", "split_with_sizes", "tensor_split", "unbind", "narrow", "select",
    "getitem", "setitem", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "contiguous", "clone",
    "expand", "broadcast_to", "repeat", "repeat_interleave", "tile", "channel_shuffle", "pixel_shuffle",
    "pixel_unshuffle", "index_select", "flip", "roll", "rot90", "copy", "zero", "get", "unfold", "adjoint",
    "atleast_1d", "atleast_2d", "atleast_3d", "ravel", "take_along_dim", "broadcast_tensors",
)
def moved(seen, *args, **kwargs):
    """Torch moves the places; zeros that it puts among them have a place of their own."""

    def placed(value):
        if isinstance(value, Places) or not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        if value.any():
            raise ValueError("puts constants among the data; zeros would be taken, or constants added")
        return torch.full_like(value, ZERO).as_subclass(Places)

    if seen.func.__name__ == "zero_":
        return args[0].fill_(ZERO)
    if seen.func.__name__ == "__setitem__" and not isinstance(args[2], torch.Tensor):
        args = (*args[:2], placed(torch.tensor(float(args[2]), dtype=torch.float64)))
    args, kwargs = tree_map(placed, (args, kwargs))
    y = seen.func(*args, **kwargs)
    return tree_map(lambda t: t.as_subclass(Places) if isinstance(t, torch.Tensor) else t, y)


@rule("expand_as", "view_as", "reshape_as")
def moved_as(seen, x, other):
    """Of the other one only the shape matters; x may be a constant."""
    y = seen.func(x, other)
    return y.as_subclass(Places) if isinstance(x, Places) else y


@rule("pad")
def padded(seen, x, pad, mode="constant", value=None):
    if mode != "constant" or value:
        raise ValueError(f"pads with {value if mode == 'constant' else mode}; zeros would be taken")
    return torch.nn.functional.pad(x, pad, value=ZERO).as_subclass(Places)


# constants and norms


def scaled(seen, x, gain, shift=0):
    """x * gain + shift: numbers, or tensors that broadcast."""
    gain, shift = (torch.as_tensor(v, dtype=torch.float64) for v in (gain, shift))
    shape = torch.broadcast_shapes(x.shape, gain.shape, shift.shape)
    parts = [v.expand(shape) for v in (gain, shift)]
    if any((v[0] != v[1]).any() for v in parts):
        raise ValueError("its constants differ from sample to sample")
    if (parts[0] == 1).all() and not parts[1].any():
        return spread(x, shape)

    def make(gain, shift):
        return {"scale": None if (gain == 1).all() else gain, "bias": shift if shift.any() else None}

    return seen.each([spread(x, shape)], make, [v[0].numpy() for v in parts])


def spread(x, shape):
    return x.as_subclass(torch.Tensor).expand(shape).as_subclass(Places)


@rule("batch_norm")
def normed(seen, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training or mean is None:
        raise ValueError("has no running statistics (track_running_stats=False); with them it would be taken")
    gain, shift = affine(*(v if v is None else v.detach().numpy() for v in (mean, var, weight, bias)), eps)
    axes = [-1] + [1] * (x.ndim - 2)
    return scaled(seen, x, gain.reshape(axes), shift.reshape(axes))


@rule("add")
def added(seen, x, y, alpha=1):
    if not isinstance(x, Places):
        return scaled(seen, y, alpha, x)
    if not isinstance(y, Places):
        return scaled(seen, x, 1, torch.as_tensor(y, dtype=torch.float64) * alpha)
    shape = torch.broadcast_shapes(x.shape, y.shape)
    if alpha == 1 and (places.read(x) == ZERO).all():  # sums often begin with zeros
        return spread(y, shape)
    scales = [] if alpha == 1 else [np.full(shape[1:], float(alpha))]
    try:
        return seen.each([spread(x, shape), spread(y, shape)], lambda *scale: dict(zip(["add_scale"], scale)), scales)
    except ValueError as error:
        raise ValueError(f"the two cannot be added as maps of one size: {error}") from None


@rule("sub", "subtract")
def subtracted(seen, x, y, alpha=1):
    return added(seen, x, y, -alpha)


@rule("rsub")
def subtracted_from(seen, x, y, alpha=1):
    return added(seen, y, x, -alpha)


@rule("neg", "negative")
def negated(seen, x):
    return scaled(seen, x, -1)


@rule("div", "divide", "true_divide")
def divided(seen, x, y, rounding_mode=None):
    if isinstance(y, Places) or rounding_mode is not None:
        raise TypeError("divides by data, or rounds; a division by constants would be taken")
    return scaled(seen, x, 1 / torch.as_tensor(y, dtype=torch.float64))


@rule("mul", "multiply")
def multiplied(seen, x, y):
    if not (isinstance(x, Places) and isinstance(y, Places)):
        return scaled(seen, *((x, y) if isinstance(x, Places) else (y, x)))
    shape = torch.broadcast_shapes(x.shape, y.shape)
    a, b = (places.read(spread(v, shape)) for v in (x, y))
    for order in (places.first(a.shape), places.last(a.shape)):
        if order is None:
            continue
        for map_, gate in ((a.ravel()[order], b.ravel()[order]), (b.ravel()[order], a.ravel()[order])):
            if (gate == gate[:1, :1]).all():
                inputs = seen.taken(map_), seen.taken(gate[:1, :1])
                return seen.give(Gate(name=seen.name(), inputs=inputs), order, a.shape)
    function = _product(seen, a, b)
    if function is None:
        raise TypeError(
            "multiplies two maps number by number; a map by a vector with a number for each channel would be taken, or "
            "one activation of one map"
        )
    x, act = function
    return seen.each([x], lambda: {"act": act})


def _product(seen, a, b):
    """(Places, Act) where both are functions of one map, such as x * sigmoid(x); else None."""
    own = [seen.table.own(number) for number in (a, b)]
    if any(o is None for o in own) or not np.array_equal(*own):
        return None
    names = [seen.take(number.ravel()[o]) for number, o in zip((a, b), own)]
    nodes = {node.name: node for node in seen.table.nodes}
    ways = [{name: function for name, function, _ in back(nodes, last)} for last in names]
    common = next((name for name in ways[0] if name in ways[1]), None)
    if common is None:
        return None
    f, g = (way[common] for way in ways)
    out = np.empty(a.size, np.int64)
    out[own[0]] = seen.table.places(common).reshape(own[0].shape)
    return places.tensor(out.reshape(a.shape)), known(lambda x: f(x) * g(x), "product")


# activations


@rule(
    "relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu", "tanh", "gelu", "mish", "elu", "selu", "celu",
    "prelu", "leaky_relu", "rrelu", "softplus", "softsign", "tanhshrink", "log_sigmoid", "logsigmoid", "hardtanh",
    "hardshrink", "softshrink", "threshold", "clamp", "clip", "clamp_min", "clamp_max", "abs", "absolute", "exp",
    "exp2", "expm1", "log", "log2", "log10", "log1p", "square", "sqrt", "rsqrt", "reciprocal", "pow", "rpow", "rdiv",
    "rtruediv", "sin", "cos", "tan", "asin", "acos", "atan", "arctan", "sinh", "cosh", "asinh", "erf", "erfc", "sign",
    "round", "floor", "ceil", "trunc", "frac", "sinc", "logit", "expit", "special_expit",
)
def activated(seen, x, *args, **kwargs):
    """Any function of one number is a table, or a clamp."""
    func, rest = seen.func, tree_leaves((args, kwargs))
    if not isinstance(x, Places) or any(isinstance(v, torch.Tensor) and v.numel() > 1 for v in rest):
        raise TypeError("has more than one number for a channel; a function of one number alone would be taken")

    def function(x):
        with torch.no_grad():
            return func(torch.tensor(np.asarray(x, np.float64)), *args, **kwargs).numpy()

    act = known(function, func.__name__.strip("_"))
    return seen.each([x], lambda: {"act": act})
