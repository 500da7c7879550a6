"""MobileNetV3-Small (Howard et al., ICCV 2019, table 2): inverted residuals with squeeze and excite and h-swish."""

from .nodes import Conv, Excite, Pool, Residual, divisible

# kernel, expanded channels, outputs, squeeze and excite, activation, stride
BODY = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hswish", 2),
    (5, 240, 40, True, "hswish", 1),
    (5, 240, 40, True, "hswish", 1),
    (5, 120, 48, True, "hswish", 1),
    (5, 144, 48, True, "hswish", 1),
    (5, 288, 96, True, "hswish", 2),
    (5, 576, 96, True, "hswish", 1),
    (5, 576, 96, True, "hswish", 1),
)


def nodes(width, resolution, classes, **fusion):
    size, n = -(-resolution // 2), divisible(16 * width)
    yield Conv(name="conv1", inputs=3, outputs=n, kernel=3, stride=2, size=size, act="hswish")
    for i, (kernel, expanded, outputs, excite, act, stride) in enumerate(BODY, 1):
        e, m, name = divisible(expanded * width), divisible(outputs * width), f"block{i}"
        body = []
        if expanded != 16:  # the first block does not expand
            body.append(Conv(name=f"{name}.expand", inputs=n, outputs=e, size=size, act=act, **fusion))
        size = -(-size // stride)
        depthwise = {"kernel": kernel, "stride": stride, "groups": e, "size": size, "act": act}
        body.append(Conv(name=f"{name}.depthwise", inputs=e, outputs=e, **depthwise))
        if excite:
            q = divisible(e / 4)
            reduce = Conv(name=f"{name}.reduce", inputs=e, outputs=q, norm=False, bias=True)
            gate = Conv(name=f"{name}.gate", inputs=q, outputs=e, norm=False, bias=True, act="hsigmoid")
            body.append(Excite((reduce, gate)))
        body.append(Conv(name=f"{name}.project", inputs=e, outputs=m, size=size, act=None, **fusion))
        yield from [Residual(tuple(body))] if stride == 1 and n == m else body
        n = m
    m, last = divisible(576 * width), divisible(1024 * width)
    yield Conv(name="conv2", inputs=n, outputs=m, size=size, act="hswish", **fusion)
    yield Pool("average")
    yield Conv(name="head", inputs=m, outputs=last, norm=False, bias=True, act="hswish")
    yield Conv(name="classes", inputs=last, outputs=classes, norm=False, bias=True, act=None)
