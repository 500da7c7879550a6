"""Names in Verilog: those that may be given, and plain ones for all that is in it."""

import re

# IEEE 1364-2005, annex B, and the words that SystemVerilog readers of .v files trip over
KEYWORDS = frozenset(
    """always and assign automatic begin bit buf bufif0 bufif1 byte case casex casez cell class clocking cmos config
    const deassign default defparam design disable do edge else end endcase endconfig endfunction endgenerate endmodule
    endprimitive endspecify endtable endtask enum event export extern final for force forever fork function generate
    genvar highz0 highz1 if ifnone import incdir include initial inout input instance int integer interface join large
    liblist library local localparam logic longint macromodule medium modport module nand negedge new nmos nor
    noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
    property pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc rcmos real realtime ref
    reg release repeat return rnmos rpmos rtran rtranif0 rtranif1 scalared sequence shortint shortreal showcancelled
    signed small solve specify specparam static string strong0 strong1 struct super supply0 supply1 table task this time
    timeprecision timeunit tran tranif0 tranif1 tri tri0 tri1 triand trior trireg type typedef union unique unsigned use
    uwire var vectored virtual void wait wand weak0 weak1 while wire with within wor xnor xor""".split()
)


def check_name(name):
    """ValueError unless `name` can name a Verilog module and its files."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name):
        raise ValueError(f"name must be a letter, then up to 63 letters, digits or _, got {name!r}")
    if name in KEYWORDS:
        raise ValueError(f"name {name!r} is a Verilog keyword; {name}_core would do")
    return name


def plain_names(text):
    """Verilog text in which no identifier is escaped any more: what stood in the way of that becomes `_`.

    `\\network.stage_0.x[1] ` becomes network_stage_0_x_1, what has a number alone n and the number. Names of modules
    have `__` between their parts, TOP__network__stage_0, so that they meet no other core's. No two identifiers become
    one, whatever their modules: a number follows the later one.
    """
    modules = set(re.findall(r"^module \\(\S+)", text, re.MULTILINE))
    taken = set(KEYWORDS).union(re.findall(r"[A-Za-z_][\w$]*", re.sub(r"\\\S+", "", text)))
    names = {}
    for escaped in dict.fromkeys(re.findall(r"\\(\S+)", text)):
        name = wanted = _plain(escaped.replace(".", "__") if escaped in modules else escaped)
        n = 1
        while name in taken:
            n += 1
            name = f"{wanted}_{n}"
        names[escaped] = name
        taken.add(name)
    # a space ends an escaped identifier, which is not needed before another one and punctuation
    return re.sub(r"\\(\S+)( (?=[] ;,)([]))?", lambda found: names[found[1]], text)


def _plain(escaped):
    """A plain name for an escaped one, as Yosys has them: $flatten\\a.\\b.$12, $auto$FILE:LINE:FUNCTION$3, a.b[0]."""
    name = re.sub(r"\$auto\$\S*\$(\d+)$", r"start_\1", escaped.removeprefix("$flatten"))
    name = re.sub(r"(?:^|(?<=\.))\$(\d+)$", r"n\1", name.replace("\\", ""))
    name = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return name if re.match(r"[A-Za-z]", name) else f"n{name}"
