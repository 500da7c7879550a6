"""Sums that share two-term patterns: steps 1 and 2 of `adders`.

1. As long as it saves adders, a pattern u = f*p + g*q (p, q: inputs or earlier patterns; f, g: signed powers of two)
   becomes one term of every sum where it helps: the greedy elimination of common two-term subexpressions across inputs
   and outputs (Hartley, IEEE TCAS-II 43(10), 1996; Hosangadi, Fallah, Kastner, IWLS 2005; Sun et al., da4ml,
   arXiv 2507.04535). What counts is not a fixed choice of digits but the coefficients: a sum may take any multiple m of
   u if p - f*m, q - g*m and m have fewer signed digits than p and q had.
2. The same on the transposed matrix: turned round, a graph has as many adders, up to the difference of outputs and
   inputs (Bordewijk 1956).
"""

from functools import lru_cache

import numpy as np

WIDEST = 12  # bits of the shifts and multiples that are tried in patterns

_ONES = np.array([n.bit_count() for n in range(1 << 16)], np.int8)


def signed_digits(n):
    """Nonzero digits of the canonical signed-digit form (non-adjacent, Reitwieser 1960) of integers below 2**61."""
    n = np.abs(n)
    bits = n ^ 3 * n
    result = _ONES[bits & 0xFFFF]
    for shift in range(16, int(bits.max()).bit_length(), 16):
        result = result + _ONES[bits >> shift & 0xFFFF]
    return result


def signed_powers(n):
    """The canonical signed-digit form of an int: [(shift, sign), ...], the lowest first."""
    result, shift = [], 0
    while n:
        if n & 1:
            sign = 2 - n % 4
            result.append((shift, sign))
            n -= sign
        n, shift = n >> 1, shift + 1
    return result


@lru_cache
def _patterns(bits):
    """Factors (f, g) of patterns on two sources, those of patterns on one, and the multiples that are tried."""
    powers = 1 << np.arange(bits)
    up = np.stack([np.ones_like(powers), powers], 1)
    pairs = np.concatenate([up, up[1:, ::-1]])
    pairs = np.concatenate([pairs, pairs * [1, -1]])
    single = np.concatenate([1 + powers[1:], 1 - powers[2:]])
    multiples = np.arange(1, (1 << bits) + 1)
    multiples = multiples[signed_digits(multiples) <= 3]
    return pairs, single, np.concatenate([multiples, -multiples])


@lru_cache(1 << 16)
def _gains(p, q, bits):
    """Digits saved in a sum by each pattern on its coefficients p and q (q None: on p alone), and the multiples."""
    pairs, single, m = _patterns(bits)
    if q is None:
        left, before = signed_digits(p - single[:, None] * m), signed_digits(np.array([p]))
    else:
        left = signed_digits(p - pairs[:, :1] * m) + signed_digits(q - pairs[:, 1:] * m)
        before = signed_digits(np.array([p, q]))
    left = left + signed_digits(m)
    best = left.argmin(1)
    saved = np.maximum(before.sum() - left[np.arange(len(best)), best], 0)
    return saved, np.where(saved > 0, m[best], 0)


def _share(rows, columns, bits, rng):
    """Take patterns out of `rows` (dicts source -> coefficient) until none saves an adder; each adds a row, its source
    numbered from `columns` on."""
    pairs, single, _ = _patterns(bits)

    def of(row, a, b):
        return _gains(row[a], row[b] if a != b else None, bits)

    gains = {}

    def refresh(changed):
        found = {(min(a, b), max(a, b)) for row in rows for a in row.keys() & changed for b in row}
        for a, b in found | {key for key in gains if key[0] in changed or key[1] in changed}:
            saved = [of(row, a, b)[0] for row in rows if a in row and b in row]
            if saved and (total := sum(saved)).max() > 1:
                gains[a, b] = total
            else:
                gains.pop((a, b), None)

    refresh({source for row in rows for source in row})
    while gains:
        best = 0, None, 0
        for key, total in gains.items():
            score = total if rng is None else np.where(total > 1, total + rng.random(len(total)), 0)
            n = int(score.argmax())
            if score[n] > best[0]:
                best = score[n], key, n
        _, (a, b), n = best
        pattern = {a: int(pairs[n, 0]), b: int(pairs[n, 1])} if a != b else {a: int(single[n])}
        for row in rows:
            if a in row and b in row and (m := int(of(row, a, b)[1][n])):
                for source, factor in pattern.items():
                    row[source] -= factor * m
                    if not row[source]:
                        del row[source]
                row[columns] = m
        rows.append(pattern)
        refresh({a, b, columns})
        columns += 1


def sums_of(matrix, rng, transposed):
    """The sums of a matrix product, outputs first: dicts source -> coefficient; source inputs + n is sum outputs + n.

    matrix: int64 (outputs, inputs). rng: for the choice among near equals, or None. transposed: whether by step 2.
    """
    bits = min(max(2, int(np.abs(matrix).max()).bit_length()), WIDEST)
    if transposed:
        matrix = matrix.T
    rows = [{k: int(v) for k, v in enumerate(row) if v} for row in matrix]
    _share(rows, matrix.shape[1], bits, rng)
    if transposed:
        # coefficients are the edges of a graph: turn them round
        turned = [{} for _ in range(len(rows) - matrix.shape[0] + matrix.shape[1])]
        for target, row in enumerate(rows):
            for source, v in row.items():
                turned[source][target] = v
        rows = turned
    return rows
