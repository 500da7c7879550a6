"""What no state_dict keeps: numbers that skip, ReLUs and batch norms on either side of them, and what is listed."""

import numpy as np
import pytest
import torch
from checkpoint_files import FACTORS, layer, refused
from torch import nn

import bfthw
from bfthw.nn import Butterfly, ReleasedBFT

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(*modules, seed=0):
    """A Sequential in double precision and eval mode, every number of it by chance."""
    torch.manual_seed(seed)
    model = nn.Sequential(*modules).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
        for module in model:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model


def loaded(tmp_path, model, name="w.pt", **options):
    if name == "w.npz":  # twenty times faster
        np.savez(tmp_path / name, **{key: value.numpy() for key, value in model.state_dict().items()})
    else:
        torch.save(model.state_dict(), tmp_path / name)
    return bfthw.load(tmp_path / name, options=options)


def equal(network, model):
    x = torch.randn(30, network.inputs, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        np.testing.assert_allclose(network(x.numpy()), model(x).numpy(), rtol=0, atol=1e-9)


def test_a_norm_behind_a_relu(tmp_path):
    """Linear 0, ReLU 1, BatchNorm 2, Linear 3: nothing has the number 1, so the ReLU stands there."""
    model = trained(nn.Linear(16, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))
    for options in ({"relu": "hidden"}, {"relu": "gaps"}, {"0.relu": "yes"}, {"0.relu": "yes", "norm": "behind"}):
        found = loaded(tmp_path, model, **options)
        equal(found.network, model)
        assert (
            "batch norm '2', behind the ReLU of '0', folded into the layer behind it, with eps = 1e-05" in found.notes
        )
        assert "of the ReLU, batch norms stand behind it: '2'; NORM.norm=before says otherwise" in found.notes
        assert "activations are in no such file: a ReLU is taken behind '0' alone" in found.notes
    assert any(note.startswith("numbers are left out, 1 between '0' and '2': ") for note in found.notes)


def by_chance(seed):
    """(modules, {layer: yes or no to its ReLU}, {norm: its side of it}, whether a ReLU stands where none can be)."""
    rng = np.random.default_rng(seed)
    names = rng.choice(["linear", "norm", "relu", "dropout"], size=rng.integers(3, 9), p=[0.4, 0.25, 0.25, 0.1])
    make = {
        "linear": lambda: nn.Linear(8, 8),
        "norm": lambda: nn.BatchNorm1d(8),
        "relu": nn.ReLU,
        "dropout": nn.Dropout,
    }
    relus, sides, own, seen, twice = {}, {}, None, False, False
    for k, name in enumerate(names):
        if name == "linear":
            own, seen, relus[str(k)] = str(k), False, "no"
        elif name == "relu" and not own:
            twice = True
        elif name == "relu":
            twice |= seen and any(side == "behind" for key, side in sides.items() if int(key) > int(own))
            relus[own], seen = "yes", True
        elif own and name == "norm":
            sides[str(k)] = "behind" if seen else "before"
    asked = {k for k in sides if relus[str(max(int(own) for own in relus if int(own) < int(k)))] == "yes"}
    return [make[name]() for name in names], relus, {k: sides[k] for k in asked}, twice


def test_norms_and_relus_in_any_order(tmp_path):
    """With the ReLUs said, a reading is right or refused; with the norms' sides said too, only what is not exact."""
    read = dict.fromkeys(("relus", "sides", "behind"), 0)
    for seed in range(150):
        modules, relus, sides, unable = by_chance(seed)
        model = trained(*modules, seed=seed)
        options = {f"{name}.relu": given for name, given in relus.items()}
        for more, allowed in (
            ({}, ("may stand before the ReLU",)),
            ({f"{name}.norm": side for name, side in sides.items()}, ("no layer follows",)),
        ):
            try:
                network = loaded(tmp_path, model, "w.npz", **options, **more).network
            except bfthw.checkpoint.CheckpointError as error:
                words = *allowed, "no layer follows", "no layer that is read", "no weights"
                assert any(text in str(error) for text in words), f"seed {seed}: {error}"
                continue
            if not unable:
                equal(network, model)
                read["sides" if more else "relus"] += 1
                read["behind"] += "behind" in more.values()
    assert min(read.values()) >= 4, read


GAPS = {
    "none": (["0", "1", "2"], None),
    "inside": (["0", "2", "3"], "1 between '0' and '2'"),
    "several": (["0", "4", "7"], "1, 2, 3 between '0' and '4', 5, 6 between '4' and '7'"),
    "in front": (["1", "2"], "0 in front of '1'"),
    "in front, inside of another": (["trunk.2.fc", "trunk.3.fc"], "0, 1 in front of 'trunk.2.fc'"),
    "deep": (["body.0.fc", "body.3.fc"], "1, 2 between 'body.0.fc' and 'body.3.fc'"),
    "of words": (["fc1", "fc3"], "2 between 'fc1' and 'fc3'"),
    "words from one on": (["fc1", "fc2"], None),
    "other words": (["conv0", "fc2"], None),
    "far": (["0", "999999999999"], "1, 2, 3, 4, 5, 6 and more between '0' and '999999999999'"),
}


@pytest.mark.parametrize("names, text", GAPS.values(), ids=GAPS)
def test_numbers_that_skip(tmp_path, names, text):
    np.savez(tmp_path / "w.npz", **{f"{name}.weight": np.eye(4) for name in names})
    notes = [note for note in bfthw.load(tmp_path / "w.npz").notes if "numbers are left out" in note]
    assert [f"numbers are left out, {text}" in note for note in notes] == ([] if text is None else [True])
    np.savez(tmp_path / "w.npz", **{k: v for name in names for k, v in layer(name).items()})
    own = bfthw.load(tmp_path / "w.npz").notes
    assert any("numbers are left out" in note for note in own) == (text is not None)


def test_a_number_that_another_layer_has_is_not_left_out(tmp_path):
    np.savez(tmp_path / "w.npz", **{f"{name}.weight": np.eye(4) for name in (0, 1, 2)})
    notes = bfthw.load(tmp_path / "w.npz", order=["0", "2"]).notes
    assert not any("left out" in note for note in notes) and any("not taken" in note for note in notes)


def test_a_relu_beside_layers_of_our_own(tmp_path):
    """nn.ReLU in a Sequential of Butterflies has no number in the file either, and their flags say nothing of it."""
    model = trained(Butterfly(16), nn.ReLU(), Butterfly(16, relu=True), Butterfly(16))
    notes = loaded(tmp_path, model).notes
    assert any("1 between '0' and '2'" in note for note in notes)
    assert any("taken without any; relu=gaps, relu=hidden" in note for note in notes)
    for options in ({"relu": "gaps"}, {"0.relu": "yes"}):
        equal(loaded(tmp_path, model, **options).network, model)
    refused(tmp_path / "w.pt", "'eps' says nothing; there are '0.relu'", options={"eps": "1e-3"})
    refused(tmp_path / "w.pt", "relu must be none or hidden or all or gaps", options={"relu": "yes"})


@pytest.mark.parametrize("count", [3, 300])
def test_as_many_notes_for_many_layers(tmp_path, count):
    np.savez(tmp_path / "w.npz", **{f"{2 * k}.weight": np.eye(4) for k in range(count)})
    assert len(bfthw.load(tmp_path / "w.npz", options={"relu": "all"}).notes) == 6


# batch norms in front


def test_a_norm_in_front_of_a_rectangle_and_of_a_square(tmp_path):
    """The rectangle's residual goes along in the chain, which is linear; the square's x has no weights."""
    model = trained(nn.BatchNorm2d(24), ReleasedBFT(24, 58), nn.BatchNorm2d(58))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    network = bfthw.load(tmp_path / "w.pt").network
    x = torch.randn(9, 24, 1, 1).double()
    np.testing.assert_allclose(network(x[..., 0, 0].numpy()), model(x)[..., 0, 0].detach().numpy(), atol=1e-9)
    torch.save(trained(nn.BatchNorm2d(24), ReleasedBFT(24, 24)).state_dict(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "batch norm '0' stands behind a ReLU or in front", "layer '1.conv' .*has a residual")


def test_a_norm_in_front_of_a_padded_layer(tmp_path):
    """13 values of 16: the norm's shift is of those 13, the padding stays zero."""
    rng = np.random.default_rng(0)
    twiddle, options = rng.normal(size=(1, 1, 4, 8, 2, 2)), {"inputs": 13}
    np.savez(tmp_path / "w.npz", **{"1.twiddle": twiddle})
    bare = bfthw.load(tmp_path / "w.npz", options=options).network
    norm = {"weight": rng.normal(size=13), "bias": rng.normal(size=13), "running_mean": rng.normal(size=13)}
    norm["running_var"] = rng.uniform(0.5, 2, 13)
    np.savez(tmp_path / "w.npz", **{f"0.{key}": v for key, v in norm.items()}, **{"1.twiddle": twiddle})
    network = bfthw.load(tmp_path / "w.npz", options=options).network
    x = rng.normal(size=(7, 13))
    y = (x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    np.testing.assert_allclose(network(x), bare(y), atol=1e-12)


# transposed convolutions, and what each layout takes for granted


@pytest.mark.parametrize(
    "modules",
    [
        [nn.ConvTranspose2d(16, 4, 1)],
        [nn.Conv2d(8, 16, 1), nn.ConvTranspose2d(16, 12, 1, bias=False)],
        [nn.ConvTranspose2d(16, 4, 1, bias=False), nn.Conv2d(4, 3, 1)],
    ],
    ids=["bias", "chain", "next layer"],
)
def test_transposed_convolutions(tmp_path, modules):
    torch.save(nn.Sequential(*modules).state_dict(), tmp_path / "w.pt")
    with pytest.raises(bfthw.checkpoint.CheckpointError, match="transposed convolution|groups of"):
        bfthw.load(tmp_path / "w.pt")


def test_a_transposed_convolution_that_cannot_be_told(tmp_path):
    torch.save(nn.Sequential(nn.ConvTranspose2d(8, 8, 1)).state_dict(), tmp_path / "w.pt")
    assert any(
        "a transposed convolution, which is not read, would look" in n for n in bfthw.load(tmp_path / "w.pt").notes
    )
    torch.save(nn.Sequential(nn.Conv2d(8, 10, 1)).state_dict(), tmp_path / "w.pt")  # its bias tells
    assert not any("transposed" in note for note in bfthw.load(tmp_path / "w.pt").notes)


GRANTED = {
    "linear": ({"weight": np.ones((3, 4))}, ["(outputs, inputs), y = W x"]),
    "convolution": (
        {"weight": np.ones((6, 4, 1, 1))},
        ["1 group, for 4 inputs; 0.inputs=N says otherwise", "stride 1 and no padding"],
    ),
    "released": (
        {"weight": np.zeros((16, 16, 1, 1)), "balanced_bfts.0.weight1": np.ones(128)},
        ["base 4 assumed", "with the residual from first to last"],
    ),
    "torch_butterfly": (
        {"twiddle": np.ones((2, 1, 4, 8, 2, 2))},
        ["increasing stride assumed", "inputs taken as 16", "outputs taken as 32", "a ButterflyConv2d"],
    ),
    "butterfly": ({"twiddle": np.ones((1, 4, 8, 2, 2))}, ["increasing stride assumed"]),
    "butterfly, B B^T": ({"twiddle": np.ones((1, 8, 8, 2, 2))}, ["taken as B B^T"]),
    "monarch": ({"blkdiag1": np.ones((4, 4, 4)), "blkdiag2": np.ones((4, 4, 4))}, ["inputs taken as 16"]),
    "norm": (
        {"0.weight": np.ones((4, 4)), **{f"1.{k}": np.ones(4) for k in ("running_mean", "running_var")}},
        ["with eps = 1e-05", "order of the layers, as in the file: 0, 1|by number"],
    ),
}


@pytest.mark.parametrize("arrays, texts", GRANTED.values(), ids=GRANTED)
def test_what_is_taken_for_granted_is_always_listed(tmp_path, arrays, texts):
    np.savez(tmp_path / "w.npz", **arrays)
    notes = bfthw.load(tmp_path / "w.npz").notes
    for text in [*texts, "activations are in no such file", "taken for granted: nothing else stands before"]:
        assert any(one in note for note in notes for one in text.split("|")), (text, notes)


def test_what_files_of_our_own_take_for_granted(tmp_path):
    np.savez(tmp_path / "w.npz", **layer("0"), **layer("1"), **layer("2", flags=np.array([1, 0, 0])))
    notes = bfthw.load(tmp_path / "w.npz").notes
    assert "no flags: layer '0' is taken without residual, bias and ReLU" in notes
    assert any("nothing else stands before, between and behind the layers" in note for note in notes)
    np.savez(tmp_path / "w.npz", **FACTORS, flags=np.array([1, 0, 0]))
    assert bfthw.load(tmp_path / "w.npz").notes == ()
