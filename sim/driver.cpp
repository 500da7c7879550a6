// The compiled side: plays recorded scenarios to the core and records what comes out, cycle for cycle as bench.py does.
//
//   driver JOB
//
// JOB is the folder that job.py describes.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "Vcore.h"
#include "verilated.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ports of any width are copied as bytes");

static std::string folder;

template <typename T>
static std::vector<T> load(const std::string &name) {
    std::ifstream file(folder + "/" + name, std::ios::binary | std::ios::ate);
    std::vector<T> values(file ? file.tellg() / sizeof(T) : 0);
    file.seekg(0).read(reinterpret_cast<char *>(values.data()), values.size() * sizeof(T));
    if (!file) fprintf(stderr, "driver: cannot read %s\n", name.c_str()), exit(1);
    return values;
}

template <typename T>
static void save(const std::string &name, const std::vector<T> &values) {
    std::ofstream file(folder + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
    if (!file.flush()) fprintf(stderr, "driver: cannot write %s\n", name.c_str()), exit(1);
}

struct Ports {
    uint64_t in, out;  // bytes of TDATA
};

struct Scenario {  // a row, see job.py
    uint64_t beats, frames, stall, seed, reset, cycles;
};

// Bytes in which Verilator keeps so many of a port: a power of two up to 8, then words of 4.
static size_t storage(uint64_t bytes) {
    size_t size = 1;
    while (size < bytes && size < 8) size *= 2;
    return size < bytes ? (bytes + 3) / 4 * 4 : size;
}

// The sequence of `stalls` in bench.py.
struct Stalls {
    uint64_t below, state;

    bool operator()() {
        if (!below) return false;
        state = state * 6364136223846793005u + 1442695040888963407u;
        return state >> 32 < below;
    }
};

struct Core {
    VerilatedContext context;
    Vcore top{&context};
    Ports ports = load<Ports>("ports").at(0);
    int64_t cycle = 0;

    // What is driven now is what the rising edge acts upon; what is read next is what it left.
    void tick() {
        top.aclk = 0;
        top.eval();
        top.aclk = 1;
        top.eval();
        if (++cycle % 16384 == 0) std::ofstream(folder + "/progress") << cycle;
    }

    void reset() {
        top.s_axis_tvalid = top.s_axis_tlast = top.m_axis_tready = top.aresetn = 0;
        memset(&top.s_axis_tdata, 0, sizeof top.s_axis_tdata);
        for (int n = 0; n < 4; n++) tick();
        top.aresetn = 1;
        tick();
    }

    void play(const Scenario &scenario, const std::string &number) {
        const auto data = load<uint8_t>("data_" + number), last = load<uint8_t>("last_" + number);
        std::vector<uint8_t> bytes, flags;
        std::vector<int64_t> accepted_at, seen_at;
        Stalls stalled{scenario.stall, scenario.seed};
        const int64_t limit = cycle + scenario.cycles;
        uint64_t index = 0, ended = 0;
        bool offered = false, seen = false;
        while (ended < scenario.frames && cycle < limit) {
            // input: a beat once offered stays
            if (!offered && index < scenario.beats && !stalled()) {
                memcpy(&top.s_axis_tdata, &data[index * ports.in], ports.in);
                top.s_axis_tlast = last[index];
                offered = true;
            }
            top.s_axis_tvalid = offered;
            top.m_axis_tready = !stalled();
            const bool accepted = offered && top.s_axis_tready;
            if (top.m_axis_tvalid) {
                if (!seen) seen_at.push_back(cycle);
                seen = !top.m_axis_tready;
                if (!seen) {
                    const auto *beat = reinterpret_cast<const uint8_t *>(&top.m_axis_tdata);
                    bytes.insert(bytes.end(), beat, beat + ports.out);
                    flags.push_back(top.m_axis_tlast);
                    flags.push_back(top.m_axis_tuser);
                    ended += top.m_axis_tlast;
                }
            }
            if (accepted) accepted_at.push_back(cycle);
            tick();
            index += accepted;
            offered = offered && !accepted;
        }
        top.s_axis_tvalid = 0;
        save("bytes_" + number, bytes);
        save("flags_" + number, flags);
        save("accepted_" + number, accepted_at);
        save("seen_" + number, seen_at);
        save("errors_" + number, std::vector<int64_t>{top.frame_error, top.frame_errors});
    }
};

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "driver JOB\n"), 1;
    folder = argv[1];
    Core core;
    const size_t in = sizeof core.top.s_axis_tdata, out = sizeof core.top.m_axis_tdata;
    if (in != storage(core.ports.in) || out != storage(core.ports.out))
        return fprintf(stderr, "driver: TDATA of the core is not as wide as the job says\n"), 1;
    const auto scenarios = load<Scenario>("scenarios");
    for (size_t n = 0; n < scenarios.size(); n++) {
        if (scenarios[n].reset) core.reset();
        core.play(scenarios[n], std::to_string(n));
    }
    save("cycles", std::vector<int64_t>{core.cycle});
    core.top.final();
    return 0;
}
