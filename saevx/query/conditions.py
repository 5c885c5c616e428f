"""Conditions on the fields of artifacts, for searches.

    layer=13    vit.name~dinov2    n_train!=null    mean_ap>=0.3 and n=128|512    age<2d    size>1GB
    created>=2026-11-22

A condition is a field, an operator and a value. The operators are = != < <= > >= and ~ (contains,
ignoring case). Conditions joined by `and` must all hold. Numbers compare as numbers, true and
false as booleans, anything else as text; null stands for a missing value. Quotes make any value
text. After = and !=, several values may be given, separated by |. An artifact without the field
never matches. A field may be given by its full path, as in scorer.shards.layer=13.

`created` compares with dates such as 2026-11 or 2026-11-22T12:30, in UTC unless a zone is given:
< <= > >= compare with the beginning of that period, = and != with all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, NoReturn

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
_QUANTITY = re.compile(r"([\d.]+)\s*([a-z]+)", re.IGNORECASE)
_DATE = re.compile(
    r"\d{4}(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)?"
    r"(?:Z|[-+]\d\d:?\d\d)?)?)?)?"
)
"""Groups: month, day, hour, minute, second and its fraction."""


class Period(NamedTuple):
    """A year, a month, a day, or a time of day as precise as it was given."""

    begin: datetime
    end: datetime

    def holds(self, found: Scalar, operator: str) -> bool | None:
        """Compare a timestamp with this period; None if `found` is no timestamp."""
        try:
            at = _with_zone(datetime.fromisoformat(str(found)))
        except ValueError:
            return None
        if operator in ("=", "!="):
            return (self.begin <= at < self.end) is (operator == "=")
        return _OPERATORS[operator](at, self.begin)


class Value(NamedTuple):
    """What a field is compared with."""

    shown: str
    by_type: Mapping[str, Any]
    """The value in each type that it may have: 13 is a number or text, '13' only text."""

    @classmethod
    def of(cls, shown: str, *values: Scalar | Period) -> Value:
        return cls(shown, {type_in_words(value): value for value in values})

    def holds(self, found: Scalar, operator: str) -> bool | None:
        """Compare with what a field has; None if their types do not compare."""
        by_type, name = self.by_type, type_in_words(found)
        if "null" in by_type or name == "null":
            same = name in by_type
            return {"=": same, "!=": not same}.get(operator, False)
        if "a period" in by_type:
            period: Period = by_type["a period"]
            return period.holds(found, operator)
        if (
            name not in by_type
            or (name == "a boolean" and operator not in ("=", "!="))
            or (name == "a number" and operator == "~")
            or (name == "text" and operator[0] in "<>" and "a number" in by_type)
        ):
            return None
        return _OPERATORS[operator](found, by_type[name])


def type_in_words(value: Scalar | Period) -> str:
    """Return the type of a value as messages call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, Period):
        return "a period"
    return "text" if isinstance(value, str) else "a number"


@dataclass(frozen=True)
class Condition:
    field: str
    operator: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{'|'.join(value.shown for value in self.values)}"

    def holds(self, found: Scalar) -> bool | None:
        """Return None if what was found does not compare with any of the values."""
        answers = [value.holds(found, self.operator) for value in self.values]
        if all(answer is None for answer in answers):
            return None
        return False not in answers if self.operator == "!=" else True in answers


def parse(where: Where) -> list[Condition]:
    """Return the conditions. Raises QueryError, saying what to write instead."""
    if where is None:
        return []
    if isinstance(where, Mapping):
        return [_from_python(field, wanted) for field, wanted in where.items()]
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
    if operator not in ("=", "!=") and any("null" in value.by_type for value in values):
        refuse(f"{text!r}: null can only be compared with = and !=")
    return Condition(field, operator, values)


def _value(text: str, field: str, operator: str = "=") -> Value:
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        return Value.of(text, text[1:-1])
    if text in ("null", "None"):
        return Value.of("null", None)
    if field == "created" and operator != "~":
        return Value.of(text, _period(text))
    quantity = _QUANTITY.fullmatch(text)
    if quantity and field in _UNITS:
        unit = _UNITS[field].get(quantity[2].lower())
        if unit is None or not _NUMBER.fullmatch(quantity[1]):
            refuse(f"{field} has one of the units {', '.join(_UNITS[field])}: {text!r} is none")
        return Value.of(text, float(quantity[1]) * unit)
    if text.lower() in ("true", "false"):
        return Value.of(text, text, text.lower() == "true")
    if _NUMBER.fullmatch(text):
        return Value.of(text, text, float(text) if re.search("[.eE]", text) else int(text))
    return Value.of(text, text)


def _period(text: str) -> Period:
    match = _DATE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        precision = sum(group is not None for group in match.groups())
        begin = _with_zone(datetime.fromisoformat(text + "-01-01"[3 * precision :]))
        if precision == 0:
            return Period(begin, begin.replace(year=begin.year + 1))
        if precision == 1:
            return Period(begin, (begin + timedelta(days=31)).replace(day=1))
        fraction_us = 10 ** (6 - len(match[6] or ""))
        length = (
            timedelta(days=1),
            timedelta(hours=1),
            timedelta(minutes=1),
            timedelta(seconds=1),
            timedelta(microseconds=fraction_us),
        )[precision - 2]
        return Period(begin, begin + length)
    except (ValueError, OverflowError):
        refuse(
            f"created is compared with dates, such as 2026, 2026-11, 2026-11-22 or "
            f"2026-11-22T12:30: {text!r} is none"
        )


def _with_zone(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _from_python(field: str, wanted: Any) -> Condition:
    several = wanted if isinstance(wanted, list | tuple | set | frozenset | range) else [wanted]
    values = []
    for value in several:
        if field == "created" and isinstance(value, str | int | date):
            values.append(_value(str(value), field))
        elif isinstance(value, str | int | float | None):
            shown = repr(value) if isinstance(value, str) else str(value)
            values.append(Value.of("null" if value is None else shown, value))
        else:
            refuse(
                f"{field} is compared with a {type(value).__name__}: use numbers, text, True, "
                "False and None"
            )
    return Condition(field, "=", tuple(values))


def refuse(message: str) -> NoReturn:
    """Raise QueryError."""
    from saevx.errors import QueryError  # imports all specs, which `saevx ls` does without

    raise QueryError(message)
