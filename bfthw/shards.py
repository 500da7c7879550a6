"""Networks in several files: which, and what of them lies in each, by an index as Hugging Face's tools write it."""

import re
from pathlib import Path

from .reading import CheckpointError, no_repetition, owned, parse_json, read_text, short

MOST = 200  # files of a network; they are open at once
PART = re.compile(r"-(\d{5})-of-(\d{5})$")  # of the stem of one of them


def listed(path, suffixes):
    """{path: names of its arrays} of all files of a network of which `path` is the index or one of them, by name.

    None where it is a file by itself. Files are beside the index, under plain names with one of the suffixes.
    CheckpointError for an index that says anything else, and where a file's name says that it is part of several and
    there is no index.
    """
    part = PART.search(path.stem)
    if path.suffix.lower() == ".json" and ".index" in path.name:
        return _parts(path, suffixes)
    if part is None or int(part[2]) < 2:
        return None
    index = path.with_name(f"{path.stem[: part.start()]}{path.suffix}.index.json")
    if not index.exists():
        raise CheckpointError(
            f"{path}: is part {int(part[1])} of {int(part[2])} of a network, {index.name} lists the others and must be "
            "beside it: parts are not read alone"
        )
    parts = _parts(index, suffixes)
    if path not in parts:
        raise CheckpointError(f"{path}: its index, {index}, does not name it")
    return parts


def _parts(index, suffixes):
    with owned(f"{index}: not an index of files", (ValueError, RecursionError)):
        table = parse_json(read_text(index, what="index of files"), no_repetition)
    places = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: not an index of files: weight_map must name arrays and their files")
    parts = {}
    for name, file in places.items():
        plain = isinstance(file, str) and re.fullmatch(r"\w[\w.-]*", file)
        if not plain or Path(file).suffix.lower() not in suffixes:
            raise CheckpointError(
                f"{index}: weight_map, {short(name)}: must be a file beside the index that ends in one of "
                f"{', '.join(suffixes)}, got {short(file)}"
            )
        parts.setdefault(index.with_name(file), set()).add(name)
    if len(parts) > MOST:
        raise CheckpointError(f"{index}: names {len(parts)} files, {MOST} are the limit")
    return dict(sorted(parts.items()))


def check(part, names, arrays):
    """CheckpointError where a file does not hold the arrays that the index says, and no others."""
    for missing in sorted(names - arrays.keys())[:1]:
        raise CheckpointError(f"{part}: the index says that {short(missing)} is here, and it is not")
    for more in sorted(arrays.keys() - names)[:1]:
        raise CheckpointError(f"{part}: {short(more)} is here, and the index does not say so")
