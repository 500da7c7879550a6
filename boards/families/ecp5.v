// Models of the cells of an ECP5 that a build puts into a netlist behind Yosys, and of which Yosys has none.

// What brings a net onto a clock net. Lattice FPGA-TN-02200, sysCLOCK PLL/DLL usage guide: DCCA; CE low holds it low.
module DCCA (input CLKI, input CE, output CLKO);
    assign CLKO = CLKI & CE;
endmodule
