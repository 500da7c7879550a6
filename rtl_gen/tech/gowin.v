// Models of Gowin's cells, for simulation: the modes that the parts of this package and of Yosys' mapping use.
// A parameter outside them is refused at elaboration: it asks for a module that does not exist.
// verilator lint_off UNUSEDPARAM

// Gowin UG287, DSP user guide: registers at the inputs, behind the array and at the output, each used or not. The signs
// are constants and pass by the registers; the shift inputs are not modelled.
module MULT9X9 (
    input [8:0] A, SIA, B, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET, output [17:0] DOUT
);
    parameter AREG = 1'b0;
    parameter BREG = 1'b0;
    parameter OUT_REG = 1'b0;
    parameter PIPE_REG = 1'b0;
    parameter ASIGN_REG = 1'b0;
    parameter BSIGN_REG = 1'b0;
    parameter SOA_REG = 1'b0;
    parameter MULT_RESET_MODE = "SYNC";
    wire [35:0] dout;
    MULT18X18 #(
        .AREG(AREG), .BREG(BREG), .OUT_REG(OUT_REG), .PIPE_REG(PIPE_REG), .SOA_REG(SOA_REG),
        .MULT_RESET_MODE(MULT_RESET_MODE)
    ) wide (
        .A({{9{ASIGN & A[8]}}, A}), .SIA(18'b0), .B({{9{BSIGN & B[8]}}, B}), .SIB(18'b0), .ASIGN(ASIGN), .BSIGN(BSIGN),
        .ASEL(ASEL), .BSEL(BSEL), .CE(CE), .CLK(CLK), .RESET(RESET), .DOUT(dout));
    assign DOUT = dout[17:0];
endmodule

module MULT18X18 (
    input [17:0] A, SIA, B, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET, output [35:0] DOUT
);
    parameter AREG = 1'b0;
    parameter BREG = 1'b0;
    parameter OUT_REG = 1'b0;
    parameter PIPE_REG = 1'b0;
    parameter ASIGN_REG = 1'b0;
    parameter BSIGN_REG = 1'b0;
    parameter SOA_REG = 1'b0;
    parameter MULT_RESET_MODE = "SYNC";

    generate
        if (MULT_RESET_MODE != "SYNC" || SOA_REG) begin : refused
            MULT18X18_has_a_parameter_without_model refused();
        end
    endgenerate

    reg [17:0] a_reg, b_reg;
    reg [35:0] pipe_reg, out_reg;
    wire [17:0] a = AREG ? a_reg : A;
    wire [17:0] b = BREG ? b_reg : B;
    wire signed [18:0] a_wide = {ASIGN & a[17], a};
    wire signed [18:0] b_wide = {BSIGN & b[17], b};
    wire signed [37:0] product = a_wide * b_wide;
    wire [35:0] result = PIPE_REG ? pipe_reg : product[35:0];
    assign DOUT = ASEL || BSEL ? 36'bx : OUT_REG ? out_reg : result;

    always @(posedge CLK)
        if (RESET) begin
            a_reg <= 0;
            b_reg <= 0;
            pipe_reg <= 0;
            out_reg <= 0;
        end else if (CE) begin
            a_reg <= A;
            b_reg <= B;
            pipe_reg <= product[35:0];
            out_reg <= result;
        end
endmodule

// The store of all block RAMs, with two ports, each writes and reads. Gowin UG285, BSRAM user guide; the places of
// data, of byte enables (the lowest bits of the address from two bytes a word on) and of the initial contents are those
// of Yosys' gowin/brams_map.v; what a write shows at its own port, and what a reset does, is that of gowin/brams.txt.
// BYTE: 8 or 9 bits. WRITE_MODE: 0 shows nothing new, 1 what is written, 2 what was there. A reset before the output
// register is modelled, behind it not; what a port reads of a word that the other one is writing is not: the old word
// is read.
module bfthw_gowin_block (
    input CLKA, CEA, WREA, OCEA, RESETA, input [13:0] ADA, input [35:0] DIA, output [35:0] DOA,
    input CLKB, CEB, WREB, OCEB, RESETB, input [13:0] ADB, input [35:0] DIB, output [35:0] DOB
);
    parameter BYTE = 9;
    parameter WIDTH_A = 36;
    parameter WIDTH_B = 36;
    parameter READ_MODE_A = 1'b0;
    parameter READ_MODE_B = 1'b0;
    parameter WRITE_MODE_A = 0;
    parameter WRITE_MODE_B = 0;
    parameter RESET_MODE = "SYNC";
    parameter [2048 * BYTE - 1:0] INITIAL = 0;

    generate
        if ((WIDTH_A != 1 && WIDTH_A != 2 && WIDTH_A != 4 &&
             WIDTH_A != BYTE && WIDTH_A != 2 * BYTE && WIDTH_A != 4 * BYTE) ||
            (WIDTH_B != 1 && WIDTH_B != 2 && WIDTH_B != 4 &&
             WIDTH_B != BYTE && WIDTH_B != 2 * BYTE && WIDTH_B != 4 * BYTE))
        begin : refused
            block_RAM_has_a_width_without_model refused();
        end
        if (WRITE_MODE_A > 2 || WRITE_MODE_B > 2 || (RESET_MODE != "SYNC" && RESET_MODE != "ASYNC")) begin : mode
            block_RAM_has_a_parameter_without_model refused();
        end
    endgenerate

    // the first bit of a word in its row of four bytes; a: the low bits of its address
    function [5:0] place(input [4:0] a, input integer width);
        if (width == 4 * BYTE) place = 0;
        else if (width == 2 * BYTE) place = 2 * BYTE * a[4];
        else place = BYTE * a[4:3] + (width == 1 ? a[2:0] : width == 2 ? 2 * a[2:1] : width == 4 ? 4 * a[2] : 0);
    endfunction

    localparam [35:0] ONES = 36'hFFFFFFFFF;

    // the bits of a word that are written
    function [35:0] mask(input [3:0] a, input integer width);
        mask = ONES >> (36 - width) &
               (width < 2 * BYTE ? ONES : {{BYTE{a[3]}}, {BYTE{a[2]}}, {BYTE{a[1]}}, {BYTE{a[0]}}});
    endfunction

    reg [4 * BYTE - 1:0] rows [0:511];
    reg [35:0] latch_a, latch_b, out_a, out_b;
    wire [5:0] place_a = place(ADA[4:0], WIDTH_A);
    wire [5:0] place_b = place(ADB[4:0], WIDTH_B);
    wire [35:0] mask_a = mask(ADA[3:0], WIDTH_A) << place_a;
    wire [35:0] mask_b = mask(ADB[3:0], WIDTH_B) << place_b;
    wire [35:0] old_a = rows[ADA[13:5]];
    wire [35:0] old_b = rows[ADB[13:5]];
    wire [35:0] new_a = old_a & ~mask_a | DIA << place_a & mask_a;
    wire [35:0] new_b = old_b & ~mask_b | DIB << place_b & mask_b;
    // where both write into a row, at one clock, neither puts the other's bits back
    wire both = CEA && WREA && CEB && WREB && ADA[13:5] == ADB[13:5];
    wire [35:0] row_a = both ? new_a & ~mask_b | new_b & mask_b : new_a;
    wire [35:0] row_b = both ? row_a : new_b;
    integer n;

    initial begin
        for (n = 0; n < 512; n = n + 1) rows[n] = INITIAL[4 * BYTE * n +: 4 * BYTE];
        latch_a = 0;
        latch_b = 0;
    end

    always @(posedge CLKA) begin
        if (OCEA) out_a <= latch_a;
        if (CEA && WREA) rows[ADA[13:5]] <= row_a[4 * BYTE - 1:0];
        if (RESETA) latch_a <= 0;
        else if (CEA && (!WREA || WRITE_MODE_A != 0)) latch_a <= (WREA && WRITE_MODE_A == 1 ? new_a : old_a) >> place_a;
    end

    always @(posedge CLKB) begin
        if (OCEB) out_b <= latch_b;
        if (CEB && WREB) rows[ADB[13:5]] <= row_b[4 * BYTE - 1:0];
        if (RESETB) latch_b <= 0;
        else if (CEB && (!WREB || WRITE_MODE_B != 0)) latch_b <= (WREB && WRITE_MODE_B == 1 ? new_b : old_b) >> place_b;
    end

    wire [35:0] read_a = RESETA && RESET_MODE == "ASYNC" ? 36'b0 : latch_a;
    wire [35:0] read_b = RESETB && RESET_MODE == "ASYNC" ? 36'b0 : latch_b;
    assign DOA = !READ_MODE_A ? read_a : RESETA ? 36'bx : out_a;
    assign DOB = !READ_MODE_B ? read_b : RESETB ? 36'bx : out_b;
endmodule

module pROM (input CLK, CE, OCE, RESET, input [13:0] AD, output [31:0] DO);
    parameter READ_MODE = 1'b0;
    parameter BIT_WIDTH = 32;
    parameter RESET_MODE = "SYNC";
    parameter [255:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0;
    parameter [255:0] INIT_RAM_04 = 0, INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0;
    parameter [255:0] INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0, INIT_RAM_0B = 0;
    parameter [255:0] INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0;
    parameter [255:0] INIT_RAM_10 = 0, INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0;
    parameter [255:0] INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0, INIT_RAM_17 = 0;
    parameter [255:0] INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0;
    parameter [255:0] INIT_RAM_1C = 0, INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0;
    parameter [255:0] INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0, INIT_RAM_23 = 0;
    parameter [255:0] INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0;
    parameter [255:0] INIT_RAM_28 = 0, INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0;
    parameter [255:0] INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0, INIT_RAM_2F = 0;
    parameter [255:0] INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0;
    parameter [255:0] INIT_RAM_34 = 0, INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0;
    parameter [255:0] INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0, INIT_RAM_3B = 0;
    parameter [255:0] INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0;
    localparam [16383:0] INITIAL = {
        INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, INIT_RAM_39, INIT_RAM_38,
        INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30,
        INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
        INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, INIT_RAM_21, INIT_RAM_20,
        INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18,
        INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
        INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, INIT_RAM_09, INIT_RAM_08,
        INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00};
    wire [35:0] data;
    bfthw_gowin_block #(
        .BYTE(8), .WIDTH_A(32), .WIDTH_B(BIT_WIDTH), .READ_MODE_B(READ_MODE), .RESET_MODE(RESET_MODE), .INITIAL(INITIAL)
    ) block (
        .CLKA(1'b0), .CEA(1'b0), .WREA(1'b0), .OCEA(1'b0), .RESETA(1'b0), .ADA(14'b0), .DIA(36'b0),
        .CLKB(CLK), .CEB(CE), .WREB(1'b0), .OCEB(OCE), .RESETB(RESET), .ADB(AD), .DIB(36'b0), .DOB(data));
    assign DO = data[31:0];
endmodule

module pROMX9 (input CLK, CE, OCE, RESET, input [13:0] AD, output [35:0] DO);
    parameter READ_MODE = 1'b0;
    parameter BIT_WIDTH = 36;
    parameter RESET_MODE = "SYNC";
    parameter [287:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0;
    parameter [287:0] INIT_RAM_04 = 0, INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0;
    parameter [287:0] INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0, INIT_RAM_0B = 0;
    parameter [287:0] INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0;
    parameter [287:0] INIT_RAM_10 = 0, INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0;
    parameter [287:0] INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0, INIT_RAM_17 = 0;
    parameter [287:0] INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0;
    parameter [287:0] INIT_RAM_1C = 0, INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0;
    parameter [287:0] INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0, INIT_RAM_23 = 0;
    parameter [287:0] INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0;
    parameter [287:0] INIT_RAM_28 = 0, INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0;
    parameter [287:0] INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0, INIT_RAM_2F = 0;
    parameter [287:0] INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0;
    parameter [287:0] INIT_RAM_34 = 0, INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0;
    parameter [287:0] INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0, INIT_RAM_3B = 0;
    parameter [287:0] INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0;
    localparam [18431:0] INITIAL = {
        INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, INIT_RAM_39, INIT_RAM_38,
        INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30,
        INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
        INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, INIT_RAM_21, INIT_RAM_20,
        INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18,
        INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
        INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, INIT_RAM_09, INIT_RAM_08,
        INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00};
    wire [35:0] data;
    bfthw_gowin_block #(
        .BYTE(9), .WIDTH_A(36), .WIDTH_B(BIT_WIDTH), .READ_MODE_B(READ_MODE), .RESET_MODE(RESET_MODE), .INITIAL(INITIAL)
    ) block (
        .CLKA(1'b0), .CEA(1'b0), .WREA(1'b0), .OCEA(1'b0), .RESETA(1'b0), .ADA(14'b0), .DIA(36'b0),
        .CLKB(CLK), .CEB(CE), .WREB(1'b0), .OCEB(OCE), .RESETB(RESET), .ADB(AD), .DIB(36'b0), .DOB(data));
    assign DO = data[35:0];
endmodule

// RESET stands in the place of the other two on a GW5A.
module SDPB (
    input CLKA, CEA, CLKB, CEB, OCE, RESETA, RESETB, RESET, input [13:0] ADA, ADB, input [31:0] DI,
    input [2:0] BLKSELA, BLKSELB, output [31:0] DO
);
    parameter READ_MODE = 1'b0;
    parameter BIT_WIDTH_0 = 32;
    parameter BIT_WIDTH_1 = 32;
    parameter BLK_SEL_0 = 3'b000;
    parameter BLK_SEL_1 = 3'b000;
    parameter RESET_MODE = "SYNC";
    parameter [255:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0;
    parameter [255:0] INIT_RAM_04 = 0, INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0;
    parameter [255:0] INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0, INIT_RAM_0B = 0;
    parameter [255:0] INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0;
    parameter [255:0] INIT_RAM_10 = 0, INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0;
    parameter [255:0] INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0, INIT_RAM_17 = 0;
    parameter [255:0] INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0;
    parameter [255:0] INIT_RAM_1C = 0, INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0;
    parameter [255:0] INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0, INIT_RAM_23 = 0;
    parameter [255:0] INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0;
    parameter [255:0] INIT_RAM_28 = 0, INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0;
    parameter [255:0] INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0, INIT_RAM_2F = 0;
    parameter [255:0] INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0;
    parameter [255:0] INIT_RAM_34 = 0, INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0;
    parameter [255:0] INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0, INIT_RAM_3B = 0;
    parameter [255:0] INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0;
    localparam [16383:0] INITIAL = {
        INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, INIT_RAM_39, INIT_RAM_38,
        INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30,
        INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
        INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, INIT_RAM_21, INIT_RAM_20,
        INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18,
        INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
        INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, INIT_RAM_09, INIT_RAM_08,
        INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00};
    wire [35:0] data;
    bfthw_gowin_block #(
        .BYTE(8), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .READ_MODE_B(READ_MODE), .RESET_MODE(RESET_MODE),
        .INITIAL(INITIAL)
    ) block (
        .CLKA(CLKA), .CEA(CEA), .WREA(1'b1), .OCEA(1'b0), .RESETA(1'b0), .ADA(ADA), .DIA({4'b0, DI}),
        .CLKB(CLKB), .CEB(CEB), .WREB(1'b0), .OCEB(OCE), .RESETB(RESETB || RESET === 1'b1), .ADB(ADB), .DIB(36'b0),
        .DOB(data));
    assign DO = RESETA | BLKSELA != BLK_SEL_0 | BLKSELB != BLK_SEL_1 ? 32'bx : data[31:0];
endmodule

module SDPX9B (
    input CLKA, CEA, CLKB, CEB, OCE, RESETA, RESETB, RESET, input [13:0] ADA, ADB, input [35:0] DI,
    input [2:0] BLKSELA, BLKSELB, output [35:0] DO
);
    parameter READ_MODE = 1'b0;
    parameter BIT_WIDTH_0 = 36;
    parameter BIT_WIDTH_1 = 36;
    parameter BLK_SEL_0 = 3'b000;
    parameter BLK_SEL_1 = 3'b000;
    parameter RESET_MODE = "SYNC";
    parameter [287:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0;
    parameter [287:0] INIT_RAM_04 = 0, INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0;
    parameter [287:0] INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0, INIT_RAM_0B = 0;
    parameter [287:0] INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0;
    parameter [287:0] INIT_RAM_10 = 0, INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0;
    parameter [287:0] INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0, INIT_RAM_17 = 0;
    parameter [287:0] INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0;
    parameter [287:0] INIT_RAM_1C = 0, INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0;
    parameter [287:0] INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0, INIT_RAM_23 = 0;
    parameter [287:0] INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0;
    parameter [287:0] INIT_RAM_28 = 0, INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0;
    parameter [287:0] INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0, INIT_RAM_2F = 0;
    parameter [287:0] INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0;
    parameter [287:0] INIT_RAM_34 = 0, INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0;
    parameter [287:0] INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0, INIT_RAM_3B = 0;
    parameter [287:0] INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0;
    localparam [18431:0] INITIAL = {
        INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, INIT_RAM_39, INIT_RAM_38,
        INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30,
        INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
        INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, INIT_RAM_21, INIT_RAM_20,
        INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18,
        INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
        INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, INIT_RAM_09, INIT_RAM_08,
        INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00};
    wire [35:0] data;
    bfthw_gowin_block #(
        .BYTE(9), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .READ_MODE_B(READ_MODE), .RESET_MODE(RESET_MODE),
        .INITIAL(INITIAL)
    ) block (
        .CLKA(CLKA), .CEA(CEA), .WREA(1'b1), .OCEA(1'b0), .RESETA(1'b0), .ADA(ADA), .DIA(DI),
        .CLKB(CLKB), .CEB(CEB), .WREB(1'b0), .OCEB(OCE), .RESETB(RESETB || RESET === 1'b1), .ADB(ADB), .DIB(36'b0),
        .DOB(data));
    assign DO = RESETA | BLKSELA != BLK_SEL_0 | BLKSELB != BLK_SEL_1 ? 36'bx : data[35:0];
endmodule
