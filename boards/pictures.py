"""Pictures, PNG or JPEG, to the integers that a network takes; Pillow is loaded when the first is read."""

import io
import warnings
from math import isqrt
from pathlib import Path

import numpy as np

from bfthw.reading import LIMIT, first_line, read_bytes

SUFFIXES = ".png", ".jpg", ".jpeg"
PIXELS = 1 << 26  # of a picture that is made smaller
SCALE = 256  # pixels are 0 to 255/256 where they are not the integers themselves
KINDS = {1: "grey", 3: "RGB"}
_KINDS = {"L": "grey", "P": "of a palette", "LA": "grey with alpha", "1": "black and white"}  # of Pillow's modes


def is_picture(path):
    """Whether a path is a folder, or named as a picture."""
    return Path(path).is_dir() or Path(path).suffix.lower() in SUFFIXES


def found(place):
    """The pictures of a folder, by name, or the one that is named; ValueError for a folder without."""
    if not Path(place).is_dir():
        return [Path(place)]
    paths = sorted(path for path in Path(place).iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"{place}: no pictures in it; names must end in {', '.join(SUFFIXES)}")
    return paths


def read(paths, shape, q, *, resize=False):
    """Pictures to integers (N, numbers) of the QFormat q, and notes, on what was changed.

    shape: of the network's input; a vector takes a picture of as many numbers. Where q has 8 bits without a sign the
    integers are the pixels, else pixel / 256 quantised. resize: to the wanted size, else ValueError names picture, size
    and cure. ValueError for what is no picture, ImportError where Pillow is missing.
    """
    if (most := LIMIT // 8 // shape.size) < len(paths):
        raise ValueError(f"{paths[0].parent}: {len(paths)} pictures, {most} are taken at once")
    pixels, converted, scaled = np.empty((len(paths), shape.size), np.uint8), {}, {}
    for n, path in enumerate(paths):
        picture, kind, size = _opened(path, shape, resize)
        pixels[n] = np.asarray(picture, np.uint8).ravel()
        if kind != picture.mode:
            converted.setdefault((kind, picture.mode), []).append(path.name)
        if size != picture.size:
            scaled.setdefault((size, picture.size), []).append(path.name)
    said = {mode: _KINDS.get(mode, mode) for pair in converted for mode in pair}
    notes = [f"{_names(names)} {said[was]}, taken as {said[now]}" for (was, now), names in converted.items()]
    notes += [f"{_names(names)} {_by(was)}, made {_by(now)}" for (was, now), names in scaled.items()]
    if q.width == 8 and not q.signed:
        return pixels.astype(np.int64), notes
    return q.quantise(pixels / SCALE), notes


def _names(names):
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more are"


def _by(size):
    return "x".join(map(str, size))


def _opened(path, shape, resize):
    """A Pillow image of 8 bits of the shape's size and channels; the mode and size that it had."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError("reading pictures needs Pillow: pip install 'bfthw[pictures]'") from None
    data = io.BytesIO(read_bytes(path, PIXELS, least=1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large ones: their size is looked at below
            picture = Image.open(data, formats=("PNG", "JPEG"))
            kind, size = picture.mode, picture.size
            fitting, channels = _wanted(path, shape, picture, resize)
            if picture.format == "JPEG":  # it may lie on its side
                picture = ImageOps.exif_transpose(picture)
            picture = picture.convert("L" if channels == 1 else "RGB")
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # Pillow's readers raise whatever they meet
        raise ValueError(f"{path}: no picture that can be read: {first_line(error)}") from None
    return picture if picture.size == fitting else picture.resize(fitting, Image.Resampling.BILINEAR), kind, size


class _Refused(Exception):
    """A picture that is whole, and not what is wanted."""


def _wanted(path, shape, picture, resize):
    """((width, height), channels) that a picture of this size is taken as; _Refused where it cannot be."""
    (width, height), (rows, columns, channels) = picture.size, shape
    if picture.mode.startswith(("I", "F")):
        raise _Refused(f"{path}: more than 8 bits a pixel ({picture.mode})")
    if shape.positions == 1:  # a vector
        sides = {channels: 1} | ({channels // 3: 3} if channels % 3 == 0 else {})
        if width * height in sides:
            return (width, height), sides[width * height]
        rows = columns = isqrt(channels)
        if rows * columns < channels:
            raise _Refused(f"{path}: {width}x{height} pixels, the network takes vectors of {channels} numbers")
        channels = 1
    if channels not in KINDS:
        raise _Refused(f"{path}: the network takes {channels} channels, a picture has 1 or 3")
    # Orientation: width and height are exchanged; asked for it, a PNG would be read whole
    turned = picture.format == "JPEG" and picture.getexif().get(0x0112, 1) >= 5
    if ((height, width) if turned else (width, height)) != (columns, rows):
        if not resize:
            raise _Refused(
                f"{path}: {width}x{height} pixels, the network takes {columns}x{rows} ({KINDS[channels]}); --resize "
                "makes it so"
            )
        if width * height > PIXELS:
            raise _Refused(f"{path}: {width}x{height} pixels, {PIXELS} are the limit")
    return (columns, rows), channels
