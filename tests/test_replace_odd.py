"""Networks that share, keep, overwrite and return what others only pass on."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from bfthw.nn import Butterfly, ButterflyPointwise, extract, replace  # noqa: E402


class Shared(nn.Module):
    """Body and head have a layer in common."""

    def __init__(self):
        super().__init__()
        layer = nn.Conv2d(16, 16, 1)
        self.body, self.head = nn.Sequential(layer), nn.Sequential(layer, nn.Conv2d(16, 32, 1))

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("leave", ["head.0", ["body"], ["body.0"]])
def test_a_shared_layer_stays_by_any_of_its_names(leave):
    new = replace(Shared(), leave=leave, show=False)
    assert new.head[0] is new.body[0] and type(new.body[0]) is nn.Conv2d
    assert [(row.name, row.why) for row in new.replaced] == [("body.0", "asked"), ("head.1", "")]


def test_a_shared_layer_has_a_chain_by_any_of_its_names():
    new = replace(Shared(), chain={"head.0": "bft2"}, show=False)
    assert {p.c for p in new.body[0].patterns} == {2} and new.head[0] is new.body[0]


def test_nothing_is_left_to_replace():
    with pytest.raises(ValueError, match="nothing to replace: all 2 layers stay; 'body.0': asked"):
        replace(Shared(), leave=["head"])


def test_weights_that_old_hooks_made_are_copied():
    """torch's own deepcopy refuses a module of which a hook keeps what it computed."""
    model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 16, 3)), nn.utils.weight_norm(nn.Conv2d(16, 16, 1)))
    x, before = torch.randn(1, 3, 5, 5), model[0].weight
    new = replace(model, leave="0", chain={"1": [(1, 16, 16, 1)]}, project=True, method="als", show=False)
    torch.testing.assert_close(new(x), model(x))
    assert model[0].weight.grad_fn is not None and new[0].weight_g is not model[0].weight_g and before is not None
    new(x).sum().backward()
    assert new[0].weight_g.grad is not None and model[0].weight_g.grad is None


class Used(nn.Module):
    """A ReLU is not all that happens to the outputs."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.how = Butterfly(16, residual=False), how

    def forward(self, x):
        y = self.layer(x)
        match self.how:
            case "written to":
                y[:, 0] = 1
            case "copied":
                self.kept = torch.empty_like(x)
                self.kept[:] = y
            case "read":
                self.kept = y.tolist()
            case "returned":
                return F.relu(y), {"scores": y}
        return F.relu(y)


@pytest.mark.parametrize("how", ["written to", "copied", "read", "returned", "alone"])
def test_outputs_that_are_used_elsewhere_have_no_relu(tmp_path, how):
    (one,) = extract(Used(how), torch.randn(4, 16), tmp_path)
    assert one.layer.parts == ["relu"] * (how == "alone")


def test_nothing_is_folded_through_a_layers_own_relu(tmp_path):
    model = nn.Sequential(ButterflyPointwise(16, 16, relu=True), nn.BatchNorm2d(16), nn.ReLU())
    (one,) = extract(model, torch.randn(4, 16, 1, 1), tmp_path)
    assert one.layer.parts == ["residual", "relu"]


def test_extract_refuses_what_would_be_lost(tmp_path):
    layers = nn.ModuleDict({"a-b": Butterfly(16), "a b": Butterfly(16)})
    layers.forward = lambda x: layers["a b"](layers["a-b"](x))
    x = torch.randn(4, 16)
    for message, given in (
        (r"butterflies 'a-b' and 'a b' would both be a_b\.safetensors; leave=\['a b'\]", {"x": x}),
        ("rows must be at least 1, got 0", {"x": x, "rows": 0}),
        ("butterfly 'a b' gets inputs that are no finite numbers", {"x": x * torch.nan, "leave": "a-b"}),
    ):
        with pytest.raises(ValueError, match=message):
            extract(layers, folder=tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()
