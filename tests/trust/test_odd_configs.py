"""A thousand bad and odd configurations through the real command: valid, or exit code 2, the key named."""

import io
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from random import Random

import pytest
import typer
from marl_sale_cli.recipes import validate as command
from mutations import changed_text

from marl_sale.config import library
from marl_sale.config.keys import keys, sections

Record = Callable[..., None]

RECIPES = ("tiny/match", "tiny/match+qmix", "lbf/8x8-2p-2f-coop", "micro/3m+iql")
ODD = (
    *(
        "",
        "~",
        "null",
        "true",
        "no",
        "0",
        "-0",
        "1",
        "-1",
        "1.0",
        "1e3",
        "0x10",
        "0o7",
        "010",
        "1_000",
        "1:30",
    ),
    *(
        "1e999",
        "-.inf",
        ".nan",
        "nan",
        "inf",
        "9" * 64,
        "9" * 65,
        "9" * 5000,
        "2147483648",
        "9223372036854775808",
    ),
    *(
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "[[[",
        "[" * 200,
        "{a: {b: {c: 1}}}",
        '"',
        "'x'",
        '"\\e[2J"',
        "\x1b[31m",
    ),
    *(
        "!!python/name:os.system",
        "!x 1",
        "&a 1",
        "*a",
        "<<: 1",
        "a: b",
        "---",
        "...",
        "%YAML",
        "# c",
        "|",
        ">",
    ),
    *(
        "../../etc/passwd",
        "/dev/zero",
        "os.system",
        "${oc.env:HOME}",
        "$(id)",
        "`id`",
        "%s%n",
        "=1+1",
        "[red]x",
    ),
    *(
        "match",
        "tiny",
        "mmsa",
        "adam",
        "gru",
        "float16",
        "nativ",
        "MMSA",
        "é",
        "𝒳",
        "\ud800",
        "x" * 9000,
        "\x00",
    ),
)


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packaged recipes are read from disk once, not a thousand times."""
    monkeypatch.setattr(library, "packaged", cache(library.packaged))


def validate(recipe: str, *overrides: str) -> tuple[int, str]:
    """Exit code and stderr of `marl-sale recipes validate`, without the parser of its options."""
    told = io.StringIO()
    with redirect_stderr(told), redirect_stdout(io.StringIO()):
        try:
            command([recipe], list(overrides))
        except typer.Exit as end:
            return end.exit_code, told.getvalue()
    return 0, told.getvalue()


def check(done: tuple[int, str], what: object) -> bool:
    """Whether the configuration is valid; fails where it is met by anything but exit code 0 or 2."""
    code, told = done
    assert code in (0, 2), f"{what!r}: {code}: {told}"
    for word in ("Traceback", "bug in marl-sale", "\x1b"):
        assert word not in told, f"{what!r}: {told}"
    assert code == 0 or told.startswith("error: "), f"{what!r}: {told}"
    return code == 0


def finish(tally: Counter[bool], record: Record) -> None:
    """Some of each, or the generator proves nothing."""
    assert min(tally[True], tally[False]) > 0.02 * tally.total(), tally
    record(configs=tally.total(), valid=tally[True], refused=tally[False], other=0)


def test_odd_values(is_long: bool, record: Record) -> None:
    """One to three keys set to values that may not belong there; each wrong key is named."""
    random, tally = Random("odd values"), Counter[bool]()
    known = list(keys())
    for _ in range(20_000 if is_long else 800):
        chosen = random.sample(known, random.choice((1, 1, 1, 2, 3)))
        values = [_odd_value(key, random) for key in chosen]
        given = [f"{key}={value}" for key, value in zip(chosen, values, strict=True)]
        done = validate(random.choice(RECIPES), *given)
        valid = check(done, given)
        tally[valid] += 1
        if not valid:
            assert any(key in done[1] for key in (*chosen, *sections())), f"{given}: {done[1]}"
    finish(tally, record)


def _odd_value(key: str, random: Random) -> str:
    """Near the bounds of the key, or anything."""
    rule = keys()[key]
    bounds = [rule[name] for name in ("minimum", "maximum", "exclusiveMinimum") if name in rule]
    if bounds and random.random() < 0.4:
        return str(random.choice(bounds) + random.choice((-1, 0, 1, 0.5)))
    if "enum" in rule and random.random() < 0.3:
        return str(random.choice(rule["enum"]))
    return random.choice(ODD)


def test_odd_keys(is_long: bool, record: Record) -> None:
    """Keys that are almost right: refused, and named as they were given."""
    random = Random("odd keys")
    known, refused = list(keys()), 0
    for _ in range(2_000 if is_long else 150):
        key = random.choice(known)
        at = random.randrange(len(key))
        odd = random.choice(
            (
                key[:at] + key[at + 1 :],
                key[:at] + "x" + key[at:],
                key.upper(),
                f"{key}.more",
                key.replace(".", ":"),
            )
        )
        if odd in known or odd in sections() or "=" in odd:
            continue
        done = validate("tiny/match", f"{odd}=1")
        assert not check(done, odd)
        assert odd in done[1], f"{odd}: {done[1]}"
        refused += 1
    record(refused=refused)


def test_odd_files(is_long: bool, record: Record, tmp_path: Path) -> None:
    """Recipe files with lines taken out, doubled, moved or replaced, and with other bytes in them."""
    random, tally = Random("odd files"), Counter[bool]()
    file = tmp_path / "mine.yaml"
    sound = (
        "about: mine\nextends: tiny/match\nchanges:\n  discount: 0.9\n  env:\n    task: match-7\n"
        "  replay:\n    batch_episodes: 16\n  exploration:\n    finish: 0.1\n"
    )
    for number in range(5_000 if is_long else 150):
        text = sound if number == 0 else changed_text(sound, random)
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        done = validate(str(file))
        valid = check(done, (number, text))
        tally[valid] += 1
        assert valid or "mine.yaml" in done[1] or "extends" in done[1], f"{number}: {done[1]}"
    finish(tally, record)
