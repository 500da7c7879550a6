// A core of one diagonal factor for VECTORS vectors side by side: of a beat, element lane * VECTORS + e is of vector e.
// Written by hand: a beat is held until it is taken, so that two cycles a beat are the fastest.
module core(
  input aclk,
  input aresetn,
  input [8*LANES*VECTORS-1:0] s_axis_tdata,
  input s_axis_tlast,
  input s_axis_tvalid,
  output s_axis_tready,
  output [16*LANES*VECTORS-1:0] m_axis_tdata,
  output m_axis_tlast,
  output m_axis_tuser,
  output m_axis_tvalid,
  input m_axis_tready,
  output reg frame_error,
  output reg [15:0] frame_errors
);
  parameter LANES = @LANES@, VECTORS = @VECTORS@, BEATS = @BEATS@;

  reg [15:0] beat;
  reg padding, dropping, held, last, user;
  wire [10*LANES*VECTORS-1:0] values;

  wire full = beat == BEATS - 1;
  wire accepted = s_axis_tvalid & s_axis_tready;
  wire moved = ~held & (padding | (accepted & ~dropping));
  wire ended = moved & ~padding & (full | s_axis_tlast);

  assign s_axis_tready = aresetn & (dropping | (~held & ~padding));
  assign m_axis_tvalid = held;
  assign m_axis_tlast = last;
  assign m_axis_tuser = user;

  genvar n;
  generate
    for (n = 0; n < LANES * VECTORS; n = n + 1) begin : out
      assign m_axis_tdata[16*n +: 16] = {{6{values[10*n+9]}}, values[10*n +: 10]};
    end
  endgenerate

  layers #(.LANES(LANES), .VECTORS(VECTORS), .BEATS(BEATS)) network(
    .clock(aclk), .valid(moved), .beat(beat), .data(padding ? {8*LANES*VECTORS{1'b0}} : s_axis_tdata), .values(values)
  );

  always @(posedge aclk)
    if (~aresetn) begin
      {beat, padding, dropping, held, last, user, frame_error, frame_errors} <= 0;
    end else begin
      if (held & m_axis_tready) held <= 0;
      if (moved) begin
        held <= 1;
        beat <= full ? 0 : beat + 1;
        last <= full;
        user <= full & (padding | ~s_axis_tlast);
      end
      if (padding) padding <= ~(moved & full);
      else if (dropping) dropping <= ~(accepted & s_axis_tlast);
      else if (accepted) begin
        padding <= s_axis_tlast & ~full;
        dropping <= full & ~s_axis_tlast;
      end
      if (ended & (full != s_axis_tlast)) begin
        frame_error <= 1;
        frame_errors <= frame_errors + 1;
      end
    end
endmodule

module layers(clock, valid, beat, data, values);
  parameter LANES = 1, VECTORS = 1, BEATS = 1;
  input clock, valid;
  input [15:0] beat;
  input [8*LANES*VECTORS-1:0] data;
  output [10*LANES*VECTORS-1:0] values;
  wire ignored;

  factor #(.LANES(LANES), .VECTORS(VECTORS), .BEATS(BEATS)) stage_0(
    .clock(clock), .valid(valid), .beat(beat), .data(data), .o__valid(ignored), .o__payload(values)
  );
endmodule

module factor(clock, valid, beat, data, o__valid, o__payload);
  parameter LANES = 1, VECTORS = 1, BEATS = 1;
  input clock, valid;
  input [15:0] beat;
  input [8*LANES*VECTORS-1:0] data;
  output reg o__valid;
  output reg [10*LANES*VECTORS-1:0] o__payload;

  wire [4*LANES*BEATS-1:0] weights = @WEIGHTS@;
  always @(posedge clock) o__valid <= valid;

  genvar lane, e;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
      wire signed [3:0] weight = weights[4*(beat * LANES + lane) +: 4];
      for (e = 0; e < VECTORS; e = e + 1) begin : vectors
        wire signed [5:0] x = data[8*(lane * VECTORS + e) +: 6];
        wire signed [9:0] product = weight * x;
        always @(posedge clock) if (valid) o__payload[10*(lane * VECTORS + e) +: 10] <= product;
      end
    end
  endgenerate
endmodule
