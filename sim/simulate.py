"""Simulate a generated core and compare every integer with the golden model. The manifest says all there is to know."""

import re
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bfthw import cache, system
from bfthw.files import replacing, undisturbed
from bfthw.golden import short_stage
from bfthw.reading import StrPath, read_bytes
from rtl_gen import Design, load_design, tech
from rtl_gen.engines.tiled.code import FLASH
from rtl_gen.manifest import FILE
from rtl_gen.memories import SUFFIX, read_words, without_reads
from rtl_gen.vectors import answers, interleave, random_vectors, separate, unpack

from . import simulators
from .job import read_results, write_job
from .scenarios import to_integers, whole, wrong_frames


@dataclass(frozen=True, kw_only=True)
class Played:
    """What vectors showed. outputs: integers (N, outputs), None where none came. problems: one line each, empty where
    everything agrees.
    """

    vectors: int
    seconds: float
    outputs: np.ndarray | None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, kw_only=True, repr=False)
class Result(Played):
    """What a simulation showed.

    outputs: of the unstalled run. latency, interval: of a frame, measured, in cycles (interval: None for too few).
    waves: path of the waveforms, if asked for (VCD, from Icarus FST).
    """

    simulator: str
    cycles: int
    latency: int | None
    interval: float | None
    checks: tuple[str, ...] = ()
    waves: Path | None = None

    def __repr__(self):
        found = "ok" if self.ok else f"{len(self.problems)} problems, the first: {self.problems[0]}"
        return f"<Result of {self.simulator}: {found}; {self.vectors} vectors, {self.cycles} cycles>"


def check_plain(path, most=FILE, reads=()):
    """Text of a Verilog file; ValueError where it could make a simulator do more than that: run programs, touch files.

    Generated Verilog has no compiler directive and no system function but $signed and $unsigned, and reads of the files
    that `reads` names; neither has a file from a stranger that is let through.
    """
    text = read_bytes(path, most).decode("latin-1")  # a character for each byte, whatever they are
    named = re.sub(r"\\[\w$.:\[\]]+", "", without_reads(text, reads), flags=re.ASCII)  # without escaped identifiers
    for found in re.findall(r"`\w*|\$\w+|\bimport\b|\bverilator\b", named, re.ASCII):
        if found not in ("$signed", "$unsigned"):
            raise ValueError(f"{path}: has {found!r}, which no generated core has; it is not simulated")
    return text


def simulate(path: StrPath | Design, **options: Any) -> Result:
    """Play vectors to the core that a manifest describes and compare with the golden model.

    path: the manifest, or the Design that rtl_gen.write returned. options: those of `play`. Returns a Result; raises
    ValueError for bad arguments and for a manifest that says other than its integers and choices give, RuntimeError
    where the simulator itself fails.
    """
    path = Path(getattr(path, "path", path))
    with undisturbed(path):
        design = load_design(path)
        core = read_core(path.parent, design.manifest)
    return play(path, design.manifest, design.plan.network, core=core, **options)


def read_core(folder, manifest):
    """File name → text of a core's Verilog and of what it reads."""
    files = manifest.files
    memories = {file.name: read_words(folder / file.name, FILE) for file in files.memories}
    return {files.verilog.name: check_plain(folder / files.verilog.name, reads=memories)} | memories


def play(
    path, manifest, network, *, inputs=None, vectors=64, stall=0.3, seed=0, simulator="verilator", waves=False,
    progress=None, begin=None, netlist=(), core=None,
):
    """`simulate` for a manifest that is not held against its integers, `network`; path: where it lies.

    inputs: (N, inputs), floats or integers, beside which `vectors` random ones are used in the other scenarios: random
    stalls on both sides with probability `stall`, frames of wrong length (TLAST on any beat, where beats are counted),
    a reset in flight. Where vectors are side by side in a frame, zeros fill the last one. simulator: "verilator" or
    "icarus", played by cocotb, or "compiled", Verilator with a driver in C++: the same cycles, many times faster, no
    waves. waves: True for the core's ports and the links between its stages, "all" for all of it, ten times as much.
    progress(fraction) is called now and then, begin(title) when something begins that may take seconds. netlist:
    Verilog files that take the place of the core's own, such as a mapped netlist and the models of its cells, beside
    what its memories are loaded from; the caller answers for what is in them. core: the core's own, as `read_core`
    gives them, from beside the manifest where they are not given.
    """
    if vectors < 1:
        raise ValueError(f"vectors must be 1 or more, got {vectors}")
    if not 0 <= stall < 1:
        raise ValueError(f"stall is a probability, 0 or more and less than 1, got {stall}")
    # read once: what is compiled is what was checked
    own = dict(core or read_core(Path(path).parent, manifest))
    memories = {name: own.pop(name) for name in list(own) if name.endswith(SUFFIX)}
    sources = {file.name: file.read_text(encoding="utf-8", errors="replace") for file in map(Path, netlist)} or own
    simulators.check_simulator(simulator, waves)
    noise = random_vectors(network, vectors, seed)
    steady = noise if inputs is None else to_integers(inputs, network.inputs, network.input)
    rng, lanes, together = np.random.default_rng(seed + 1), manifest.input.lanes, manifest.vectors
    some = noise[: 32 * together]
    scenarios = [
        whole(steady, together, name="back to back", check_time=True),
        whole(noise, together, name=f"stalled, probability {stall}", stall=stall, seed=seed + 2),
        wrong_frames(some, together, lanes, rng, name="frames of wrong length", stall=stall / 2, seed=seed + 3),
        whole(some, together, name="cut by a reset", cut=manifest.latency + manifest.interval + manifest.interval // 2),
        whole(some, together, name="after the reset", stall=stall / 2, seed=seed + 4),
    ]
    if manifest.count_beats:
        # TLAST is low throughout, but for one scenario, and has no meaning
        scenarios[2] = whole(some, together, name="TLAST on any beat", stall=stall / 2, seed=seed + 3)
        scenarios = [replace(scenario, tlast=0.4 if n == 2 else 0) for n, scenario in enumerate(scenarios)]
    bench = _Bench(path, manifest, network, simulator, waves, progress, begin, sources, memories, bool(netlist))
    return bench.run(scenarios)


@dataclass
class _Bench:
    path: Path
    manifest: object
    network: object
    simulator: str
    waves: bool | str
    progress: object
    begin: object
    sources: dict  # names of Verilog files → their text
    memories: dict  # and of what these read
    netlist: bool = False
    problems: list = field(default_factory=list)

    def run(self, scenarios):
        with cache.scratch() as job:
            result, seconds = self._play(job, scenarios)
            wave_file = None
            if self.waves:
                dump = next(job.glob("dump.*"))
                wave_file = self.path.with_suffix(dump.suffix)
                with replacing(wave_file.parent) as (_, new):
                    shutil.copy(dump, new / wave_file.name)
        latency = interval = outputs = None
        checks = []
        for n, scenario in enumerate(scenarios):
            if scenario.cut is not None:
                continue
            y = self._check(scenario, n, result)
            if scenario.check_time:
                outputs = y
                latency, interval = self._measure(scenario, n, result)
            checks.append(scenario.name)
        return Result(
            simulator=self.simulator, vectors=sum(s.count for s in scenarios if s.cut is None),
            cycles=result["cycles"], seconds=seconds, latency=latency, interval=interval, outputs=outputs,
            problems=tuple(self.problems), checks=tuple(checks), waves=wave_file,
        )

    def _build(self, cycles):
        m = self.manifest
        primitives = () if self.netlist else tech.models(m.target)
        texts = {path.name: path.read_text(encoding="utf-8") for path in primitives}
        if flash := self.memories.get(f"{m.name}.flash{SUFFIX}"):
            texts |= {tech.FLASH.name: tech.FLASH.read_text(encoding="utf-8")}
            texts["beside.v"] = self._beside_flash(flash.count("\n"))
        how = {"netlist": self.netlist, "models": texts, "cycles": cycles, "begin": self.begin}
        return simulators.build(self.sources, self._top, self.simulator, self.waves, **how)

    @property
    def _top(self):
        """The core, or what has it beside its flash."""
        name = self.manifest.name
        return f"{name}_beside_flash" if f"{name}.flash{SUFFIX}" in self.memories else name

    def _beside_flash(self, count):
        m = self.manifest
        sizes = (8 * port.lane_bytes * port.lanes * m.vectors - 1 for port in (m.input, m.output))
        own = dict(zip(("IN", "OUT"), sizes)) | {"NAME": m.name, "FILE": f"{m.name}.flash{SUFFIX}"}
        text = Path(__file__).with_name("flash.v").read_text(encoding="utf-8")
        return re.sub(r"@(\w+)@", lambda found: str((own | {"BYTES": count, "FIRST": FLASH})[found[1]]), text)

    def _play(self, job, scenarios, watched=()):
        """Run the scenarios in the simulator; the arrays that it recorded, and the seconds without compiling."""
        total, done = write_job(job, self.manifest, scenarios, watched), 0
        build = self._build(total)
        begin = time.monotonic()
        for name, text in self.memories.items():
            (job / name).write_text(text, encoding="utf-8")
        if self.begin:
            self.begin(f"simulating ({self.simulator})")

        def tick():
            nonlocal done
            if self.progress and (job / "progress").exists():
                # the file is empty while it is written
                done = max(done, int((job / "progress").read_text() or 0))
                self.progress(min(1.0, done / total))

        simulators.start(self._top, build, job, self.simulator, self.waves, tick)
        return read_results(job, len(scenarios)), time.monotonic() - begin

    def _check(self, scenario, n, result):
        """Compare a scenario's outputs; returns them as integers, as far as they came."""
        m, where, beats, count = self.manifest, scenario.name, self.manifest.output.beats, len(scenario.frames)
        got = unpack(result[f"bytes_{n}"], m.output.lane_bytes, m.output.format.signed)
        last, user = result[f"flags_{n}"].T
        size = self.network.outputs * m.vectors
        frames = got[: len(got) // size * size].reshape(-1, size)
        ends = np.flatnonzero(last)
        wanted_ends = np.arange(1, count + 1) * beats - 1

        def expect(right, text):
            if not right:
                self.problems.append(f"{where}: {text}")

        said, wanted = (f"{beats[:8].tolist()}..." for beats in (ends, wanted_ends))
        expect(np.array_equal(ends, wanted_ends), f"TLAST on beats {said}, should be on {wanted}")
        flags = user[wanted_ends[wanted_ends < len(user)]].astype(bool)
        marked = np.array_equal(flags, scenario.wrong[: len(flags)]) and user.sum() == flags.sum()
        expect(marked, f"TUSER marks frames {np.flatnonzero(flags)}, should mark {np.flatnonzero(scenario.wrong)}")
        errors, wrong = result[f"errors_{n}"].tolist(), int(scenario.wrong.sum())
        expect(errors == [wrong > 0, wrong], f"frame_error and frame_errors are {errors}, {wrong} frames were wrong")
        expect(len(frames) == count, f"{len(frames)} frames came out of {count}")
        y = separate(frames, m.vectors)
        wanted = answers(self.network, scenario.vectors)
        different = np.argwhere(y[: len(wanted)] != wanted[: len(y)])
        if len(different):
            v, index = different[0]
            first = f"{where}: vector {v}, output {index} is {y[v, index]}, should be {wanted[v, index]}"
            self.problems.append(f"{first}; {self._locate(scenario)}")
        return y[: scenario.count]

    def _locate(self, scenario):
        """Play a scenario again in cocotb with every engine watched; names the first one and the index that differ."""
        m, network = self.manifest, self.network
        if self.netlist:
            return "the stages are no longer apart in a netlist"
        if absent := system.missing("verilator" if self.simulator == "compiled" else self.simulator):
            return f"cocotb would name the first stage that differs: {system.install(absent)}"
        cocotb = replace(self, simulator={"compiled": "verilator"}.get(self.simulator, self.simulator), waves=False)
        formats = {stage.name: stage.output for stage in m.stages}
        formats = [formats[engine.stages[-1]] for engine in m.engines]
        bits = [m.vectors * engine.lanes * form.width for engine, form in zip(m.engines, formats)]
        # an engine is an instance, or the beginning of names in flat Verilog
        stems = [f"{e.instance}." if m.target == "plain" else f"{e.instance.replace('.', '_')}_" for e in m.engines]
        stems = [f"core.{stem}" if self._top != m.name else stem for stem in stems]
        watched = [(stem, (n + 7) // 8) for stem, n in zip(stems, bits)]
        with cache.scratch() as job:
            result, _ = cocotb._play(job, [scenario], watched)
        frames = scenario.vectors.reshape(len(scenario.vectors), *network.shape.dims)
        taps = {name: tap.reshape(len(tap), -1) for name, tap in zip(network.names, network.taps(frames))}
        for n, (engine, used, form) in enumerate(zip(m.engines, bits, formats)):
            tap = taps[engine.stages[-1]]
            wanted, got = interleave(tap, m.vectors), np.unpackbits(result[f"watch_0_{n}"], axis=1, bitorder="little")
            weights = 1 << np.arange(form.width, dtype=np.int64)
            weights[-1] *= -1 if form.signed else 1
            got = (got[:, :used].reshape(-1, form.width).astype(np.int64) @ weights)[: wanted.size]
            different = np.flatnonzero(got != wanted.ravel()[: len(got)])
            if len(different):
                frame, place = divmod(int(different[0]), wanted.shape[1])
                index, v = place // m.vectors, frame * m.vectors + place % m.vectors
                names = " to ".join(dict.fromkeys(map(short_stage, (engine.stages[0], engine.stages[-1]))))
                return (
                    f"the first stage that differs is {names} ({engine.instance}), vector {v}, index {index}: "
                    f"{got[different[0]]}, should be {tap[v, index]}"
                )
        return "every stage agrees, so the difference arises behind the last one"

    def _measure(self, scenario, n, result):
        """Measured latency and interval, held against the manifest."""
        m = self.manifest
        seen, accepted = result[f"seen_{n}"], result[f"accepted_{n}"]
        if not len(seen) or not len(accepted):
            return None, None
        latency, interval = int(seen[0] - accepted[0]), None
        least = any(stage.over for stage in m.stages)  # over maps the manifest has the least
        if latency < m.latency or latency > m.latency and not least:
            self.problems.append(f"latency is {latency} cycles, the manifest says {m.latency}{' or more' * least}")
        firsts = seen[:: m.output.beats]
        if len(firsts) >= 6:
            # the pipeline has filled up by the middle of the run
            half = firsts[len(firsts) // 2 :]
            interval = float((half[-1] - half[0]) / (len(half) - 1))
            if interval != m.interval:
                self.problems.append(f"interval is {interval} cycles, the manifest says {m.interval}")
        return latency, interval
