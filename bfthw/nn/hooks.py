"""What stands around a module's forward: hooks that make weights are run, whatever else may change it is refused."""

import sys
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules import module as every
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

# torch's own hooks, and where each has the name of the attribute that it makes before a forward
_MAKERS = ((WeightNorm, "name"), (SpectralNorm, "name"), (BasePruningMethod, "_tensor_name"))
_MADE = ("weight", "bias", "scale")


def unwrapped(module):
    """The module inside torch.compile's, DataParallel and DistributedDataParallel; ValueError for hooks on those."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # not there before something is compiled, and slow to import
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        elif dynamo is not None and isinstance(module, dynamo.OptimizedModule):
            inner = module._orig_mod
        else:
            return module
        refuse_hooks(module)
        module = inner


def is_plain(module, *kinds):
    """Whether the module is of a kind and still computes what the kind does."""
    cls = type(module)
    own = "forward" in vars(module) or cls.__call__ is not nn.Module.__call__
    return not own and any(isinstance(module, kind) and cls.forward is kind.forward for kind in kinds)


def refuse_hooks(module, made=(), owner=""):
    """ValueError for hooks that may change what goes in or comes out, but those that make the attributes `made`."""
    found = [*every._global_forward_hooks.values(), *every._global_forward_pre_hooks.values()]
    if found:
        raise ValueError(f"a hook on all modules, {_name(found[0])}, may change what it computes; remove it first")
    before = [hook for hook in module._forward_pre_hooks.values() if _made(hook) not in made]
    for when, hooks in (("forward pre-hook", before), ("forward hook", list(module._forward_hooks.values()))):
        if hooks:
            raise ValueError(f"{owner}a {when}, {_name(hooks[0])}, may change what it computes; remove it first")


def _made(hook):
    """The attribute that a hook makes, None for one of unknown effect."""
    return next((getattr(hook, name) for kind, name in _MAKERS if isinstance(hook, kind)), None)


def _name(hook):
    return getattr(hook, "__qualname__", type(hook).__name__)


def refresh(module):
    """Makes weights afresh, as a forward in eval mode would: those of weight_norm, spectral_norm and pruning by hooks.

    What torch.nn.utils.parametrize makes is always fresh. ValueError for other hooks, on the module or inside of it,
    and for values that are missing or complex.
    """
    refuse_hooks(module, _MADE)
    for name, child in module.named_modules():
        if child is not module:
            refuse_hooks(child, owner=f"inside of it, on {name!r}, ")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta or isinstance(tensor, nn.parameter.UninitializedTensorMixin):
            raise ValueError(f"{name!r} has no values (device meta, or a lazy module)")
        if tensor.is_complex():
            raise ValueError(f"{name!r} must be real numbers, got {tensor.dtype}")
    with evaluated(module), torch.no_grad():
        for hook in module._forward_pre_hooks.values():
            hook(module, ())


def copied(module):
    """A deep copy, also of modules whose hooks keep results of their parameters as attributes, which torch refuses."""
    attributes = [value for one in module.modules() for value in vars(one).values()]
    made = [value for value in attributes if isinstance(value, torch.Tensor) and not value.is_leaf]
    return deepcopy(module, {id(value): value.detach().clone() for value in made})


@contextmanager
def evaluated(module):
    """The module in eval mode, and as it was afterwards."""
    modes = [(one, one.training) for one in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for one, mode in modes:
            one.training = mode
