// A testbench of @NAME@ that checks itself, in plain Verilog (IEEE 1364-2005); it needs the files named here alone.
//
//   $ iverilog -g2005 -s @NAME@_tb -o @NAME@_tb.vvp @SOURCES@
//   $ vvp -n @NAME@_tb.vvp
//
//   $ verilator --binary --timing -CFLAGS -std=c++20 --top-module @NAME@_tb @NAME@.vlt @SOURCES@
//   $ obj_dir/V@NAME@_tb
//
// It prints PASS or FAIL. At a FAIL vvp ends with status 1, by $fatal. Other simulators get a $stop, with which programs
// of Verilator 5.48 end with status 1 as well; elsewhere, look for the word.
// Played are vectors at the corners of the input's range, then random ones (seed @SEED@): back to back; with stalls on
// both sides, chosen by an LFSR, behind a long one that fills the core; frames of a wrong length; a reset in flight.
// What must come out is from bfthw's golden model: new weights need a new testbench, which comes with them.
`timescale 1ns / 1ps

module @NAME@_tb;
@PARAMETERS@
    localparam HOLD = LATENCY + 4 * INTERVAL + 32; // cycles in which nothing is taken where there are stalls

@SIGNALS@

@CORE@

    // beats of the frames to send, and of those to come, the one of a frame that was cut short last
    reg [PER_IN * WIDE_IN - 1:0] x [0:(FRAMES * BEATS_IN - 1) / PER_IN];
    reg [PER_OUT * WIDE_OUT - 1:0] y [0:((FRAMES + 1) * BEATS_OUT - 1) / PER_OUT];
    reg [31:0] noise = 32'h1;
    integer cycle = 0, errors = 0;
    // of what is played: frames sent and beats of the next one, frames that came and beats of the next; cycles
    integer sent, beat, came, place, accepted, first, middle, latest;
    reg sent_it, waiting;
    reg [WIDE_OUT - 1:0] must;

    always #5 aclk = !aclk;

    always @(negedge aclk) begin
        cycle <= cycle + 1;
        noise <= {noise[30:0], noise[31] ^ noise[21] ^ noise[1] ^ noise[0]};
    end

    function [WIDE_IN - 1:0] x_beat(input integer at);
        x_beat = x[at / PER_IN][at % PER_IN * WIDE_IN +: WIDE_IN];
    endfunction

    function [WIDE_OUT - 1:0] y_beat(input integer at);
        y_beat = y[at / PER_OUT][at % PER_OUT * WIDE_OUT +: WIDE_OUT];
    endfunction

    // with some wrong ones, the second is too short, if there are beats to lose, and the fourth too long
    function integer length(input integer frame, input wrong);
        length = !wrong || frame % 2 == 0 ? BEATS_IN : frame == 1 && SHORT > 0 ? SHORT : BEATS_IN + BEATS_IN / 2 + 1;
    endfunction

    // of which vectors it is: behind the corners of the range, where frames are wrong
    function integer which(input integer frame, input wrong);
        which = (wrong ? frame + 3 : frame) % FRAMES;
    endfunction

    function integer expected(input integer frame, input wrong);
        expected = wrong && frame == 1 && SHORT > 0 ? FRAMES : which(frame, wrong);
    endfunction

    task fail(input [8 * 24 - 1:0] phase, input [8 * 64 - 1:0] what);
        begin
            errors = errors + 1;
            if (errors <= 10) $display("%0s, frame %0d, beat %0d: %0s", phase, came, place, what);
        end
    endtask

    // All is driven at the falling edge and seen at the rising one.
    task reset;
        begin
            @(negedge aclk);
            aresetn = 0;
            s_axis_tvalid = 0;
            m_axis_tready = 0;
            repeat (4) begin
                @(posedge aclk);
                if (s_axis_tready !== 0) fail("reset", "s_axis_tready is high in reset");
            end
            @(negedge aclk);
            aresetn = 1;
            if (m_axis_tvalid !== 0) fail("reset", "m_axis_tvalid is high after a reset");
        end
    endtask

    // Sends `count` frames and takes as many, or ends after `cycles` (0: never).
    task play(input [8 * 24 - 1:0] phase, input integer count, input stalls, input wrong, input integer cycles);
        integer begun, limit;
        begin
            {sent, beat, came, place} = 0;
            {accepted, first, middle} = -1;
            {sent_it, waiting} = 0;
            begun = cycle;
            limit = cycles > 0 ? cycles : 8 * (count + 4) * (INTERVAL + BEATS_IN + BEATS_OUT) + 8 * LATENCY;
            while (came < count && cycle - begun < limit) begin
                @(negedge aclk);
                // a beat once offered stays
                if (!s_axis_tvalid || sent_it) begin
                    s_axis_tvalid = sent < count && !(stalls && noise[1:0] == 0);
                    s_axis_tdata = x_beat(which(sent, wrong) * BEATS_IN + beat % BEATS_IN);
                    s_axis_tlast = FRAMING && beat == length(sent, wrong) - 1;
                end
                m_axis_tready = !stalls || cycle - begun > HOLD && noise[8];
                @(posedge aclk);
                sent_it = s_axis_tvalid && s_axis_tready === 1;
                if (sent_it) begin
                    if (accepted < 0) accepted = cycle;
                    beat = beat + 1;
                    if (beat == length(sent, wrong)) begin
                        sent = sent + 1;
                        beat = 0;
                    end
                end
                if (^{s_axis_tready, m_axis_tvalid} === 1'bx) fail(phase, "TREADY or TVALID is unknown");
                if (stalls && cycle - begun == HOLD && m_axis_tvalid !== 1)
                    fail(phase, "m_axis_tvalid waits for TREADY");
                if (waiting && m_axis_tvalid !== 1) fail(phase, "m_axis_tvalid fell before TREADY");
                // compared in every cycle of a beat: it has to stay as it is
                if (m_axis_tvalid === 1) begin
                    if (first < 0) first = cycle;
                    if (middle < 0 && came == count / 2) middle = cycle;
                    if (place == 0 && !waiting) latest = cycle;
                    must = y_beat(expected(came, wrong) * BEATS_OUT + place);
                    if (m_axis_tdata !== must) begin
                        fail(phase, "m_axis_tdata is not what it must be");
                        if (errors <= 10) $display("  it is %h, must be %h", m_axis_tdata, must);
                    end
                    if (m_axis_tlast !== (place == BEATS_OUT - 1)) fail(phase, "m_axis_tlast is wrong");
                    if (m_axis_tuser !== (wrong && came % 2 == 1 && place == BEATS_OUT - 1))
                        fail(phase, "m_axis_tuser is wrong");
                    waiting = !m_axis_tready;
                    if (m_axis_tready) begin
                        came = came + (place == BEATS_OUT - 1);
                        place = (place + 1) % BEATS_OUT;
                    end
                end
            end
            if (cycles == 0) begin
                if (came < count) fail(phase, "nothing more came out");
                @(negedge aclk);
                {s_axis_tvalid, m_axis_tready} = 0;
            end
        end
    endtask

    initial begin
        reset;
        play("back to back", 2 * FRAMES, 0, 0, 0);
        if (first - accepted < LATENCY || (EXACT && first - accepted != LATENCY)) fail("latency", "is not what it should be");
        // the core has filled up by the middle
        if (latest - middle != (FRAMES - 1) * INTERVAL) fail("interval", "is not what it should be");
        play("with stalls", FRAMES, 1, 0, 0);
        if ({frame_error, frame_errors} !== 0) fail("with stalls", "frame errors were counted");
        if (FRAMING) play("of wrong length", 5, 1, 1, 0);
        if (FRAMING && {frame_error, frame_errors} !== {1'b1, 16'd2}) fail("of wrong length", "not counted");
        play("cut by a reset", 2 * FRAMES, 0, 0, LATENCY + INTERVAL + INTERVAL / 2);
        reset;
        play("after the reset", FRAMES, 1, 0, 0);
        if ({frame_error, frame_errors} !== 0) fail("after the reset", "frame errors were counted");
        repeat (LATENCY + INTERVAL) begin
            @(posedge aclk);
            if (m_axis_tvalid !== 0) fail("the end", "more came out than went in");
        end
        if (errors == 0) begin
            $display("PASS: @NAME@, %0d cycles, latency %0d, interval %0d", cycle, LATENCY, INTERVAL);
            $finish(0);
        end
        else begin
            $display("FAIL: @NAME@, %0d errors", errors);
`ifdef __ICARUS__
            $fatal;
`else
            $stop;
`endif
        end
    end

    initial begin
@VECTORS@
    end
endmodule
