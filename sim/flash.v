// A core beside the SPI flash that it loads itself from, with the core's ports. The flash knows two commands, release
// from power-down (AB) and read (03, three bytes of address), mode 0; it sleeps until it is woken, as after a
// configuration. JEDEC JESD216; Winbond W25Q128JV, 8.2.
module @NAME@_beside_flash (
    input aclk, aresetn,
    input [@IN@:0] s_axis_tdata, input s_axis_tlast, s_axis_tvalid, output s_axis_tready,
    output [@OUT@:0] m_axis_tdata, output m_axis_tlast, m_axis_tuser, m_axis_tvalid, input m_axis_tready,
    output frame_error, output [15:0] frame_errors
);
    wire select, clock, to_flash;
    reg from_flash;
    @NAME@ core (
        .aclk(aclk), .aresetn(aresetn), .s_axis_tdata(s_axis_tdata), .s_axis_tlast(s_axis_tlast),
        .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready), .m_axis_tdata(m_axis_tdata),
        .m_axis_tlast(m_axis_tlast), .m_axis_tuser(m_axis_tuser), .m_axis_tvalid(m_axis_tvalid),
        .m_axis_tready(m_axis_tready), .frame_error(frame_error), .frame_errors(frame_errors), .saturated(),
        .flash_select(select), .flash_clock(clock), .flash_out(to_flash), .flash_in(from_flash)
    );

    reg [7:0] content[0:@BYTES@ - 1];
    initial $readmemh("@FILE@", content);
    reg awake = 0, reading;
    reg [5:0] bits;
    reg [30:0] command;
    reg [26:0] at;  // of a bit
    wire [23:0] place = at[26:3] - 24'd@FIRST@;
    always @(posedge clock or posedge select)
        if (select) begin
            bits <= 0;
            reading <= 0;
        end else begin
            command <= {command[29:0], to_flash};
            if (!reading) bits <= bits + 1;
            if (bits == 7 && {command[6:0], to_flash} == 8'hab) awake <= 1;
            if (bits == 31) begin
                reading <= awake && command[30:23] == 8'h03;
                at <= {command[22:0], to_flash, 3'b0};
            end else at <= at + 1;
        end
    always @(negedge clock) from_flash <= reading && place < @BYTES@ && content[place][3'd7 - at[2:0]];
endmodule
