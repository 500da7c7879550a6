"""Contents of ROMs in files of their own: `$readmemh` in place of what `initial` blocks assign, word by word."""

import re

from bfthw.reading import read_bytes

SUFFIX = ".mem"
_INITIAL = re.compile(r"^  initial begin\n((?:    (\w+)\[\d+\] = \d+'[hd]\w+;\n)+)  end\n", re.MULTILINE)
_READ = re.compile(r'\$readmemh\("([\w.]+)", \w+, 0, \d+\);', re.ASCII)


def to_files(text, top):
    """(Verilog of the top `top` that reads its ROMs, file name → text of what it reads); a word a line, in hex."""
    files = {}

    def module(found):
        name, body = found[1], found[0]

        def one(block):
            memory = block[2]
            if re.search(rf"^ +{memory}\[.*\] <= ", body, re.MULTILINE):
                return block[0]  # nobody reads what a buffer holds at first
            words = re.findall(rf"^    {memory}\[(\d+)\] = (\d+)'([hd])(\w+);$", block[1], re.MULTILINE)
            assert [int(at) for at, *_ in words] == list(range(block[1].count("\n")))
            numbers = [(int(word, 16 if base == "h" else 10), -(-int(width) // 4)) for _, width, base, word in words]
            place = "_".join([*name.removeprefix(top).split("__")[1:], memory])
            files[file := f"{top}.{place}{SUFFIX}"] = "".join(f"{n:0{size}x}\n" for n, size in numbers)
            # from 0 up, whatever the order in which a memory is declared
            return f'  initial $readmemh("{file}", {memory}, 0, {len(words) - 1});\n'

        return _INITIAL.sub(one, body)

    return re.sub(r"^module (\w+).*?^endmodule$", module, text, flags=re.MULTILINE | re.DOTALL), files


def left(directory, name):
    """Names of such files in a folder, of a core's name."""
    return sorted(path.name for path in directory.glob(f"{name}.*{SUFFIX}"))


def without_reads(text, files):
    """Verilog without its reads of the `files`, which are such as a core's Verilog may have.

    A space stands for each, so that what was on either side does not become one.
    """
    return _READ.sub(lambda found: " " if found[1] in files else found[0], text)


def read_words(path, most):
    """Text of a file of a ROM; ValueError where it is anything else than words in hex."""
    text = read_bytes(path, most).decode("latin-1")
    if not re.fullmatch(r"[0-9a-f\n]*", text):
        raise ValueError(f"{path}: not the contents of a ROM, words in hex, a line each; run `bfthw generate` again")
    return text
