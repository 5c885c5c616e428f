"""Conditions that a search puts on artifacts.

    layer=13    vit.name~dinov2    n_train!=null    mean_ap>=0.3 and n=128|512    age<2d    size>1GB
    created>=2026-11-22

A condition is a field, one of = != < <= > >= ~ (contains, in whatever case), and a value; several
hold together. Numbers are compared as numbers, true and false as such, text as text, and null is
the absence of a value. `created` is compared with dates, UTC unless they say otherwise, such as
2026-11 or 2026-11-22T12:30: < <= > >= go by the moment at which it begins, and = is any moment
within it. A field has its full path for another name, as in scorer.shards.layer=13.
Quotes make text of anything. After = and != several values may stand,
separated by |. An artifact that does not have the field never matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NoReturn

from store.index.reader import Scalar

Where = str | Sequence[str] | Mapping[str, Any] | None
"""A condition, several, or a dict of fields and the values that they must have."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "~": lambda a, b: b.lower() in a.lower(),
}
_CONDITION = re.compile(r"\s*([^=!<>~\s]+)\s*(==|!=|<=|>=|=|<|>|~)\s*(.*?)\s*", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_UNQUOTED = r"((?:'[^']*'|\"[^\"]*\"|.)+?)"
_AND = re.compile(_UNQUOTED + r"(?:\s+and\s+|$)", re.DOTALL)
_OR = re.compile(_UNQUOTED + r"(?:\||$)", re.DOTALL)

_UNITS: dict[str, dict[str, float]] = {
    "size": {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12},
    "age": {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400},
}
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?P<time>[T ]\d\d(?P<minute>:\d\d"
    r"(?P<second>:\d\d(?:\.(?P<fraction>\d{1,6}))?)?)?(?:Z|[-+]\d\d:?\d\d)?)?)?)?"
)
_QUANTITY = re.compile(r"([\d.]+)\s*([a-z]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Value:
    """What a field is compared with, in every way that it may be meant."""

    shown: str
    text: str | None = None
    number: float | None = None
    truth: bool | None = None
    is_null: bool = False
    period: tuple[datetime, datetime] | None = None
    """When it begins, and when it is over."""


@dataclass(frozen=True)
class Condition:
    field: str
    operator: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{'|'.join(value.shown for value in self.values)}"

    def holds(self, found: Scalar) -> bool | None:
        """None where what was found cannot be compared with what is wanted."""
        answers = [_compare(found, self.operator, value) for value in self.values]
        if all(answer is None for answer in answers):
            return None
        return False not in answers if self.operator == "!=" else True in answers


def _compare(found: Scalar, operator: str, value: Value) -> bool | None:
    if found is None or value.is_null:
        same = found is None and value.is_null
        return {"=": same, "!=": not same}.get(operator, False)
    if value.period is not None:
        return _compare_times(found, operator, value.period)
    wanted: Scalar
    if isinstance(found, bool):
        wanted = value.truth if operator in ("=", "!=") else None
    elif isinstance(found, str):
        wanted = None if operator[0] in "<>" and value.number is not None else value.text
    else:
        wanted = None if operator == "~" else value.number
    return None if wanted is None else _OPERATORS[operator](found, wanted)


def _compare_times(found: Scalar, operator: str, period: tuple[datetime, datetime]) -> bool | None:
    try:
        at = _with_zone(datetime.fromisoformat(str(found)))
    except ValueError:
        return None
    begin, end = period
    if operator in ("=", "!="):
        return (begin <= at < end) is (operator == "=")
    return _OPERATORS[operator](at, begin)


def parse(where: Where) -> list[Condition]:
    """Raises QueryError, with what to write instead."""
    if where is None:
        return []
    if isinstance(where, Mapping):
        return [_of_python(field, wanted) for field, wanted in where.items()]
    texts = [where] if isinstance(where, str) else where
    return [_parse(part) for text in texts for part in _AND.findall(text.strip()) or [text]]


def _parse(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        refuse(
            f"{text!r} is no condition: write a field, one of = != < <= > >= ~, and a value, as in "
            "layer=13, 'n_train>=64', vit.name~dinov2, n_train=null"
        )
    field, operator, rest = match.groups()
    operator = "=" if operator == "==" else operator
    several = _OR.findall(rest) if operator in ("=", "!=") else [rest]
    values = tuple(_value(part.strip(), field, operator) for part in several or [""])
    if operator not in ("=", "!=") and any(value.is_null for value in values):
        refuse(f"{text!r}: null can only be compared with = and !=")
    return Condition(field, operator, values)


def _value(text: str, field: str, operator: str = "=") -> Value:
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        return Value(text, text=text[1:-1])
    if text in ("null", "None"):
        return Value("null", is_null=True)
    if field == "created" and operator != "~":
        return Value(text, text, period=_period(text))
    quantity = _QUANTITY.fullmatch(text)
    if quantity and field in _UNITS:
        unit = _UNITS[field].get(quantity[2].lower())
        if unit is None or not _NUMBER.fullmatch(quantity[1]):
            refuse(f"{field} has one of the units {', '.join(_UNITS[field])}: {text!r} is none")
        return Value(text, number=float(quantity[1]) * unit)
    truth = {"true": True, "false": False}.get(text.lower())
    number = (
        (float(text) if re.search("[.e]", text.lower()) else int(text))
        if _NUMBER.fullmatch(text)
        else None
    )
    return Value(text, text, number, truth)


def _period(text: str) -> tuple[datetime, datetime]:
    """A year, a month, a day, or a time of day as far as it is told. Raises QueryError."""
    match = _DATE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        year, month, day = (int(part) if part else 0 for part in match.group(1, 2, 3))
        begin = datetime(year, month or 1, day or 1, tzinfo=UTC)
        if match["time"]:
            begin = _with_zone(datetime.fromisoformat(text))
            return begin, begin + _resolution(match)
        if day:
            return begin, begin + timedelta(days=1)
        return begin, datetime(
            year + (month in (0, 12)), month % 12 + 1 if month else 1, 1, tzinfo=UTC
        )
    except (ValueError, OverflowError):
        refuse(
            f"created is compared with dates, such as 2026, 2026-11, 2026-11-22 or "
            f"2026-11-22T12:30: {text!r} is none"
        )


def _resolution(match: re.Match[str]) -> timedelta:
    """The length of what a time of day tells: of an hour, a minute, a second or less."""
    if match["fraction"]:
        return timedelta(microseconds=10 ** (6 - len(match["fraction"])))
    if match["second"]:
        return timedelta(seconds=1)
    return timedelta(minutes=1) if match["minute"] else timedelta(hours=1)


def _with_zone(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _of_python(field: str, wanted: Any) -> Condition:
    several = wanted if isinstance(wanted, list | tuple | set | frozenset | range) else [wanted]
    values = []
    for value in several:
        if isinstance(value, bool):
            values.append(Value(str(value), truth=value))
        elif field == "created" and isinstance(value, str | int | date):
            values.append(_value(str(value), field))
        elif isinstance(value, int | float):
            values.append(Value(str(value), number=value))
        elif isinstance(value, str):
            values.append(Value(repr(value), text=value))
        elif value is None:
            values.append(Value("null", is_null=True))
        else:
            refuse(
                f"{field} is compared with a {type(value).__name__}: use numbers, text, True, "
                "False and None"
            )
    return Condition(field, "=", tuple(values))


def refuse(message: str) -> NoReturn:
    from saevx.errors import (
        QueryError,  # here, since it loads every spec, which `saevx ls` can spare
    )

    raise QueryError(message)
