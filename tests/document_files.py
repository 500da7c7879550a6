"""Files that a page of docs takes for the reader's own: page → what writes them into the folder that it runs in."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import train_files

import bfthw

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.safetensors"


def checkpoints(place):
    """A network with one 1×1 convolution of interest, an old butterfly between dense layers, DeBut, ONNX."""
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(5)

    def real(*shape):
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    mobile = {"model.0.conv.weight": real(8, 3, 3, 3), "model.3.conv.weight": real(16, 8, 1, 1)}
    torch.save(mobile, place / "mobilenet.pth")
    old = {"fc.twiddle": real(1, 1, 7, 64, 2, 2), "out.weight": real(10, 128), "out.bias": real(10)}
    torch.save(old, place / "butterfly.pt")
    torch.save({"fc.twiddle": real(128), "fc2.twiddle": real(128)}, place / "lenet.pth")
    (place / "rshapes").mkdir()
    (place / "rshapes" / "lenet.txt").write_text("16 16 4 4 1 16 16 4 4 4\n" * 2)
    weight = rng.normal(size=(4, 16)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), place / "model.onnx")
    model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    torch.save(model.state_dict(), place / "w.pt")
    x = real(32, 16)
    np.save(place / "x.npy", x.numpy())
    np.save(place / "y.npy", model(x).detach().numpy())


def digits(place):
    """The digits network with its held-out images and their labels."""
    load = runpy.run_path(str(DIGITS.with_name("data.py")))["load"]
    shutil.copy(DIGITS, place / "net.safetensors")
    *_, x, y = load()
    np.save(place / "x.npy", x)
    np.save(place / "y.npy", y)


def dense(place):
    """Two dense layers, body and head."""
    layers = [
        bfthw.Layer(chain=bfthw.Chain.random([(1, m, n, 1)], seed), name=name)
        for seed, (name, m, n) in enumerate((("body", 64, 64), ("head", 10, 64)))
    ]
    bfthw.save(bfthw.Network(layers=layers), place / "dense.safetensors")


def sets(place):
    """Small sets in place of ImageNet, CIFAR-10 and ModelNet40, with a batch each."""
    train_files.imagenet(place / "IMAGENET", count=86)
    train_files.cifar(place / "CIFAR", count=64)
    train_files.modelnet(place / "MODELNET40", count=22)


def weights(place):
    shutil.copy(DIGITS, place / "mine.safetensors")


GIVEN = {
    "docs/checkpoints.md": checkpoints,
    "docs/first-board.md": weights,
    "docs/models.md": sets,
    "docs/projection.md": dense,
    "docs/quantisation.md": digits,
}
