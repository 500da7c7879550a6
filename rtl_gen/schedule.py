"""When beats come: through changes of lanes, and through engines whose frames are positions of a map."""

import numpy as np

from .fifo import FIFO_LATENCY
from .stream import ENTRY, Gearbox


def convert_times(times, before, after, *, fifo=FIFO_LATENCY, always=False, large=False):
    """Cycles at which beats of `before` lanes, coming at `times`, leave a converter as beats of `after` lanes.

    fifo: cycles through the FIFO before it, with the register behind it, 0 for neither; always: those also between
    equal lanes; large: of maps, where the room in the converter is not counted.
    """
    if before == after:
        return times + fifo + ENTRY if always else times
    arrivals = times + fifo
    if large:
        beat = np.arange(len(times) * before // after)
        needed = arrivals[-(-(beat + 1) * after // before) - 1]
        return np.maximum.accumulate(needed - beat) + beat + 1 + (ENTRY if fifo else 0)
    places = Gearbox.capacity(before, after)
    result, accepted, cycle = [], [], -1
    for q in range(len(times) * before // after):
        while len(accepted) * before < (q + 1) * after:
            p = len(accepted)
            # beats that must have left before there is room for this one
            gone = -(-(p * before + before - places) // after)
            cycle = max(cycle + 1, arrivals[p], result[gone - 1] + 1 if gone > 0 else 0)
            accepted.append(cycle)
        needed = accepted[-(-(q + 1) * after // before) - 1]
        result.append(max(needed, result[-1] if result else -1) + 1)
    return np.array(result) + (ENTRY if fifo else 0)


def output_times(engine, positions, arrivals, skip=None, interval=0):
    """Cycles of the output beats of an Engine that takes a frame for each of so many positions, one behind the other.

    arrivals, skip: of its input beats, and its residual's. Each frame comes as early as its beats allow at
    least, and an interval behind the one before. interval: where it is given, as late as they may, of frames so far
    apart, each of them behind the one before.
    """
    if positions == 1:
        times = engine.output_times(arrivals, skip)
    else:
        frames = [np.asarray(times).reshape(positions, -1) for times in (arrivals, skip) if times is not None]
        begin = frames[0][:, :1]
        # each as if its beats came at the least distances that there are, or at the largest
        reach = np.max if interval else np.min
        times = engine.output_times(*(reach(own - begin, 0) for own in frames)) + begin
        step = np.arange(positions) * engine.interval
        late = np.maximum.accumulate(times[:, 0] - step) + step - times[:, 0]
        times = (times + late[:, None]).ravel()
    if interval:
        own = engine.interval * positions
        times = np.maximum(times, times[-1] - interval + (np.arange(len(times)) + 1) * own // len(times))
    return times


def most_waiting(come, gone, interval):
    """The most of frames' beats that have come and not gone, each frame an interval behind the one before."""
    frames = np.arange(-(int(gone.max() - come.min()) // interval) - 1, 1)[:, None] * interval
    come, gone = (np.sort(times, axis=None) for times in (frames + come, frames + gone))
    last = come[-len(come) // len(frames) :]
    return int((np.searchsorted(come, last, side="right") - np.searchsorted(gone, last, side="right")).max())
