// Models of the ECP5's cells, for simulation: the modes that the parts of this package and of Yosys' mapping use.
// A parameter outside them is refused at elaboration: it asks for a module that does not exist.
// verilator lint_off UNUSEDPARAM

// 18 by 18 bits. Lattice FPGA-TN-02205, sysDSP usage guide: input, pipeline and output registers, each used or not.
// The shift and cascade ports are left out; the signs are constants and pass by the registers.
module MULT18X18D (
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0, RST3, RST2, RST1, RST0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
    output P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    parameter REG_INPUTA_CLK = "NONE";
    parameter REG_INPUTA_CE = "CE0";
    parameter REG_INPUTA_RST = "RST0";
    parameter REG_INPUTB_CLK = "NONE";
    parameter REG_INPUTB_CE = "CE0";
    parameter REG_INPUTB_RST = "RST0";
    parameter REG_PIPELINE_CLK = "NONE";
    parameter REG_PIPELINE_CE = "CE0";
    parameter REG_PIPELINE_RST = "RST0";
    parameter REG_OUTPUT_CLK = "NONE";
    parameter REG_OUTPUT_CE = "CE0";
    parameter REG_OUTPUT_RST = "RST0";
    parameter GSR = "ENABLED";
    parameter RESETMODE = "SYNC";

    generate
        if ((REG_INPUTA_CLK != "NONE" && REG_INPUTA_CLK != "CLK0") || REG_INPUTA_CE != "CE0" ||
            (REG_INPUTB_CLK != "NONE" && REG_INPUTB_CLK != "CLK0") || REG_INPUTB_CE != "CE0" ||
            (REG_PIPELINE_CLK != "NONE" && REG_PIPELINE_CLK != "CLK0") || REG_PIPELINE_CE != "CE0" ||
            (REG_OUTPUT_CLK != "NONE" && REG_OUTPUT_CLK != "CLK0") || REG_OUTPUT_CE != "CE0" ||
            REG_INPUTA_RST != "RST0" || REG_INPUTB_RST != "RST0" || REG_PIPELINE_RST != "RST0" ||
            REG_OUTPUT_RST != "RST0" || RESETMODE != "SYNC")
        begin : refused
            MULT18X18D_has_a_parameter_without_model refused();
        end
    endgenerate

    wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    reg [17:0] a_reg, b_reg;
    reg [35:0] pipeline_reg, output_reg;
    wire [17:0] a_in = REG_INPUTA_CLK == "NONE" ? a : a_reg;
    wire [17:0] b_in = REG_INPUTB_CLK == "NONE" ? b : b_reg;
    wire signed [18:0] a_wide = {SIGNEDA & a_in[17], a_in};
    wire signed [18:0] b_wide = {SIGNEDB & b_in[17], b_in};
    wire signed [37:0] product = a_wide * b_wide;
    wire [35:0] result = SOURCEA || SOURCEB ? 36'bx : REG_PIPELINE_CLK == "NONE" ? product[35:0] : pipeline_reg;
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
            P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} =
        REG_OUTPUT_CLK == "NONE" ? result : output_reg;

    always @(posedge CLK0)
        if (RST0) begin
            a_reg <= 0;
            b_reg <= 0;
            pipeline_reg <= 0;
            output_reg <= 0;
        end else if (CE0) begin
            a_reg <= a;
            b_reg <= b;
            pipeline_reg <= product[35:0];
            output_reg <= result;
        end
endmodule

// 18 kbit with two ports, each writes and reads. Lattice FPGA-TN-02204, memory usage guide; the places of data, of byte
// enables (the lowest bits of the address at 18 and 36 bits) and of the initial contents (18 bits in every 20 of
// INITVAL) are those of Yosys' lattice/brams_map_16kd.v; what a write shows at its own port, and what a reset does, is
// that of lattice/brams_16kd.txt. Below 9 bits the ninth bit of each nine lies idle. At 36 bits a port has the data
// pins of both, DIA, DOA low, and only A writes. A reset before the output register is modelled, behind it not; what a
// port reads of a word that the other one is writing is not: the old word is read.
module DP16KD (
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
    input DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
    input DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0, CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
    output DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
    output DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
    parameter DATA_WIDTH_A = 18;
    parameter DATA_WIDTH_B = 18;
    parameter REGMODE_A = "NOREG";
    parameter REGMODE_B = "NOREG";
    parameter RESETMODE = "SYNC";
    parameter ASYNC_RESET_RELEASE = "SYNC";
    parameter CSDECODE_A = "0b000";
    parameter CSDECODE_B = "0b000";
    parameter WRITEMODE_A = "NORMAL";
    parameter WRITEMODE_B = "NORMAL";
    parameter CLKAMUX = "CLKA";
    parameter CLKBMUX = "CLKB";
    parameter GSR = "ENABLED";
    parameter INIT_DATA = "STATIC";
    parameter [319:0] INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0, INITVAL_04 = 0, INITVAL_05 = 0;
    parameter [319:0] INITVAL_06 = 0, INITVAL_07 = 0, INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0;
    parameter [319:0] INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0, INITVAL_0F = 0, INITVAL_10 = 0, INITVAL_11 = 0;
    parameter [319:0] INITVAL_12 = 0, INITVAL_13 = 0, INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0;
    parameter [319:0] INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0, INITVAL_1C = 0, INITVAL_1D = 0;
    parameter [319:0] INITVAL_1E = 0, INITVAL_1F = 0, INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0;
    parameter [319:0] INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 = 0, INITVAL_27 = 0, INITVAL_28 = 0, INITVAL_29 = 0;
    parameter [319:0] INITVAL_2A = 0, INITVAL_2B = 0, INITVAL_2C = 0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0;
    parameter [319:0] INITVAL_30 = 0, INITVAL_31 = 0, INITVAL_32 = 0, INITVAL_33 = 0, INITVAL_34 = 0, INITVAL_35 = 0;
    parameter [319:0] INITVAL_36 = 0, INITVAL_37 = 0, INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0;
    parameter [319:0] INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0;
    localparam [64 * 320 - 1:0] INITIAL = {
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
        INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
        INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
        INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
        INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
        INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
        INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
        INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};

    generate
        if ((DATA_WIDTH_A != 1 && DATA_WIDTH_A != 2 && DATA_WIDTH_A != 4 && DATA_WIDTH_A != 9 &&
             DATA_WIDTH_A != 18 && DATA_WIDTH_A != 36) ||
            (DATA_WIDTH_B != 1 && DATA_WIDTH_B != 2 && DATA_WIDTH_B != 4 && DATA_WIDTH_B != 9 &&
             DATA_WIDTH_B != 18 && DATA_WIDTH_B != 36) ||
            (REGMODE_A != "NOREG" && REGMODE_A != "OUTREG") || (REGMODE_B != "NOREG" && REGMODE_B != "OUTREG") ||
            CSDECODE_A != "0b000" || CSDECODE_B != "0b000" || CLKAMUX != "CLKA" || CLKBMUX != "CLKB" ||
            (WRITEMODE_A != "NORMAL" && WRITEMODE_A != "WRITETHROUGH" && WRITEMODE_A != "READBEFOREWRITE") ||
            (WRITEMODE_B != "NORMAL" && WRITEMODE_B != "WRITETHROUGH" && WRITEMODE_B != "READBEFOREWRITE") ||
            (RESETMODE != "SYNC" && RESETMODE != "ASYNC") || INIT_DATA != "STATIC")
        begin : refused
            DP16KD_has_a_parameter_without_model refused();
        end
    endgenerate

    wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
                       DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    wire [35:0] dia = {dib, DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
                       DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};

    // the first bit of a word in its row of 36; a: the low bits of its address
    function [5:0] place(input [4:0] a, input integer width);
        case (width)
            1: place = 9 * a[4:3] + a[2:0];
            2: place = 9 * a[4:3] + 2 * a[2:1];
            4: place = 9 * a[4:3] + 4 * a[2];
            9: place = 9 * a[4:3];
            18: place = 18 * a[4];
            default: place = 0;
        endcase
    endfunction

    localparam [35:0] ONES = 36'hFFFFFFFFF;

    // the bits of a word that are written; a: the low bits of its address
    function [35:0] mask(input [3:0] a, input integer width);
        mask = (width < 18 ? ONES : {{9{a[3]}}, {9{a[2]}}, {9{a[1]}}, {9{a[0]}}}) & ONES >> (36 - width);
    endfunction

    reg [35:0] rows [0:511];
    reg [35:0] latch_a, latch_b, reg_a, reg_b;
    wire [5:0] place_a = place(ada[4:0], DATA_WIDTH_A);
    wire [5:0] place_b = place(adb[4:0], DATA_WIDTH_B);
    wire [35:0] mask_a = mask(ada[3:0], DATA_WIDTH_A) << place_a;
    wire [35:0] mask_b = mask(adb[3:0], DATA_WIDTH_B) << place_b;
    wire [35:0] old_a = rows[ada[13:5]];
    wire [35:0] old_b = rows[adb[13:5]];
    wire [35:0] new_a = old_a & ~mask_a | dia << place_a & mask_a;
    wire [35:0] new_b = old_b & ~mask_b | {18'b0, dib} << place_b & mask_b;
    wire write_a = CEA & WEA & ~RSTA;
    wire write_b = CEB & WEB & ~RSTB;
    // where both write into a row, at one clock, neither puts the other's bits back
    wire both = write_a && write_b && ada[13:5] == adb[13:5];
    wire [35:0] row_a = both ? new_a & ~mask_b | new_b & mask_b : new_a;
    wire [35:0] row_b = both ? row_a : new_b;
    wire unknown = CSA2 | CSA1 | CSA0 | CSB2 | CSB1 | CSB0 | (WEB && (DATA_WIDTH_A == 36 || DATA_WIDTH_B == 36)) |
                   (RSTA && REGMODE_A == "OUTREG") | (RSTB && REGMODE_B == "OUTREG");
    integer n;

    initial begin
        for (n = 0; n < 512; n = n + 1) rows[n] = {INITIAL[40 * n + 20 +: 18], INITIAL[40 * n +: 18]};
        latch_a = 0;
        latch_b = 0;
    end

    always @(posedge CLKA) begin
        if (OCEA) reg_a <= latch_a;
        if (write_a) rows[ada[13:5]] <= row_a;
        if (RSTA) latch_a <= 0;
        else if (CEA && (!WEA || WRITEMODE_A != "NORMAL"))
            latch_a <= (WEA && WRITEMODE_A == "WRITETHROUGH" ? new_a : old_a) >> place_a;
    end

    always @(posedge CLKB) begin
        if (OCEB) reg_b <= latch_b;
        if (write_b) rows[adb[13:5]] <= row_b;
        if (RSTB) latch_b <= 0;
        else if (CEB && (!WEB || WRITEMODE_B != "NORMAL"))
            latch_b <= (WEB && WRITEMODE_B == "WRITETHROUGH" ? new_b : old_b) >> place_b;
    end

    wire [35:0] read_a = RSTA && RESETMODE == "ASYNC" ? 36'b0 : latch_a;
    wire [35:0] read_b = RSTB && RESETMODE == "ASYNC" ? 36'b0 : latch_b;
    wire [35:0] out_a = unknown ? 36'bx : REGMODE_A == "OUTREG" ? reg_a : read_a;
    wire [35:0] out_b = unknown ? 36'bx : REGMODE_B == "OUTREG" ? reg_b : read_b;
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
            DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = DATA_WIDTH_B == 36 ? out_b[17:0] : out_a[17:0];
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
            DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = DATA_WIDTH_B == 36 ? out_b[35:18] : out_b[17:0];
endmodule

// Two bits of carry chain. Lattice FPGA-DS-02012, family data sheet, slice in ripple mode: the table decides what the
// carry does (1: passes, 0: becomes the lower quarter of the table, of A and B alone) and is added to the carry.
module CCU2C (input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
    parameter [15:0] INIT0 = 0;
    parameter [15:0] INIT1 = 0;
    parameter INJECT1_0 = "YES"; // YES: this bit starts a chain, its carry in counts as 0
    parameter INJECT1_1 = "YES";

    wire t0 = INIT0[{D0, C0, B0, A0}];
    wire t1 = INIT1[{D1, C1, B1, A1}];
    wire carry = t0 ? CIN : INJECT1_0 != "YES" && INIT0[{2'b00, B0, A0}];
    assign S0 = t0 ^ (INJECT1_0 != "YES" && CIN);
    assign S1 = t1 ^ (INJECT1_1 != "YES" && carry);
    assign COUT = t1 ? carry : INJECT1_1 != "YES" && INIT1[{2'b00, B1, A1}];
endmodule
