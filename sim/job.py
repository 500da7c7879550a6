"""What a simulator is given and gives back: a folder of plain little-endian arrays, for bench.py and driver.cpp alike.

In: `ports`, bytes of TDATA on either side; `scenarios`, a row of uint64 each: beats, frames, stall (in 1/2^32), seed,
reset, cycles; for scenario n `data_n`, TDATA of its beats, and `last_n`, their TLAST; `watch.json`, the links that only
cocotb can watch, with the bytes of their payloads; beside these lie the .mem files that the core reads.
Out: for scenario n what KINDS lists, `watch_n_m` for link m; `cycles`, at last. `progress` has the cycle, in digits.
"""

import json

import numpy as np

from rtl_gen.vectors import pack

# TDATA received; (TLAST, TUSER) of each beat; cycles of beats accepted and first seen; (frame_error, frame_errors)
KINDS = {"bytes": "u1", "flags": "u1", "accepted": "<i8", "seen": "<i8", "errors": "<i8"}


def write_job(folder, manifest, scenarios, watched=()):
    """Write a job for a core; returns the cycles that it should take. watched: (path of a link up to `o__`, bytes of
    its payload).
    """
    m, rows, total = manifest, [], 0
    ports = [m.vectors * side.lanes * side.lane_bytes for side in (m.input, m.output)]
    np.array(ports, "<u8").tofile(folder / "ports")
    for n, scenario in enumerate(scenarios):
        data, last = scenario.beats(m.input.lanes * m.vectors)
        pack(data, m.input.lane_bytes).tofile(folder / f"data_{n}")
        last.tofile(folder / f"last_{n}")
        busy = max(len(last), len(scenario.frames) * m.interval)
        expected = scenario.cut or int((busy + m.latency) / (1 - scenario.stall) ** 2)
        total += expected
        # far beyond what it can take: a core that hangs is stopped and reported
        cycles = scenario.cut or min(4 * expected + 2000, 2**62)
        stall, seed = int(scenario.stall * 2**32), scenario.seed % 2**64
        rows.append([len(last), len(scenario.frames), stall, seed, scenario.reset, cycles])
    np.array(rows, "<u8").tofile(folder / "scenarios")
    (folder / "watch.json").write_text(json.dumps(watched))
    return total


def read_results(folder, count):
    """What was recorded of `count` scenarios, by name: flags (beats, 2), watch_n_m (beats, bytes), others flat."""
    results = {"cycles": int(np.fromfile(folder / "cycles", "<i8")[0])}
    for n in range(count):
        for kind, dtype in KINDS.items():
            results[f"{kind}_{n}"] = np.fromfile(folder / f"{kind}_{n}", dtype)
        results[f"flags_{n}"] = results[f"flags_{n}"].reshape(-1, 2)
        for w, (_, width) in enumerate(json.loads((folder / "watch.json").read_text())):
            results[f"watch_{n}_{w}"] = np.fromfile(folder / f"watch_{n}_{w}", np.uint8).reshape(-1, width)
    return results
