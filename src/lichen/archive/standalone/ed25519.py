"""Ed25519 signatures, verified with whole numbers only (RFC 8032, section 5.1).

Strict in what it accepts: a key is refused unless its 32 bytes are the one encoding of a point that is not of small order;
the second half of a signature must be below the group's order; and [S]B - [h]A must encode to exactly the first half. The
equation is not multiplied by the cofactor.

Speed comes from tables: the multiples of a point by 1 to 31 at every fifth bit, made once for each key, so that a product is
51 additions and no doubling.
"""

from __future__ import annotations

import hashlib

from lichen.archive.standalone.faults import Fault

__all__ = ["Key"]

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
WINDOW_BITS = 5
WINDOW_COUNT = 51  # (= 255 / 5) windows
SMALL_ORDER_Y = (
    0,
    1,
    P - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)

Point = tuple  # (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z
Table = list  # by window, then by digit: (y - x, y + x, 2dxy)


def point_of(data: bytes) -> Point:
    """Decode a point (section 5.1.3).

    Args:
        data: 32 bytes.

    Raises:
        Fault: They encode no point, or a point in a second way.
    """
    number = int.from_bytes(data, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    if len(data) != 32 or y >= P:
        raise Fault("these bytes are not the one encoding of a point of the curve")
    above, below = (y * y - 1) % P, (D * y * y + 1) % P
    x = above * pow(below, 3, P) * pow(above * pow(below, 7, P), (P - 5) // 8, P) % P
    if below * x * x % P != above:
        x = x * ROOT_OF_MINUS_ONE % P
    if below * x * x % P != above:
        raise Fault("these bytes encode no point of the curve")
    if x & 1 != sign:
        x = -x % P
    return (x, y, 1, x * y % P)


def added(one: Point, x_less: int, x_more: int, product: int) -> Point:
    """Add a point given as (y - x, y + x, 2dxy); complete, so it also doubles (Hisil et al. 2008, section 3.1)."""
    x, y, z, t = one
    a = (y - x) * x_less % P
    b = (y + x) * x_more % P
    c = t * product % P
    e, f, g, h = b - a, 2 * z - c, 2 * z + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def doubled(one: Point) -> Point:
    """Twice a point (the same paper, section 3.3)."""
    x, y, z, _ = one
    a, b = x * x % P, y * y % P
    h = a + b
    e = h - (x + y) * (x + y) % P
    g = a - b
    f = 2 * z * z + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def table_of(point: Point) -> Table:
    """Multiples 1 to 31 of a point times every power of 32, each brought to Z = 1."""
    multiples: list = []
    start = point
    for _ in range(WINDOW_COUNT):
        x, y, _, product = brought_down([start])[0]
        step = (y - x, y + x, 2 * D * product % P)
        multiples.append(start)
        for _ in range(2, 1 << WINDOW_BITS):
            multiples.append(added(multiples[-1], *step))
        for _ in range(WINDOW_BITS):
            start = doubled(start)
    flat = [(y - x, y + x, 2 * D * product % P) for x, y, _, product in brought_down(multiples)]
    count = (1 << WINDOW_BITS) - 1
    return [[None, *flat[at : at + count]] for at in range(0, len(flat), count)]


def brought_down(points: list) -> list:
    """Divide many points by their Z, with one inversion for all of them (Montgomery's trick)."""
    products, running = [], 1
    for point in points:
        products.append(running)
        running = running * point[2] % P
    inverse = pow(running, P - 2, P)
    found = []
    for point, before in zip(reversed(points), reversed(products)):
        one = inverse * before % P
        inverse = inverse * point[2] % P
        x, y = point[0] * one % P, point[1] * one % P
        found.append((x, y, 1, x * y % P))
    return found[::-1]


def gathered(total: Point, number: int, table: Table) -> Point:
    """Add a multiple of the table's point."""
    for digits in table:
        digit = number & 31
        if digit:
            total = added(total, *digits[digit])
        number >>= WINDOW_BITS
    return total


BASE_TABLE: Table = []  # of the base point; made when it is first needed


class Key:
    """A public key.

    Args:
        raw: Its 32 bytes.

    Raises:
        Fault: Not the one encoding of a point, or of small order: such a key signs what nobody signed.
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) != 32 or int.from_bytes(raw, "little") & ((1 << 255) - 1) in SMALL_ORDER_Y:
            raise Fault("a public key must be 32 bytes and not of small order")
        x, y, _, product = point_of(raw)
        self.raw = raw
        self.key_id = hashlib.sha256(b"lichen key v1\n" + raw).digest()[:16]
        self.minus = (-x % P, y, 1, -product % P)
        self.table: Table = []

    def verify(self, message: bytes, signature: bytes) -> bool:
        """True when this key signed this message (section 5.1.7, without the cofactor)."""
        second = int.from_bytes(signature[32:], "little")
        if len(signature) != 64 or second >= ORDER:
            return False
        if not BASE_TABLE:
            y = 4 * pow(5, P - 2, P) % P
            BASE_TABLE.extend(table_of(point_of(y.to_bytes(32, "little"))))
        if not self.table:
            self.table = table_of(self.minus)
        digest = hashlib.sha512(signature[:32] + self.raw + message).digest()
        total = gathered((0, 1, 1, 0), second, BASE_TABLE)
        total = gathered(total, int.from_bytes(digest, "little") % ORDER, self.table)
        inverse = pow(total[2], P - 2, P)
        x, y = total[0] * inverse % P, total[1] * inverse % P
        return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]
