"""Factors on vectors that stand in columns, fast on a CPU: few transposes, fused factors, blocks that fit the cache."""

from functools import lru_cache, reduce

import torch

from ..chain import Indexed, Pattern

# A plan's costs, in multiplications of a vector: of a value that goes through a factor, of one that must also be moved
# before it, of making a weight by fusion. Measured in float32, forward and backward; only their order of size matters.
PASS, MOVE, MAKE = 40, 25, 50
# Values of a block of columns, 1 MiB in float32: two fit into the second cache of a core. Fewer than MANY do not pay.
BLOCK, MANY = 1 << 18, 8


def apply(values: torch.Tensor, x: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
    """values (a, b, c, d) on x (N, inputs) -> (N, a*b*d), `chain.apply` in torch; index: of an Indexed pattern."""
    return _columns([values], [index], _turn(x)).t()


def apply_chain(patterns, values, index, x):
    """All factors on x (N, inputs), first applied first -> (N, outputs).

    patterns: of the chain; values, index: of each factor, as `apply` takes them. Neighbours are fused where `plan` says
    so. Many vectors on a CPU go block by block, and what is between the factors is not kept for the gradient but
    computed again.
    """
    groups = plan(patterns, 1 << max(0, len(x) - 1).bit_length())
    index = [index[group[0]] for group in groups]
    values = [reduce(fuse, (values[m] for m in group)) for group in groups]
    size = max(64, BLOCK // max(patterns[0].inputs, patterns[-1].outputs))
    blocks = x.device.type == "cpu" and len(x) > MANY * size
    if blocks and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling():
        return _Blocks.apply(size, index, x, *values)
    return _columns(values, index, _turn(x)).t().contiguous()


def fused(first, second):
    """The pattern of two factors as one; None where their product has no such support, or is a dense matrix."""
    if isinstance(first, Indexed) or isinstance(second, Indexed) or second.a % first.a or first.d % second.d:
        return None
    p, q = second.a // first.a, first.d // second.d
    if first.b % p or first.a * second.d == 1:
        return None
    return Pattern(first.a, p * second.b, first.c * q, second.d)


def fuse(first, second):
    """Values of the one factor that does what `first` and then `second` do, where `fused` has a pattern for it.

    With p = a2/a1, q = d1/d2 and r = b1/p both factors number the values between them [a1, p, r, q, d2], so
    v[a, (p j), (k q), e] = sum_r second[(a p), j, (r q), e] * first[a, (p r), k, (q e)].
    """
    (a, b, c, d), (a2, j, _, e) = first.shape, second.shape
    p, q = a2 // a, d // e
    first, second = first.reshape(a, p, b // p, c, q, e), second.reshape(a, p, j, b // p, q, e)
    return torch.einsum("aprkqe,apjrqe->apjkqe", first, second).reshape(a, p * j, c * q, e)


@lru_cache(maxsize=1024)
def plan(patterns, count):
    """The cheapest split of a chain into neighbours to be fused, for `count` vectors: a tuple of ranges of factors."""
    best = [(0, ())]  # of the first m factors
    for end in range(1, len(patterns) + 1):
        choices, whole = [], None
        for start in range(end - 1, -1, -1):
            # the product is taken from the left, so it is followed from there here too
            whole = reduce(lambda one, two: one and fused(one, two), patterns[start:end])
            if whole is None:
                break
            cost = whole.weights + PASS * max(whole.inputs, whole.outputs)
            cost += MOVE * whole.inputs * (whole.a > 1 and whole.d > 1)
            cost += MAKE * whole.weights / count * (end - start > 1)
            choices.append((best[start][0] + cost, (*best[start][1], range(start, end))))
        best.append(min(choices, key=lambda choice: choice[0]))
    return best[-1][1]


def _turn(x):
    """(N, inputs) -> (inputs, N), contiguous: products take strides, but are slow with them."""
    return x.t().contiguous()


def _columns(values, index, x):
    """All factors on vectors in columns, x (inputs, N) -> (outputs, N)."""
    count = x.shape[-1]
    for v, i in zip(values, index):
        a, b, c, d = v.shape
        if i is not None:
            x = x.flatten(0, -2)
            x = sum(v[:, 0, k] * x.index_select(0, i[:, k]) for k in range(c))
            continue
        blocks = v.permute(0, 3, 1, 2).reshape(a * d, b, c).contiguous()
        x = torch.bmm(blocks, x.reshape(a, c, d, count).transpose(1, 2).reshape(a * d, c, count))
        x = x.reshape(a, d, b, count).transpose(1, 2)  # left so: with a = 1 or d = 1 the next product takes it as it is
    return x.flatten(0, -2)


class _Blocks(torch.autograd.Function):
    """`_columns` of x (N, inputs), `size` vectors at a time, so that what is between the factors stays in the cache."""

    @staticmethod
    def forward(ctx, size, index, x, *values):
        ctx.size, ctx.index = size, index
        ctx.save_for_backward(x, *values)
        a, b, _, d = values[-1].shape
        y = x.new_empty(len(x), a * b * d)
        for source, target in zip(x.split(size), y.split(size)):
            target.copy_(_columns(values, index, _turn(source)).t())
        return y

    @staticmethod
    def backward(ctx, grad):
        x, *values = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # a second derivative is wanted
            y = _columns(values, ctx.index, _turn(x)).t()
            return None, None, *_gradients(y, (x, *values), needed, grad, create_graph=True)
        total = [torch.zeros_like(t) if need else None for t, need in zip((x, *values), needed)]
        values = [v.detach().requires_grad_(need) for v, need in zip(values, needed[1:])]
        for start in range(0, len(x), ctx.size):
            rows = slice(start, start + ctx.size)
            with torch.enable_grad():
                columns = _turn(x[rows]).requires_grad_(needed[0])
                y = _columns(values, ctx.index, columns)
            dx, *found = _gradients(y, (columns, *values), needed, _turn(grad[rows]))
            if needed[0]:
                total[0][rows] = dx.t()
            for sum_, one in zip(total[1:], found):
                if one is not None:
                    sum_ += one
        return None, None, *total


def _gradients(y, tensors, needed, grad, **how):
    """Of each of the tensors, None where none is needed."""
    found = iter(torch.autograd.grad(y, [t for t, need in zip(tensors, needed) if need], grad, **how))
    return [next(found) if need else None for need in needed]
