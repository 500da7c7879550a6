"""README and docs as data: their pages, fences and inline code, the commands in them, and whether these exist."""

import ast
import re
import shlex
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import typer
from packaging.requirements import Requirement

from bfthw.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "examples/digits/README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
# `text` is what is no command: formulas, drawings, what a command prints
KINDS = "sh", "sh slow", "sh board", "python", "python slow", "toml", "text"
PROGRAMS = "bfthw", "python", "python3", "pip", "make", "git", "sudo", "apt-get", "source", "cd", "cp", "fusesoc", "$"
FENCE = re.compile(r"^```(.*)\n((?:(?!```).*\n)*)```$", re.MULTILINE)
COMMANDS = typer.main.get_command(app).commands
UsageError = typer.BadParameter.__mro__[1]  # newer typers have a click of their own


@dataclass(frozen=True)
class Block:
    """A fence. kind: what stands behind its opening marks."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page):
    text = read(page)
    return [Block(page, text.count("\n", 0, m.start()) + 1, m[1].strip(), m[2]) for m in FENCE.finditer(text)]


def prose(page):
    return FENCE.sub("", read(page))


def stray(page):
    """Lines of commands that no fence of commands has, so that nothing would run them; marks of a fence left open."""
    text = prose(page)
    paragraphs = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE) + [b.text for b in blocks(page) if b.kind == "text"]
    lines = [line.strip() for paragraph in paragraphs for line in paragraph.splitlines()]
    return re.findall(r"^.*```.*$", text, re.MULTILINE) + [line for line in lines if line.split(" ")[0] in PROGRAMS]


def commands(text):
    """The simple commands of a script, each a list of words, without what they are redirected to."""
    found, pending = [], ""
    for line in text.splitlines():
        pending += line
        try:
            lexer = shlex.shlex(pending, posix=True, punctuation_chars="|&;<>()")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # a quotation or an escaped end of line: it goes on
            pending = pending.removesuffix("\\") + "\n" * (not pending.endswith("\\"))
            continue
        pending, command = "", []
        for word in [*words, ";"]:
            if word and set(word) <= set("|&;()"):
                found += [command] if command else []
                command = []
            else:
                command.append(word)
    assert not pending, f"a script ends in the midst of a command: {pending}"
    # up to the first sign of a redirection
    return [command[: next((n for n, word in enumerate(command) if word[:1] in ("<", ">")), None)] for command in found]


def spans(page):
    """Inline code that is a command, or an option alone, as words."""
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page)):
        words = span.split()
        option = any(word.startswith("--") for word in words)
        if words and (words[0].startswith("--") or words[0] in PROGRAMS or words[0] in COMMANDS and option):
            yield words


def options_of(command):
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"-h", "--help"}


@cache
def other_options():
    """Options of the programs in examples/ and bench/."""
    files = [*ROOT.glob("examples/**/*.py"), *ROOT.glob("bench/*.py")]
    return set().union(*(options_in(path.read_text(encoding="utf-8")) for path in files))


def options_in(source):
    """Options of a program: those it names, and the arguments of its main function, of which typer makes options."""
    mains = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name == "main"]
    names = [argument.arg for main in mains for argument in (*main.args.args, *main.args.kwonlyargs)]
    return {*re.findall(r'"(--[a-z][\w-]*)"', source), *("--" + name.replace("_", "-") for name in names), "--help"}


def check_span(words):
    """AssertionError where inline code names a command or an option that is not there; values need not be real ones."""
    if words[:3] == ["python", "-m", "bfthw"]:
        words = words[2:]
    named = [word.partition("=")[0].rstrip(",;") for word in words if word.startswith("--")]
    if words[0] == "bfthw" and len(words) > 1 and words[1].isalpha():
        assert words[1] in COMMANDS, f"there is no `bfthw {words[1]}`"
        words = words[1:]
    if words[0] in COMMANDS:
        known = options_of(COMMANDS[words[0]])
    elif words[0].startswith("--"):
        known = set().union(other_options(), *map(options_of, COMMANDS.values()))
    elif words[0] in ("bfthw", "python", "make"):
        return check(words)
    else:
        return
    assert known.issuperset(named), f"{' '.join(words)}: there is no {', '.join(set(named) - known)}"


def check(words):
    """AssertionError or UsageError where a command is not one that its program takes. Nothing is run."""
    program, *rest = words
    if program == "python" and rest[:2] == ["-m", "bfthw"]:
        program, rest = "bfthw", rest[2:]
    if program == "bfthw" and rest:
        assert rest[0] in COMMANDS or rest[0].startswith("-"), f"there is no `bfthw {rest[0]}`"
        try:
            if rest[0] in COMMANDS:
                COMMANDS[rest[0]].make_context(rest[0], rest[1:])
            else:
                typer.main.get_command(app).make_context("bfthw", rest)
        except typer.Exit:  # --help, --version
            pass
    elif program in ("python", "python3") and rest:
        check_python(rest)
    elif program == "make":
        done = subprocess.run(["make", "-n", "-C", ROOT, *rest], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif program in ("pip", "apt-get"):
        assert rest[0] == "install", f"{program} {rest[0]}"
        for name in (word for word in rest[1:] if word != "--no-deps"):
            check_requirement(name) if program == "pip" else check_package(name)


def check_python(rest):
    if rest[0] == "-c":
        ast.parse(rest[1])
        return
    module, arguments = rest[0] == "-m", rest[1 + (rest[0] == "-m") :]
    path = rest[1].replace(".", "/") if module else rest[0]
    places = [f"{path}.py", f"{path}/__main__.py"] if module else [path]
    found = next((ROOT / place for place in places if (ROOT / place).is_file()), None)
    if found is None and module and rest[1].partition(".")[0] not in ("bfthw", "bench", "boards", "rtl_gen", "sim"):
        return  # another's module
    assert found, f"there is no {path}"
    named = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    unknown = named - options_in(found.read_text(encoding="utf-8"))
    assert not unknown, f"{path} has no {', '.join(unknown)}"


def check_requirement(name):
    """Of our own package, a path to it or another's: extras that it has, or a name that pip can read."""
    asked = Requirement(re.sub(r"^/\S*/", "", name))
    if asked.name == "bfthw":
        extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
        assert asked.extras <= set(extras), f"{name}: bfthw has no extra {asked.extras - set(extras)}"


def check_package(name):
    """Debian's packages are those of the README, which test_system.py holds against the code, or named by boards."""
    lines = [line for block in blocks("README.md") for line in commands(block.text) if line[0] == "apt-get"]
    named = re.findall(r"apt-get install ([\w-]+)", read("boards/table.py"))
    known = {*named, *(word for line in lines for word in line)}
    assert name in known, f"apt-get install {name}: no page and no message names it"
