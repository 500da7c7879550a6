"""Many networks at once: every file of a folder, or every layer of a file as a network of its own."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from . import shards
from .checkpoint import File
from .reading import LIMIT, NOT_TAKEN, CheckpointError, StrPath, some
from .storage import SUFFIXES

MOST = 1000  # files of a folder


class Part(NamedTuple):
    """name: of a file in a folder, without its suffix, or of a layer. opened: the layer's File; options: its own.

    said: notes that were given already, of all layers of a file.
    """

    name: str
    path: Path
    opened: File | None = None
    options: dict | None = None
    said: set | None = None

    def read(self):
        """The Checkpoint of a layer alone, its notes its format and what was not said before."""
        checkpoint = self.opened.read(order=[self.name], options=self.options)
        said = self.said - {note for note in self.said if note.startswith("format")}
        notes = [note for note in checkpoint.notes if note not in said and not note.startswith(NOT_TAKEN)]
        self.said.update(notes)
        return replace(checkpoint, notes=tuple(notes))


def parts(
    path: StrPath, *, key: str | None = None, order: Sequence[str] | None = None, format: str | None = None,
    shapes: StrPath | None = None, options: Mapping[str, object] | None = None, limit: int = LIMIT,
) -> tuple[list[Part], list[str]]:
    """(Parts, notes) of a folder or a file.

    A folder: its files that can be networks, by name; several of one network once, by their index; everything else is
    noted. A file: its layers, or those that `order` names, in the order of the file; without batch norms, as no file
    says to which layer one belongs. Options of no layer are an error, as are two parts of one name.
    """
    path = Path(path)
    if path.is_dir():
        if order is not None:
            raise CheckpointError(f"{path}: an order is of layers in one file; of a folder every file is taken")
        return _files(path)
    opened = File(path, key=key, format=format, shapes=shapes, limit=limit)
    (names, prefix), used, found, said = opened.layers(), set(), [], set()
    order = [name.removeprefix(prefix) for name in order or ()]
    options = {key.removeprefix(prefix): value for key, value in (options or {}).items()}
    unknown = [name for name in order if name not in names]
    if unknown:
        raise CheckpointError(f"{path}: order: there is no layer {unknown[0]!r} among {some(names)}")
    for name in order or names:
        chosen = _asked(opened, name, options)
        used |= chosen.keys()
        found.append(Part(name, path, opened, chosen, said))
    unused = [option for option in options if option not in used]
    if unused:
        raise CheckpointError(f"{path}: the option {unused[0]!r} says nothing of any layer; there are {some(names)}")
    return found, [f"{len(found)} layers, each on its own, without batch norms"]


def _asked(opened, name, options):
    """Those of the options that the reading of one layer asks for."""
    chosen, known = {}, -1
    while known < len(chosen):  # one that is given may be why another is asked for
        known, asked = len(chosen), {}
        with suppress(ValueError):
            opened.read(order=[name], options=chosen, asked=asked)
        chosen = {key: value for key, value in options.items() if key in asked}
    return chosen


def _files(folder):
    found, others = {}, []
    for path in sorted(folder.iterdir()):
        index, suffix = path.name.lower().endswith(".index.json"), path.suffix.lower()
        part = shards.PART.search(path.stem)
        if part and path.with_name(f"{path.stem[: part.start()]}{path.suffix}.index.json").exists():
            continue  # its index says so
        known = (index or suffix in (*SUFFIXES, ".onnx")) and path.is_file()
        if path.name.startswith(".") or not path.name.isprintable() or not known:  # a name may steer a terminal
            others.append(path.name)
            continue
        # w.pth.tar and model.safetensors.index.json have two and three suffixes
        name = path.name[: -len(".index.json")] if index else path.stem
        name = Path(name).stem if index or suffix == ".tar" else name
        if name in found:
            raise CheckpointError(f"{folder}: {found[name].path.name} and {path.name} would both be {name!r}")
        found[name] = Part(name, path)
    if not 0 < len(found) <= MOST:
        raise CheckpointError(f"{folder}: 1 to {MOST} files of networks are read, this folder has {len(found)}")
    passed = [f"no files of networks, passed over: {some(others)}"] if others else []
    return list(found.values()), [f"{len(found)} files, each on its own", *passed]
