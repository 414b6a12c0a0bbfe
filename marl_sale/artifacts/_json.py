"""JSON with bounds: capped in size, depth and number of containers, no duplicate keys, no NaN or infinity."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NoReturn

from marl_sale.errors import ArtifactError

MAX_BYTES = 8 << 20
MAX_DEPTH = 32
MAX_CONTAINERS = 200_000
"""Lists and objects: each takes many times the two bytes of its text."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {json.dumps(twice)} appears twice")
    return result


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _brackets(data: bytes) -> int:
    """At least the number of lists and objects, without building any."""
    return data.count(b"[") + data.count(b"{")


def parse(data: bytes, *, where: object, limit: int = MAX_BYTES) -> Any:
    """Value of a JSON text. ArtifactError names `where` and the reason of a refusal."""
    if len(data) > limit:
        raise ArtifactError(f"{where}: {len(data)} bytes of JSON, at most {limit} are allowed")
    if _brackets(data) > MAX_CONTAINERS:
        raise ArtifactError(f"{where}: damaged: more than {MAX_CONTAINERS} lists and objects")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_float=_finite,
        )
        _check_depth(value)
    except RecursionError:
        raise ArtifactError(f"{where}: damaged: nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise ArtifactError(f"{where}: damaged: {error}") from error
    return value


def dump(value: object, *, limit: int = MAX_BYTES) -> bytes:
    """JSON text of a value that `parse` accepts. ValueError for NaN, infinity, too large or too deep."""
    data = (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()
    _check_depth(value)
    if len(data) > limit or _brackets(data) > MAX_CONTAINERS:
        raise ValueError(f"{len(data)} bytes of JSON, at most {limit} can be read back")
    return data
