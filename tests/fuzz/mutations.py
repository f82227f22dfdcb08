"""Seeded damage: to the bytes of a file, to the structure of JSON and of tables, to what ``torch.save`` wrote."""

import copy
import csv
import gzip
import io
import json
import math
import re
from collections.abc import Callable
from random import Random
from typing import Any

import torch

Mutation = Callable[[bytes, Random], bytes]
NUMBERS = ("0", "-1", "1e308", "1e999", "-1e-320", "nan", "-inf", "65536", "2147483648", "1_0", "0x10", "9" * 400, "٣")
TEXTS = (
    "", " ", "=cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "\t=1", "a\rb", "../../up", "/etc/passwd", "nul\0l", "\x1b[31m",
    "\udce9", "\ud800", "e\u0301", "\u202e", "<script>", "two\nlines", "$1", "@x", "%x", "x" * 300, "x" * 140_000,
)  # fmt: skip
INTEGERS = (0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1)
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 0.5, 2**31, 2**63, 10**400, math.nan, math.inf, -math.inf, [], {}, [[]], [None], {"": 0},
    [1, 2], ["a", 1], *TEXTS,
)  # fmt: skip


def mutated_bytes(content: bytes, random: Random) -> bytes:
    """One to four damages, most of them near the start, where headers are."""
    for _ in range(random.randint(1, 4)):
        content = random.choice(_DAMAGES)(content, random)
    return content


def mutated_json(content: bytes, random: Random) -> bytes:
    """JSON whose parts are of other types, missing, repeated, too deep or too long; or damaged text."""
    if random.random() < 0.2:
        return mutated_bytes(content, random)
    tree = json.loads(content)
    for _ in range(random.randint(1, 3)):
        tree = _changed(tree, random)
    text = json.dumps(tree, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.15:
        text = random.choice(_TEXT_DAMAGES)(text, random)
    return text.encode("utf-8", "surrogatepass")


def mutated_json_lines(content: bytes, random: Random) -> bytes:
    """JSON Lines with one damaged line, or with lines lost, repeated and exchanged."""
    lines = content.splitlines(keepends=True)
    place = random.randrange(len(lines))
    if random.random() < 0.8:
        lines[place] = mutated_json(lines[place], random).replace(b"\n", b" ") + b"\n" * (random.random() < 0.9)
    else:
        lines[place : place + 1] = random.choice(([], [lines[place]] * 3, lines[place:][::-1], [b"\n"], [b"[]\n"]))
    return b"".join(lines)


def mutated_table(content: bytes, random: Random) -> bytes:
    """A table with odd cells, lost, repeated and renamed columns, or in another encoding; or damaged text."""
    if random.random() < 0.2:
        return mutated_bytes(content, random)
    rows = list(csv.reader(io.StringIO(content.decode())))
    for _ in range(random.randint(1, 3)):
        random.choice(_TABLE_DAMAGES)(rows, random)
    text = io.StringIO()
    quoting = random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    csv.writer(text, delimiter=random.choice(",,,;\t|"), quoting=quoting, lineterminator="\n").writerows(rows)
    encoding = random.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"))
    return text.getvalue().encode(encoding, "surrogatepass")


def mutated_gzip(content: bytes, random: Random) -> bytes:
    """A gzip file with damage inside of the compression, or to it."""
    if random.random() < 0.3:
        return mutated_bytes(content, random)
    return gzip.compress(mutated_bytes(gzip.decompress(content), random), compresslevel=1)


def mutated_checkpoint(content: bytes, random: Random) -> bytes:
    """What ``torch.save`` wrote with other parts, or with damaged bytes."""
    if random.random() < 0.3:
        return mutated_bytes(content, random)
    tree = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(random.randint(1, 3)):
        tree = _changed(tree, random)
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def _place(content: bytes, random: Random) -> int:
    end = max(len(content), 1)
    return random.randrange(min(end, 400) if random.random() < 0.7 else end)


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(random.choice((1, 1, 4, 30))):
        changed[_place(content, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _integer(content: bytes, random: Random) -> bytes:
    size, place = random.choice((1, 2, 4, 8)), _place(content, random)
    place -= place % random.choice((1, size))
    value = random.choice(INTEGERS) % 256**size
    return content[:place] + value.to_bytes(size, random.choice(("little", "big"))) + content[place + size :]


def _block(content: bytes, random: Random) -> bytes:
    place, length = _place(content, random), random.choice((1, 2, 8, 100, 2000))
    inside = random.choice((b"", content[place : place + length] * random.choice((2, 500)), random.randbytes(length)))
    return content[:place] + inside + content[place + length :]


def _number_in_text(content: bytes, random: Random) -> bytes:
    found = list(re.finditer(rb"\d+(\.\d+)?", content[:4000]))
    if not found:
        return _integer(content, random)
    start, end = random.choice(found).span()
    return content[:start] + random.choice(NUMBERS).encode() + content[end:]


def _long_line(content: bytes, random: Random) -> bytes:
    place = _place(content, random)
    return content[:place] + random.choice((b"A", b"9", b"1 ", b"(", b'"', b"\xff")) * 3000 + content[place:]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: _place(content, random)] if random.random() < 0.5 else content[: -random.randint(1, 20)]


_DAMAGES = (_flip, _flip, _integer, _integer, _block, _number_in_text, _number_in_text, _long_line, _cut)


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in a tree: what holds it, and its key there."""
    found, todo = [], [tree]
    while todo:
        holder = todo.pop()
        for key in list(holder if isinstance(holder, dict) else range(len(holder))):
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                todo.append(holder[key])
    return found


def _changed(tree: Any, random: Random) -> Any:
    nodes = _nodes(tree) if isinstance(tree, dict | list) else []
    if not nodes or random.random() < 0.02:
        return copy.deepcopy(random.choice(ODD))
    holder, key = random.choice(nodes)
    how = random.random()
    if how < 0.45:
        holder[key] = _unlike(holder[key], random)
    elif how < 0.65:
        del holder[key]
    elif how < 0.75 and isinstance(holder, dict):
        holder[random.choice(TEXTS)] = holder.pop(key)
    elif how < 0.85 and isinstance(holder, list):
        holder.extend(holder[key : key + 1] * random.choice((1, 3, 40)))
    else:
        other, place = random.choice(nodes)
        if place in (other if isinstance(other, dict) else range(len(other))):
            holder[key] = json.loads(json.dumps(other[place], default=repr))
    return tree


def _unlike(value: Any, random: Random) -> Any:
    """Another value, of a tensor also one of another shape, type or with values that are not finite."""
    if isinstance(value, torch.Tensor) and random.random() < 0.7:
        flat = value.double().flatten()
        flat[:1] = random.choice((math.nan, math.inf, 1e38, 0.0))
        spoilt = flat.reshape(value.shape).to(value.dtype)
        return random.choice((spoilt, value[None], value.flatten()[:1], value.long(), value.bool()))
    if isinstance(value, int | float) and random.random() < 0.6:
        return random.choice((-value, value * 10**6, 0, -1, 10**400, math.nan, math.inf, str(value), [value]))
    return copy.deepcopy(random.choice(ODD))


def _deep(text: str, random: Random) -> str:
    depth = random.choice((900, 100_000))
    opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
    middle = opening * depth + "1" + closing * depth
    place = text.find(":", random.randrange(len(text) + 1)) + 1
    return text[:place] + middle + ("," + text[place:] if place else "")


def _twice(text: str, random: Random) -> str:
    return re.sub(r'("\w+"): ', rf"\1: {random.choice(('1', 'null', '[]'))}, \1: ", text, count=1)


def _number(text: str, random: Random) -> str:
    places = [one.span() for one in re.finditer(r"-?\d+(\.\d+)?", text)] or [(0, 0)]
    start, end = random.choice(places)
    return text[:start] + random.choice((*NUMBERS, "9" * 6000, "1e99999", "-", "NaN", "Infinity")) + text[end:]


_TEXT_DAMAGES: tuple[Callable[[str, Random], str], ...] = (_deep, _twice, _number)


def _odd_cell(rows: list[list[str]], random: Random) -> None:
    row = random.choice(rows)
    if row:
        row[random.randrange(len(row))] = random.choice((*NUMBERS, *TEXTS))


def _column(rows: list[list[str]], random: Random) -> None:
    column = random.randrange(max(len(rows[0]), 1))
    times = random.choice((0, 0, 2))
    for row in rows:
        row[column : column + 1] = row[column : column + 1] * times


def _row(rows: list[list[str]], random: Random) -> None:
    place = random.randrange(len(rows))
    rows[place : place + 1] = random.choice(([], [rows[place]] * 2, [rows[place], []], [rows[place] + ["1"]]))
    if not rows:
        rows.append([])


def _comma(rows: list[list[str]], random: Random) -> None:
    for row in rows:
        row[:] = [cell.replace(".", ",") for cell in row]


_TABLE_DAMAGES: tuple[Callable[[list[list[str]], Random], None], ...] = (_odd_cell, _odd_cell, _column, _row, _comma)
