// A board in Verilator: its UART pins behind a pseudo-terminal, whose name is printed first.
//
//   board CYCLES_A_BIT IDLE_CYCLES RESET_CYCLES
//
// Standard input takes commands: "break BITS" holds the line to the board low, after what was already received;
// "noise PPM SEED" inverts so many bits in a million, start and stop bits too, both ways. Each is answered with a line.
// The end of standard input is the end.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fcntl.h>
#include <poll.h>
#include <random>
#include <sstream>
#include <string>
#include <termios.h>
#include <unistd.h>

#include "Vboard.h"
#include "verilated.h"

static const size_t kHeld = 1 << 20;  // bytes kept for a host that does not read; what comes then is lost
static const int kBreak = 256;        // in the queue of bytes: above it, a break of so many bits

static std::mt19937 rng;
static uint32_t noise_ppm = 0;

static bool noisy(bool bit) { return noise_ppm && rng() % 1000000 < noise_ppm ? !bit : bit; }

// Bytes to the line of the board, a bit a call.
struct ToBoard {
    std::deque<int> queue;
    unsigned bits = 1, left = 0;

    bool step() {
        if (!left && !queue.empty()) {
            int next = queue.front();
            queue.pop_front();
            // a break is low for its bits, then high for one
            left = next < kBreak ? 10 : next - kBreak + 1;
            bits = next < kBreak ? 0x200 | next << 1 : 0;
            in_break = next >= kBreak;
        }
        bool level = true;
        if (left) {
            level = in_break ? left == 1 : bits & 1;
            bits >>= 1;
            left--;
        }
        return noisy(level);
    }

  private:
    bool in_break = false;
};

// The line of the board to bytes, a cycle a call.
struct FromBoard {
    unsigned wait = 0, left = 0, byte = 0;

    // Whether a byte is complete. What a receiver does with a wrong stop bit is up to it: this one delivers the byte.
    bool step(bool level, unsigned cycles) {
        if (!left) {
            if (!level) left = 9, wait = cycles + cycles / 2 - 1;
            return false;
        }
        if (wait--) return false;
        wait = cycles - 1;
        if (--left) byte = byte >> 1 | (noisy(level) ? 0x80 : 0);
        return !left;
    }
};

static int open_terminal(int *master) {
    *master = posix_openpt(O_RDWR | O_NOCTTY);
    if (*master < 0 || grantpt(*master) || unlockpt(*master)) return -1;
    // held open here too: else reading fails whenever no host is there
    int slave = open(ptsname(*master), O_RDWR | O_NOCTTY);
    termios raw;
    if (slave < 0 || tcgetattr(slave, &raw)) return -1;
    cfmakeraw(&raw);
    if (tcsetattr(slave, TCSANOW, &raw) || fcntl(*master, F_SETFL, O_NONBLOCK)) return -1;
    return 0;
}

static void command(const std::string &line, ToBoard &to) {
    std::istringstream words(line);
    std::string name;
    uint32_t first = 0, second = 0;
    words >> name >> first >> second;
    if (name == "break") to.queue.push_back(kBreak + static_cast<int>(first));
    if (name == "noise") noise_ppm = first, rng.seed(second);
    puts("ok");
    fflush(stdout);
}

int main(int argc, char **argv) {
    const unsigned cycles = argc == 4 ? atoi(argv[1]) : 0, idle = argc == 4 ? atoi(argv[2]) : 0;
    const uint64_t reset = argc == 4 ? atoi(argv[3]) : 0;  // until then nothing is sent to the board
    int master;
    if (!cycles || !idle || open_terminal(&master)) return perror("board: no pseudo-terminal, or wrong arguments"), 1;
    printf("%s\n", ptsname(master));
    fflush(stdout);

    VerilatedContext context;
    Vboard board(&context);
    ToBoard to;
    FromBoard from;
    std::string commands;
    std::deque<uint8_t> out;
    uint64_t moved = 0;
    board.rx = 1;
    for (uint64_t cycle = 0;; cycle++) {
        if (cycle % cycles == 0 && cycle > reset) {
            if (to.left || !to.queue.empty()) moved = cycle;
            board.rx = to.step();
        }
        board.rst = cycle < reset;
        board.clk = 0;
        board.eval();
        board.clk = 1;
        board.eval();
        if (from.left || !board.tx) moved = cycle;
        if (from.step(board.tx, cycles) && out.size() < kHeld) out.push_back(from.byte);

        if (cycle % (10 * cycles)) continue;
        // when nothing has moved for long, time stands still until somebody writes
        pollfd files[] = {{master, static_cast<short>(out.empty() ? POLLIN : POLLIN | POLLOUT), 0}, {0, POLLIN, 0}};
        if (poll(files, 2, cycle - moved > idle ? -1 : 0) <= 0) continue;
        char buffer[4096];
        if (files[0].revents & POLLIN && to.queue.size() < sizeof buffer) {
            ssize_t count = read(master, buffer, sizeof buffer);
            for (ssize_t n = 0; n < count; n++) to.queue.push_back(static_cast<uint8_t>(buffer[n]));
            moved = cycle;
        }
        if (files[0].revents & POLLOUT) {
            std::string some(out.begin(), out.begin() + std::min(out.size(), sizeof buffer));
            ssize_t count = write(master, some.data(), some.size());
            if (count > 0) out.erase(out.begin(), out.begin() + count);
        }
        if (files[1].revents) {
            ssize_t count = read(0, buffer, sizeof buffer);
            if (count <= 0) break;
            for (ssize_t n = 0; n < count; n++) {
                if (buffer[n] != '\n') commands += buffer[n];
                else command(commands, to), commands.clear(), moved = cycle;
            }
        }
    }
    board.final();
    return 0;
}
