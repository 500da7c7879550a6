"""After quantising: vectors go through floats and integers, and what is lost is said, with what helps."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .calibrate import Data, check_vectors, counted, unusual, which
from .golden import IntNetwork, short_stage
from .network import Network
from .noise import decibels
from .settings import LayerSettings, Settings

LIMIT = 15.0  # dB, of each output and of all together, below which there is a warning
RESOLUTION = 2.0**-20  # of an output's own peak: what varies less is constant for a network of float32, too
SEED, VECTORS, ROWS, WORK = 0, 128, 1024, 1 << 27  # of random vectors; rows of data, multiplications, at most
CLIPPED = 0.1  # share of the data beyond the input's format from which their scale is doubted


class QuantisationWarning(UserWarning):
    """Integers far from their float network, or calibration data that look wrong."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Integers in the place of floats, column by column (outputs, or inputs).

    total: SQNR in dB of all columns together. each: of what varies in a column, its variance against its squared error;
    NaN where nothing varies. constant: columns that vary in floats and are one integer.
    """

    total: float
    each: np.ndarray
    constant: np.ndarray

    @property
    def score(self) -> float:
        """dB of the worst column that varies, or of the total where that is less."""
        return min(self.total, *self.each[~np.isnan(self.each)], np.inf)

    @property
    def all_constant(self) -> bool:
        """Whether something varies in floats, and nothing in integers."""
        return bool(self.constant.any() and (self.constant | np.isnan(self.each)).all())


@dataclass(frozen=True, kw_only=True, repr=False)
class Check:
    """What there is to say of an IntNetwork: notes and warnings, lines; refusal: why it is of no use, or None.

    outputs: Measured on the calibration data where there are any, else on random vectors.
    """

    outputs: Measured
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    refusal: str | None

    def __repr__(self):
        found = "refused" if self.refusal else f"{len(self.warnings)} warnings, {len(self.notes)} notes"
        return f"<Check: {self.outputs.total:.1f} dB; {found}>"


def measure(wanted, got):
    """Measured of floats (N, n), or (N, H, W, C), and what integers give in their place."""
    wanted, got = (values.reshape(len(values), -1) for values in (wanted, got))
    error, power = np.square(got - wanted).sum(axis=0), np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
    varies = np.ptp(wanted, axis=0) > RESOLUTION * np.abs(wanted).max(axis=0)
    each = [decibels(*pair) if own else np.nan for own, *pair in zip(varies, power, error)]
    constant = varies & (np.ptp(got, axis=0) == 0)
    return Measured(total=decibels(np.square(wanted).sum(), error.sum()), each=np.array(each), constant=constant)


def compare(network, integers, x):
    """Measured of the outputs for floats x (N, inputs); ValueError where the float network gives infinity or NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = network(x)
    if not np.isfinite(wanted).all():
        raise ValueError("the float network gives infinity or NaN for inputs that its input format holds")
    return measure(wanted, integers.predict(x))


def random_vectors(fmt, inputs, count, seed=SEED):
    """Two arrays (count, inputs) of floats that a format holds exactly: uniform over all of it, and smaller ones.

    The smaller ones come in turn from the whole, a half ... a 32nd of the range, positive, and then with both signs.
    """
    rng = np.random.default_rng(seed)
    kinds = [(max(fmt.lo, lo * (fmt.hi >> n)), fmt.hi >> n) for lo in (0, -1) for n in range(6)]
    lo, hi = np.array(kinds)[np.arange(count) % len(kinds), :, None].transpose(1, 0, 2)
    ranges = (fmt.lo, fmt.hi), (lo, hi)
    return [fmt.dequantise(rng.integers(*ends, (count, inputs), endpoint=True)) for ends in ranges]


def check(
    network: Network, integers: IntNetwork, *, calibration: Data | None = None,
    again: Callable[[Settings | None, Data | None], IntNetwork] | None = None, settings: Settings | None = None,
) -> Check:
    """The Check of an IntNetwork against its float network; the same for the same arguments.

    calibration: floats (N, inputs), of which ROWS rows are taken, spread evenly. Without them the vectors are random,
    uniform over the input's format; with them random ones tell of the outputs that never vary on the data alone.
    again: (Settings, calibration) -> IntNetwork, tries what may help; None where formats were given or trained for.
    Those are asked for constant outputs alone: training counts on the integers, not on the floats.
    """
    work = max(1, integers.work)  # nodes without weights have none
    random = random_vectors(integers.input, network.inputs, int(np.clip(WORK // work, 16, VECTORS)))
    wide, smaller = (x.reshape(len(x), *network.shape.dims) for x in random)
    blind, lines, notes = compare(network, integers, np.concatenate([wide, smaller])), [], []
    if calibration is None:
        x, name = wide, "random vectors"
        seen = compare(network, integers, x)
        constant, useless = blind.constant, blind.all_constant
    else:
        data, name = check_vectors(calibration, network.shape.dims, "calibration data"), "the calibration data"
        x = data[:: -(-len(data) // int(np.clip(WORK // work, 16, ROWS)))]
        seen = compare(network, integers, x)
        still = np.isnan(seen.each)
        constant = np.where(still, blind.constant, seen.constant)
        useless = blind.all_constant if still.all() else seen.all_constant
        lines, notes = unusual(data.reshape(len(data), -1))
        lines += of_inputs(integers.input, x)
    problems = []
    if constant.any():
        problems.append(f"{counted(constant, 'output')} became constant (number {which(constant)})")
    if again and seen.score < LIMIT:
        low = np.nan_to_num(seen.each, nan=np.inf) < LIMIT
        worst = f", {np.nanmin(seen.each):.1f} dB the worst, output {np.nanargmin(seen.each)}" if low.any() else ""
        problems.append(f"{counted(low, 'output')} below {LIMIT:g} dB{worst}; all together {_db(seen.total)}")
    if problems:
        remedy = _remedy(network, integers, again, settings or Settings(), calibration, x, seen)
        lines.append(f"on {name} {'; '.join(problems)}; {remedy}")
    refusal = None
    if useless:
        refusal = (
            f"every output is constant in integers, the float network's vary ({name}, {_db(seen.total)}); {remedy}; "
            "--allow-constant (in Python allow_constant=True) takes it as it is"
        )
    notes += dropped(network, integers) if again else []
    return Check(outputs=seen, notes=tuple(notes), warnings=tuple(lines), refusal=refusal)


def _db(value):
    return f"{round(value, 1) + 0.0:.1f} dB"  # never -0.0


def of_inputs(fmt, x, name="calibration data"):
    """Lines on floats (N, inputs) that do not suit the input's format."""
    q, lines = fmt.quantise(x), []
    lost = measure(x, fmt.dequantise(q)).constant
    if lost.any():
        lines.append(
            f"{name}: {counted(lost, 'input')} vary and become constant in the input's format ({fmt}), "
            f"number {which(lost)}: too small beside the others or for the format; scale them, or take more "
            "--input-bits"
        )
    clipped = np.mean(fmt.round(x) != q)
    if clipped > CLIPPED:
        reach = f"{fmt.dequantise(fmt.lo):g} to {fmt.dequantise(fmt.hi):g}"
        share = f"{100 * clipped:.0f} %"
        lines.append(f"{name}: {share} are beyond the input's format, {reach}: of another scale?")
    return lines


def dropped(network, integers):
    """Lines on the factors and scales whose bits `choose_formats` dropped: those of weights that it chose fill them."""
    lines = []
    for layer, whole in zip(network.layers, integers.weighted):
        for (name, factor), own in zip(whole.stages, layer.scaled):
            parts = [("weights", own.values, factor.values, factor.weights)]
            if factor.skip is not None:
                parts.append(("residual's scale", layer.add_scale, factor.skip, factor.skip_weights))
            for what, floats, ints, fmt in parts:
                unused = fmt.width - 1 - int(np.abs(ints).max()).bit_length()
                if unused > 0 and floats.any():
                    lost = f"{unused} of {fmt.width} bits are dropped" if ints.any() else "all became zero"
                    size = f"{np.abs(floats).max():.3g} at most"
                    last = f"the output's last bit ({factor.output})"
                    lines.append(f"{short_stage(name)}: {what}, {size}, cannot reach {last}: {lost}")
    return lines


def _remedy(network, integers, again, settings, calibration, x, seen):
    """What helps, as options, and how much: tried on x, the first that lifts all above the limit, or the best."""
    if again is None:
        return "its formats were given or trained for: take wider ones, or have them chosen anew by naming bits"
    most = integers.output.width  # where nothing has weights
    weights, outputs = (
        max((getattr(f, key).width for f in integers.factors), default=most) for key in ("weights", "output")
    )
    rows, wider = {"row_exponents": 8}, [{"activation_bits": min(24, outputs + more)} for more in (4, 8, 14)]
    finer = {"weight_bits": min(24, weights + 4)}
    trials = [(own, calibration is not None) for own in (rows, wider[0], finer, *(rows | own for own in wider))]
    trials += [(rows | own | finer, calibration is not None) for own in wider[:2]]
    if calibration is None:
        trials = [({}, True), *trials, *((rows | own, True) for own in wider[:2])]
    best = None
    for own, calibrated in trials:
        layers = {
            name: LayerSettings(**layer.model_dump(exclude_unset=True, exclude=own.keys()))
            for name, layer in settings.layers.items()
        }
        tried = settings.model_copy(update=own | {"layers": layers})
        try:
            found = compare(network, again(tried, x if calibrated else None), x)
        except ValueError:
            continue  # formats that no accumulator holds
        how = [f"--{key.replace('_', '-')} {value}" for key, value in own.items()]
        how = " ".join(["--calibration X.npy"] * (calibrated and calibration is None) + how)
        if best is None or found.score > best[0]:
            best = found.score, f"{how} raises the worst to {found.score:.1f} dB"
        if found.score >= LIMIT:
            break
    if best is None or best[0] < min(LIMIT, seen.score + 3):
        return "no bits that were tried help; `bfthw report` names the stage that hurts"
    return best[1]
