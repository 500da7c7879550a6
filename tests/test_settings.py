"""Settings from arguments and TOML, every mistake named."""

import pytest
from pydantic import ValidationError

from bfthw import Settings, make_settings


def toml(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_defaults():
    own = make_settings()
    assert own == Settings()
    assert (own.weight_bits, own.activation_bits, own.input_bits, own.row_exponents) == (8, 10, 8, 0)
    assert own.input_frac is None and own.equalise is None and own.layers == {}


def test_file_and_arguments(tmp_path):
    path = toml(
        tmp_path,
        'weight_bits = 6\nlanes = 4\npercentile = 100\n[layers."block.0"]\nweight_bits = 5\nsimd = [2, 4]\n',
    )
    own = make_settings(path, weight_bits=7, activation_bits=None)
    assert (own.weight_bits, own.activation_bits, own.percentile) == (7, 10, 100)
    picked = own.layer("block.0")
    assert (picked.weight_bits, picked.simd, picked.lanes, picked.activation_bits) == (5, [2, 4], 4, 10)
    other = own.layer("another")
    assert (other.weight_bits, other.simd, other.lanes) == (7, None, 4)


def test_zero_of_a_layer_is_not_taken_for_missing():
    own = Settings(row_exponents=3, layers={"a": {"row_exponents": 0}})
    assert own.layer("a").row_exponents == 0 and own.layer("b").row_exponents == 3


def test_hardware_chooses_no_formats():
    hardware = Settings(
        engine="folded", lanes=2, simd=1, vectors=2, products="lut", target="ecp5", paired=True,
        layers={"a": {"engine": ["folded"], "products": "dsp", "lanes": 1, "simd": 2}},
    )
    assert not hardware.chooses_formats and not Settings().chooses_formats
    assert Settings(weight_bits=8).chooses_formats and Settings(layers={"a": {"row_exponents": 1}}).chooses_formats
    assert Settings(lanes=2, layers={"a": {"simd": 2}}).given == {"lanes", "simd"}


def test_layers_must_exist():
    own = Settings(layers={"b": {}})
    own.check_layers(["a", "b"])
    with pytest.raises(ValueError, match="the network has no layer 'b'; its layers are 'a', 'c'"):
        own.check_layers(["a", "c"])


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("weight_bits = 1", "weight_bits = 1: .*greater than or equal to 2"),
        ("weight_bits = 25", "weight_bits = 25: .*less than or equal to 24"),
        ("weight_bits = 8.0", "weight_bits = 8.0: .*valid integer"),
        ('weight_bits = "8"', "weight_bits = '8': .*valid integer"),
        ("weight_bits = true", "weight_bits = True: .*valid integer"),
        ("equalise = 1", "equalise = 1: .*valid boolean"),
        ("percentile = 50", "percentile = 50: .*greater than 50"),
        ("percentile = nan", "percentile = nan: "),
        ("lanes = 0", "lanes = 0: .*greater than or equal to 1"),
        ("lanes = [4, 0]", "lanes.1 = 0: .*greater than or equal to 1"),
        ('lanes = "4"', "lanes = '4': .*valid integer"),
        ("[layers.a]\nsimd = [2, 0]", "layers.a.simd.1 = 0: .*greater than or equal to 1"),
        ('engine = "the folded"', "engine = 'the folded': String should match pattern"),
        ('engine = ["folded", ""]', "engine.1 = '': String should match pattern"),
        ('[layers.a]\nengine = 3', "layers.a.engine = 3: Input should be a valid string"),
        ('products = ["dsp", 1]', "products.1 = 1: Input should be a valid string"),
        ("vectors = 0", "vectors = 0: .*greater than or equal to 1"),
        ('target = "../x"', "target = '../x': String should match pattern"),
        ('roms = true', "roms = True: Input should be a valid string"),
        ("[layers.a]\nvectors = 2", "unknown key 'layers.a.vectors'; the keys are weight_bits"),
        ("paired = 1", "paired = 1: .*valid boolean"),
        ("[layers.a]\npaired = [true, 1]", "layers.a.paired.1 = 1: .*valid boolean"),
        ("weigth_bits = 8", "unknown key 'weigth_bits'; the keys are weight_bits, .*layers"),
        ("[layers.a]\ninput_bits = 8", "unknown key 'layers.a.input_bits'; the keys are weight_bits"),
        ("layers = 3", "layers = 3: "),
        ("[layers]\na = 3", "layers.a = 3: "),
        ("weight_bits = ", "not a TOML file"),
        (b"\xff\xfe", "not a TOML file"),
    ],
)
def test_refused(tmp_path, text, wanted):
    with pytest.raises(ValueError, match=rf"settings.toml: ({wanted})"):
        make_settings(toml(tmp_path, text))


def test_arguments_are_named_too():
    with pytest.raises(ValueError, match="settings: weight_bits = 99: "):
        make_settings(weight_bits=99)


def test_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().weight_bits = 3
