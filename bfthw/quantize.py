"""Float network to integers: choose formats, apply them, report what it cost."""

import warnings

from .calibrate import Calibration, Data
from .check import Check, QuantisationWarning, check
from .choose import choose_formats, weight_format  # noqa: F401 (asked for here)
from .formats import (  # noqa: F401 (asked for here)
    FactorFormats,
    Formats,
    LayerFormats,
    apply_formats,
    check_fits,
    finish,
    formats_of,
    quantise,
    quantise_factor,
    row_exponents,
)
from .golden import IntNetwork
from .network import Network, equalise
from .noise import output_sqnr, report  # noqa: F401 (asked for here)
from .settings import Settings


def compile(
    network: Network, *, settings: Settings | None = None, calibration: Data | None = None,
    formats: Formats | None = None, allow_constant: bool = False,
) -> IntNetwork:
    """A float network to an IntNetwork; see `prepare` for the choice of formats.

    Emits a `bfthw.check.QuantisationWarning` for each warning and note of `bfthw.check.check`. Raises ValueError where
    every output is constant in integers and not in floats, unless allow_constant.
    """
    *_, integers, found = checked(network, settings=settings, calibration=calibration, formats=formats)
    for line in (*found.notes, *found.warnings):
        warnings.warn(line, QuantisationWarning, stacklevel=2)
    if found.refusal and not allow_constant:
        raise ValueError(found.refusal)
    return integers


def checked(
    network: Network, *, settings: Settings | None = None, calibration: Data | None = None,
    formats: Formats | None = None,
) -> tuple[Network, Formats, IntNetwork, Check]:
    """(network, Formats, IntNetwork, Check): what `prepare` returned, quantised, and what is to be said of it."""
    prepared, chosen = prepare(network, settings=settings, calibration=calibration, formats=formats)
    integers = quantise(prepared, chosen)

    def again(settings, calibration):
        return quantise(*prepare(network, settings=settings, calibration=calibration))

    given = formats is not None or chosen is network.formats
    how = {"calibration": calibration, "settings": settings, "again": None if given else again}
    return prepared, chosen, integers, check(prepared, integers, **how)


def prepare(
    network: Network, *, settings: Settings | None = None, calibration: Data | None = None,
    formats: Formats | None = None,
) -> tuple[Network, Formats]:
    """What `compile` quantises: (network, formats), the network equalised where that is wanted.

    In order of preference: the given formats; those that the network was trained for, unless settings or calibration
    data are given; formats chosen here. settings.equalise = None means: equalise if that raises the SQNR on the
    calibration data (without data: no).
    """
    if formats is None and settings is None and calibration is None:
        formats = network.formats
    if formats is not None:
        return network, formats
    settings = settings or Settings()
    if settings.equalise is not None or calibration is None:
        network = equalise(network) if settings.equalise else network
        return network, choose_formats(network, settings, calibration)

    def candidate(network):
        data = Calibration(network, calibration)
        formats = choose_formats(network, settings, data)
        return output_sqnr(quantise(network, formats), data.vectors, data.wanted), network, formats

    return max(candidate(network), candidate(equalise(network)), key=lambda found: found[0])[1:]
