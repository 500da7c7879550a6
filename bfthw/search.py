"""Mixed precision: the bits of each factor's weights, spent where they help most."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import ArrayLike

from .calibrate import Calibration
from .network import Layer, Network, equalise
from .noise import output_sqnr
from .quantize import choose_formats, quantise
from .settings import LayerSettings, Settings

WIDTHS = range(2, 17)  # bits of a weight that are tried


@dataclass(frozen=True, kw_only=True, repr=False)
class Found:
    """bits: of each factor's weights, in order. rom_bits: of all weights. sqnr: dB on the calibration data.

    multipliers: see `shares`. uniform: (bits, dB) of the best network within the same budget whose weights all have one
    width, None where there is none. settings: what gives this network, for `prepare` and as TOML.
    """

    bits: tuple[int, ...]
    rom_bits: int
    multipliers: float
    sqnr: float
    uniform: tuple | None
    settings: Settings

    def __repr__(self):
        return f"<Found: weights of {', '.join(map(str, self.bits))} bits, {self.rom_bits} in all, {self.sqnr:.1f} dB>"


def search(
    network: Network, calibration: ArrayLike, *, rom_bits: int | None = None, multipliers: float | None = None,
    min_sqnr: float | None = None, settings: Settings | None = None, pairs: Callable[[int], int] | None = None,
    progress: Callable[[float], object] | None = None,
) -> Found:
    """The bits of weights, 2 to 16 a factor, with the highest SQNR within a budget, or the fewest that reach an SQNR.

    network: float. calibration: floats (N, inputs). rom_bits: of all factors' weights together, at most; multipliers:
    by `shares`, at most; min_sqnr: in dB, reached with the fewest ROM bits. settings: all but the weights' bits.
    pairs: bits of an input -> the most bits of weights with which two products share a multiplier, as the hardware has
    it (rtl_gen.engines.pairs.pair_bits for a target); needed for `multipliers`, without it nothing is shared. Where
    settings have `paired`, folded layers get no more bits than that, whatever the budget, as they could not be built.
    progress: called with the fraction done.

    The noise of factor m at b bits is measured with all others at the most bits. Noises of different factors are taken
    to add up; bits are then taken away, from all factors at the most, where the least noise comes for a bit of ROM
    (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans. ASSP 36(9), 1988),
    until the budget holds. Last, bits that are left and exchanges between two factors are kept where the SQNR,
    measured, rises. It is never below the best uniform width's: where that is better, the last step starts there.
    Raises ValueError where there is nothing to hold or a budget is below what the fewest bits need.
    """
    if rom_bits is None and multipliers is None and min_sqnr is None:
        raise ValueError("search: name a budget of ROM bits, of multipliers, or an SQNR to reach")
    if rom_bits is not None and min_sqnr is not None:
        raise ValueError(
            "search: a budget of ROM bits and an SQNR to reach exclude each other: one follows from the other"
        )
    if multipliers is not None and pairs is None:
        raise ValueError("search: a budget of multipliers needs `pairs`, which says what the hardware lets share one")
    settings = settings or Settings()
    if settings.given & {"weight_bits"}:
        raise ValueError("search: weight_bits is what is searched for; the settings must leave it out")
    settings.check_layers([node.name for node in network.nodes])
    ways = [way for way in (False, True) if settings.equalise in (None, way)]
    found = []  # (trial, bits)
    for n, way in enumerate(ways):
        trial = _Trial(network, settings, calibration, pairs, equalised=way)
        step = (lambda done, n=n: progress((n + done) / len(ways))) if progress else (lambda done: None)
        found.append((trial, _search(trial, rom_bits, multipliers, min_sqnr, step)))
    best = max(trial.sqnr(bits) for trial, bits in found)
    if min_sqnr is not None and best < min_sqnr:
        raise ValueError(
            f"search: an SQNR of {min_sqnr:g} dB is out of reach: weights of all the bits there may be give "
            f"{best:.1f} dB; wider inputs and activations, or more multipliers, can raise it"
        )
    uniform = [pair for trial, _ in found for pair in trial.uniform(rom_bits, multipliers, min_sqnr)]
    if min_sqnr is None:
        trial, bits = max(found, key=lambda pair: pair[0].sqnr(pair[1]))
        uniform.sort(key=lambda pair: -pair[1])
    else:
        reached = [(trial, bits) for trial, bits in found if trial.sqnr(bits) >= min_sqnr]
        trial, bits = min(reached, key=lambda pair: pair[0].rom_bits(pair[1]))
        uniform.sort()
    return Found(
        bits=bits,
        rom_bits=trial.rom_bits(bits),
        multipliers=shares(bits, trial.narrow),
        sqnr=trial.sqnr(bits),
        uniform=next(iter(uniform), None),
        settings=trial.with_bits(bits),
    )


def shares(bits: Iterable[int], narrow: Iterable[int]) -> float:
    """Multipliers for one product a cycle in every factor: 1, or 1/2 where weights are so narrow that two share one."""
    return sum(0.5 if own <= width else 1.0 for own, width in zip(bits, narrow))


class _Trial:
    """A network with settings and calibration data, at any bits of weights; remembers what was measured."""

    def __init__(self, network, settings, calibration, pairs, *, equalised):
        self.network = equalise(network) if equalised else network
        self.settings = settings.model_copy(update={"equalise": equalised})
        self.data, self._known = Calibration(self.network, calibration), {}
        factors = [factor for layer in network.layers for factor in layer.chain.factors]
        self.sizes = np.array([factor.values.size for factor in factors])
        self.most, self.narrow = (), []

        def step(node, *widths):
            if not isinstance(node, Layer):
                return max(*widths, 0)
            count = len(node.chain.factors)
            *inner, after = settings.of_factors(node.name, "activation_bits", count)
            # factors of a layer take turns on one engine, whose multipliers take the widest of their inputs
            self.narrow += [pairs(max(widths[0], *inner, 0)) if pairs else 0] * count
            self.most += (self._most(node.name) if pairs else WIDTHS[-1],) * count
            return after

        for _ in network.walk(settings.input_bits, step):
            pass

    def _most(self, name):
        """Bits of the weights of the layer that came last, at most: an engine that is paired pairs all products."""
        own = self.settings.layer(name)
        if not own.paired or own.engine != "folded":
            return WIDTHS[-1]
        if self.narrow[-1] < WIDTHS[0]:
            raise ValueError(
                f"search: layer {name!r}: its inputs leave no bits for two products a multiplier, as `paired` wants"
            )
        return min(WIDTHS[-1], self.narrow[-1])

    def rom_bits(self, bits):
        return int(self.sizes @ np.array(bits))

    def with_bits(self, bits):
        """The settings with these bits of weights."""
        left, layers = list(bits), {}
        for layer in self.network.layers:
            given = self.settings.layers.get(layer.name, LayerSettings()).model_dump(exclude_unset=True)
            layers[layer.name] = LayerSettings(**given, weight_bits=[left.pop(0) for _ in layer.chain.factors])
        return Settings(**self.settings.model_dump(exclude_unset=True) | {"layers": layers})

    def sqnr(self, bits):
        """dB of the whole network on the calibration data."""
        if bits not in self._known:
            integers = quantise(self.network, choose_formats(self.network, self.with_bits(bits), self.data))
            self._known[bits] = output_sqnr(integers, self.data.vectors, self.data.wanted)
        return self._known[bits]

    def uniform(self, rom_bits, multipliers, min_sqnr):
        """[(bits, dB)] of the best uniform width within the budget, or none."""
        fits = [
            width
            for width in range(WIDTHS[0], min(self.most) + 1)
            if (rom_bits is None or self.rom_bits((width,) * len(self.sizes)) <= rom_bits)
            and (multipliers is None or shares((width,) * len(self.sizes), self.narrow) <= multipliers)
        ]
        pairs = [(width, self.sqnr((width,) * len(self.sizes))) for width in fits]
        if min_sqnr is not None:
            return [pair for pair in pairs if pair[1] >= min_sqnr][:1]
        return [max(pairs, key=lambda pair: pair[1])] if pairs else []


def _search(trial, rom_bits, multipliers, min_sqnr, progress):
    """Bits of each factor: the best within the budget, or the fewest for the SQNR (all, where none reach it)."""
    count, least = len(trial.sizes), (WIDTHS[0],) * len(trial.sizes)
    if rom_bits is not None and rom_bits < (needed := trial.rom_bits(least)):
        raise ValueError(
            f"search: {rom_bits} ROM bits are impossible: {trial.sizes.sum()} weights of {WIDTHS[0]} bits need {needed}"
        )
    if multipliers is not None and multipliers < (needed := shares(least, trial.narrow)):
        raise ValueError(
            f"search: {multipliers:g} multipliers are impossible: {count} factors need {needed:g} with two products in "
            "each multiplier, where the bits of activations allow it"
        )
    noise = np.empty((count, WIDTHS[-1] + 1))
    for m in range(count):
        for width in WIDTHS:
            bits = (*trial.most[:m], width, *trial.most[m + 1 :])
            noise[m, width] = 10 ** (-trial.sqnr(bits) / 10)
        progress(0.8 * (m + 1) / count)
    caps = _caps(trial, noise, multipliers)
    if min_sqnr is not None:
        return _fewest(trial, _path(trial, noise, caps), trial.uniform(None, multipliers, min_sqnr), min_sqnr)
    bits = caps
    for bits in _path(trial, noise, caps):
        if rom_bits is None or trial.rom_bits(bits) <= rom_bits:
            break
    for width, sqnr in trial.uniform(rom_bits, multipliers, None):
        if sqnr > trial.sqnr(bits):
            bits = (width,) * count
            if multipliers is not None:  # it may be other factors that are narrow
                caps = tuple(n if width <= n else most for n, most in zip(trial.narrow, trial.most))
    return _refined(trial, noise, caps, bits, np.inf if rom_bits is None else rom_bits)


def _caps(trial, noise, multipliers):
    """The most bits of each factor: narrow where that brings the least noise, as often as the multipliers ask for."""
    caps = list(trial.most)
    if multipliers is not None:
        able = [m for m, width in enumerate(trial.narrow) if width >= WIDTHS[0]]
        able.sort(key=lambda m: noise[m, trial.narrow[m]])
        for m in able[: max(0, ceil(2 * (len(caps) - multipliers)))]:
            caps[m] = trial.narrow[m]
    return tuple(caps)


def _path(trial, noise, bits):
    """From given bits down to the fewest, each time where a bit of ROM costs the least noise.

    Where noise is not convex, several bits go at once.
    """
    yield bits
    while max(bits) > WIDTHS[0]:
        steps = [(m, width) for m, own in enumerate(bits) for width in range(WIDTHS[0], own)]
        m, width = min(
            steps, key=lambda s: (noise[s] - noise[s[0], bits[s[0]]]) / (trial.sizes[s[0]] * (bits[s[0]] - s[1]))
        )
        bits = (*bits[:m], width, *bits[m + 1 :])
        yield bits


def _fewest(trial, path, uniform, min_sqnr):
    """The cheapest bits that reach the SQNR, of a path and of uniform widths, and what can be left out of them."""
    path = list(path)
    if trial.sqnr(path[0]) < min_sqnr:
        return path[0]
    good, bad = 0, len(path)  # along the path the SQNR falls, but for little: halve it
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if trial.sqnr(path[middle]) >= min_sqnr else (good, middle)
    bits = min([path[good], *((width,) * len(trial.sizes) for width, _ in uniform)], key=trial.rom_bits)
    while True:  # a bit less in one factor, the largest first, as long as it holds
        fewer = [(*bits[:m], w - 1, *bits[m + 1 :]) for m, w in enumerate(bits) if w > WIDTHS[0]]
        fewer = next((b for b in sorted(fewer, key=trial.rom_bits) if trial.sqnr(b) >= min_sqnr), None)
        if fewer is None:
            return bits
        bits = fewer


def _refined(trial, noise, caps, bits, rom_bits):
    """Bits raised where the budget leaves room, or by what another factor gives up, while the measured SQNR rises."""

    def raised(bits):
        for m, width in enumerate(bits):
            if width < caps[m]:
                up = (*bits[:m], width + 1, *bits[m + 1 :])
                yield up
                for k, other in enumerate(up):
                    if k != m:
                        # as few bits less as the budget asks for
                        less = (
                            max(1, ceil((trial.rom_bits(up) - rom_bits) / trial.sizes[k])) if rom_bits < np.inf else 1
                        )
                        if other - less >= WIDTHS[0]:
                            yield (*up[:k], other - less, *up[k + 1 :])

    def expected(bits):
        return sum(noise[m, width] for m, width in enumerate(bits))

    for _ in range(4 * len(bits)):
        moves = sorted((b for b in raised(bits) if trial.rom_bits(b) <= rom_bits), key=expected)
        better = next((b for b in moves[: 3 * len(bits)] if trial.sqnr(b) > trial.sqnr(bits)), None)
        if better is None:
            break
        bits = better
    return bits
