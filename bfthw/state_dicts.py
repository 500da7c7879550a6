"""State dicts wherever they lie in what was saved: found by their look, never by a list of names."""

from collections import deque

from .reading import CheckpointError, nearest, short, some
from .torch_files import Other, Table, Tensor

DEEPEST, LONGEST, MOST = 8, 100, 200  # levels of dicts, characters of a key on the way, state dicts that are found
HERE = "."  # the key of a file that is a state dict itself
WRAPPERS = ("module.", "_orig_mod.")  # of torch's DataParallel and of torch.compile
MODULES = ("model.", "net.")  # of the attribute that a trainer, Lightning's for example, keeps the network in
# notes of torch that stand for no numbers of a network
_HARMLESS = ("torch.Size", "torch.device", "torch.serialization._get_layout")


def _weighs(value):
    """Whether something is a tensor as networks have them: no single number, no state of a random generator."""
    return isinstance(value, Tensor) and value.size and (len(value.size) > 1 or value.dtype != "uint8")


def _is_optimizer(table):
    """Whether a dict is as torch's optimizers give theirs; the tensors in it are moments, not weights."""
    return isinstance(table.get("param_groups"), list) and "state" in table


def find(table):
    """{keys joined by dots, `HERE` for the dict itself: (keys, dict)} of all dicts in a dict that have tensors."""
    found, seen, waiting = {}, set(), deque([((), table)])
    while waiting and len(found) < MOST:
        keys, one = waiting.popleft()
        if id(one) in seen or not all(isinstance(key, str) for key in one) or _is_optimizer(one):
            continue
        seen.add(id(one))
        if any(map(_weighs, one.values())):
            name = ".".join(keys) or HERE
            while name in found:  # of keys with dots in them
                name += "'"
            found[name] = keys, one
        if len(keys) < DEEPEST:
            waiting.extend(
                ((*keys, key), inner) for key, inner in one.items() if isinstance(inner, dict) and len(key) <= LONGEST
            )
    return found


def choose(path, table, key=None):
    """({name: Tensor}, notes) of the only state dict in what a file holds, or of that under `key`."""
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}: must hold a state_dict (a dict of tensors), got {kind(table)}")
    found = find(table)
    listed = some((f"{name!r} ({_count(one)})" for name, (_, one) in found.items()), show=str)
    if key is not None and key not in found:
        there = f"; there are {listed}" if found else ""
        raise CheckpointError(f"{path}: no state dict under the key {key!r}{there}{nearest(key, found)}")
    if len(found) > 1 and key is None:
        raise CheckpointError(
            f"{path}: holds {len(found)} state dicts, {listed}: choose with --key {next(iter(found))!r} (Python: key=)"
        )
    if not found:
        for name, value in table.items():
            if not isinstance(name, str):
                raise CheckpointError(f"{path}: {short(name)} must be a tensor's name, got {kind(name)}")
            if not isinstance(value, Tensor):
                raise CheckpointError(_no_tensor(path, name, value))
    keys, chosen = found.get(key or next(iter(found), None), ((), table))
    notes = _taken(table, keys)
    return _tensors(path, chosen, notes), notes


def _count(table):
    count = sum(isinstance(value, Tensor) for value in table.values())
    return f"{count} array{'s' * (count != 1)}"


def _taken(table, keys):
    """The note on the keys under which the state dict was, and what lies beside them."""
    others, before = [], ""
    for key in keys:
        others += [before + other for other in table if other != key]
        before, table = f"{before}{key}.", table[key]
    rest = f"; not used: {some(others)}" if others else ""
    return [f"weights taken from {short(before[:-1])}{rest}"] if keys else []


def _tensors(path, table, notes):
    """The tensors of a state dict; what is none is passed over with a note, but never what should be one."""
    result, others = {}, []
    for name, value in table.items():
        if isinstance(value, Tensor):
            result[name] = value
        elif isinstance(value, Other) and value.name.startswith("torch") and value.name not in _HARMLESS:
            raise CheckpointError(_no_tensor(path, name, value))
        else:
            others.append(name)
    if others:
        notes.append(f"no tensors, passed over: {some(others)}")
    return result


def _no_tensor(path, name, value):
    if isinstance(value, tuple):
        return f"{path}: {short(name)} cannot be read as an array: it is made by {kind(value)}"
    return f"{path}: {short(name)} must be a tensor, got {kind(value)}"


def kind(value):
    return "OrderedDict" if isinstance(value, Table) else getattr(value, "name", type(value).__name__)


def plain(arrays, notes):
    """(arrays, prefix): without counters and without the prefixes that all names share, each with a note.

    A counter is one integer without a dimension, as `n_averaged` of SWA and `num_batches_tracked` of batch norms are;
    no layer has any. `MODULES` are kept where all of the file would be one layer of such a name.
    """
    counters = [key for key, array in arrays.items() if array.shape == () and array.dtype.kind in "iu"]
    arrays = {key: array for key, array in arrays.items() if key not in set(counters)}
    if counters:
        notes.append(f"counters, passed over: {some(counters)}")
    whole = ""

    def shared(prefix):
        named = all("." in key[len(prefix) :] for key in arrays) or prefix in WRAPPERS
        return named and all(key.startswith(prefix) for key in arrays)

    while arrays and (prefix := next(filter(shared, (*WRAPPERS, *MODULES)), None)):
        arrays = {key.removeprefix(prefix): array for key, array in arrays.items()}
        notes.append(f"prefix {prefix!r} of all keys left out")
        whole += prefix
    return arrays, whole
