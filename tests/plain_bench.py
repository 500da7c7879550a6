"""A plain Verilog bench for any number of cores in one run of Icarus: no cocotb, nothing set before the first event.

Reset is low from time 0 and by its declaration alone, which is no event in SystemVerilog; the clock runs. It stays low
for `edges` rising edges of the clock; 0: it never is. Everything is driven at the falling edge and sampled at the
rising one, with stalls on both sides.
"""

import subprocess

import numpy as np

from rtl_gen.emit import to_files
from rtl_gen.tech import models
from rtl_gen.top import lane_bytes
from rtl_gen.vectors import interleave, pack, separate, unpack

BENCH = """
module bench_{name} #(parameter EDGES = 0) (input clk, output done);
    reg aresetn = EDGES == 0, valid = 0, ready = 0;
    reg [{wide_in} - 1:0] beats [0:{count_in} - 1];
    reg [15:0] noise = 16'hACE1;
    wire [{wide_out} - 1:0] data;
    wire taken, last, user, given, wrong;
    wire [15:0] wrongs;
    wire [{clips} - 1:0] saturated;
    integer at = 0, came = 0, cycle = 0, file;
    assign done = came == {count_out} && cycle > 0;
    initial $readmemh("{name}.in", beats);
    initial file = $fopen("{name}.out", "w");
    always @(posedge clk) begin
        if (valid && taken === 1) at <= at + 1;
        if (given !== 0 && ready) begin
            $fdisplay(file, "%b%b %h", last, user, data);
            came <= came + 1;
        end
        if (aresetn && (^{{wrong, wrongs, saturated, taken, given}} === 1'bx)) $fdisplay(file, "unknown %0d", cycle);
    end
    always @(negedge clk) begin
        cycle <= cycle + 1;
        noise <= {{noise[14:0], noise[15] ^ noise[13] ^ noise[12] ^ noise[10]}};
        aresetn <= cycle + 1 >= EDGES;
        // a beat once offered stays
        valid <= cycle >= 4 && at < {count_in} && ((valid && taken !== 1) || noise[1:0] != 0);
        ready <= noise[3:2] != 0 && came < {count_out};
    end
    {name} core (
        .aclk(clk), .aresetn(aresetn), .s_axis_tdata(beats[at]), .s_axis_tlast({last}),
        .s_axis_tvalid(valid), .s_axis_tready(taken), .m_axis_tdata(data), .m_axis_tlast(last), .m_axis_tuser(user),
        .m_axis_tvalid(given), .m_axis_tready(ready), .frame_error(wrong), .frame_errors(wrongs),
        .saturated(saturated)
    );
endmodule
"""
TOP = """
module all_benches;
    reg clk = 0;
    wire [{count} - 1:0] done;
    integer cycles = 0;
    always #1 clk = ~clk;
    always @(posedge clk) begin
        cycles <= cycles + 1;
        if (&done || cycles == {limit}) $finish;
    end
    {instances}
endmodule
"""


def play_all(directory, cores, *, generation="2012", limit=4000, edges=4, change=lambda text: text):
    """Play vectors to the cores of Plans in one run; name → (outputs (N, outputs), what was wrong or "").

    cores: name → (spec, integers (N, inputs), N a multiple of the spec's vectors). change: done to all Verilog. Where
    beats are counted, TLAST is there by chance.
    """
    texts, targets, instances = [], {}, []
    for n, (name, (spec, x)) in enumerate(cores.items()):
        q, e = spec.network, spec.vectors
        beats = pack(interleave(x, e), size := lane_bytes(q.input.width)).reshape(-1, spec.lanes_in * e * size)
        lines = [row[::-1].tobytes().hex() for row in beats]
        (directory / f"{name}.in").write_text("\n".join(lines) + "\n", encoding="utf-8")
        bits = (sum(engine.lanes_out for engine in spec.engines) * e).bit_length()
        files = to_files(spec, name)
        last = "noise[4]" if spec.count_beats else f"at % {spec.beats_in} == {spec.beats_in - 1}"
        texts.append(change(files.pop(f"{name}.v")) + BENCH.format(
            name=name, last=last, wide_in=8 * beats.shape[1], count_in=len(lines), clips=bits,
            wide_out=8 * lane_bytes(q.output.width) * spec.lanes_out * e, count_out=len(x) // e * spec.beats_out,
        ))
        for file, text in files.items():
            (directory / file).write_text(text, encoding="utf-8")
        targets |= dict.fromkeys(map(str, models(spec.target)))
        instances.append(f"bench_{name} #({edges}) of_{name}(clk, done[{n}]);")
    top = TOP.format(count=len(cores), limit=limit, instances="\n    ".join(instances))
    (directory / "all.v").write_text("".join(texts) + top, encoding="utf-8")
    compiled = ["iverilog", f"-g{generation}", "-s", "all_benches", "-o", "all.vvp", "all.v", *targets]
    for command in (compiled, ["vvp", "-n", "all.vvp"]):
        done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return {name: result(directory / f"{name}.out", spec, len(x)) for name, (spec, x) in cores.items()}


def result(path, spec, count):
    """Outputs and complaint of a core from what its bench wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    q, e = spec.network.output, spec.vectors
    unknown = [line for line in lines if "x" in line or "z" in line or line.startswith("unknown")]
    if unknown:
        return None, f"{len(unknown)} unknown values, the first: {unknown[0]}"
    if len(lines) != (wanted := count // e * spec.beats_out):
        return None, f"{len(lines)} beats of {wanted} came out"
    flags, data = zip(*(line.split() for line in lines))
    if list(flags) != [f"{int(n % spec.beats_out == spec.beats_out - 1)}0" for n in range(wanted)]:
        return None, f"TLAST and TUSER: {flags}"
    values = unpack(np.frombuffer(b"".join(bytes.fromhex(word)[::-1] for word in data), np.uint8), lane_bytes(q.width))
    return separate(values.reshape(count // e, -1), e), ""
