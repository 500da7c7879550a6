"""PLLs: their parameters from two frequencies, checked against the ranges of the data sheets, and their instances."""

from dataclasses import dataclass
from functools import cache

from .families import FAMILIES
from .families.family import within

TOLERANCE = 0.005  # of the frequency asked for


@dataclass(frozen=True, kw_only=True)
class Pll:
    """A PLL that makes `output_hz` of `input_hz`. family: of FAMILIES; parameters: its own names; vco_hz: its
    oscillator.
    """

    family: str
    input_hz: float
    output_hz: float
    vco_hz: float
    parameters: dict


@cache
def plan(family, input_hz, output_hz):
    """The Pll of a family nearest to `output_hz`, the one with the fastest comparison (least jitter) of equals.

    Raises ValueError, which names the nearest frequency there is, where none within 0.5 % is in the device's ranges.
    """
    ranges, found = FAMILIES[family].pll, []
    if not within(input_hz, ranges.input):
        raise ValueError(f"the PLL takes {ranges.input[0]} to {ranges.input[1]} MHz, got {input_hz / 1e6:g} MHz")
    for pfd, vco, out, parameters in FAMILIES[family].pll_candidates(input_hz):
        if within(pfd, ranges.pfd) and within(vco, ranges.vco) and within(out, ranges.output):
            found.append((round(abs(out - output_hz)), -pfd, vco, out, parameters))
    error, negative_pfd, vco, out, parameters = min(found, key=lambda candidate: candidate[:3])
    if error > TOLERANCE * output_hz:
        raise ValueError(
            f"the PLL cannot make {output_hz / 1e6:g} MHz of {input_hz / 1e6:g} MHz; the nearest is {out / 1e6:.6g} "
            f"MHz (it makes {ranges.output[0]} to {ranges.output[1]} MHz)"
        )
    return Pll(family=family, input_hz=input_hz, output_hz=out, vco_hz=vco, parameters=parameters)


def instance(pll, *, source, clock, locked, pad=False, device=""):
    """The primitive. source: the IO port where `pad` (iCE40), else a signal; clock, locked: signals it drives."""
    return FAMILIES[pll.family].pll_instance(pll, source=source, clock=clock, locked=locked, pad=pad, device=device)
