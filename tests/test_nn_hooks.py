"""Live modules: weights that hooks make, hooks of unknown effect, wrappers, and norms wherever they stand."""

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

from bfthw import chain  # noqa: E402
from bfthw.nn import Butterfly, Circulant, Pointwise, fold, to_network  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.usefixtures("one_thread")]


def shaken(model, seed=0):
    """With weights and running statistics by chance, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
        for p in model.parameters():
            p.normal_(generator=generator)
    return model.double()


def equal(model, size, image=False):
    x = torch.randn(20, size, generator=torch.Generator().manual_seed(9)).double()
    given = to_network(model)(x.numpy())
    with torch.no_grad():
        wanted = model.eval()(x[..., None, None] if image else x).reshape(20, -1).numpy()
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-9)


class Softened(nn.Module):
    def forward(self, w):
        return torch.tanh(w)


MAKERS = {
    "weight_norm, by a hook": nn.utils.weight_norm,
    "spectral_norm, by a hook": nn.utils.spectral_norm,
    "pruned": lambda module: prune.l1_unstructured(module, "weight", 0.5),
    "pruned twice, and its bias": lambda module: [
        prune.random_unstructured(module, name, 0.3) for name in ("weight", "bias", "weight")
    ],
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "another parametrisation": lambda module: parametrize.register_parametrization(module, "weight", Softened()),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("layer", [lambda: nn.Linear(6, 5), lambda: nn.Conv2d(6, 5, 1)], ids=["linear", "pointwise"])
def test_weights_that_hooks_make_are_made_afresh(make, layer):
    """Loaded, and no forward between: the attribute `weight` is still that from before."""
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(nn.Sequential(layer(), nn.ReLU(), nn.Flatten(), nn.Linear(5, 4)))
        make(models[-1][0])
        shaken(models[-1], seed)
    model, image = models[0].train(), isinstance(models[0][0], nn.Conv2d)
    model(torch.randn(20, 6, *[1, 1] * image).double())
    model.load_state_dict(models[1].state_dict())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    equal(model.train(), 6, image)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_modes_stay_as_they_are():
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)), nn.Dropout(0.5))
    model[1].eval()
    to_network(model)
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_a_pruned_butterfly_and_its_bias():
    model = shaken(nn.Sequential(Butterfly(16, bias=True), nn.ReLU()))
    prune.l1_unstructured(model[0], "bias", 0.5)
    with torch.no_grad():
        model[0].bias_orig.add_(1)
    equal(model, 16)
    prune.l1_unstructured(model[0].factors, "0", 0.5)  # a hook on what is never called: no forward makes this weight
    with pytest.raises(ValueError, match="module '0': inside of it, on 'factors', a forward pre-hook, L1Unstructured"):
        to_network(model)


def doubled(module, *_):
    """A hook."""


class Strange(Circulant):
    def forward(self, x):
        return super().forward(x) + 1


def called(module):
    class Called(nn.Linear):
        def __call__(self, x):
            return super().__call__(x) + 1

    module[0] = Called(4, 4)


def assigned(module):
    module[0].forward = lambda x: x


def without_values(module):
    module[0] = nn.Linear(4, 4, device="meta")


def repeated(module):
    module[0].weight = nn.Parameter(torch.ones(1, 4))


REFUSED = {
    "a forward hook": (
        lambda m: m[0].register_forward_hook(doubled),
        "module '0': a forward hook, doubled, may change",
    ),
    "a pre-hook": (lambda m: m[1].register_forward_pre_hook(doubled), "module '1': a forward pre-hook, doubled"),
    "on the whole": (lambda m: m.register_forward_hook(doubled), "module '0': a forward hook, doubled"),
    "on a part": (lambda m: m[2].register_forward_hook(doubled, with_kwargs=True), "module '2': a forward hook"),
    "deep inside": (lambda m: m[2][0].register_forward_pre_hook(doubled), "module '2.0': a forward pre-hook"),
    "a forward of its own": (assigned, "module '0' is a Linear"),
    "a call of its own": (called, "module '0' is a Called"),
    "a layer of bfthw changed": (lambda m: m.append(Strange(4, 4)), "module '3' is a Strange"),
    "the same inside another": (lambda m: m.append(Pointwise(Strange(4, 4))), "module '3' is a Pointwise"),
    "no values": (without_values, "module '0': 'weight' has no values .device meta"),
    "lazy": (lambda m: m.insert(0, nn.LazyLinear(4)), "module '0': a forward pre-hook, LazyModuleMixin"),
    "complex": (lambda m: m[0].to(torch.complex64), "module '0': 'weight' must be real numbers, got torch.complex64"),
    "weights that would be repeated": (repeated, r"module '0': weights of shape \(1, 1, 4, 1\) do not fit, \(1, 4, 4"),
    "a hook that makes what weight_norm takes": (
        lambda m: prune.l1_unstructured(nn.utils.weight_norm(m[0]), "weight_g", 0.5),
        "module '0': a forward pre-hook, L1Unstructured",
    ),
}


@pytest.mark.parametrize("change, message", REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_may_change_the_forward_is_refused(change, message):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4)))
    to_network(model)
    change(model)
    with pytest.raises((ValueError, TypeError), match=message):
        to_network(model)


@pytest.mark.parametrize("register", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_hooks_on_all_modules_are_refused(register):
    handle = getattr(nn.modules.module, register)(doubled)
    try:
        with pytest.raises(ValueError, match="a hook on all modules, doubled, may change"):
            to_network(nn.Linear(4, 4))
    finally:
        handle.remove()
    to_network(nn.Linear(4, 4))


def test_wrappers(monkeypatch):
    model = shaken(nn.Sequential(nn.DataParallel(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 4)))
    equal(nn.DataParallel(model), 6)
    assert [layer.name for layer in to_network(nn.DataParallel(model)).layers] == ["0", "2"]

    class OptimizedModule(nn.Module):
        """As torch.compile's, whose import takes seconds."""

        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

        def forward(self, x):
            return self._orig_mod(x)

    monkeypatch.setitem(sys.modules, "torch._dynamo.eval_frame", sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "OptimizedModule", OptimizedModule, raising=False)
    compiled = OptimizedModule(model)
    equal(compiled, 6)
    compiled.register_forward_hook(doubled)
    with pytest.raises(ValueError, match="module '0': a forward hook, doubled"):
        to_network(compiled)


@pytest.mark.slow
def test_what_torch_compiles():
    equal(torch.compile(shaken(nn.Sequential(nn.Linear(6, 5), nn.ReLU())), backend="eager"), 6)


# norms wherever they stand


def by_chance(seed):
    """Layers with and without a residual, padded ones, norms and ReLUs in any order over 16 values."""
    rng = np.random.default_rng(seed)
    kinds = {
        "linear": lambda: nn.Linear(16, 16, bias=bool(rng.integers(2))),
        "residual": lambda: Butterfly(16, bias=bool(rng.integers(2)), relu=bool(rng.integers(2))),
        "chain": lambda: Butterfly(chain.monarch(16, 16, 4), residual=False, bias=bool(rng.integers(2))),
        "indexed": lambda: Butterfly(
            [chain.Indexed(rng.integers(16, size=(8, 3)), 16), (1, 16, 8, 1)], residual=False, bias=True
        ),
        "scaled": lambda: fold(Butterfly(chain.monarch(16, 16, 4), residual=False), nn.BatchNorm1d(16)),
        "norm": lambda: nn.BatchNorm1d(16, affine=bool(rng.integers(2)), eps=float(rng.choice([1e-5, 1e-2]))),
        "relu": nn.ReLU,
    }
    names = rng.choice(list(kinds), size=rng.integers(1, 7), p=[0.1, 0.1, 0.1, 0.1, 0.05, 0.3, 0.25])
    return shaken(nn.Sequential(*(kinds[name]() for name in names)), seed)


def test_norms_and_relus_in_any_order():
    read, behind = 0, 0
    for seed in range(120):
        model = by_chance(seed)
        try:
            to_network(model)
        except ValueError as error:
            assert any(
                words in str(error)
                for words in (
                    "no layer follows",
                    "has a residual",
                    "through the ReLU",
                    "needs a layer",
                    "no layer with",
                )
            ), f"seed {seed}: {error}"
            continue
        equal(model, 16)
        kinds = [type(module) for module in model]
        read += 1
        behind += (nn.ReLU, nn.BatchNorm1d) in zip([nn.ReLU, *kinds], kinds)
    assert read > 30 and behind > 10, (read, behind)
