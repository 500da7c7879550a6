"""Clouds of points on the surfaces of ten solids, made on the spot: figures of revolution, round or of few corners."""

import numpy as np

POINTS = 256
COUNTS = {"train": 8000, "test": 2000}
_ARC = np.linspace(-np.pi / 2, np.pi / 2, 17)
_CIRCLE = np.linspace(0, 2 * np.pi, 17)
# profiles (radius, height) that are turned around the axis
_CAN, _HAT, _TOP = [(0, -1), (1, -1), (1, 1), (0, 1)], [(0, -1), (1, -1), (0, 1)], [(0, -1), (1, 0), (0, 1)]
_BALL = np.stack([np.cos(_ARC), np.sin(_ARC)], 1)
_RING, _GLASS = 0.4 * np.stack([2 + np.cos(_CIRCLE), np.sin(_CIRCLE)], 1), [(1, -1), (0, 0), (1, 1)]
# name: profile, corners of the ring
KINDS = {
    "ball": (_BALL, 32), "cylinder": (_CAN, 32), "cone": (_HAT, 32), "ring": (_RING, 32), "hourglass": (_GLASS, 32),
    "box": (_CAN, 4), "pyramid": (_HAT, 4), "octahedron": (_TOP, 4), "prism": (_CAN, 3), "tetrahedron": (_HAT, 3),
}
CLASSES = tuple(KINDS)


def surface(profile, corners):
    """Triangles (N, 3, 3) of a profile that is turned around the third axis."""
    profile = np.asarray(profile, float)
    around = 2 * np.pi * np.arange(corners + 1) / corners
    radius, height = profile[:, :1], np.broadcast_to(profile[:, 1:], (len(profile), len(around)))
    grid = np.stack([radius * np.cos(around), radius * np.sin(around), height], -1)
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[:-1, 1:], grid[1:, 1:]
    return np.concatenate([np.stack(three, -2).reshape(-1, 3, 3) for three in ((a, b, c), (d, c, b))])


def sampled(triangles, count, rng):
    """Points (count, 3), evenly over the area."""
    edges = triangles[:, 1:] - triangles[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    own = rng.choice(len(triangles), count, p=area / area.sum())
    u = rng.random((count, 2))
    u = np.where(u.sum(1, keepdims=True) > 1, 1 - u, u)  # the other half of the parallelogram
    return triangles[own, 0] + (u[:, :, None] * edges[own]).sum(1)


def cloud(kind, rng):
    """int8 (POINTS, 1, 3) of a solid, stretched by up to a quarter along each axis, turned about the third and tilted
    by up to 30 degrees, as large as fits, each point off by about a fiftieth.
    """
    x = sampled(surface(*KINDS[kind]) * rng.uniform(0.8, 1.25, 3), POINTS, rng)
    for axis, most in ((2, np.pi), (0, np.pi / 6), (1, np.pi / 6)):
        angle = rng.uniform(-most, most)
        x = x @ _turn(axis, angle)
    x = x - (x.max(0) + x.min(0)) / 2
    x = x / np.linalg.norm(x, axis=1).max() + rng.normal(0, 0.02, x.shape)
    return np.clip(np.rint(127 * x), -128, 127).astype(np.int8)[:, None]


def _turn(axis, angle):
    i, j = (n for n in range(3) if n != axis)
    matrix = np.eye(3)
    matrix[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return matrix


def load(part):
    """part: "train" or "test", which no cloud is in both of -> int8 (N, POINTS, 1, 3), labels int64 (N,)."""
    rng = np.random.default_rng([*COUNTS].index(part))
    labels = np.arange(COUNTS[part]) % len(CLASSES)
    return np.stack([cloud(CLASSES[label], rng) for label in labels]), labels
