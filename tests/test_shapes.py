"""Clouds of points on solids, made on the spot: where their points lie, and what is in which part."""

import numpy as np
import pytest


@pytest.fixture
def data(example):
    return example("shapes/data")


def test_surfaces_are_closed(data):
    """Every edge belongs to two triangles, but for those of no length; areas are the solids'."""
    for kind, (profile, corners) in data.KINDS.items():
        triangles = data.surface(profile, corners)
        edges = {}
        for triangle in np.round(triangles, 6) + 0.0:
            for a, b in ((0, 1), (1, 2), (2, 0)):
                ends = tuple(sorted((tuple(triangle[a]), tuple(triangle[b]))))
                if ends[0] != ends[1]:
                    edges[ends] = edges.get(ends, 0) + 1
        open_ends = sum(count % 2 for count in edges.values())
        assert open_ends == 2 * corners * (kind == "hourglass"), kind  # its ends are open

    def area(kind):
        t = data.surface(*data.KINDS[kind])
        return np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1).sum() / 2

    assert area("octahedron") == pytest.approx(8 * np.sqrt(3) / 2, rel=1e-6)
    assert area("box") == pytest.approx(4 * 2 * np.sqrt(2) + 2 * 2, rel=1e-6)
    assert area("ball") == pytest.approx(4 * np.pi, rel=0.02)


def test_points_are_spread_evenly(data):
    """Of two triangles the larger one has as many more; none lies outside."""
    triangles = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[5, 0, 0], [8, 0, 0], [5, 1, 0]]], float)
    x = data.sampled(triangles, 40000, np.random.default_rng(0))
    near = x[:, 0] < 2
    assert abs(near.mean() - 0.25) < 0.01 and (x[near][:, :2].sum(1) <= 1 + 1e-9).all() and (x[:, 2] == 0).all()
    assert abs(x[near][:, 0].mean() - 1 / 3) < 0.01


def test_clouds(data, monkeypatch):
    """As large as eight bits allow, the classes in turn; no cloud is in both parts, and each is the same again."""
    monkeypatch.setattr(data, "COUNTS", {"train": 40, "test": 20})
    parts = {part: data.load(part) for part in data.COUNTS}
    for part, (x, labels) in parts.items():
        assert x.shape == (data.COUNTS[part], data.POINTS, 1, 3) and x.dtype == np.int8
        assert np.array_equal(labels, np.arange(len(x)) % 10)
        reach = np.linalg.norm(x[:, :, 0].astype(float), axis=2).max(1)
        assert reach.min() > 115 and reach.max() < 150
        assert np.array_equal(x, data.load(part)[0])
    assert not any(np.array_equal(a, b) for a in parts["train"][0] for b in parts["test"][0])
