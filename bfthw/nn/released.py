"""The Butterfly Transform as its authors released it, to load their state_dicts and train on."""

import torch
from torch import nn

from .. import chain as chains
from ..importers.plan import ONE, ZERO
from ..importers.released import plan_layer, stages
from .butterfly import Butterfly, Structured
from .multiply import apply_chain


class ReleasedBFT(Structured):
    """cin -> cout channels as keivanalizadeh/ButterflyTransform's Fusion has them, in blocks of min(cin, cout).

    x (N, cin, H, W), (cin, H, W) or (N, cin) -> the same with cout. The residual of every block is in it; no bias, no
    ReLU. Parameters `conv.balanced_bfts.<t>.weight1`, flat, (K n L,) with n = min(cin, cout), L = ceil(log_K n),
    started uniformly in (-y, y), y = 2^((L-1)/L) * sqrt(2 / cout)^(1/L); buffer `conv.weight` (cout, cin, 1, 1) is
    their unused placeholder. Theirs without `conv.`, of a bare ButterflyTransform, load as well. Computed is the chain
    of `importers.released`, never the dense matrix. Where n is no multiple of K^(L-1), weights are tied and their
    gradients add up. Raises ValueError for a base that is not 2, 4 or 8 and for fewer than 2 channels.
    """

    def __init__(self, cin: int, cout: int, base: int = 4) -> None:
        super().__init__()
        self.plan = plan_layer(cin, cout, base)
        self.inputs, self.outputs, self.base = cin, cout, base
        n, blocks = min(cin, cout), -(-max(cin, cout) // min(cin, cout))
        self.stages = stages(n, base)
        self.conv = nn.Module()
        self.conv.register_buffer("weight", torch.zeros(cout, cin, 1, 1))
        self.conv.balanced_bfts = nn.ModuleList(nn.Module() for _ in range(blocks))
        for block in self.conv.balanced_bfts:
            block.weight1 = nn.Parameter(torch.empty(base * n * self.stages))
        for m, (pattern, source) in enumerate(zip(self.plan.patterns, self.plan.sources)):
            self.register_buffer(f"_source{m}", torch.from_numpy(source.copy()), persistent=False)
            index = torch.from_numpy(pattern.index.copy()) if chains.support(pattern) else None
            self.register_buffer(f"_index{m}", index, persistent=False)
        self.register_load_state_dict_pre_hook(_rename)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The released code's start; their README has no other."""
        y = 2 ** ((self.stages - 1) / self.stages) * (2 / self.outputs) ** (0.5 / self.stages)
        for block in self.conv.balanced_bfts:
            nn.init.uniform_(block.weight1, -y, y)

    @property
    def residual(self) -> bool:
        """Whether the residual is added behind the chain; in a rectangle it goes along inside."""
        return self.inputs == self.outputs

    def _values(self):
        """The factors' values (a, b, c, d), gathered from the flat weights."""
        flat = torch.cat([block.weight1 for block in self.conv.balanced_bfts])
        # entries -2 and -1 of the table are a plan's ONE and ZERO
        assert (ONE, ZERO) == (-2, -1)
        table = torch.cat([flat, flat.new_tensor([1.0, 0.0])])
        return [table[getattr(self, f"_source{m}")] for m in range(len(self.plan.patterns))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.ndim in (3, 4)
        vectors = x.movedim(-3, -1) if image else x
        if x.ndim < 2 or vectors.shape[-1] != self.inputs:
            raise ValueError(f"ReleasedBFT takes (N, {self.inputs}, H, W) or (N, {self.inputs}), got {tuple(x.shape)}")
        y = vectors.reshape(-1, self.inputs)
        index = [getattr(self, f"_index{m}") for m in range(len(self.plan.patterns))]
        y = apply_chain(self.plan.patterns, self._values(), index, y)
        y = y.reshape(*vectors.shape[:-1], self.outputs)
        if self.residual:
            y = y + vectors
        return y.movedim(-1, -3).contiguous() if image else y

    def to_butterfly(self) -> Butterfly:
        """The equal Butterfly in float64: tied weights as entries of their own."""
        return Butterfly.of(self.plan.patterns, self._values(), residual=self.residual)

    def extra_repr(self) -> str:
        return f"{self.inputs} -> {self.outputs}, base={self.base}, {self.plan.weights} multiplications"


def _rename(module, state_dict, prefix, *_):
    """Keys of a bare ButterflyTransform to those of a Fusion; unused weights of copies that keep them are left out."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        rest = key[len(prefix) :]
        value = state_dict.pop(key)
        if rest == "weight" or rest.startswith("balanced_bfts."):
            rest = f"conv.{rest}"
        if not (rest.startswith("conv.balanced_bfts.") and rest.endswith(".weight")):
            state_dict[prefix + rest] = value
