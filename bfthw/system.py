"""What must come from the system, and which Debian package has it: asked before anything is built or downloaded.

Of the standard library alone, and readable by any Python 3: `make` runs this file where nothing is installed yet.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig

OLDEST = 3, 11
COMPILER = "g++", "make", "perl"  # of Verilator's output
# purpose: what it needs; simulators by their names in sim.simulators
NEEDS = {
    "compiled": COMPILER,
    "verilator": COMPILER + ("libpython",),
    "icarus": ("iverilog", "vvp", "libpython"),
    "demo": ("python", "venv") + COMPILER,
    "test": ("python", "venv") + COMPILER + ("git", "iverilog", "libpython"),
}
VERSION = "python{}.{}".format(*sys.version_info)


def missing(purpose):
    """Names of what is not there, in the order of NEEDS."""
    return [name for name in NEEDS[purpose] if not find(name)]


def find(name):
    """Whether something that NEEDS names is there and works; of a program its path."""
    if name == "python":
        return sys.version_info[:2] >= OLDEST
    if name == "venv":
        return all(map(importlib.util.find_spec, ("venv", "ensurepip")))  # Debian has them in a package of their own
    if name == "libpython":
        return libpython()
    path = shutil.which(name)
    # every Debian has a perl, without the modules that Verilator loads
    if name == "perl" and path and subprocess.call([path, "-MPod::Usage", "-e", "1"], stderr=subprocess.DEVNULL):
        return None
    return path


def libpython():
    """Path or name of this Python's shared library, which cocotb loads into the simulator; None where it is missing."""
    from ctypes.util import find_library

    name = sysconfig.get_config_var("INSTSONAME") or ""
    name = name if ".so" in name else "lib{}.so".format(VERSION)
    places = sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")
    paths = [os.path.join(place, name) for place in places if place]
    return next(filter(os.path.exists, paths), None) or find_library(VERSION)


def says(name):
    """How a message names it."""
    return {
        "python": "Python {}.{} or newer (this is {}.{})".format(*(OLDEST + sys.version_info[:2])),
        "venv": "venv and ensurepip of {}".format(VERSION),
        "libpython": "lib{} (for cocotb)".format(VERSION),
    }.get(name, name)


def install(names):
    """The command that brings all of them on Debian, for the Python that runs."""
    debian = os.path.realpath(sys.executable) == os.path.realpath("/usr/bin/python3")
    packages = {
        "python": "python3",
        "venv": "python3-venv" if debian else VERSION + "-venv",
        "libpython": "lib" + VERSION,
        "vvp": "iverilog",
    }
    return " ".join(["apt-get install"] + sorted({packages.get(name, name) for name in names}))


def check(purpose):
    """ValueError, in one line, unless all that a purpose needs is there."""
    names = missing(purpose)
    if names:
        raise ValueError(
            "{} needs {}, not found here; on Debian: {}".format(purpose, ", ".join(map(says, names)), install(names))
        )


def main(purpose):
    """For `make PURPOSE`: exit status 1, what is missing, and last the command that installs it."""
    names = missing(purpose)
    if names:
        print("make {} needs {}, not found here; on Debian, as root:".format(purpose, ", ".join(map(says, names))))
        print(install(names))
    return bool(names)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
