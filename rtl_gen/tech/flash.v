// A SPI flash that a core loads itself from, for simulation. It knows two commands, release from power-down (AB) and read
// (03, three bytes of address), in mode 0, and sleeps until it is woken, as after a configuration; what is asked of it
// otherwise, or elsewhere, is answered with zeros. JEDEC JESD216; Winbond W25Q128JV, 8.2.
module spi_flash #(parameter FIRST = 0, parameter BYTES = 1, parameter FILE = "") (
    input select, clock, in,
    output reg out
);
    reg [7:0] content[0:BYTES - 1];
    initial $readmemh(FILE, content);
    reg awake = 0, reading = 0;
    reg [5:0] bits = 0;
    reg [30:0] command = 0;
    reg [26:0] at = 0;  // of a bit
    wire [23:0] place = at[26:3] - FIRST[23:0];
    initial out = 0;
    always @(posedge clock or posedge select)
        if (select) begin
            bits <= 0;
            reading <= 0;
        end else begin
            command <= {command[29:0], in};
            if (!reading) bits <= bits + 1;
            if (bits == 7 && {command[6:0], in} == 8'hab) awake <= 1;
            if (bits == 31) begin
                reading <= awake && command[30:23] == 8'h03;
                at <= {command[22:0], in, 3'b0};
            end else at <= at + 1;
        end
    always @(negedge clock) out <= reading && {8'b0, place} < BYTES && content[place][3'd7 - at[2:0]];
endmodule
