"""What people have: torch's files by all their names, state dicts wherever they lie in them."""

import argparse
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_files import FACTORS, npz, refused, safetensors, torch_file
from torch import nn
from typer.testing import CliRunner

import bfthw
from bfthw.checkpoint import is_integers, load, save_integers
from bfthw.cli.main import app

# suffixes


@pytest.mark.parametrize("name", ["w.ckpt", "w.bin", "w.pth.tar", "w.tar", "w.PT", "w.PTH", "w.Pth.Tar"])
@pytest.mark.parametrize("old", [False, True])
def test_names_that_files_of_torch_have(tmp_path, name, old):
    state = {key: torch.from_numpy(array) for key, array in FACTORS.items()}
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=not old)
    assert load(tmp_path / name).network.inputs == 4
    (tmp_path / name).write_bytes(b"no tensors in here at all, sorry")
    refused(tmp_path / name, "not a valid file of weights")


@pytest.mark.parametrize("name", ["w.bin", "w.ckpt", "w.pt", "w.SAFETENSORS"])
def test_safetensors_by_their_content(tmp_path, name):
    """The length of their header and the table that it is; no pickle and no archive begins so."""
    assert load(safetensors(tmp_path / name, FACTORS)).network.inputs == 4


def test_upper_case(tmp_path):
    npz(tmp_path / "w.npz", FACTORS).rename(tmp_path / "w.NPZ")
    network = load(tmp_path / "w.NPZ").network
    save_integers(bfthw.compile(network), tmp_path / "q.npz")
    (tmp_path / "q.npz").rename(tmp_path / "q.Npz")
    assert is_integers(tmp_path / "q.Npz") and bfthw.load_integers(tmp_path / "q.Npz").inputs == 4
    refused(tmp_path / "w.ONNX", "no such file")
    np.save(tmp_path / "x.npy", np.ones((3, 4)))
    (tmp_path / "x.npy").rename(tmp_path / "x.NPY")
    assert bfthw.storage.read_vectors(tmp_path / "x.NPY").shape == (3, 4)


def test_a_real_tar(tmp_path):
    torch_file(tmp_path / "w.pt", FACTORS)
    with tarfile.open(tmp_path / "w.pth.tar", "w") as archive:
        archive.add(tmp_path / "w.pt", "w.pt")
    refused(tmp_path / "w.pth.tar", "is an archive of tar, not of torch; unpack it")


# state dicts in dicts


def network_of(tmp_path, saved, relu="gaps", name="w.pt", **rest):
    torch.save(saved, tmp_path / name)
    return load(tmp_path / name, options={"relu": relu}, **rest)


@pytest.fixture
def model():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).double()


def agrees(loaded, model):
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(1)).double()
    return np.allclose(loaded.network(x.numpy()), model(x).detach().numpy(), rtol=1e-12, atol=1e-12)


def trained(model):
    """An optimizer after a step, so that it has moments, with a state dict of their own for each parameter."""
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 16).double()).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


WRAPPED = {
    "as the cases": lambda s: {"epoch": 3, "model_state_dict": s, "optimizer_state_dict": {"state": {}}},
    "lightning": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()}, "epoch": 3, "pytorch-lightning_version": "2.4",
        "hyper_parameters": {"lr": 0.1, "sizes": [16, 8]}, "loops": {"fit": {"state": {}}}, "lr_schedulers": [],
    },
    "deep, by any name": lambda s: {"a": {"b": {"c": {"d.e": s}}}, "loss": torch.tensor(0.3)},
    "a generator's state": lambda s: {"net": s, "rng": {"cpu": torch.get_rng_state()}, "r": torch.get_rng_state()},
    "wrapped thrice": lambda s: {"x": {f"module._orig_mod.net.model.{k}": v for k, v in s.items()}},
    "averaged": lambda s: {"n_averaged": torch.tensor(7)} | {f"module.{k}": v for k, v in s.items()},
    "none": lambda s: s | {"0.mask": None, "epoch": 4, "size": torch.Size([3]), "dtype": torch.float32},
    "twice the same": lambda s: {"model": s, "best": s},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_state_dicts_are_found(tmp_path, model, wrap):
    assert agrees(network_of(tmp_path, wrap(model.state_dict())), model)


def test_what_is_passed_over_is_noted(tmp_path, model):
    state = model.state_dict()
    optimizer = trained(model)
    assert optimizer["state"][0]["exp_avg"].shape == (8, 16)
    saved = {"epoch": 3, "a": {"weights": model.state_dict() | {"2.mask": None}, "note": "x"}, "optimizer": optimizer}
    # moments under the parameters' names, as sharded training gives them
    saved["named"] = {"state": {"0.weight": {"exp_avg": state["0.weight"]}}, "param_groups": [{"lr": 0.1}]}
    loaded = network_of(tmp_path, saved)
    assert agrees(loaded, model)
    assert loaded.notes[:2] == (
        "weights taken from 'a.weights'; not used: 'epoch', 'optimizer', 'named', 'a.note'",
        "no tensors, passed over: '2.mask'",
    )
    saved = {"n_averaged": torch.tensor(7)} | {f"module.model.{key}": value for key, value in state.items()}
    assert network_of(tmp_path, saved).notes[:3] == (
        "counters, passed over: 'n_averaged'",
        "prefix 'module.' of all keys left out",
        "prefix 'model.' of all keys left out",
    )


LAYERS = {
    "dense": {"weight": (5, 8)},
    "convolution": {"weight": (5, 8, 1)},
    "torch_butterfly": {"twiddle": (1, 1, 3, 4, 2, 2)},
    "butterfly": {"twiddle": (1, 3, 2, 8)},
    "monarch": {"blkdiag1": (4, 2, 2), "blkdiag2": (4, 2, 2)},
    "blast": {"B": (4, 2, 3), "C": (2, 3, 4), "D": (4, 2, 3)},
    "native": {"factors.0": (1, 2, 2, 4), "factors.1": (2, 4, 4, 1)},
}


@pytest.mark.parametrize("shapes", LAYERS.values(), ids=LAYERS)
def test_no_bias_is_none(tmp_path, shapes):
    """As of modules that register it so and are saved attribute by attribute."""
    torch.manual_seed(1)
    state = {f"fc.{key}": torch.randn(shape).double() for key, shape in shapes.items()}
    matrices = []
    for more in ({}, {"fc.bias": None}):
        torch.save(state | more, tmp_path / "w.pt")
        loaded = load(tmp_path / "w.pt")
        (layer,) = loaded.network.layers
        assert layer.bias is None and ("no tensors, passed over: 'fc.bias'" in loaded.notes) == bool(more)
        matrices.append(layer.chain.dense())
    assert np.array_equal(*matrices)


@pytest.mark.parametrize("updates", [0, 1, 5])
@pytest.mark.parametrize("inner", [False, True])
def test_averages_of_torch(tmp_path, model, updates, inner):
    """SWA's and an exponential average, with the buffers of a batch norm and its own counter."""
    model = nn.Sequential(nn.BatchNorm1d(16).double(), *model).eval()
    for how in ({}, {"multi_avg_fn": torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)}):
        averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True, **how)
        for _ in range(updates):
            with torch.no_grad():
                model[1].weight += 0.1
            averaged.update_parameters(model)
        state = averaged.state_dict()
        assert {"n_averaged", "module.0.num_batches_tracked"} <= state.keys()
        loaded = network_of(tmp_path, {"ema": state, "epoch": 3} if inner else state)
        assert agrees(loaded, averaged.eval())
        assert any("counters, passed over: 'n_averaged', 'module.0.num_batches_tracked'" in n for n in loaded.notes)


def test_a_single_number_that_is_no_counter_is_not_passed_over(tmp_path, model):
    torch.save(model.state_dict() | {"temperature": torch.tensor(0.5)}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "temperature")


def test_several_are_listed_and_chosen_by_key(tmp_path, model):
    torch.manual_seed(5)
    other = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4, bias=False)).double()
    saved = {"state_dict": model.state_dict(), "more": {"ema": other.state_dict()}, "epoch": 3}
    torch.save(saved, tmp_path / "w.ckpt")
    listed = r"holds 2 state dicts, 'state_dict' \(4 arrays\), 'more.ema' \(3 arrays\): choose with --key 'state_dict'"
    refused(tmp_path / "w.ckpt", listed)
    refused(tmp_path / "w.ckpt", "no state dict under the key 'more.emma'", "did you mean 'more.ema'", key="more.emma")
    for key, one in (("state_dict", model), ("more.ema", other)):
        assert agrees(network_of(tmp_path, saved, key=key), one)
    saved = model.state_dict() | {"ema": other.state_dict()}
    torch.save(saved, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"2 state dicts, '.' \(4 arrays\), 'ema' \(3 arrays\)")
    assert agrees(network_of(tmp_path, saved, key="."), model)


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.onnx"])
def test_keys_are_of_torch_files(tmp_path, name):
    {"w.npz": npz, "w.safetensors": safetensors}.get(name, lambda *_: None)(tmp_path / name, FACTORS)
    refused(tmp_path / name, "key", key="model")


def test_tensors_that_cannot_be_read_are_never_passed_over(tmp_path, model):
    torch.save(model.state_dict() | {"4.weight": torch.ones(2, 2).to_sparse()}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "'4.weight' cannot be read as an array: it is made by torch._utils._rebuild_sparse")


def test_names_with_the_prefix_that_was_left_out(tmp_path, model):
    saved = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save(saved, tmp_path / "w.pt")
    for prefix in ("model.", ""):
        loaded = load(tmp_path / "w.pt", order=[f"{prefix}0", f"{prefix}2"], options={f"{prefix}0.relu": "yes"})
        assert agrees(loaded, model) and [layer.name for layer in loaded.network.layers] == ["0", "2"]
    # a layer of such a name
    torch.save({"model.weight": torch.ones(3, 4), "model.bias": torch.ones(3)}, tmp_path / "w.pt")
    assert load(tmp_path / "w.pt").network.layers[0].name == "model"


def test_dicts_in_circles(tmp_path, model):
    saved = {"model": model.state_dict()}
    saved["self"] = saved
    saved["model"]["up"] = saved
    assert agrees(network_of(tmp_path, saved), model)


def test_the_command_takes_a_key(tmp_path, model):
    torch.save({"one": model.state_dict(), "two": model.state_dict() | {"2.bias": None}}, tmp_path / "w.ckpt")
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "w.ckpt"), "--key", "two"])
    assert not done.exit_code and "weights taken from 'two'; not used: 'one'" in done.output


# why a file is refused


class Settings:
    """Something of one's own in a checkpoint, as trainers keep it."""


def saved_with(tmp_path, model, value, **how):
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": value}, tmp_path / "w.ckpt", **how)
    return tmp_path / "w.ckpt"


@pytest.mark.parametrize(
    "value, name",
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (np.float64(0.5), r"numpy._?core.multiarray.scalar"),
        (Settings(), f"{__name__}.Settings"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
    ids=["namespace", "numpy", "own", "module"],
)
@pytest.mark.parametrize("old", [False, True])
def test_the_name_that_is_met_is_said(tmp_path, model, value, name, old):
    """The one that torch names too."""
    path = saved_with(tmp_path, model, value, _use_new_zipfile_serialization=not old)
    with pytest.raises(pickle.UnpicklingError, match=name):
        torch.load(path, weights_only=True)
    refused(path, f"its pickle names '{name}', which torch refuses too with weights_only=True, .*save model.state_dict")


def test_reasons_are_one_line_without_escape_codes(tmp_path, model):
    name = "\x1b[31mred\nblue" + "x" * 50
    own = f"\x80\x02c\x1b[1m{'y' * 300}\n\x1b[31mred\n."
    for pickled in (own, "\x80\x02\x1b[31m", "\x1b[31m.", "\x80\x02}U\x05\x1b[1mas."):
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            archive.writestr("a/data.pkl", pickled.encode("latin-1"))
        for path in (tmp_path / "w.pt", tmp_path / "old.pt"):
            (tmp_path / "old.pt").write_bytes(pickled.encode("latin-1"))
            with pytest.raises(ValueError) as caught:
                load(path)
            assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(path)) + 400
    torch.save({name: model.state_dict(), "b": model.state_dict()}, tmp_path / "w.pt")
    for how in ({}, {"key": "c\x1b"}):
        with pytest.raises(ValueError, match="red") as caught:
            load(tmp_path / "w.pt", **how)
        assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_no_file_of_torch(tmp_path, model):
    for head in (b"GGUF\3\0\0\0", b"\x89HDF\r\n\x1a\n", b"PK\3\4", b"\x93NUMPY"):
        (tmp_path / "w.bin").write_bytes(head + bytes(100))
        refused(tmp_path / "w.bin", r"not a valid file of weights, damaged or of another kind \(ValueError: it begins")
    torch.jit.script(model).save(tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "it is a TorchScript program, which torch refuses too")
