"""The serial line and COBS in hardware, against pyserial's bits and the `cobs` package's bytes."""

import random

import pytest
from amaranth.sim import Simulator
from cobs import cobs

from boards.cobs import CobsDecoder, CobsEncoder
from boards.uart import UartRx, UartTx, cycles_a_bit


def line_bits(byte, stop=1):
    """Start bit, data with the lowest first, stop bit."""
    return [0, *((byte >> n) & 1 for n in range(8)), stop]


def simulate(component, *benches):
    sim = Simulator(component)
    sim.add_clock(1e-6)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


def receive(cycles, levels):
    """What a UartRx makes of line levels, one a cycle: bytes, and None for an error."""
    uart, seen = UartRx(cycles), []

    async def bench(ctx):
        for level in levels:
            ctx.set(uart.rx, level)
            await ctx.tick()
            if ctx.get(uart.valid):
                seen.append(ctx.get(uart.data))
            if ctx.get(uart.error):
                seen.append(None)

    simulate(uart, bench)
    return seen


@pytest.mark.parametrize("cycles", [4, 5, 8, 16, 104])
def test_receive_bytes_back_to_back(cycles):
    data = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80, *random.Random(cycles).randbytes(12)]
    levels = [1] * 7 + [bit for byte in data for bit in line_bits(byte) for _ in range(cycles)] + [1] * 4 * cycles
    assert receive(cycles, levels) == data


@pytest.mark.parametrize("stretch", [0.97, 1.03], ids=["fast sender", "slow sender"])
def test_receive_from_a_clock_that_is_off(stretch):
    cycles, data = 16, list(random.Random(3).randbytes(20))
    bits = [1, *(bit for byte in data for bit in line_bits(byte)), 1, 1]
    levels = [bits[int(t / (cycles * stretch))] for t in range(int(len(bits) * cycles * stretch) - 1)]
    assert receive(cycles, levels) == data


def test_break_is_one_error_and_then_bytes_come_again():
    cycles = 8
    levels = (
        [1] * 9 + [0] * 40 * cycles + [1] * 2 * cycles + [b for b in line_bits(0x42) for _ in range(cycles)] + [1] * 30
    )
    assert receive(cycles, levels) == [None, 0x42]


def test_glitch_is_no_start_bit():
    cycles = 16
    levels = [1] * 9 + [0] * 5 + [1] * 200 + [b for b in line_bits(0x17) for _ in range(cycles)] + [1] * 40
    assert receive(cycles, levels) == [0x17]


@pytest.mark.parametrize("cycles", [4, 5, 16])
def test_send(cycles):
    uart, data, levels = UartTx(cycles), list(random.Random(cycles).randbytes(8)), []

    async def feed(ctx):
        for byte in data:
            ctx.set(uart.i.payload, byte)
            ctx.set(uart.i.valid, 1)
            await ctx.tick().until(uart.i.ready)
        ctx.set(uart.i.valid, 0)

    async def watch(ctx):
        for _ in range(cycles * 10 * (len(data) + 1)):
            levels.append(ctx.get(uart.tx))
            await ctx.tick()

    simulate(uart, feed, watch)
    assert receive(cycles, [1] * 5 + levels + [1] * 5) == data
    # no more than a cycle between a stop bit and the next start bit
    assert sum(levels[: levels.index(0)]) <= 2
    gap = len(bytes(levels).rstrip(b"\1")) - levels.index(0)
    assert gap <= len(data) * (10 * cycles + 1)


def test_baud_rates_that_a_clock_can_and_cannot_make():
    assert cycles_a_bit(12_000_000, 1_000_000) == 12
    assert cycles_a_bit(12_000_000, 115_200) == 104
    assert cycles_a_bit(48_000_000, 3_000_000) == 16
    with pytest.raises(ValueError, match="7 cycles a bit.*exact"):
        cycles_a_bit(12_000_000, 1_843_200)
    with pytest.raises(ValueError, match="4 cycles or more"):
        cycles_a_bit(12_000_000, 6_000_000)


CASES = [b"\0", b"\0\0", b"a", b"a\0", b"\0a", bytes(254 * [7]), bytes(255 * [7]), bytes(254 * [7]) + b"\0", bytes(600)]
CASES += [bytes(253 * [1]) + b"\0", bytes(508 * [3]), bytes(range(256)) * 3]


def case_id(data):
    return f"{len(data)} bytes {data[:3].hex()}"


@pytest.mark.parametrize("stall", [0, 0.5])
@pytest.mark.parametrize("data", CASES + [random.Random(n).randbytes(40 * n + 1) for n in range(4)], ids=case_id)
def test_encode(data, stall):
    encoder, got, rng = CobsEncoder(), [], random.Random(1)

    async def feed(ctx):
        for n, byte in enumerate(data):
            ctx.set(encoder.i.payload.data, byte)
            ctx.set(encoder.i.payload.last, n == len(data) - 1)
            ctx.set(encoder.i.valid, 1)
            await ctx.tick().until(encoder.i.ready)
        ctx.set(encoder.i.valid, 0)

    async def drain(ctx):
        for _ in range(20 * len(data) + 100):
            ctx.set(encoder.o.ready, rng.random() >= stall)
            _, _, ready, valid, byte = await ctx.tick().sample(encoder.o.ready, encoder.o.valid, encoder.o.payload)
            if ready and valid:
                got.append(byte)

    simulate(encoder, feed, drain)
    assert got[-1] == 0 and got.count(0) == 1
    assert cobs.decode(bytes(got[:-1])) == data


@pytest.mark.parametrize("data", CASES + [random.Random(n).randbytes(30 * n) for n in range(4)], ids=case_id)
def test_decode(data):
    decoder, got, ends = CobsDecoder(), [], []

    async def bench(ctx):
        # a frame, an empty one, one that ends in the middle of a block, and a whole one again
        cut = cobs.encode(b"12345")[:3]
        for byte in cobs.encode(data) + b"\0" + b"\0" + cut + b"\0" + cobs.encode(b"ok\0") + b"\0":
            ctx.set(decoder.i_data, byte)
            ctx.set(decoder.i_valid, 1)
            if ctx.get(decoder.o_valid):
                got.append(ctx.get(decoder.o_data))
            if ctx.get(decoder.end):
                ends.append((ctx.get(decoder.cut), ctx.get(decoder.empty), bytes(got)))
                got.clear()
            await ctx.tick()
            ctx.set(decoder.i_valid, 0)
            await ctx.tick()

    simulate(decoder, bench)
    assert ends[0] == (0, 0, data)
    assert ends[1] == (0, 1, b"")
    assert ends[2][0] == 1
    assert ends[3] == (0, 0, b"ok\0")
