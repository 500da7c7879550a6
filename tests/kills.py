"""Kills at every step that changes a folder: an audit hook of this Python sees each one before it is done."""

import os
import shutil
import signal
import sys
import traceback
from contextlib import contextmanager

STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
WRITES = os.O_WRONLY | os.O_RDWR
_act = None  # what is called before each step


def _hook(event, arguments):
    if _act is not None and (event in STEPS or event == "open" and arguments[2] & WRITES):
        _act(event, arguments)


sys.addaudithook(_hook)


@contextmanager
def before_each_step(act):
    """act(event, arguments) is called before each step, but for its own."""
    global _act

    def once(*step):
        global _act
        _act = None
        act(*step)
        _act = once

    _act = once
    try:
        yield
    finally:
        _act = None


def killed(action, step):
    """Run an action in a fork of this process that is killed before its step-th step, from 1; whether it was.

    A file that is opened for writing is open when the kill comes, and so empty.
    """
    pid = os.fork()
    if pid == 0:
        count = 0

        def act(event, arguments):
            nonlocal count
            count += 1
            if count == step:
                if event == "open":
                    os.open(arguments[0], arguments[2])
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with before_each_step(act):
                action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def forked(action):
    """Run an action in a fork of this process; the number of that."""
    if pid := os.fork():
        return pid
    try:
        action()
        os._exit(0)
    except BaseException as error:
        print(repr(error))
        os._exit(1)


def ended_well(pid):
    return os.waitpid(pid, 0)[1] == 0


@contextmanager
def states(folder, copy, look):
    """A list that fills with look(copy) of what a kill before each step leaves of a folder, but for files opened."""
    found = []

    def act(event, arguments):
        if event != "open":
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy, symlinks=True)
            try:
                found.append(look(copy))
            except Exception as error:  # would reach what is looked at
                found.append(error)

    with before_each_step(act):
        yield found


def visible(folder):
    """Name → content of the files that a user sees."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] != "."}


def hidden(folder):
    return sorted(file.name for file in folder.iterdir() if file.name[0] == ".")
