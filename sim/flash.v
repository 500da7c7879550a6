// A core beside the SPI flash that it loads itself from, with the core's ports.
module @NAME@_beside_flash (
    input aclk, aresetn,
    input [@IN@:0] s_axis_tdata, input s_axis_tlast, s_axis_tvalid, output s_axis_tready,
    output [@OUT@:0] m_axis_tdata, output m_axis_tlast, m_axis_tuser, m_axis_tvalid, input m_axis_tready,
    output frame_error, output [15:0] frame_errors
);
    wire select, clock, to_flash, from_flash;
    @NAME@ core (
        .aclk(aclk), .aresetn(aresetn), .s_axis_tdata(s_axis_tdata), .s_axis_tlast(s_axis_tlast),
        .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready), .m_axis_tdata(m_axis_tdata),
        .m_axis_tlast(m_axis_tlast), .m_axis_tuser(m_axis_tuser), .m_axis_tvalid(m_axis_tvalid),
        .m_axis_tready(m_axis_tready), .frame_error(frame_error), .frame_errors(frame_errors), .saturated(),
        .flash_select(select), .flash_clock(clock), .flash_out(to_flash), .flash_in(from_flash)
    );

    spi_flash #(.FIRST(@FIRST@), .BYTES(@BYTES@), .FILE("@FILE@")) flash (
        .select(select), .clock(clock), .in(to_flash), .out(from_flash)
    );
endmodule
