// Models of Gowin's cells that Yosys maps to and our cores do not instance, for netlists; rtl_gen/tech/gowin.v has the
// others, and the store of all block RAMs.

`define BFTHW_INIT_RAM(BITS) \
    parameter [BITS - 1:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0, INIT_RAM_04 = 0; \
    parameter [BITS - 1:0] INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0, INIT_RAM_08 = 0, INIT_RAM_09 = 0; \
    parameter [BITS - 1:0] INIT_RAM_0A = 0, INIT_RAM_0B = 0, INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0; \
    parameter [BITS - 1:0] INIT_RAM_0F = 0, INIT_RAM_10 = 0, INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0; \
    parameter [BITS - 1:0] INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0, INIT_RAM_17 = 0, INIT_RAM_18 = 0; \
    parameter [BITS - 1:0] INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0, INIT_RAM_1C = 0, INIT_RAM_1D = 0; \
    parameter [BITS - 1:0] INIT_RAM_1E = 0, INIT_RAM_1F = 0, INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0; \
    parameter [BITS - 1:0] INIT_RAM_23 = 0, INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0; \
    parameter [BITS - 1:0] INIT_RAM_28 = 0, INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0, INIT_RAM_2C = 0; \
    parameter [BITS - 1:0] INIT_RAM_2D = 0, INIT_RAM_2E = 0, INIT_RAM_2F = 0, INIT_RAM_30 = 0, INIT_RAM_31 = 0; \
    parameter [BITS - 1:0] INIT_RAM_32 = 0, INIT_RAM_33 = 0, INIT_RAM_34 = 0, INIT_RAM_35 = 0, INIT_RAM_36 = 0; \
    parameter [BITS - 1:0] INIT_RAM_37 = 0, INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0, INIT_RAM_3B = 0; \
    parameter [BITS - 1:0] INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0;
`define BFTHW_INITIAL { \
        INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, INIT_RAM_39, INIT_RAM_38, \
        INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, \
        INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28, \
        INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, INIT_RAM_21, INIT_RAM_20, \
        INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, \
        INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10, \
        INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, INIT_RAM_09, INIT_RAM_08, \
        INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00}

module DPB (
    input CLKA, CEA, WREA, OCEA, RESETA, CLKB, CEB, WREB, OCEB, RESETB, input [13:0] ADA, ADB,
    input [2:0] BLKSELA, BLKSELB, input [15:0] DIA, DIB, output [15:0] DOA, DOB
);
    parameter READ_MODE0 = 1'b0;
    parameter READ_MODE1 = 1'b0;
    parameter WRITE_MODE0 = 0;
    parameter WRITE_MODE1 = 0;
    parameter BIT_WIDTH_0 = 16;
    parameter BIT_WIDTH_1 = 16;
    parameter BLK_SEL_0 = 3'b000;
    parameter BLK_SEL_1 = 3'b000;
    parameter RESET_MODE = "SYNC";
    `BFTHW_INIT_RAM(256)
    wire [35:0] a, b;
    bfthw_gowin_block #(
        .BYTE(8), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .READ_MODE_A(READ_MODE0), .READ_MODE_B(READ_MODE1),
        .WRITE_MODE_A(WRITE_MODE0), .WRITE_MODE_B(WRITE_MODE1), .RESET_MODE(RESET_MODE), .INITIAL(`BFTHW_INITIAL)
    ) block (
        .CLKA(CLKA), .CEA(CEA), .WREA(WREA), .OCEA(OCEA), .RESETA(RESETA), .ADA(ADA), .DIA({20'b0, DIA}), .DOA(a),
        .CLKB(CLKB), .CEB(CEB), .WREB(WREB), .OCEB(OCEB), .RESETB(RESETB), .ADB(ADB), .DIB({20'b0, DIB}), .DOB(b));
    assign DOA = BLKSELA != BLK_SEL_0 ? 16'bx : a[15:0];
    assign DOB = BLKSELB != BLK_SEL_1 ? 16'bx : b[15:0];
endmodule

module DPX9B (
    input CLKA, CEA, WREA, OCEA, RESETA, CLKB, CEB, WREB, OCEB, RESETB, input [13:0] ADA, ADB,
    input [2:0] BLKSELA, BLKSELB, input [17:0] DIA, DIB, output [17:0] DOA, DOB
);
    parameter READ_MODE0 = 1'b0;
    parameter READ_MODE1 = 1'b0;
    parameter WRITE_MODE0 = 0;
    parameter WRITE_MODE1 = 0;
    parameter BIT_WIDTH_0 = 18;
    parameter BIT_WIDTH_1 = 18;
    parameter BLK_SEL_0 = 3'b000;
    parameter BLK_SEL_1 = 3'b000;
    parameter RESET_MODE = "SYNC";
    `BFTHW_INIT_RAM(288)
    wire [35:0] a, b;
    bfthw_gowin_block #(
        .BYTE(9), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .READ_MODE_A(READ_MODE0), .READ_MODE_B(READ_MODE1),
        .WRITE_MODE_A(WRITE_MODE0), .WRITE_MODE_B(WRITE_MODE1), .RESET_MODE(RESET_MODE), .INITIAL(`BFTHW_INITIAL)
    ) block (
        .CLKA(CLKA), .CEA(CEA), .WREA(WREA), .OCEA(OCEA), .RESETA(RESETA), .ADA(ADA), .DIA({18'b0, DIA}), .DOA(a),
        .CLKB(CLKB), .CEB(CEB), .WREB(WREB), .OCEB(OCEB), .RESETB(RESETB), .ADB(ADB), .DIB({18'b0, DIB}), .DOB(b));
    assign DOA = BLKSELA != BLK_SEL_0 ? 18'bx : a[17:0];
    assign DOB = BLKSELB != BLK_SEL_1 ? 18'bx : b[17:0];
endmodule

module SP (
    input CLK, CE, WRE, OCE, RESET, input [13:0] AD, input [2:0] BLKSEL, input [31:0] DI, output [31:0] DO
);
    parameter READ_MODE = 1'b0;
    parameter WRITE_MODE = 0;
    parameter BIT_WIDTH = 32;
    parameter BLK_SEL = 3'b000;
    parameter RESET_MODE = "SYNC";
    `BFTHW_INIT_RAM(256)
    wire [35:0] data;
    bfthw_gowin_block #(
        .BYTE(8), .WIDTH_A(BIT_WIDTH), .WIDTH_B(BIT_WIDTH), .READ_MODE_A(READ_MODE), .WRITE_MODE_A(WRITE_MODE),
        .RESET_MODE(RESET_MODE), .INITIAL(`BFTHW_INITIAL)
    ) block (
        .CLKA(CLK), .CEA(CE), .WREA(WRE), .OCEA(OCE), .RESETA(RESET), .ADA(AD), .DIA({4'b0, DI}), .DOA(data),
        .CLKB(1'b0), .CEB(1'b0), .WREB(1'b0), .OCEB(1'b0), .RESETB(1'b0), .ADB(14'b0), .DIB(36'b0));
    assign DO = BLKSEL != BLK_SEL ? 32'bx : data[31:0];
endmodule

module SPX9 (
    input CLK, CE, WRE, OCE, RESET, input [13:0] AD, input [2:0] BLKSEL, input [35:0] DI, output [35:0] DO
);
    parameter READ_MODE = 1'b0;
    parameter WRITE_MODE = 0;
    parameter BIT_WIDTH = 36;
    parameter BLK_SEL = 3'b000;
    parameter RESET_MODE = "SYNC";
    `BFTHW_INIT_RAM(288)
    wire [35:0] data;
    bfthw_gowin_block #(
        .BYTE(9), .WIDTH_A(BIT_WIDTH), .WIDTH_B(BIT_WIDTH), .READ_MODE_A(READ_MODE), .WRITE_MODE_A(WRITE_MODE),
        .RESET_MODE(RESET_MODE), .INITIAL(`BFTHW_INITIAL)
    ) block (
        .CLKA(CLK), .CEA(CE), .WREA(WRE), .OCEA(OCE), .RESETA(RESET), .ADA(AD), .DIA(DI), .DOA(data),
        .CLKB(1'b0), .CEB(1'b0), .WREB(1'b0), .OCEB(1'b0), .RESETB(1'b0), .ADB(14'b0), .DIB(36'b0));
    assign DO = BLKSEL != BLK_SEL ? 36'bx : data[35:0];
endmodule

// Gowin UG287, DSP user guide. Without registers, as Yosys maps to it.
module MULT36X36 (input [35:0] A, B, input ASIGN, BSIGN, CE, CLK, RESET, output [71:0] DOUT);
    wire signed [36:0] a = {ASIGN & A[35], A};
    wire signed [36:0] b = {BSIGN & B[35], B};
    wire signed [73:0] product = a * b;
    assign DOUT = product[71:0];
endmodule
