"""Networks that are refused, and in which words. Each function gives (module, shape of one input)."""

import torch
from corpus_cases import Does, conv, refused
from torch import nn
from torch.nn import functional as F


@refused("odd", "module .1. .LayerNorm.: is not taken; a batch norm would be")
def layer_norm():
    """LayerNorm"""
    return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), (8,)


@refused("odd", "module .a. .MultiheadAttention., multi_head_attention_forward at corpus_refused.py.*convolutions or butterflies")
def attention():
    """Self-attention"""

    class Attends(nn.MultiheadAttention):
        pass

    return Does(lambda self, x: self.a(x, x, x)[0], a=nn.MultiheadAttention(8, 2, batch_first=True)), (4, 8)


@refused("odd", "not taken; convolutions over the sequence would be")
def recurrent():
    """An LSTM"""
    return Does(lambda self, x: self.lstm(x)[0][:, -1], lstm=nn.LSTM(4, 6, batch_first=True)), (5, 4)


@refused("odd", "module .0. .Does., interpolate at corpus_refused.py.*the map as large as it is")
def upsampled():
    """A U-Net's way up"""
    return Does(lambda self, x: F.interpolate(self.one(x), scale_factor=2), one=conv(2, 4, 3, 2)), (2, 8, 8)


@refused("odd", "conv_transpose2d|ConvTranspose2d")
def transposed():
    """A transposed convolution"""
    return nn.Sequential(conv(2, 4, 3, 2), nn.ConvTranspose2d(4, 2, 2, 2)), (2, 8, 8)


@refused("odd", "one way for all inputs, where this depends on the data, would be")
def data_dependent():
    """A way that depends on the data"""
    return Does(lambda self, x: self.one(x) if x[0, 0] > 0 else x, one=nn.Linear(4, 4)), (4,)


@refused("odd", "gives a tuple, a network one tensor")
def two_outputs():
    """A module that gives two tensors"""
    return Does(lambda self, x: (self.one(x), x), one=nn.Linear(4, 4)), (4,)


@refused("odd", "multiplies two maps number by number")
def spatial_gate():
    """A gate with a number for each position"""
    return Does(lambda self, x: x * torch.sigmoid(self.one(x)), one=nn.Conv2d(4, 1, 1)), (4, 5, 5)


@refused("odd", "differ from position to position; a network has one for each channel")
def position_embedding():
    """A constant added at each position"""
    return Does(lambda self, x: self.one(x) + self.p, one=conv(2, 4), p=nn.Parameter(torch.randn(4, 5, 5))), (2, 5, 5)


@refused("odd", "pads with reflect; zeros would be taken")
def reflected():
    """Padding by reflection"""
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect")), (2, 6, 6)


@refused("odd", "makes 2 windows of unequal size of 5; 1, 5 would be taken")
def uneven_pool():
    """An adaptive pool of windows that differ"""
    return nn.Sequential(conv(2, 4), nn.AdaptiveAvgPool2d(2)), (2, 5, 5)


@refused("odd", "numbers of several maps, or zeros, stand among numbers that moved between channels and positions")
def two_maps_shuffled():
    """Channels of two maps that become positions"""

    def forward(self, x):
        return self.last(F.pixel_shuffle(torch.cat([self.one(x), x], 1), 2))

    return Does(forward, one=conv(2, 6), last=nn.Conv2d(2, 2, 1)), (2, 4, 4)


@refused("odd", "count_include_pad=True and ceil_mode=False would be taken")
def uneven_average():
    """An average pool that does not count its padding"""
    return nn.Sequential(conv(2, 4), nn.AvgPool2d(3, 1, 1, count_include_pad=False)), (2, 5, 5)


@refused("odd", "no running statistics")
def norm_without_statistics():
    """A batch norm of the batch's own statistics"""
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), (2, 5, 5)


@refused("odd", "drops by chance in eval mode too")
def always_dropping():
    """Dropout that does not ask for the mode"""
    return Does(lambda self, x: F.dropout(self.one(x)), one=nn.Linear(4, 4)), (4,)


@refused("odd", "more than one number for a channel")
def slopes():
    """A PReLU with a slope for each channel"""
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.PReLU(4)), (2, 5, 5)


@refused("odd", "is a ScriptModule|is a RecursiveScriptModule|TopLevelTracedModule")
def scripted():
    """A part closed by torch.jit"""
    return nn.Sequential(torch.jit.trace(nn.Linear(4, 4).double(), torch.zeros(1, 4).double())), (4,)


@refused("odd", "numpy at corpus_refused.py.*: is not taken; torch's functions alone would be")
def beside_torch():
    """A function of numpy"""
    return Does(lambda self, x: self.one(x) + torch.from_numpy(abs(x.detach().numpy())), one=nn.Linear(4, 4)), (4,)


@refused("odd", "what was read differs from the module by .* it draws by chance")
def noisy():
    """Noise of its own in eval mode"""
    return Does(lambda self, x: self.one(x) + torch.randn(4), one=nn.Linear(4, 4)), (4,)


@refused("odd", "what it takes is no longer that of the samples|the first axis of what it takes is no longer")
def samples_mixed():
    """Samples that are mixed"""
    return Does(lambda self, x: self.one(x.flip(0)), one=nn.Linear(4, 4)), (4,)


@refused("odd", "takes no input .N, 5.: RuntimeError: mat1 and mat2")
def wrong_shape():
    """A shape that the module does not take"""
    return nn.Sequential(nn.Linear(4, 4)), (5,)
