"""Pictures to integers: every kind that is taken, every one that is not, and the commands on a simulated board."""

import io
import struct
import zlib

import numpy as np
import pytest
from test_cli import run

import bfthw
import rtl_gen
from bfthw import QFormat
from bfthw.window import Shape
from boards import pictures

Image = pytest.importorskip("PIL.Image")
PIXELS = QFormat(8, 8, signed=False)
GREY, RGB = Shape(4, 6, 1), Shape(4, 6, 3)


@pytest.fixture
def saved(tmp_path):
    """saved(name, array, ...) -> the path of a picture."""

    def save(name, array, mode=None, **rest):
        picture = Image.fromarray(np.asarray(array, np.uint8))
        (picture.convert(mode) if mode else picture).save(tmp_path / name, **rest)
        return tmp_path / name

    return save


@pytest.fixture
def pixels():
    return np.random.default_rng(2).integers(0, 256, (4, 6, 3))


def test_pixels_are_the_integers(saved, pixels):
    """Rows from the top, channels fastest; in another format pixel / 256, rounded."""
    x, notes = pictures.read([saved("a.png", pixels), saved("b.png", pixels[::-1])], RGB, PIXELS)
    assert np.array_equal(x, [pixels.ravel(), pixels[::-1].ravel()]) and x.dtype == np.int64 and not notes
    x, _ = pictures.read([saved("c.png", pixels[..., 0])], GREY, PIXELS)
    assert np.array_equal(x[0], pixels[..., 0].ravel())
    for q in (QFormat(8, 7), QFormat(8, 4, signed=False), QFormat(12, 8)):
        x, _ = pictures.read([saved("a.png", pixels)], RGB, q)
        wanted = pixels if (q.width, q.signed) == (8, False) else q.quantise(pixels / 256)
        assert np.array_equal(x[0], wanted.ravel())


def test_vectors_take_pictures_of_as_many_numbers(saved, pixels):
    x, _ = pictures.read([saved("a.png", pixels)], Shape(1, 1, 72), PIXELS)
    assert np.array_equal(x[0], pixels.ravel())
    x, notes = pictures.read([saved("a.png", pixels)], Shape(1, 1, 24), PIXELS)
    assert x.shape == (1, 24) and notes == ["a.png is RGB, taken as grey"]
    x, notes = pictures.read([saved("a.png", pixels)], Shape(1, 1, 25), PIXELS, resize=True)
    assert x.shape == (1, 25) and "a.png is 6x4, made 5x5" in notes
    with pytest.raises(ValueError, match="a.png: 6x4 pixels, the network takes vectors of 26 numbers"):
        pictures.read([saved("a.png", pixels)], Shape(1, 1, 26), PIXELS, resize=True)


@pytest.mark.parametrize(
    "mode, name", [("RGBA", "RGBA"), ("P", "of a palette"), ("L", "grey"), ("LA", "grey with alpha")]
)
def test_colours_are_converted_and_it_is_said(saved, mode, name):
    grey = np.repeat(np.arange(24).reshape(4, 6, 1) % 2 * 255, 3, axis=2)
    paths = [saved(f"{n}.png", grey, mode) for n in range(3)]
    x, notes = pictures.read(paths, RGB, PIXELS)
    assert np.array_equal(x, [grey.ravel()] * 3) and notes == [f"0.png and 2 more are {name}, taken as RGB"]


def test_a_picture_that_lies_on_its_side(saved, pixels):
    """JPEG's Orientation: 6 is turned by 90 degrees; flat areas, as JPEG keeps no pixels."""
    flat = np.zeros((48, 32), int)
    flat[:24] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    x, _ = pictures.read([saved("a.jpg", flat, exif=exif, quality=95)], Shape(32, 48, 1), PIXELS)
    assert np.abs(x.reshape(32, 48) - np.rot90(flat, -1)).max() < 20


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits=8, data=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_what_is_no_picture(tmp_path, saved, pixels):
    """A line each, that names the file; nothing large is taken apart."""
    whole = saved("whole.png", pixels).read_bytes()
    deep = io.BytesIO()
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(deep, "PNG")
    gif = io.BytesIO()
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(gif, "GIF")
    for data, resize, words in (
        (whole[:40], False, "no picture that can be read"),
        (whole[:-40] + bytes(40), False, "no picture that can be read"),
        (b"text", False, "no picture that can be read"),
        (gif.getvalue(), False, "no picture that can be read"),
        (deep.getvalue(), False, "more than 8 bits a pixel"),
        (png(50_000, 50_000), True, "pixels"),
        (png(9_000, 9_000), True, "9000x9000 pixels, 67108864 are the limit"),
        (png(9_000, 9_000), False, r"9000x9000 pixels, the network takes 6x4 \(RGB\); --resize makes it so"),
        (b"", False, "byte"),
    ):
        path = tmp_path / "x.png"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"x.png: .*{words}") as caught:
            pictures.read([path], RGB, PIXELS, resize=resize)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="whole.png: the network takes 5 channels, a picture has 1 or 3"):
        pictures.read([tmp_path / "whole.png"], Shape(4, 6, 5), PIXELS)
    with pytest.raises(ValueError, match="3 pictures, 2 are taken at once"):
        pictures.read([tmp_path / "whole.png"] * 3, Shape(1 << 14, 1 << 14, 1), PIXELS)


def test_without_pillow(saved, pixels, monkeypatch):
    path = saved("a.png", pixels)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"reading pictures needs Pillow: pip install 'bfthw\[pictures\]'"):
        pictures.read([path], RGB, PIXELS)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """A folder with a core of 24 pixels without a sign, three pictures for it in one, a list of names."""
    folder = tmp_path_factory.mktemp("pictures")
    layer = bfthw.Layer(chain=bfthw.Chain.random(bfthw.chain.dense(3, 24), seed=2), name="body")
    settings = bfthw.make_settings(input_bits=8, layers={"body": {"lanes": 1}})
    network = bfthw.compile(bfthw.Network(layers=(layer,)), settings=settings)
    rtl_gen.write(network, folder, name="core", settings=settings)
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(3)
    for name in ("c.png", "b.PNG", "a.jpeg"):
        Image.fromarray(rng.integers(0, 256, (4, 6), np.uint8)).save(folder / "pictures" / name)
    (folder / "pictures" / "notes.txt").write_text("no picture")
    Image.fromarray(rng.integers(0, 256, (40, 60), np.uint8)).save(folder / "large.png")
    (folder / "names.txt").write_text("shirt\nankle boot\nbag\n")
    return folder


def test_run_and_measure(core, tmp_path):
    """In the order of their names, with those of the classes; every answer as the golden model's."""
    integers = bfthw.load_integers(core / "core.npz")
    paths = [core / "pictures" / name for name in ("a.jpeg", "b.PNG", "c.png")]
    x, _ = pictures.read(paths, integers.shape, integers.input)
    classes, names = integers(x).argmax(axis=1), ["shirt", "ankle boot", "bag"]
    options = "--simulate", "--labels", core / "names.txt", "--compare", "--output", tmp_path / "y.npy"
    status, out, err = run("run", core / "core.json", "--input", core / "pictures", *options)
    assert status == 0 and "ok every answer equals" in out, err
    assert out.splitlines()[1:4] == [f"{path.name}: {n} {names[n]}" for path, n in zip(paths, classes)]
    assert np.array_equal(np.load(tmp_path / "y.npy"), integers(x))
    status, out, err = run("run", core / "core.json", "--simulate", "--input", core / "large.png", "--resize")
    assert status == 1 and "vectors of 24 numbers" in err  # 24 is no square
    status, out, err = run("measure", core / "core.json", "--simulate", "--frames", 40)
    interval = rtl_gen.load_design(core / "core.json").manifest.interval
    assert status == 0 and "ok the outputs of 40 frames equal" in out, err
    assert f"{interval} cycles a frame, {interval} planned; at 12 MHz {12e6 / interval:.1f} a second" in out


BAD = [
    (["run", "--input", "empty", "--simulate"], ["empty: no pictures in it", ".png"]),
    (["run", "--input", "large.png", "--simulate"], ["large.png: 60x40 pixels", "24 numbers"]),
    (["run", "--input", "none.png", "--simulate"], ["none.png"]),
    (["run", "--input", "x.npy", "--simulate", "--resize"], ["x.npy: --resize is for pictures"]),
    (["run", "--input", "pictures", "--simulate", "--labels", "x.npy"], ["x.npy: --labels", "`bfthw report`"]),
    (["run", "--input", "pictures", "--simulate", "--labels", "core.json"], ["names, a line each, for 3 outputs"]),
    (["measure", "--simulate", "--frames", "1"], ["2 to 65535 frames can be measured, got 1"]),
    (["measure", "--simulate", "--frames", "201"], ["measures 200 frames at most, got 201"]),
    (["measure"], ["--port", "--simulate"]),
    (["measure", "--simulate", "--baud", "9600"], ["--baud"]),
]


@pytest.mark.parametrize("arguments, words", BAD, ids=lambda v: " ".join(v) if len(v) > 2 else None)
def test_bad_input_is_status_1_with_one_message(core, arguments, words):
    (core / "empty").mkdir(exist_ok=True)
    np.save(core / "x.npy", np.zeros((2, 24), int))
    status, out, err = run(arguments[0], "core.json", *arguments[1:], cwd=core)
    assert status == 1 and err.startswith("error: ") and "Traceback" not in out + err, (out, err)
    for word in words:
        assert word in err, err
