"""Modules that other packages make, as these have them; each test needs its package, which nothing else here does."""

import numpy as np
import pytest
import torch
from torch import nn

import bfthw
from bfthw.nn import to_network


@pytest.mark.parametrize("kind", ["dense", "butterfly", "monarch", "blockdiag", "circulant"])
@pytest.mark.parametrize("inputs, outputs", [(16, 16), (12, 20)])
def test_torch_structured(kind, inputs, outputs):
    """torch-structured's `make_linear`: taken and equal, or refused with what would do."""
    others = pytest.importorskip("torch_structured")
    torch.manual_seed(0)
    if kind == "circulant":
        module = nn.Sequential(others.make_linear(kind, 16, 16))
        with pytest.raises(TypeError, match="module '0' .*fft_rfft .*is not taken; .*a Circulant of bfthw.nn would be"):
            to_network(module, (16,))
        return
    layer = others.make_linear(kind, inputs, outputs)
    module = nn.Sequential(layer, nn.ReLU(), nn.Linear(outputs, 3)).double().eval()
    network, x = to_network(module, (inputs,)), torch.randn(5, inputs, dtype=torch.float64)
    assert np.allclose(network(x.numpy()), module(x).detach().numpy(), rtol=0, atol=1e-12)
    factors = [len(own.chain.factors) for own in network.layers]
    assert factors == [{"butterfly": 4, "monarch": 2}.get(kind, 1), 1]


def brevitas_module():
    qnn = pytest.importorskip("brevitas.nn")
    from brevitas.quant import Int8ActPerTensorFixedPoint as Act
    from brevitas.quant import Int8WeightPerTensorFixedPoint as Weight
    from brevitas.quant import Uint8ActPerTensorFixedPoint as Unsigned

    torch.manual_seed(0)
    module = nn.Sequential(
        qnn.QuantIdentity(act_quant=Act),
        qnn.QuantConv2d(2, 4, 3, padding=1, weight_quant=Weight),
        qnn.QuantReLU(act_quant=Unsigned),
        nn.Flatten(),
        qnn.QuantLinear(100, 5, bias=True, weight_quant=Weight),
        qnn.QuantIdentity(act_quant=Act),
    )
    for _ in range(40):
        module(torch.randn(8, 2, 5, 5))
    return module.eval()


def test_brevitas(tmp_path):
    """Refused as a module; its QONNX file is a network with its formats, equal to it but where halves meet."""
    module = brevitas_module()
    with pytest.raises(TypeError, match="module '0' is Brevitas's QuantIdentity.*export_qonnx"):
        to_network(module, (2, 5, 5))
    pytest.importorskip("onnxoptimizer")
    from brevitas.export import export_qonnx

    x = torch.randn(200, 2, 5, 5)
    export_qonnx(module, args=x[:1], export_path=str(tmp_path / "brevitas.onnx"))
    network = bfthw.load(tmp_path / "brevitas.onnx").network
    integers = bfthw.compile(network)
    given = integers(integers.input.quantise(x.movedim(1, -1).double().numpy()))
    wanted = module(x)
    wanted = getattr(wanted, "value", wanted).detach().double().numpy() * 2.0**integers.output.frac
    assert (abs(given - wanted) <= 1).all() and (given == wanted).mean() > 0.97  # halves go to even ones there


def test_brevitas_by_its_name():
    """What is refused without Brevitas at hand: a class of that package."""
    own = type("QuantLinear", (nn.Linear,), {"__module__": "brevitas.nn.quant_linear"})
    with pytest.raises(TypeError, match="module '1' is Brevitas's QuantLinear, whose forward rounds"):
        to_network(nn.Sequential(nn.ReLU(), own(3, 3)), (3,))
