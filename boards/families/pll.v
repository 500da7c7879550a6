// Models of the PLLs, for the simulation of a board's whole netlist. Its wrapper (boards/gatelevel.py) drives the pin
// of the clock with what the PLL is to make, and not with what the oscillator gives: so a model hands its input on as
// it is, and holds its dividers against both frequencies and the ranges of the data sheet instead. In Hz, as macros:
// BFTHW_PLL_INPUT and _OUTPUT, whole numbers, and what the comparison (_PFD_) and the oscillator (_VCO_) may be, _LEAST
// and _MOST. What does not fit is refused at elaboration: it asks for a module that does not exist.

// output = source / DIVIDE * MULTIPLY / POST, the oscillator at source / DIVIDE * MULTIPLY
module bfthw_pll (input source, input off, output clock, output lock);
    parameter [63:0] DIVIDE = 1;
    parameter [63:0] MULTIPLY = 1;
    parameter [63:0] POST = 1;
    localparam [63:0] INPUT = `BFTHW_PLL_INPUT;
    localparam [63:0] MADE = INPUT * MULTIPLY;
    localparam [63:0] TOLD = `BFTHW_PLL_OUTPUT * DIVIDE * POST;

    generate
        // of a frequency that is rounded to a whole number
        if (MADE > TOLD + DIVIDE * POST || TOLD > MADE + DIVIDE * POST) begin : other_clock
            PLL_makes_another_clock_than_the_board_is_told refused();
        end
        if (INPUT < `BFTHW_PLL_PFD_LEAST * DIVIDE || INPUT > `BFTHW_PLL_PFD_MOST * DIVIDE ||
            MADE < `BFTHW_PLL_VCO_LEAST * DIVIDE || MADE > `BFTHW_PLL_VCO_MOST * DIVIDE)
        begin : outside
            PLL_runs_outside_the_ranges_of_its_data_sheet refused();
        end
    endgenerate

    // cycles until it locks; a real one takes microseconds
    reg [3:0] cycles = 0;
    always @(posedge source) cycles <= off ? 0 : lock ? cycles : cycles + 1;
    assign clock = source;
    assign lock = cycles[3];
endmodule

// Lattice FPGA-TN-02052, sysCLOCK PLL guide: feedback inside, of the output before its divider by 2^DIVQ.
module SB_PLL40_CORE (input REFERENCECLK, RESETB, BYPASS, output PLLOUTGLOBAL, PLLOUTCORE, LOCK);
    parameter FEEDBACK_PATH = "SIMPLE";
    parameter DIVR = 0;
    parameter DIVF = 0;
    parameter DIVQ = 0;
    parameter FILTER_RANGE = 0; // not modelled

    generate
        if (FEEDBACK_PATH != "SIMPLE" || DIVQ < 1 || DIVQ > 6) begin : refused
            SB_PLL40_has_a_parameter_without_model refused();
        end
    endgenerate

    bfthw_pll #(.DIVIDE(DIVR + 1), .MULTIPLY(DIVF + 1), .POST(1 << DIVQ)) pll (
        .source(REFERENCECLK), .off(!RESETB || BYPASS), .clock(PLLOUTGLOBAL), .lock(LOCK));
    assign PLLOUTCORE = PLLOUTGLOBAL;
endmodule

// The same behind a pad.
module SB_PLL40_PAD (input PACKAGEPIN, RESETB, BYPASS, output PLLOUTGLOBAL, PLLOUTCORE, LOCK);
    parameter FEEDBACK_PATH = "SIMPLE";
    parameter DIVR = 0;
    parameter DIVF = 0;
    parameter DIVQ = 0;
    parameter FILTER_RANGE = 0;

    SB_PLL40_CORE #(
        .FEEDBACK_PATH(FEEDBACK_PATH), .DIVR(DIVR), .DIVF(DIVF), .DIVQ(DIVQ), .FILTER_RANGE(FILTER_RANGE)
    ) core (
        .REFERENCECLK(PACKAGEPIN), .RESETB(RESETB), .BYPASS(BYPASS), .PLLOUTGLOBAL(PLLOUTGLOBAL),
        .PLLOUTCORE(PLLOUTCORE), .LOCK(LOCK));
endmodule

// Lattice FPGA-TN-02200, sysCLOCK PLL guide: feedback of CLKOP, outside. Steps of phase, standby and the other outputs
// are left out.
module EHXPLLL (
    input CLKI, CLKFB, RST, STDBY, PHASESEL1, PHASESEL0, PHASEDIR, PHASESTEP, PHASELOADREG, PLLWAKESYNC, ENCLKOP,
    output CLKOP, LOCK
);
    parameter CLKI_DIV = 1;
    parameter CLKFB_DIV = 1;
    parameter CLKOP_DIV = 8;
    parameter CLKOP_ENABLE = "ENABLED";
    parameter CLKOP_CPHASE = 0; // not modelled, and CLKOP_FPHASE
    parameter CLKOP_FPHASE = 0;
    parameter FEEDBK_PATH = "CLKOP";
    parameter OUTDIVIDER_MUXA = "DIVA";
    parameter DPHASE_SOURCE = "DISABLED";
    parameter INTFB_WAKE = "DISABLED";
    parameter PLLRST_ENA = "DISABLED";
    parameter STDBY_ENABLE = "DISABLED";

    generate
        if (CLKOP_ENABLE != "ENABLED" || FEEDBK_PATH != "CLKOP" || OUTDIVIDER_MUXA != "DIVA" ||
            DPHASE_SOURCE != "DISABLED" || INTFB_WAKE != "DISABLED" || PLLRST_ENA != "DISABLED" ||
            STDBY_ENABLE != "DISABLED")
        begin : refused
            EHXPLLL_has_a_parameter_without_model refused();
        end
    endgenerate

    bfthw_pll #(.DIVIDE(CLKI_DIV), .MULTIPLY(CLKFB_DIV * CLKOP_DIV), .POST(CLKOP_DIV)) pll (
        .source(CLKI), .off(1'b0), .clock(CLKOP), .lock(LOCK));
endmodule

// Gowin UG286, clock user guide: feedback inside, of the output. The other outputs and what moves while it runs are
// left out.
module rPLL (
    input CLKIN, CLKFB, RESET, RESET_P, input [5:0] FBDSEL, IDSEL, ODSEL, input [3:0] PSDA, DUTYDA, FDLY,
    output CLKOUT, LOCK
);
    parameter FCLKIN = "";
    parameter DEVICE = "";
    parameter IDIV_SEL = 0;
    parameter FBDIV_SEL = 0;
    parameter ODIV_SEL = 8;
    parameter DYN_IDIV_SEL = "false";
    parameter DYN_FBDIV_SEL = "false";
    parameter DYN_ODIV_SEL = "false";
    parameter DYN_DA_EN = "false";
    parameter PSDA_SEL = "0000";
    parameter DUTYDA_SEL = "1000";
    parameter CLKFB_SEL = "internal";
    parameter CLKOUT_BYPASS = "false";
    parameter CLKOUTP_BYPASS = "false";
    parameter CLKOUTD_BYPASS = "false";
    parameter DYN_SDIV_SEL = 2;
    parameter CLKOUT_FT_DIR = 1'b1;
    parameter CLKOUTP_FT_DIR = 1'b1;
    parameter CLKOUT_DLY_STEP = 0;
    parameter CLKOUTP_DLY_STEP = 0;
    parameter CLKOUTD_SRC = "CLKOUT";
    parameter CLKOUTD3_SRC = "CLKOUT";

    generate
        if (DYN_IDIV_SEL != "false" || DYN_FBDIV_SEL != "false" || DYN_ODIV_SEL != "false" || DYN_DA_EN != "false" ||
            CLKFB_SEL != "internal" || CLKOUT_BYPASS != "false")
        begin : refused
            rPLL_has_a_parameter_without_model refused();
        end
    endgenerate

    bfthw_pll #(.DIVIDE(IDIV_SEL + 1), .MULTIPLY((FBDIV_SEL + 1) * ODIV_SEL), .POST(ODIV_SEL)) pll (
        .source(CLKIN), .off(RESET || RESET_P), .clock(CLKOUT), .lock(LOCK));
endmodule

// The GW5A's. Gowin UG306, clock user guide: feedback inside, of the oscillator behind MDIV and FBDIV.
module PLLA (
    input CLKIN, CLKFB, RESET, PLLPWD, RESET_I, RESET_O, PSDIR, PSPULSE, SSCPOL, SSCON, MDCLK, MDAINC,
    input [2:0] PSSEL, SSCMDSEL_FRAC, input [6:0] SSCMDSEL, input [1:0] MDOPC, input [7:0] MDWDI,
    output CLKOUT0, LOCK
);
    parameter FCLKIN = "";
    parameter IDIV_SEL = 1;
    parameter FBDIV_SEL = 1;
    parameter MDIV_SEL = 8;
    parameter ODIV0_SEL = 8;
    parameter ODIV1_SEL = 8, ODIV2_SEL = 8, ODIV3_SEL = 8, ODIV4_SEL = 8, ODIV5_SEL = 8, ODIV6_SEL = 8;
    parameter CLKOUT0_EN = "TRUE";
    parameter CLKOUT1_EN = "FALSE", CLKOUT2_EN = "FALSE", CLKOUT3_EN = "FALSE";
    parameter CLKOUT4_EN = "FALSE", CLKOUT5_EN = "FALSE", CLKOUT6_EN = "FALSE";
    parameter CLKFB_SEL = "INTERNAL";

    generate
        if (CLKFB_SEL != "INTERNAL" || CLKOUT0_EN != "TRUE") begin : refused
            PLLA_has_a_parameter_without_model refused();
        end
    endgenerate

    bfthw_pll #(.DIVIDE(IDIV_SEL), .MULTIPLY(FBDIV_SEL * MDIV_SEL), .POST(ODIV0_SEL)) pll (
        .source(CLKIN), .off(RESET || RESET_I || RESET_O || PLLPWD), .clock(CLKOUT0), .lock(LOCK));
endmodule
