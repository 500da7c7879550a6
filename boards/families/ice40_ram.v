// A block RAM as Yosys' memory_libmap leaves it ($__ICE40_RAM4K_, the interface of its ice40/brams.txt), as SB_RAM40_4K.
// Yosys' own map takes a second and more for the contents of each block, bit by bit of all 4096; this one goes by rows
// and words, in a tenth of that. Blocks that it does not know, of the other edges of a clock, are left to Yosys' own.
// Places of bits: Lattice TN1250, Memory Usage Guide for iCE40, tables of the modes 256x16 to 2048x2.
module \$__ICE40_RAM4K_ #(
  parameter INIT = 0, OPTION_HAS_BE = 0, PORT_R_WIDTH = 16, PORT_W_WIDTH = 16, PORT_W_WR_BE_WIDTH = 16,
  PORT_R_CLK_POL = 1, PORT_W_CLK_POL = 1
) (
  input PORT_R_CLK, PORT_R_RD_EN, PORT_W_CLK, PORT_W_WR_EN, input [10:0] PORT_R_ADDR, PORT_W_ADDR,
  input [PORT_W_WIDTH-1:0] PORT_W_WR_DATA, input [PORT_W_WR_BE_WIDTH-1:0] PORT_W_WR_BE,
  output [PORT_R_WIDTH-1:0] PORT_R_RD_DATA
);
  wire _TECHMAP_FAIL_ = !PORT_R_CLK_POL || !PORT_W_CLK_POL;

  wire [15:0] rdata, wdata, enabled, mask;

  function [1:0] mode(input integer width);
    for (mode = 0; width < 16; width = width * 2) mode = mode + 1;
  endfunction
  // of a bit of a word of that width in the block's 16: its number's bits turned round, then above what is unused
  function integer place(input integer n, width);
    place = (n & 1) * 8 + (n & 2) * 2 + (n & 4) / 2 + (n & 8) / 8 + (width == 4 ? 1 : width == 2 ? 3 : 0);
  endfunction
  function [15:0] turned(input [15:0] w);
    turned = {w[15], w[7], w[11], w[3], w[13], w[5], w[9], w[1], w[14], w[6], w[10], w[2], w[12], w[4], w[8], w[0]};
  endfunction
  function [255:0] row(input [255:0] words);
    integer n;
    for (n = 0; n < 256; n = n + 16) row[n +: 16] = turned(words[n +: 16]);
  endfunction

  genvar n;
  generate
    for (n = 0; n < PORT_R_WIDTH; n = n + 1) assign PORT_R_RD_DATA[n] = rdata[place(n, PORT_R_WIDTH)];
    for (n = 0; n < PORT_W_WIDTH; n = n + 1) assign wdata[place(n, PORT_W_WIDTH)] = PORT_W_WR_DATA[n];
    if (PORT_W_WIDTH == 16) begin
      for (n = 0; n < 16; n = n + 1) assign enabled[place(n, 16)] = PORT_W_WR_BE[n];
      assign mask = ~enabled;
    end
  endgenerate

  SB_RAM40_4K #(
    .READ_MODE(mode(PORT_R_WIDTH)), .WRITE_MODE(mode(PORT_W_WIDTH)),
    .INIT_0(row(INIT[256 * 'h0 +: 256])), .INIT_1(row(INIT[256 * 'h1 +: 256])), .INIT_2(row(INIT[256 * 'h2 +: 256])),
    .INIT_3(row(INIT[256 * 'h3 +: 256])), .INIT_4(row(INIT[256 * 'h4 +: 256])), .INIT_5(row(INIT[256 * 'h5 +: 256])),
    .INIT_6(row(INIT[256 * 'h6 +: 256])), .INIT_7(row(INIT[256 * 'h7 +: 256])), .INIT_8(row(INIT[256 * 'h8 +: 256])),
    .INIT_9(row(INIT[256 * 'h9 +: 256])), .INIT_A(row(INIT[256 * 'hA +: 256])), .INIT_B(row(INIT[256 * 'hB +: 256])),
    .INIT_C(row(INIT[256 * 'hC +: 256])), .INIT_D(row(INIT[256 * 'hD +: 256])), .INIT_E(row(INIT[256 * 'hE +: 256])),
    .INIT_F(row(INIT[256 * 'hF +: 256]))
  ) _TECHMAP_REPLACE_ (
    .RCLK(PORT_R_CLK), .RCLKE(PORT_R_RD_EN), .RE(1'b1), .RDATA(rdata),
    .RADDR({PORT_R_ADDR[0], PORT_R_ADDR[1], PORT_R_ADDR[2], PORT_R_ADDR[10:3]}),
    .WCLK(PORT_W_CLK), .WCLKE(PORT_W_WR_EN), .WE(1'b1), .WDATA(wdata), .MASK(mask),
    .WADDR({PORT_W_ADDR[0], PORT_W_ADDR[1], PORT_W_ADDR[2], PORT_W_ADDR[10:3]})
  );
endmodule
