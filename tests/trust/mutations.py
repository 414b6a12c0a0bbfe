"""Files that are almost right: sound ones of each format, and what a fuzzer makes of them.

Every case comes from a random generator alone, so that its number is enough to make it again.
"""

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

BITS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of one number."""

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 2**31, 2**53, 2**63, 2**64, 10**40, -(2**63) - 1),
    *(0.0, -0.0, 0.5, 1.0, 1e308, 5e-324),
    *(
        "",
        "a",
        "0",
        "F32",
        "F8_E5M2",
        "C64",
        "running",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../b",
        "~",
    ),
    *(
        "\x1b[2J",
        "\x00",
        "\ud800",
        "𝒳",
        "é" * 300,
        "a" * 9000,
        "=cmd()",
        "$x$",
        "[red]x[/red]",
        "__metadata__",
    ),
    *([], {}, [[]], {"a": {}}, [0, 8], ["0"], {"sha256": "0" * 64, "bytes": 0}),
]
"""Values that do not belong where they are put."""

ODD_TEXT = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1E400", b"0x10", b"01", b"+1", b".5", b"1.", b"--1"),
    *(b"9" * 400, b"9" * 5000, b"1" + b"0" * 70, b'"\\ud800"', b'"\\u0000"', b"\xff", b"\xef\xbb\xbf"),
    *(b"[" * 40 + b"]" * 40, b"{}", b",", b":", b"//x", b"/**/", b"\n", b"\r", b"\t", b" ", b"\x00", b"'a'"),
    *(b'"a":1,"a":1', b'"":0', b"]", b"}", b'"', b"\\", b"*a", b"&a ", b"<<: ", b"%", b"\xe2\x80\xa8"),
    *(b"---\n", b"...\n", b"? ", b"- ", b"|", b">", b"@", b"`", b"#", b"\xc2\x85", b"0o17", b".inf", b"1_0"),
    *(b"1:30", b"!!python/name:os.system "),
)


def bytes_changed(data: bytes, random: Random) -> bytes:
    """One to four edits that know nothing of the format."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at, length = random.randrange(len(changed) + 1), random.choice((1, 1, 2, 8, 40))
        match random.randrange(7):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << random.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = random.randrange(256)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = random.randbytes(length)
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                changed[at:at] = random.choice(ODD_TEXT)
            case _:
                del changed[at:]
    return bytes(changed)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a nested value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def value_changed(value: Any, random: Random) -> Any:
    """One to three nodes of a nested value replaced, removed, renamed or nudged."""
    changed = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(changed))
        if not places:
            return random.choice(ODD)
        holder, key = random.choice(places)
        match random.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(random.choice(ODD))] = holder.pop(key)
            case 2 if isinstance(holder[key], int | float):
                holder[key] += random.choice((-8, -4, -1, 1, 4, 8, 2**32, 2**63, 0.5))
            case 3:
                holder[key] = copy.deepcopy(random.choice(places)[0])
            case _:
                holder[key] = copy.deepcopy(random.choice(ODD))
    return changed


def as_json(value: Any, random: Random) -> bytes:
    """JSON text of a value, now and then with a key given twice, or with other spaces and escapes."""
    ascii_only = random.random() < 0.8
    text = json.dumps(
        value, ensure_ascii=ascii_only, indent=random.choice((None, None, 1)), sort_keys=random.random() < 0.1
    )
    if random.random() < 0.1 and isinstance(value, dict) and value:
        name = random.choice(list(value))
        text = text.replace("{", "{" + json.dumps({name: value[name]})[1:-1] + ",", 1)
    return text.encode("utf-8", "surrogatepass")


def weights(random: Random) -> tuple[dict[str, Any], bytes]:
    """Header and data of a sound file; small numbers, so that no float is infinite."""
    header: dict[str, Any] = {}
    data = b""
    for index in range(random.randrange(5)):
        dtype = random.choice(list(BITS))
        shape = [random.choice((0, 1, 1, 2, 3, 5)) for _ in range(random.choice((0, 1, 1, 2, 3, 8)))]
        count = BITS[dtype]
        for size in shape:
            count *= size
        header[random.choice(("a", "w.", "layers/0:", "Z-_")) + str(index)] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + count],
        }
        data += bytes(random.choice((0, 1)) for _ in range(count))
    return header, data


def weights_file(random: Random) -> bytes:
    """A file of tensors: sound, or changed in its header, its length field, its data, or anywhere."""
    header, data = weights(random)
    kind = random.randrange(8)
    if kind == 1 and len(header) > 1:
        one, other = random.sample(list(header), 2)
        header[one]["data_offsets"], header[other]["data_offsets"] = (
            header[other]["data_offsets"],
            header[one]["data_offsets"],
        )
    elif kind == 2:
        header["__metadata__"] = random.choice([{"format": "pt"}, {}, {"a": 1}, [], "x"])
    value = value_changed(header, random) if kind in (3, 4) else header
    text = as_json(value, random)
    if random.random() < 0.3:
        text = text + b" " * random.randrange(1, 17)
    if random.random() < 0.05:
        text = b" " + text
    if kind == 5:
        text = bytes_changed(text, random)
    length = len(text) + (random.choice((-9, -1, 1, 8, 2**20, 2**62)) if kind == 6 else 0)
    if kind == 7:
        data = bytes_changed(data, random)
    whole = (length % 2**64).to_bytes(8, "little") + text + data
    return bytes_changed(whole, random) if random.random() < 0.15 else whole


def changed_json(value: Any, random: Random) -> bytes:
    """JSON of a value: as it is, changed in its structure, in its text, or in both."""
    if random.random() < 0.6:
        value = value_changed(value, random)
    text = as_json(value, random)
    return bytes_changed(text, random) if random.random() < 0.4 else text


def changed_lines(rows: list[dict[str, Any]], random: Random) -> bytes:
    """JSONL of rows with something wrong in some of them."""
    lines = []
    for row in rows[: random.randrange(len(rows) + 1)]:
        whole = random.random() < 0.7
        lines.append(as_json(row, random).replace(b"\n", b" ") if whole else changed_json(row, random))
    text = b"".join(line + b"\n" for line in lines)
    return bytes_changed(text, random) if random.random() < 0.3 else text


def changed_text(text: str, random: Random) -> str:
    """YAML with lines taken out, doubled, moved, nested deeper, or with a value replaced; or other bytes."""
    lines = text.splitlines(keepends=True)
    for _ in range(random.choice((1, 1, 2, 4))):
        if not lines:
            break
        at = random.randrange(len(lines))
        line = lines[at]
        match random.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, random.choice(lines))
            case 2:
                lines[at] = "  " * random.randrange(1, 40) + line.lstrip()
            case 3:
                lines[at] = line.lstrip()
            case 4:
                lines[at] = f"{line.partition(':')[0]}: {_odd_yaml(random)}\n"
            case _:
                lines[at] = f"{_odd_yaml(random)}: {line.partition(':')[2].strip()}\n"
    changed = "".join(lines)
    if random.random() < 0.3:
        changed = bytes_changed(changed.encode(), random).decode("utf-8", "replace")
    return changed


def _odd_yaml(random: Random) -> str:
    if random.random() < 0.5:
        return random.choice(ODD_TEXT).decode("utf-8", "replace")
    return json.dumps(random.choice(ODD))
