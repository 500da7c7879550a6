"""What every family answers to."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Value

READ = 2  # cycles from an address to its data: the memory and its output register
MULTIPLY = 3  # cycles from operands to their product: input, pipeline, output register


def number(value: Value) -> Value:
    """A value as a signed one: with a zero above, where it has no sign."""
    return value if value.shape().signed else Cat(value, Const(0, 1)).as_signed()


class Technology:
    """What a family builds its parts from; each method adds to the module `m` and returns signals.

    Names begin with `name`. All clocks are those of `m.d.sync`; no part has a reset. For each part a method `..._cost`
    says what it takes: a dict of RAM (block RAMs) and DSP, exact, and of LUT and FF, estimates.
    """

    name = "plain"
    operand: int  # bits of a multiplier's wider operand
    absorbs = False  # whether synthesis puts registers in front of a product into the DSP blocks too
    # whether a register takes no table: then long ways are cut by registers on data, else on addresses, and by Skids
    free_registers = True
    # what synthesis makes of logic and memories
    logic = 1  # tables for each table of four inputs
    chain, pair = 1, 1  # tables that a carry chain takes beyond its bits, and the bits that it grows by
    apart = False  # whether carry chains are no part of the tables
    block = 0  # cost of a block RAM in the measure by which synthesis maps memories
    rows, row = 0, 0  # words of distributed RAM, 0 for none, and the tables of each 4 bits of it

    def products(
        self, m: Module, name: str, xs: Sequence[Value], ws: Sequence[Value], *, lut: bool = False
    ) -> list[Value]:
        """Products of two lists of signals of equal length, MULTIPLY cycles later; a list of signed signals.

        All xs are of one shape, with a sign or without; all ws are signed, of one width. lut: of tables and carry
        chains in place of DSP blocks.
        """
        raise NotImplementedError

    def rom(self, m: Module, name: str, words: Sequence[int], width: int, address: Value) -> Value:
        """`words[address]`, READ cycles later; words: unsigned ints."""
        raise NotImplementedError

    def ram(
        self, m: Module, name: str, *, depth: int, width: int, enable: Sequence[Value], w_address: Value, w_data: Value,
        r_address: Value, late: bool = True,
    ) -> list[Value]:
        """Banks with common addresses and data to write, one for each bit of `enable`; their words, READ cycles later;
        not `late`, READ - 1.

        A word must not be read in the cycle in which it is written.
        """
        raise NotImplementedError

    def store(
        self, m: Module, name: str, *, depth: int, width: int, init: Sequence[int], grain: int, address: Value,
        write: Value, mask: Value, data: Value,
    ) -> Value:
        """A large memory with one port: the word at an address, READ cycles later, or unchanged where it is written:
        its parts of `grain` bits that `mask` has. init: its first words.
        """
        raise NotImplementedError

    def store_cost(self, depth: int, width: int) -> dict[str, float]:
        """Memories that no other part takes are not counted."""
        raise NotImplementedError

    def products_cost(
        self, count: int, x_width: int, w_width: int, *, lut: bool = False, signed: bool = True
    ) -> dict[str, float]:
        """signed: whether the xs are; where they are not, one bit more if multipliers know signed operands alone."""
        raise NotImplementedError

    def rom_cost(self, depth: int, width: int) -> dict[str, float]:
        raise NotImplementedError

    def ram_cost(self, depth: int, width: int, banks: int) -> dict[str, float]:
        raise NotImplementedError
