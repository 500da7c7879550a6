"""What torch exports, by its default and its older exporter: read as graphs, equal to onnxruntime, and back."""

import warnings
from unittest.mock import patch

import numpy as np
import pytest

import bfthw
from bfthw import Settings

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, the judge, is missing: pip install 'bfthw[test]'")
import graph_corpus
from onnx_files import outputs
from plain_networks import Plain
from test_networks import SMALL
from torch import nn


class Small(nn.Module):
    """A bit of everything, with a butterfly of a released kind in it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.mixed = nn.Sequential(bfthw.nn.ButterflyPointwise(16, 16), nn.BatchNorm2d(16), nn.ReLU())
        self.last = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10), nn.Softmax(1))

    def forward(self, x):
        x = self.first(x)
        x = x + self.deep(x)
        return self.last(self.mixed(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)))


def made(module, shape, seed=0):
    """The module in eval mode, its norms with numbers as after training, and inputs."""
    torch.manual_seed(seed)
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_var.uniform_(0.5, 2)
            one.running_mean.uniform_(-0.3, 0.3)
            one.weight.data.uniform_(0.5, 1.5)
    return module.eval(), torch.randn(shape)


def exported(path, module, x, dynamo):
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's default export needs onnxscript: pip install 'bfthw[test]'")
    real = torch.from_numpy  # modules whose weights are a graph's, in float64, run in float32
    with warnings.catch_warnings(), patch.object(torch, "from_numpy", lambda a: real(a).to(x.dtype)):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), str(path), dynamo=dynamo, **({"verbose": False} if dynamo else {}))
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def held(path, session, x):
    """The Network of an exported file, after it gave what onnxruntime gives; a last softmax that was left out again."""
    loaded = bfthw.load(path)
    (wanted,) = session.run(None, {session.get_inputs()[0].name: x})
    found = outputs(loaded, x.astype(np.float64), wanted.shape)
    if left_out := [note for note in loaded.notes if "Softmax is left out" in note]:
        found = found - np.log(np.exp(found).sum(1, keepdims=True))
        found = found if "LogSoftmax" in left_out[0] else np.exp(found)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    return loaded.network


def judged(network, path, seed=1):
    """Quantised, written as .onnx again: onnxruntime gives the golden integers."""
    x = np.random.default_rng(seed).normal(size=(4, *network.shape.dims))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        integers = bfthw.compile(network, settings=Settings(activation_bits=9), calibration=x, allow_constant=True)
    bfthw.save_onnx(integers, path)
    q = integers.input.quantise(x)
    assert np.array_equal(runtime.InferenceSession(str(path)).run(None, {"input": q})[0], integers(q))


def test_the_default_with_its_weights_beside(tmp_path):
    module, x = made(Small(), (1, 3, 8, 8))
    session = exported(tmp_path / "small.onnx", module, x, dynamo=True)
    assert (tmp_path / "small.onnx.data").exists()
    network = held(tmp_path / "small.onnx", session, x.numpy())
    chains = [layer.chain.patterns for layer in network.layers]
    assert ((1, 4, 4, 4), (4, 4, 4, 1)) in chains  # the butterfly is one again, not a dense matrix
    judged(network, tmp_path / "q.onnx")


def taken(tmp_path, name, dynamo):
    """A network of the corpus: exported, read, equal; quantised, written, equal."""
    module, shape = graph_corpus.NETWORKS[name].build()
    module, x = module.float(), torch.randn((1, *shape), generator=torch.Generator().manual_seed(2))
    network = held(tmp_path / "w.onnx", exported(tmp_path / "w.onnx", module, x, dynamo), x.numpy())
    judged(network, tmp_path / "q.onnx")


# by the older exporter, which is fast
OLDER = "lenet vgg dilated mobilenet_v1 mobilenet_v2 mobilenet_v3 efficientnet ds_cnn resnet8 shortcut_without_weights "
OLDER += "dense_blocks inception shufflenet sequences temporal pointnet points_as_rows butterfly_classifier tables "
OLDER += "cut_and_filled flattened_norm softmax_at_the_end"


@pytest.mark.parametrize("name", OLDER.split())
def test_networks_of_the_corpus(tmp_path, name):
    taken(tmp_path, name, dynamo=False)


@pytest.mark.parametrize("name", ["h", "c", "resnet8", "dscnn", "csc1d", "mobilenetv1-dense"])
def test_the_networks_of_the_papers(tmp_path, name):
    """By the older exporter, which does not write all of them; the default one writes all, see the corpus."""
    make, plain = SMALL[name]
    network = make()
    x = torch.rand((1, network.shape.channels, *network.shape[:2]), generator=torch.Generator().manual_seed(3))
    module = Plain(network, plain, butterflies=False).float()
    judged(held(tmp_path / "w.onnx", exported(tmp_path / "w.onnx", module, x, False), x.numpy()), tmp_path / "q.onnx")


# of what to_network takes: what the default exporter does not write, and what it writes in words that are not read
NOT_EXPORTED = "other_structures", "constant_matrix"  # fft; float64
EXPORTED = [name for name, case in graph_corpus.NETWORKS.items() if not case.refused and name not in NOT_EXPORTED]
REFUSED = {"of_other_projects": "ScatterND", "shape_dependent": "ScatterND", "tables": "Greater"}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_the_corpus_by_the_default(tmp_path, name):
    if name not in REFUSED:
        return taken(tmp_path, name, dynamo=True)
    with pytest.raises(bfthw.checkpoint.CheckpointError, match=f"{REFUSED[name]} .*: an operator that is not read"):
        taken(tmp_path, name, dynamo=True)
