"""The programmers' commands, and what is said where there is none."""

import hashlib
import json
import os

import pytest

from boards import flash
from boards.table import BOARDS


@pytest.mark.parametrize("key, target, words", [
    ("icebreaker", None, "iceprog a.bin"),
    ("icebreaker", "sram", "iceprog -S a.bin"),
    ("ulx3s-85f", None, "openFPGALoader -b ulx3s -m a.bin"),
    ("ulx3s-85f", "flash", "openFPGALoader -b ulx3s -f a.bin"),
    ("tang-nano-9k", "sram", "openFPGALoader -b tangnano9k -m a.bin"),
    ("colorlight-5a-75b", "flash", "openFPGALoader -b colorlight -c ft232 -f a.bin"),
    ("icesugar", None, "icesprog a.bin"),
    ("ulx3s-12f", None, "openFPGALoader -b ulx3s -m a.bin"),
    ("tang-nano-20k", "flash", "openFPGALoader -b tangnano20k -f a.bin"),
    ("tang-primer-25k", None, "openFPGALoader -b tangprimer25k -m a.bin"),
    ("icebreaker-bitsy", None, "dfu-util -d ,1d50:6146 -a 0 -R -D a.bin"),
    ("upduino-3", None, "iceprog a.bin"),
])
def test_commands(key, target, words):
    assert flash.command(key, "a.bin", target) == words.split()
    assert flash.flash(key, "a.bin", target, dry_run=True) == words


@pytest.mark.parametrize("key", list(BOARDS))
def test_every_board_has_a_programmer_that_takes_the_file_once(key):
    for target, programmer in BOARDS[key].programmers.items():
        assert programmer.command.count("{file}") == 1 and programmer.command[0] in programmer.cure
        assert flash.command(key, "x y.bin", target)[-1] == "x y.bin"


def test_names_are_words():
    assert flash.flash("icebreaker", "my file.bin", dry_run=True) == "iceprog 'my file.bin'"
    assert flash.command("icebreaker", "-S.bin")[-1] == "./-S.bin"


def test_a_target_that_a_board_lacks():
    with pytest.raises(ValueError, match="iCESugar 1.5 cannot be programmed to 'sram'; there is flash"):
        flash.command("icesugar", "a.bin", "sram")


def test_missing_programmer_and_missing_file(tmp_path, monkeypatch):
    file = tmp_path / "a.bin"
    with pytest.raises(ValueError, match="no such file"):
        flash.flash("icebreaker", file)
    file.write_bytes(b"1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="iceprog is missing; .* apt-get install fpga-icestorm; then run: iceprog "):
        flash.flash("icebreaker", file)


def fake_programmer(tmp_path, monkeypatch, status):
    program = tmp_path / "iceprog"
    program.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/told"\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    file = tmp_path / "a.bin"
    file.write_bytes(b"1")
    return file


def test_the_programmer_is_run(tmp_path, monkeypatch):
    file = fake_programmer(tmp_path, monkeypatch, 0)
    assert flash.flash("icebreaker", file, "sram") == f"iceprog -S {file}"
    assert (tmp_path / "told").read_text().strip() == f"-S {file}"


def test_a_programmer_that_fails(tmp_path, monkeypatch):
    file = fake_programmer(tmp_path, monkeypatch, 3)
    with pytest.raises(RuntimeError, match="iceprog failed, exit status 3: .*udev rules.*jumpers"):
        flash.flash("icebreaker", file, "sram")


def test_bitstream_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"report.json is missing: .* run `bfthw build` first"):
        flash.bitstream(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"bits")
    report = {"board": "icebreaker", "bitstream": "a.bin", "sha256": hashlib.sha256(b"bits").hexdigest()}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert flash.bitstream(tmp_path) == (tmp_path / "a.bin", BOARDS["icebreaker"])
    assert flash.bitstream(tmp_path, "icebreaker")[0].name == "a.bin"
    with pytest.raises(ValueError, match="is for icebreaker, not for ulx3s-85f"):
        flash.bitstream(tmp_path, "ulx3s-85f")
    (tmp_path / "a.bin").write_bytes(b"bots")
    with pytest.raises(ValueError, match="not the bitstream of report.json"):
        flash.bitstream(tmp_path)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(ValueError, match="a.bin is missing"):
        flash.bitstream(tmp_path)
    (tmp_path / "report.json").write_text('{"board": 1')
    with pytest.raises(ValueError, match="not a build report"):
        flash.bitstream(tmp_path)
