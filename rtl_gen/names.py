"""Names in Verilog: those that may be given, and plain ones for all that is in it."""

import re

# IEEE 1800-2017, annex B, which has those of IEEE 1364-2005: Verilator and others read .v files as SystemVerilog
KEYWORDS = frozenset(
    """accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind
    bins binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
    constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
    else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
    endpackage endprimitive endprogram endproperty endsequence endspecify endtable endtask enum event eventually expect
    export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global
    highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input
    inside instance int integer interconnect interface intersect join join_any join_none large let liblist library local
    localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
    noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
    property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
    randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
    rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
    signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
    sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri
    tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
    vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor""".split()
)


def check_name(name: str) -> str:
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
