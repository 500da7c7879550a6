"""Which boards a network fits, and how: the engines of rtl_gen.choose against what a board has, nothing is built.

What the core takes is rtl_gen.estimate's: multipliers and block RAMs exact, LUT and FF estimates. For the line and the
shell around it SHELL is set aside, fitted to what Yosys makes (tests/test_fit.py).
"""

from dataclasses import dataclass

from rtl_gen import Impossible, choose, estimate

from .table import BOARDS, find_board

SHELL = {"LUT": 1400, "FF": 600, "DSP": 0, "RAM": 4}


@dataclass(frozen=True, kw_only=True, repr=False)
class Fit:
    """A board and the fastest plan that it has room for, or None. needs: resource → estimate, shell included."""

    board: object
    plan: object
    needs: dict
    how: str

    def __repr__(self):
        needs = ", ".join(f"{number} {resource}" for resource, number in (self.needs or {}).items())
        return f"<Fit {self.board.key}: {self.how}{'; ' if needs else ''}{needs}>"

    @property
    def vectors_per_second(self):
        """Of the core at the board's clock; the serial line is slower."""
        return self.board.clock_mhz * 1e6 / self.plan.interval


def needs(core, board):
    """Resource → number of core and shell, from rtl_gen.estimate's."""
    return {resource: n + SHELL[resource] for resource, n in core.items()}


def room(board):
    """Resource → number that a board leaves to the core."""
    return {resource: n - SHELL[resource] for resource, n in board.device.available.items()}


def check_estimated(board):
    """ValueError for a board that takes plain cores alone, whose needs nobody knows before synthesis."""
    if board.device.target == "plain":
        raise ValueError(f"{board.title} takes cores without a target, whose needs are not estimated; build one to see")


def on_board(key, settings):
    """Settings with a board's target, one vector and products that it has blocks for; its room, and its clock in MHz.

    Raises ValueError for an unknown board, one that takes plain cores alone, and for settings of another target or of
    several vectors.
    """
    board = find_board(key)
    check_estimated(board)
    wanted = {"target": board.device.target, "vectors": 1} | ({} if board.device.dsp else {"products": "lut"})
    for name, value in wanted.items():
        if name in settings.given and getattr(settings, name) != value:
            raise ValueError(f"{name} = {getattr(settings, name)!r}: on {board.title} it is {value!r}")
    return settings.model_copy(update=wanted), room(board), board.clock_mhz


def roomier(plan):
    """In words, the smallest board that has room for a Plan, or what else there is to be done, by estimate."""
    fitting = []
    for board in BOARDS.values():
        if board.device.target != "plain":
            there = room(board)
            if all(n <= there[resource] for resource, n in estimate(plan, board.device.target).items()):
                fitting.append(board)
    if fitting:
        board = min(fitting, key=lambda board: board.device.available["LUT"])
        return f"{board.key} has room for it"
    return "no board has room for it: fewer bits, smaller images or fewer channels would take less"


def fit(network, board):
    """The Fit of an IntNetwork to a Board; where nothing fits, the needs of the plan that comes nearest."""
    device = board.device
    try:
        check_estimated(board)
    except ValueError as error:
        return Fit(board=board, plan=None, needs={}, how=str(error))
    choices = {} if device.dsp else {layer.name: {"products": "lut"} for layer in network.layers}
    try:
        choice, problem = choose(network, room=room(board), target=device.target, vectors=1, choices=choices), None
    except Impossible as error:
        choice, problem = error.nearest, error
    taken = needs(choice.needs, board) if choice else {}
    if problem is None:
        return Fit(board=board, plan=choice.plan, needs=taken, how=choice.what)
    short = ", ".join(f"{r} {n} of {device.available[r]}" for r, n in taken.items() if n > device.available[r])
    return Fit(board=board, plan=None, needs=taken, how=f"does not fit: {short or problem}")
