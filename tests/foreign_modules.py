"""Modules with the names, attributes and arrays of other projects', their forwards written from the definitions."""

import math

import torch
from torch import nn


def pairs(y, matrices, stride):
    """y (N, n) with values `stride` apart taken in pairs, in order of the first of them: matrices (n/2, 2, 2)."""
    first = torch.tensor([i for i in range(y.shape[1]) if not i & stride])
    z = torch.empty_like(y)
    both = torch.stack([y[:, first], y[:, first + stride]], dim=-1)  # (N, n/2, 2)
    z[:, first], z[:, first + stride] = torch.einsum("prc,npc->npr", matrices, both).unbind(-1)
    return z


def padded(x, n):
    return torch.cat([x, x.new_zeros(len(x), n - x.shape[1])], dim=1)


class Sized(nn.Module):
    """in_size, out_size, n = 2^m, as both modules of HazyResearch have them; an optional bias."""

    def sizes(self, in_size, out_size, bias):
        super().__init__()
        self.in_size, self.out_size, self.m = in_size, out_size, max(0, math.ceil(math.log2(in_size)))
        self.n = 1 << self.m
        self.bias = nn.Parameter(torch.randn(out_size)) if bias else None

    def finish(self, y):
        return y if self.bias is None else y + self.bias


def torch_butterfly(base4=False, unitary=False):
    """An instance's class: torch_butterfly.Butterfly, or those that are made of it."""

    class Butterfly(Sized):
        def __init__(self, in_size, out_size, bias=True, increasing_stride=True, nblocks=1, complex=False):
            self.sizes(in_size, out_size, bias)
            self.nstacks, self.nblocks = math.ceil(out_size / self.n), nblocks
            self.increasing_stride, self.complex, self.log_n = increasing_stride, complex, self.m
            self.arrays()

        def arrays(self):
            shape = self.nstacks, self.nblocks, self.m, self.n // 2, 2, 2
            self.twiddle = nn.Parameter(torch.randn(shape, dtype=torch.complex64 if self.complex else None))

        def orders(self):
            """log2 of the strides of each block."""
            up = list(range(self.m))
            return [up if self.increasing_stride != block % 2 else up[::-1] for block in range(self.nblocks)]

        def stack(self, y, s):
            for block, order in enumerate(self.orders()):
                for place, k in enumerate(order):
                    y = pairs(y, self.twiddle[s, block, place], 1 << k)
            return y

        def forward(self, x):
            x = padded(x, self.n)
            return self.finish(torch.cat([self.stack(x, s) for s in range(self.nstacks)], dim=1)[:, : self.out_size])

    class ButterflyBase4(Butterfly):
        def arrays(self):
            shape = self.nstacks, self.nblocks
            self.twiddle4 = nn.Parameter(torch.randn(*shape, self.m // 2, self.n // 4, 4, 4))
            self.twiddle2 = nn.Parameter(torch.randn(*shape, self.m % 2, self.n // 2, 2, 2))

        def stack(self, y, s):
            for block, order in enumerate(self.orders()):
                for place in range(self.m // 2):
                    stride = 1 << min(order[2 * place : 2 * place + 2])
                    groups = y.reshape(len(y), -1, 4, stride)
                    matrices = self.twiddle4[s, block, place].reshape(-1, stride, 4, 4)
                    y = torch.einsum("gorc,ngco->ngro", matrices, groups).reshape(len(y), -1)
                if self.m % 2:
                    y = pairs(y, self.twiddle2[s, block, 0], 1 << order[-1])
            return y

    class ButterflyUnitary(Butterfly):
        def arrays(self):
            self.complex = True
            self.twiddle = nn.Parameter(torch.randn(self.nstacks, self.nblocks, self.m, self.n // 2, 4))

    return ButterflyUnitary if unitary else ButterflyBase4 if base4 else Butterfly


class Diagonal(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size, self.complex, self.diagonal = size, False, nn.Parameter(torch.randn(size))

    def forward(self, x):
        return x @ torch.diag(self.diagonal)


class FixedPermutation(nn.Module):
    def __init__(self, permutation):
        super().__init__()
        self.register_buffer("permutation", permutation)

    def forward(self, x):
        return torch.stack([x[..., int(place)] for place in self.permutation], dim=-1)


class Butterfly(Sized):
    """The older module: kind is tied, untied, fast, or b_bt or fast b_bt with nblocks."""

    def __init__(self, in_size, out_size, bias=True, increasing_stride=True, kind="tied", param="regular", expansion=1):
        self.sizes(in_size, out_size, bias)
        self.nstack = math.ceil(out_size / self.n) * expansion
        self.increasing_stride, self.param, self.complex, self.expansion = increasing_stride, param, False, expansion
        self.tied_weight, self.fast, self.nblocks, self.in_size_extended = kind == "tied", "fast" in kind, 0, self.n
        self.nblocks = 1 if "b_bt" in kind else 0
        count = self.m * max(1, 2 * self.nblocks)
        shape = (self.n - 1,) if self.tied_weight else (count, self.n // 2)
        shape += (2, 2) if param == "regular" else ()
        self.twiddle = nn.Parameter(torch.randn(self.nstack, *((count, 2, self.n) if self.fast else shape)))

    def matrices(self, s, place, k):
        if self.tied_weight:
            one = self.twiddle[s, (1 << k) - 1 : (2 << k) - 1].repeat(self.n >> (k + 1), *[1] * (self.twiddle.ndim - 2))
        else:
            one = self.twiddle[s, place if self.nblocks else k]
        if self.param == "ortho":
            return torch.stack([one.cos(), -one.sin(), one.sin(), one.cos()], dim=-1).reshape(-1, 2, 2)
        if self.param in ("ds", "logit", "ortho2"):
            one = {"logit": torch.sigmoid, "ortho2": lambda t: t.cos() ** 2}.get(self.param, lambda t: t)(one)
            return torch.stack([one, 1 - one, 1 - one, one], dim=-1).reshape(-1, 2, 2)
        return one

    def stack(self, y, s):
        up = list(range(self.m))
        order = up[::-1] + up if self.nblocks else up if self.increasing_stride else up[::-1]
        for place, k in enumerate(order):
            if self.fast:
                own, other = self.twiddle[s, place]
                y = own * y + other * y[:, torch.arange(self.n) ^ (1 << k)]
            else:
                y = pairs(y, self.matrices(s, place, k), 1 << k)
        return y

    def linear(self, x):
        x = padded(x, self.n)
        y = torch.cat([self.stack(x, s) for s in range(self.nstack)], dim=1)
        part = 1 << max(0, math.ceil(math.log2(self.out_size)))
        if y.shape[1] // part >= 2:
            y = sum(y.split(part, dim=1))
        return y[:, : self.out_size]

    def forward(self, x):
        return self.finish(self.linear(x))


class ButterflyConv1d(Butterfly):
    def __init__(self, in_channels, out_channels, kernel_size, **rest):
        super().__init__(in_channels, out_channels, **rest)
        self.kernel_size, self.bias_conv, self.bias = kernel_size, self.bias, None

    def forward(self, x):  # (N, C, L)
        y = self.linear(x.transpose(1, 2).flatten(0, 1)) + self.bias_conv
        return y.unflatten(0, (len(x), -1)).transpose(1, 2)


class DeBut(nn.Module):
    def __init__(self, in_size, out_size, R_shapes, bias=True):
        super().__init__()
        self.in_size, self.out_size, self.R_shapes, self.param = in_size, out_size, R_shapes, "regular"
        self.twiddle = nn.Parameter(torch.randn(sum(out * s for out, _, _, s, _ in R_shapes)))
        self.bias = nn.Parameter(torch.randn(out_size)) if bias else None

    def linear(self, y):
        """Block by block, place on the diagonal by place: y of block b at place j is r x s numbers times x there."""
        start = 0
        for out, q, r, s, t in self.R_shapes:
            weights = self.twiddle[start : start + out * s].reshape(q // (s * t), t, r, s)
            y = torch.einsum("btrs,nbst->nbrt", weights, y.reshape(len(y), q // (s * t), s, t)).reshape(len(y), out)
            start += out * s
        return y if self.bias is None else y + self.bias

    def forward(self, x):
        return self.linear(x)


class DeBut_1dConv(DeBut):
    def __init__(self, input_channel, output_channel, kernel_size, R_shapes, bias=True):
        super().__init__(input_channel * kernel_size, output_channel, R_shapes, bias)
        self.input_channel, self.output_channel, self.kernel_size = input_channel, output_channel, kernel_size

    def forward(self, x):  # (N, C, L)
        return self.linear(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


class DeBut_2dConv(DeBut):
    def __init__(self, input_channel, output_channel, kernel_size, R_shapes, stride=1, bias=True):
        super().__init__(input_channel, output_channel, R_shapes, bias)
        self.kernel_size, self.stride = (kernel_size,) * 2, (stride,) * 2

    def forward(self, x):  # (N, C, H, W)
        x = x[:, :, :: self.stride[0], :: self.stride[1]].movedim(1, -1)
        return self.linear(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1).movedim(-1, 1)


class Features(nn.Module):
    """in_features, out_features and blocks of fly's StructuredLinear."""

    def sizes(self, in_features, out_features, nblocks, bias):
        super().__init__()
        self.in_features, self.out_features, self.nblocks = in_features, out_features, nblocks
        self.p, self.s = math.ceil(in_features / nblocks), math.ceil(out_features / nblocks)
        self.bias = nn.Parameter(torch.randn(out_features)) if bias else None

    def forward(self, x):
        y = self.linear(padded(x, self.p * self.nblocks))[:, : self.out_features]
        return y if self.bias is None else y + self.bias


class MonarchLinear(Features):
    """fly's, with blkdiag1 and blkdiag2, or torch-structured's with w1 and w2."""

    def __init__(self, in_features, out_features, nblocks=4, bias=True, names=("blkdiag1", "blkdiag2")):
        self.sizes(in_features, out_features, nblocks, bias)
        middle = self.p if names[0] == "w1" else min(self.p, self.s)
        self.names = names
        setattr(self, names[0], nn.Parameter(torch.randn(nblocks, middle, self.p)))
        setattr(self, names[1], nn.Parameter(torch.randn(nblocks, self.s, middle)))

    def linear(self, x):
        one, two = (getattr(self, name) for name in self.names)
        middle = torch.einsum("kqp,nkp->nkq", one, x.reshape(len(x), self.nblocks, -1)).reshape(len(x), -1)
        # block l of the second takes every nblocks-th value, and gives every nblocks-th
        y = [middle[:, l :: self.nblocks] @ two[l].T for l in range(self.nblocks)]  # noqa: E741
        return torch.stack(y, dim=-1).flatten(1)


class BlockdiagLinear(Features):
    def __init__(self, in_features, out_features, nblocks=4, bias=True, shuffle=False):
        self.sizes(in_features, out_features, nblocks, bias)
        self.shuffle, self.weight = shuffle, nn.Parameter(torch.randn(nblocks, self.s, self.p))

    def linear(self, x):
        if self.shuffle:  # ShuffleNet's: one of each group in turn
            x = torch.stack(x.chunk(self.nblocks, dim=1), dim=-1).flatten(1)
        return x @ torch.block_diag(*self.weight).T


class BlockdiagButterflyLinear(nn.Module):
    def __init__(self, in_features, out_features, nblocks1=4, nblocks2=4, b1=3, b2=1, bias=True):
        super().__init__()
        self.in_features, self.out_features, self.b1, self.b2 = in_features, out_features, b1, b2
        self.nblocks1, self.nblocks2 = nblocks1, nblocks2
        self.w1_bfly = nn.Parameter(torch.randn(nblocks1, nblocks2 * b1, in_features // nblocks1))
        self.w2_bfly = nn.Parameter(torch.randn(nblocks2, out_features // nblocks2, nblocks1 * b1))
        self.bias = nn.Parameter(torch.randn(out_features)) if bias else None

    def forward(self, x):
        """Block (j, k) of the matrix is of rank b1; outputs are (row / b2, block, row mod b2)."""
        k, j, b1, b2 = self.nblocks1, self.nblocks2, self.b1, self.b2
        right = self.w1_bfly.reshape(k, j, b1, -1)
        left = self.w2_bfly.reshape(j, -1, b2, k, b1)
        blocks = torch.einsum("jlzky,kjyi->ljzki", left, right)
        y = x @ blocks.reshape(self.out_features, self.in_features).T
        return y if self.bias is None else y + self.bias


class BlastLinear(nn.Module):
    def __init__(self, b1, b2, p, q, r, bias=True):
        super().__init__()
        self.B, self.C = nn.Parameter(torch.randn(b1, p, r)), nn.Parameter(torch.randn(b2, r, q))
        self.D, self.bias = nn.Parameter(torch.randn(b1, b2, r)), nn.Parameter(torch.randn(b1 * p)) if bias else None

    def forward(self, x):
        matrix = torch.einsum("ipr,ijr,jrq->ipjq", self.B, self.D, self.C).flatten(2).flatten(0, 1)
        return x @ matrix.T if self.bias is None else x @ matrix.T + self.bias


class Butterfly_general_matrix(nn.Conv2d):
    """The released Butterfly Transform's square block: entry (j, i) is a product over the stages."""

    def __init__(self, channels, base, residual_method="no_residual"):
        super().__init__(channels, channels, 1, bias=False)
        del self.weight
        self.residual_method, depth = residual_method, 1
        while base**depth < channels:
            depth += 1
        self.weight1 = nn.Parameter(torch.rand(base * channels * depth))
        self.cir_cplex = torch.zeros(depth, channels, channels, dtype=torch.long)
        for j in range(channels):
            for i in range(channels):
                for m in range(depth):
                    low = base ** (depth - m)
                    self.cir_cplex[m, j, i] = (m * base + j % base) * channels + i % low + j // low * low

    def forward(self, x):
        y = torch.einsum("ji,nihw->njhw", self.weight1[self.cir_cplex].prod(0), x)
        return y + x if self.residual_method == "residual_stoe" else y


class ButterflyTransform(nn.Conv2d):
    def __init__(self, in_channels, out_channels, butterfly_K=4):
        super().__init__(in_channels, out_channels, 1, bias=False)
        n, blocks = min(in_channels, out_channels), -(-max(in_channels, out_channels) // min(in_channels, out_channels))
        one = (Butterfly_general_matrix(n, butterfly_K, "residual_stoe") for _ in range(blocks))
        self.balanced_bfts = nn.ModuleList(one)

    def forward(self, x):
        if self.in_channels <= self.out_channels:
            return torch.cat([block(x) for block in self.balanced_bfts], dim=1)[:, : self.out_channels]
        n = self.out_channels
        more = x.new_zeros(len(x), n * len(self.balanced_bfts) - self.in_channels, *x.shape[2:])
        return sum(block(part) for block, part in zip(self.balanced_bfts, torch.cat([x, more], dim=1).split(n, dim=1)))


class Fusion(nn.Module):
    def __init__(self, in_channels, out_channels, fusion_method):
        super().__init__()
        self.fusion_method = fusion_method
        if fusion_method == "conv2d":
            self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        else:
            self.conv = ButterflyTransform(in_channels, out_channels)

    def forward(self, x):
        return self.conv(x)
