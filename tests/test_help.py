"""What the command line says of itself: names that exist, `-h`, `--version`, `python -m bfthw`, the table of boards."""

import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import bfthw
from bfthw.cli.main import app
from boards.table import BOARDS

COMMANDS = typer.main.get_command(app).commands


def shown(*words):
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"}, prog_name="bfthw")
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_commands_that_exist(name):
    text = shown(name, "-h")
    assert text == shown(name, "--help") and f"Usage: bfthw {name}" in text
    helps = [COMMANDS[name].help, *(p.help for p in COMMANDS[name].params if p.param_type_name == "option")]
    for word in re.findall(r"`bfthw (\w+)", " ".join(filter(None, helps))):
        assert word in COMMANDS, f"{name}: there is no `bfthw {word}`"


def test_version():
    assert shown("--version") == f"bfthw {bfthw.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "bfthw", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == shown("--version")


def test_boards():
    text = shown("boards")
    for key, board in BOARDS.items():
        row = next(line for line in text.splitlines() if line.startswith(key))
        assert board.device.name in row and f" {board.device.lut} " in row and f" {board.clock_mhz:g} " in row
