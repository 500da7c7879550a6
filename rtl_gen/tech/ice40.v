// Models of the iCE40's cells, for simulation: the modes that the parts of this package use.
// A parameter outside them is refused at elaboration: it asks for a module that does not exist.
// verilator lint_off UNUSEDPARAM

// Two products of 8 by 8 bits, or one of 16 by 16, A with a sign or without, B signed, with registers in three places.
// Lattice FPGA-TN-02007, DSP function usage guide: registers of A and B; of the four 8 by 8 products; and, at 16 bits,
// of their sum (used or not), at 8 bits, those behind the adders, which add C and D. Clear, hold, load and subtract are
// not modelled and must be 0.
module SB_MAC16 (
    input CLK, CE,
    input [15:0] A, B, C, D,
    input AHOLD, BHOLD, CHOLD, DHOLD, IRSTTOP, IRSTBOT, ORSTTOP, ORSTBOT, OLOADTOP, OLOADBOT,
    input ADDSUBTOP, ADDSUBBOT, OHOLDTOP, OHOLDBOT, CI, ACCUMCI, SIGNEXTIN,
    output [31:0] O
);
    parameter A_REG = 0;
    parameter B_REG = 0;
    parameter A_SIGNED = 0;
    parameter B_SIGNED = 0;
    parameter MODE_8x8 = 0;
    parameter TOP_8x8_MULT_REG = 0;
    parameter BOT_8x8_MULT_REG = 0;
    parameter PIPELINE_16x16_MULT_REG1 = 0;
    parameter PIPELINE_16x16_MULT_REG2 = 0;
    parameter TOPADDSUB_LOWERINPUT = 0;
    parameter BOTADDSUB_LOWERINPUT = 0;
    parameter TOPADDSUB_UPPERINPUT = 0;
    parameter BOTADDSUB_UPPERINPUT = 0;
    parameter TOPOUTPUT_SELECT = 0;
    parameter BOTOUTPUT_SELECT = 0;

    generate
        if (!(A_REG && B_REG && B_SIGNED && TOP_8x8_MULT_REG && BOT_8x8_MULT_REG &&
              (MODE_8x8
               ? !PIPELINE_16x16_MULT_REG1 && !PIPELINE_16x16_MULT_REG2 && TOPOUTPUT_SELECT == 1 &&
                 BOTOUTPUT_SELECT == 1 && TOPADDSUB_LOWERINPUT == 1 && BOTADDSUB_LOWERINPUT == 1 &&
                 TOPADDSUB_UPPERINPUT == 1 && BOTADDSUB_UPPERINPUT == 1
               : PIPELINE_16x16_MULT_REG1 && TOPOUTPUT_SELECT == 3 && BOTOUTPUT_SELECT == 3)))
        begin : refused
            SB_MAC16_has_a_parameter_without_model refused();
        end
    endgenerate

    reg signed [15:0] a, b;
    reg signed [15:0] top, bottom;
    reg signed [31:0] whole;
    reg [31:0] out;
    wire unknown = AHOLD | BHOLD | IRSTTOP | IRSTBOT | ORSTTOP | ORSTBOT | OLOADTOP | OLOADBOT | ADDSUBTOP | ADDSUBBOT |
                   OHOLDTOP | OHOLDBOT | !CE;
    assign O = unknown ? 32'bx : MODE_8x8 || PIPELINE_16x16_MULT_REG2 ? out : whole;

    always @(posedge CLK) begin
        a <= A;
        b <= B;
        top <= $signed({A_SIGNED && a[15], a[15:8]}) * $signed(b[15:8]);
        bottom <= $signed({A_SIGNED && a[7], a[7:0]}) * $signed(b[7:0]);
        whole <= $signed({A_SIGNED && a[15], a}) * b;
        out <= MODE_8x8 ? {top + C, bottom + D} : whole;
    end
endmodule

// 4 kbit with a port to write and one to read. Lattice FPGA-TN-02002, memory usage guide: 256 words of 16 bits, with a
// mask, or 512, 1024, 2048 of fewer, which stand in every second, fourth or eighth of the 16 bits of a row. The bits of
// the address above 8 choose among them.
module SB_RAM40_4K (
    output [15:0] RDATA,
    input RCLK, RCLKE, RE,
    input [10:0] RADDR,
    input WCLK, WCLKE, WE,
    input [10:0] WADDR,
    input [15:0] MASK, WDATA
);
    parameter READ_MODE = 0;
    parameter WRITE_MODE = 0;
    parameter [255:0] INIT_0 = 0, INIT_1 = 0, INIT_2 = 0, INIT_3 = 0, INIT_4 = 0, INIT_5 = 0, INIT_6 = 0, INIT_7 = 0;
    parameter [255:0] INIT_8 = 0, INIT_9 = 0, INIT_A = 0, INIT_B = 0, INIT_C = 0, INIT_D = 0, INIT_E = 0, INIT_F = 0;
    localparam [4095:0] INITIAL = {INIT_F, INIT_E, INIT_D, INIT_C, INIT_B, INIT_A, INIT_9, INIT_8,
                                   INIT_7, INIT_6, INIT_5, INIT_4, INIT_3, INIT_2, INIT_1, INIT_0};

    generate
        if (READ_MODE != WRITE_MODE || READ_MODE < 0 || READ_MODE > 3) begin : refused
            SB_RAM40_4K_has_a_parameter_without_model refused();
        end
    endgenerate

    localparam EACH = 1 << READ_MODE; // bits of a row that share a data bit
    localparam PLACE = (EACH - 1) / 2; // the data bit that they share
    reg [15:0] rows [0:255];
    reg [15:0] row;
    reg [2:0] chosen;
    reg [15:0] spread;
    integer n;

    initial for (n = 0; n < 256; n = n + 1) rows[n] = INITIAL[16 * n +: 16];

    always @(posedge RCLK)
        if (RE && RCLKE) begin
            row <= rows[RADDR[7:0]];
            chosen <= RADDR[10:8];
        end

    genvar k;
    generate
        for (k = 0; k < 16; k = k + 1) begin : bits
            assign RDATA[k] = k % EACH == PLACE % EACH ? row[k - PLACE + (chosen & EACH - 1)] : 1'b0;
            always @(posedge WCLK)
                if (WE && WCLKE && (WRITE_MODE == 0 ? !MASK[k] : (WADDR[10:8] & EACH - 1) == k % EACH))
                    rows[WADDR[7:0]][k] <= WDATA[k - k % EACH + PLACE];
        end
    endgenerate
endmodule

// 16384 words of 16 bits with one port; a bit of MASKWREN writes four. Lattice FPGA-TN-02022, SPRAM usage guide: what
// stands in it after configuration is not defined.
module SB_SPRAM256KA (
    input [13:0] ADDRESS,
    input [15:0] DATAIN,
    input [3:0] MASKWREN,
    input WREN, CHIPSELECT, CLOCK, STANDBY, SLEEP, POWEROFF,
    output reg [15:0] DATAOUT
);
    reg [15:0] words[0:16383];
    integer n;
    always @(posedge CLOCK)
        if (CHIPSELECT && !STANDBY && !SLEEP && POWEROFF) begin
            if (WREN) begin
                for (n = 0; n < 4; n = n + 1)
                    if (MASKWREN[n]) words[ADDRESS][4 * n +: 4] <= DATAIN[4 * n +: 4];
            end else DATAOUT <= words[ADDRESS];
        end
endmodule
