"""Commands that take many networks at once, one after the other."""

import traceback
from functools import wraps
from inspect import Parameter, signature
from os import environ

from rich.markup import escape

from .. import each as many
from ..reading import some
from . import options as given
from .console import console, message, say
from .networks import as_given


def each(**results):
    """A command on one checkpoint, that --each runs for every file of a folder, or every layer of a file.

    results: parameter -> (its value, the part's name) -> its value for that part. A calibration that is a folder is
    that of the part's name in it. What fails is printed, the others go on; then ValueError.
    """

    def decorate(command):
        @wraps(command)
        def run(*, each, **arguments):
            if not each:
                return command(**arguments)
            path, file = arguments["ckpt"], arguments["file"]
            if path is None:
                raise ValueError("--each takes a folder of checkpoints, or one with several layers")
            parts, notes = many.parts(path, **as_given(**file))
            say(notes)
            changed = {part.name: {key: of(arguments[key], part.name) for key, of in results.items()} for part in parts}
            _differ(path, changed)
            for values in changed.values():
                if "output" in values:
                    values["output"].parent.mkdir(parents=True, exist_ok=True)
            failed = [part.name for part in parts if not _done(command, arguments | changed[part.name], part)]
            if failed:
                raise ValueError(f"{path}: {len(failed)} of {len(parts)} failed: {some(failed)}")

        own = list(signature(command).parameters.values())
        option = Parameter("each", Parameter.KEYWORD_ONLY, default=False, annotation=given.Each)
        run.__signature__ = signature(command).replace(parameters=[*own, option])
        return run

    return decorate


def _differ(path, changed):
    """ValueError where two parts would write the same."""
    seen = {}
    for name, values in changed.items():
        other = seen.setdefault(tuple(values.values()), name) if values else name
        if other != name:
            files = ", ".join(map(str, values.values()))
            raise ValueError(f"{path}: {other!r} and {name!r} would write the same files, {files}")


def _done(command, arguments, part):
    """Whether a command on one part ends well; else its error is printed."""
    console.print(f"\n[bold]{escape(part.name)}[/]")
    file = arguments["file"] if part.opened is None else {"part": part}
    calibration = arguments.get("calibration")
    if calibration is not None and calibration.is_dir():
        arguments = arguments | {"calibration": calibration / f"{part.name}.npy"}
    try:
        command(**arguments | {"ckpt": part.path, "file": file})
    except Exception as error:  # of any kind, as in cli.main
        if environ.get("BFTHW_DEBUG") == "1":
            traceback.print_exc()
        console.print(f"[bold red]error:[/] {escape(message(error))}", soft_wrap=True)
        return False
    return True
