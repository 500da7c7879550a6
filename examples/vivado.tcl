# A core through Vivado, without a project: synthesis, place and route of the core alone, reports, a checkpoint.
#
#   vivado -mode batch -source examples/vivado.tcl -tclargs build/fast/fast xc7a35ticsg324-1L build/vivado
#
# The first argument is the path of the core's files without their endings, the second the part, the third a folder.

if {[llength $argv] != 3} {
    puts stderr "needs CORE PART FOLDER: the path of the core's files without their endings, a part, a folder"
    exit 1
}
lassign $argv core part folder
set top [file tail $core]
file mkdir $folder

read_verilog $core.v
read_xdc $core.xdc

# alone: no pads, its ports are taken for wires of the design around it
synth_design -top $top -part $part -mode out_of_context
opt_design
place_design
route_design

report_utilization -hierarchical -file $folder/utilization.rpt
report_timing_summary -file $folder/timing.rpt
write_checkpoint -force $folder/$top.dcp

# paths from register to register: what comes from and goes to ports is the other design's to time
set path [get_timing_paths -from [all_registers -clock_pins] -to [all_registers -data_pins] -max_paths 1]
set slack [get_property SLACK $path]
puts "$top on $part: slack [format %.3f $slack] ns"
exit [expr {$slack < 0}]
