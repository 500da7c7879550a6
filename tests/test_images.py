"""What examples/mnist and examples/fashion share: training that goes on, its integers, pixels that are moved."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bfthw import Settings, load, models  # noqa: E402
from bfthw.nn import GraphModule  # noqa: E402
from bfthw.quantize import compile  # noqa: E402

torch.set_num_threads(1)  # a thread more costs more than these sizes win
HOW = {"batch": 16, "rate": 0.01, "jitter": {"turn": 10, "zoom": 0.1, "shift": 2, "flip": True}, "plain": 1}


@pytest.fixture
def images(example):
    found = example("images")
    found.console.quiet = True
    return found


def pictures(part, count=48):
    """Pixels, 0 and 255 among them, and labels."""
    rng = np.random.default_rng(len(part))
    return rng.integers(0, 256, (count, 28, 28, 1)).astype(np.uint8), np.arange(count) % 10


def test_stopped_training_goes_on(images, tmp_path, monkeypatch):
    """What is stopped after an epoch ends with the same weights, in floats and with rounding."""
    given = [torch.tensor(part) for part in pictures("train")]
    network = models.net_h(blocks=[(16, 4)])
    kept = images.files.write

    def stopped(path, data):
        kept(path, data)
        raise KeyboardInterrupt

    def fit(path):
        return images.fit(GraphModule(network, norm=True).float(), *given, **HOW, epochs=3, seed=0, path=path)

    whole = fit(tmp_path / "whole.pt")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(images.files, "write", stopped)
        fit(tmp_path / "stopped.pt")
    again = fit(tmp_path / "stopped.pt")
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
    first = dict(GraphModule(network, norm=True).named_parameters())
    assert not any(torch.equal(first[key], value) for key, value in whole.named_parameters() if value.requires_grad)


@pytest.mark.parametrize("free", [True, False], ids=["free", "kept"])
def test_what_training_writes(images, tmp_path, free):
    """A network with formats, whose integers take pixels as they are, and what they say of test images."""
    how = {"seed": 0, "out": tmp_path, "first": HOW | {"epochs": 2}, "fine": HOW | {"epochs": 1}, "free": free}
    images.train("one", models.net_h(blocks=[(16, 4)]), Settings(weight_bits=8, input_bits=8), pictures, **how)
    network, samples = load(tmp_path / "one.safetensors").network, np.load(tmp_path / "samples.npz")
    integers, (pixels, labels) = compile(network), pictures("test")
    assert np.array_equal(integers.input.quantise(pixels / images.SCALE), pixels)
    assert np.array_equal(integers(pixels.astype(np.int64)), samples["scores"])
    assert np.array_equal(samples["labels"], labels) and ("images" in samples) == free
    assert not free or np.array_equal(samples["images"], pixels)


def test_moved(images):
    """Nothing moves without being asked; flips turn about half of the images; turns and shifts stay in their bounds."""
    chance, x = partial(torch.Generator().manual_seed, 0), torch.zeros(200, 28, 28, 1)
    x[:, 10:12, 20:22] = 1.0
    places = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij"))

    def middles(**how):
        y = images.moved(x, chance(), **how)[..., 0]
        return (places * y[:, None]).sum((2, 3)) / y.sum((1, 2))[:, None]

    assert torch.allclose(images.moved(x, chance()), x, atol=1e-4)
    flipped = middles(flip=True)
    assert torch.allclose(flipped[:, 0], torch.tensor(10.5), atol=1e-3)
    left = (flipped[:, 1] - 6.5).abs() < 1e-3
    assert 60 < left.sum() < 140 and ((flipped[~left, 1] - 20.5).abs() < 1e-3).all()
    away = (middles(shift=2.0) - torch.tensor([10.5, 20.5])).abs().amax(0)
    assert (1.8 < away).all() and (away < 2.05).all()
    from_middle = middles(turn=10.0) - 13.5
    angles = torch.rad2deg(torch.atan2(from_middle[:, 0], from_middle[:, 1]) - np.arctan2(-3, 7))
    assert 9 < angles.abs().max() < 10.5
    assert torch.allclose(from_middle.norm(dim=1), torch.tensor(58.0).sqrt(), atol=0.1)
