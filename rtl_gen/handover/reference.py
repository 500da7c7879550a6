"""NAME.h: the numbers of a network and its arithmetic in C99, for programs on processors."""

from pathlib import Path

from bfthw.golden import short_stage

from ..header import code
from .fill import fill

TEMPLATE = Path(__file__).with_name("reference.h")
WIDTH = 120  # of a line


def header(network, name):
    """Text of NAME.h for an IntNetwork; its function equals the golden model."""
    q, arrays, body = network, [], []
    buffers, most = set(), max((f.pattern.outputs for f in q.factors[:-1]), default=0)
    source, n = "x", 0
    for layer in q.layers:
        first = source
        for f in layer.factors:
            kept = {source, first} if layer.residual else {source}
            target = "y" if n == len(q.factors) - 1 else min({"a", "b", "c"} - kept)
            tables = _tables(f)
            arrays += [_array(f"{name}_{n}_{key}", table) for key, table in tables.items()]
            body += [f"    /* {short_stage(q.names[n])}, pattern {f.pattern}: weights {f.weights}, out {f.output} */"]
            body += _stage(f, name, f"{name}_{n}_", tables, source, first, target)
            buffers |= {target} - {"y"}
            source, n = target, n + 1
    if buffers:
        body.insert(0, f"    {name}_value {', '.join(f'{buffer}[{most}]' for buffer in sorted(buffers))};\n")
    value = _smallest(max(form.operand for f in q.factors for form in (f.input, f.rounded, f.output)))
    return fill(
        TEMPLATE,
        NAME=name, UPPER=name.upper(),
        STACK=f"On the stack are {len(buffers) * most} elements." if buffers else "Nothing lies on the stack.",
        INPUTS=str(q.inputs), INWIDTH=str(q.input.width), INFRAC=str(q.input.frac), INCODE=code(q.input),
        OUTPUTS=str(q.outputs), OUTWIDTH=str(q.output.width), OUTFRAC=str(q.output.frac),
        INSIGNED=str(int(q.input.signed)), OUTSIGNED=str(int(q.output.signed)),
        VALUE=f"{value}_t",
        SUM="int32_t" if max(f.acc_width for f in q.factors) <= 32 else "int64_t",
        ARRAYS="\n".join(arrays), BODY="\n".join(body),
    )


def _tables(f):
    """The arrays of a factor, by what they are."""
    found = {"weights": f.values, "skip": f.skip, "bias": f.bias}
    if f.support is not None:
        found["index"] = f.support.index
    if f.exponents is not None:
        found["shift"] = f.dot_shift
    if f.table is not None:
        found["table"] = f.table.values
    return {key: table.reshape(-1) for key, table in found.items() if table is not None}


def _stage(f, name, own, tables, source, first, target):
    """Lines that compute a factor: `target` from `source`, and from `first` where there is a residual."""
    a, b, c, d = f.pattern
    if "index" in tables:
        loops = [f"for (int32_t o = 0; o < {a}; o++) {{"]
        place, x = f"o * {c} + k", f"{own}index[o * {c} + k]"
    else:
        loops = [
            f"for (int32_t o = 0; o < {a * b * d}; o++) {{",
            f"    const int32_t i = o / {b * d}, l = o % {d};",
        ]
        place, x = f"(o / {d} * {c} + k) * {d} + l", f"(i * {c} + k) * {d} + l"
    lines = [f"{name}_sum sum = 0;", f"for (int32_t k = 0; k < {c}; k++)"]
    lines += [f"    sum += ({name}_sum){own}weights[{place}] * {source}[{x}];"]
    if "shift" in tables or f.dot_shift:
        lines += [f"sum = {name}_left(sum, {f'{own}shift[o]' if 'shift' in tables else f.dot_shift});"]
    if f.skip_input:
        weight = f" * {own}skip[o]" * ("skip" in tables)
        lines += [f"sum += {name}_left(({name}_sum){first}[o]{weight}, {f.skip_shift});"]
    if "bias" in tables:
        lines += [f"sum += {own}bias[o];"]
    least, most = 0 if f.relu else f.rounded.lo, f.rounded.hi if f.top is None else f.top
    y = f"{name}_requantise(sum, {f.shift}, {least}, {most})"
    lines += [f"{target}[o] = {f'{own}table[{y} - {least}]' if f.table else y};"]
    return [f"    {line}" for line in [*loops, *(f"    {line}" for line in lines), "}"]]


def _smallest(width):
    return next(f"int{bits}" for bits in (8, 16, 32, 64) if width <= bits)


def _array(name, table):
    """A constant array of integers, of the smallest type that holds them."""
    kind = _smallest(max(int(table.max()).bit_length(), (~int(table.min())).bit_length()) + 1)
    words = [str(value) for value in table.tolist()]
    each = (WIDTH - 4) // (max(map(len, words)) + 2)
    lines = (", ".join(words[at : at + each]) for at in range(0, len(words), each))
    return f"static const {kind}_t {name}[{len(words)}] = {{\n    " + ",\n    ".join(lines) + "\n};"
