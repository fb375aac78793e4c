#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The codec against Python's: what each writes, the other reads as the same value.

Usage: caps_python_test.py CAPS_TOOL. Exits with 77 where oslo.serialization is not installed.
"""
import base64
import datetime
import itertools
import json
import math
import random
import struct
import subprocess
import sys
import uuid

try:
    import msgpack
    from oslo_serialization import msgpackutils
except ImportError:
    sys.exit(77)
try:
    import netaddr
except ImportError:
    netaddr = None

PREFIX = "data:;base64,"
OPEN, JSON = 1, 2


def ask(letter, inputs):
    """Runs the tool over all inputs; a list of (status, bytes)."""
    lines = "".join(f"{letter} {data.hex()}\n" for data in inputs)
    out = subprocess.run([sys.argv[1]], input=lines, text=True, check=True, stdout=subprocess.PIPE)
    answers = [line.split(" ") for line in out.stdout.splitlines()]
    assert len(answers) == len(inputs)
    return [(int(status), bytes.fromhex(data)) for status, data in answers]


def shown(value):
    """A Python value as it should look in JSON."""
    if isinstance(value, msgpack.ExtType):  # before tuple, which it is, too
        return PREFIX + base64.b64encode(value.data).decode()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return PREFIX + base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {shown(k): shown(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [shown(v) for v in value]
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, itertools.count):
        return list(value.__reduce__()[1]) if len(value.__reduce__()[1]) == 2 else \
            [value.__reduce__()[1][0], 1]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def same(a, b):
    """Equal, of the same types, and in the same order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    return a == b


def text_of(rng):
    alphabet = 'ab"\\/\n\t\0\x01\x1f\x7fé€\U0001f600\ud7ff\ue000\uffff {}[]:,'
    return "".join(rng.choice(alphabet) for _ in range(rng.choice((0, 1, 3, 3, 5, 31, 32, 40)) + (rng.random() < 0.02) * 300))


def scalar(rng, plain):
    kind = rng.randrange(7 if plain else 12)
    if kind == 0:
        return rng.choice((None, True, False))
    if kind == 1:
        return rng.randrange(-2 ** 63, 2 ** 64) >> rng.randrange(64)
    if kind == 2:
        return struct.unpack("d", rng.randbytes(8))[0] if not plain else rng.uniform(-1e9, 1e9)
    if kind == 3:
        return rng.choice((0.0, -0.0, 0.1, 1e300, 5e-324, 2.0, 1e16, 123456789.125))
    if kind in (4, 5, 6):
        return text_of(rng)
    if kind == 7:
        return rng.randbytes(rng.choice((0, 1, 2, 3, 20, 300)))
    if kind == 8:
        return uuid.UUID(bytes=rng.randbytes(16))
    if kind == 9:
        moment = datetime.datetime(rng.randrange(1, 10000), rng.randrange(1, 13),
                                   rng.randrange(1, 29), rng.randrange(24), rng.randrange(60),
                                   rng.randrange(60), rng.choice((0, 1, 678, 999999)))
        return moment if rng.random() < 0.5 else moment.date()
    if kind == 10 and netaddr:
        return netaddr.IPAddress(rng.randrange(2 ** 64) >> rng.randrange(64))
    return rng.choice((itertools.count(3), itertools.count(-5, 300), {1, 2, 3},
                       frozenset(("x", b"\xff", 2.5)), msgpack.ExtType(90, rng.randbytes(5))))


def value_of(rng, plain, depth=0):
    if depth < 5 and rng.random() < (1 if depth == 0 else 0.4):
        items = range(rng.choice((0, 1, 2, 3, 5, 20 if depth < 1 else 3)))
        if rng.random() < 0.5:
            return [value_of(rng, plain, depth + 1) for _ in items]
        return {text_of(rng) if plain or rng.random() < 0.8 else rng.randbytes(3):
                value_of(rng, plain, depth + 1) for _ in items}
    return scalar(rng, plain)


def difference(a, b):
    """The innermost pair that is not the same."""
    if type(a) is type(b) is dict and list(a) == list(b):
        return next((difference(a[k], b[k]) for k in a if not same(a[k], b[k])), None)
    if type(a) is type(b) is list and len(a) == len(b):
        return next((difference(x, y) for x, y in zip(a, b) if not same(x, y)), None)
    return a, b


def fail(what, *details):
    print("FAILED:", what, *(repr(detail)[:300] for detail in details), sep="\n  ")
    sys.exit(1)


def check_text_to_python(rng):
    """JSON that we pack is what json.loads gives, to the byte where there is one spelling."""
    values = [value_of(rng, True) for _ in range(700)]
    spellings = [dict(ensure_ascii=a, separators=s, indent=i)
                 for a in (True, False) for s in (None, (",", ":")) for i in (None, 1)]
    texts = [json.dumps(v, **rng.choice(spellings)).encode() + rng.choice((b"", b"\n"))
             for v in values]
    for value, text, (status, packed) in zip(values, texts, ask("e", texts)):
        value = json.loads(text)
        if status != 0 or packed != msgpackutils.dumps(value):
            fail("encode", text, status, packed, msgpackutils.dumps(value))
    for text, (status, _) in zip(texts, ask("l", texts)):
        if status != JSON:
            fail("look", text, status)
    cuts = [text[:rng.randrange(1, len(text.rstrip()))] for text in texts]
    for cut, (status, _) in zip(cuts, ask("l", cuts)):
        if status != OPEN:
            fail("look at a beginning", cut, status)


def strict_json(text):
    """json.loads without what it takes beyond RFC 8259, or None."""
    def no_constant(_):
        raise ValueError

    try:
        value = json.loads(text.decode("utf-8"), parse_constant=no_constant)
        packed = msgpackutils.dumps(value)
    except (ValueError, OverflowError, RecursionError):
        return None
    if not isinstance(value, (dict, list)) or text.startswith(b"\xef\xbb\xbf"):
        return None
    return None if has_infinity(value) else (value, packed)


def has_infinity(value):
    if isinstance(value, dict):
        return any(map(has_infinity, value.values()))
    if isinstance(value, list):
        return any(map(has_infinity, value))
    return isinstance(value, float) and math.isinf(value)


def check_mutations(rng):
    """Damaged JSON is JSON for us exactly where it is for Python."""
    texts = []
    while len(texts) < 3000:
        text = bytearray(json.dumps(value_of(rng, True), ensure_ascii=rng.random() < 0.7).encode()[:400])
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            at = rng.randrange(len(text) + 1)
            text[at:at + rng.randrange(3)] = rng.choice(
                (b"", b"1", b"0", b".", b"e9", b"-", b"[", b"]", b"{", b"}", b",", b":", b'"',
                 b"\\", b"\\u12aB", b"\\ud83d", b"\\ude00", b" ", b"\n", b"\0", b"\xff", b"\xc3",
                 b"null", b"NaN", b"99999999999999999999", b"1e999", b"'", b"\\u0061", b'"a":'))
        texts.append(bytes(text))
    looks = ask("l", texts)
    for text, (status, packed), (look, _) in zip(texts, ask("e", texts), looks):
        wanted = strict_json(text)
        if (look == JSON) != (wanted is not None):
            fail("look", text, look)
        if status != 0:
            fail("encode", text, status)
        got = msgpackutils.loads(packed)
        if wanted is None:
            if (got.encode() if isinstance(got, str) else got or b"") != text:
                fail("text was not kept", text, packed)
        elif got != wanted[0]:
            fail("encode", text, got)


def check_python_to_text(rng):
    values = [value_of(rng, False) for _ in range(700)]
    packed = [msgpackutils.dumps(v) for v in values]
    for value, data, (status, text) in zip(values, packed, ask("d", packed)):
        # A set has no order but the one it was packed in, so compare with what Python reads.
        if status != 0 or text[-1:] != b"\n" or text.count(b"\n") != 1:
            fail("decode", value, status, text)
        if not same(json.loads(text), shown(value)):
            fail("decode", difference(json.loads(text), shown(value)), value)


def check_bytes(rng):
    """Text that is no JSON, and what Python stored as str or bytes, comes back byte for byte."""
    texts = [rng.randbytes(rng.randrange(40)) for _ in range(500)]
    texts += [text_of(rng).encode() for _ in range(500)]
    texts = [t for t in texts if strict_json(t) is None]
    for text, (_, packed) in zip(texts, ask("e", texts)):
        value = msgpackutils.loads(packed)
        back = b"" if value is None else value.encode() if isinstance(value, str) else value
        if back != text or (isinstance(value, bytes) and is_text(text)):
            fail("text", text, packed)
    stored = texts + [text.decode() for text in texts if is_text(text)]
    for value, (status, text) in zip(stored, ask("d", map_dumps(stored))):
        if status != 0 or text != (value.encode() if isinstance(value, str) else value):
            fail("bytes", value, status, text)


def is_text(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def map_dumps(values):
    return [msgpackutils.dumps(value) for value in values]


def check_damaged_msgpack(rng):
    """What Python cannot read we do not either; what we refuse Python does, too, but for depth."""
    packed = []
    for _ in range(3000):
        data = bytearray(msgpackutils.dumps(value_of(rng, False))[:200])
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(data) + 1)
            data[at:at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        packed.append(bytes(data))
    for data, (status, text) in zip(packed, ask("d", packed)):
        try:
            msgpackutils.loads(data)
            readable = True
        except Exception:  # every kind comes out of there
            readable = False
        if readable != (status == 0) and not lenient(data, readable):
            fail("decode", data.hex(), status, text, "Python reads it" if readable else "")


def lenient(data, readable):
    """The extension types are where the two may differ: Python takes what its classes take."""
    marks = (0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8)
    # Python's dictionaries also refuse lists as members of sets, and so on.
    return any(mark in data for mark in marks)


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20240102
    rng = random.Random(seed)
    for check in (check_text_to_python, check_mutations, check_python_to_text, check_bytes,
                  check_damaged_msgpack):
        check(rng)
        print("ok", check.__name__)


main()
