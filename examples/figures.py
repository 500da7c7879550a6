"""Pictures of a butterfly and of a core's signals; the tools' own speed: generating and simulating n = 1024, k = 4.

`make demo` has the other figures of the README.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import picture
import waveform

import bfthw
import sim
from bfthw.chain import bft


def large(directory):
    rng = np.random.default_rng(0)
    layer = bfthw.Layer(chain=bfthw.Chain.random(bft(1024, 4), seed=0), residual=True, relu=True)
    bfthw.save(bfthw.Network(layers=(layer,)), directory / "large.safetensors")
    np.save(directory / "x.npy", rng.uniform(-1, 1, (64, 1024)))
    command = ["generate", "large.safetensors", "-o", ".", "--name", "bft1024", "--calibration", "x.npy"]
    bfthw_command = Path(sys.executable).with_name("bfthw")
    begin = time.monotonic()
    subprocess.run([bfthw_command, *command], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    print(f"generate n = 1024, k = 4, the whole command: {time.monotonic() - begin:.1f} s")
    result = sim.simulate(directory / "bft1024.json", vectors=200)
    assert result.ok, result.problems
    print(f"simulate it: {result.cycles} cycles, {result.cycles / result.seconds:.0f} a second (start included)")


if __name__ == "__main__":
    docs = Path(__file__).resolve().parents[1] / "docs"
    picture.write(docs / "butterfly.svg")
    (docs / "waveform.svg").write_text(waveform.picture(), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        large(Path(folder))
