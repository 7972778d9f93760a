"""The functions that a query may call.

In: a function's name and its arguments. Out: SQL. Refused (:class:`AdqlError`): functions that are not in the tables below,
wrong numbers and kinds of arguments. Where a function has no value (the root of a negative number), its value is NULL.

Source: ADQL 2.1, sections 2.3, 2.2.8 (aggregates) and 4.8 (optional functions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scanner.query.adql.error import AdqlError, Place
from scanner.query.adql.value import Kind, Value, combined


@dataclass(frozen=True)
class Function:
    """``templates``: SQL by number of arguments, each argument once and in order; ``takes``: kind of every argument."""

    takes: Kind
    gives: Kind
    templates: tuple[tuple[int, str], ...]


def _real(*templates: str) -> Function:
    return Function(Kind.REAL, Kind.REAL, tuple((template.count("{"), template) for template in templates))


def _guarded(name: str) -> Function:
    return _real(f"nullif(nullif({name}({{0}}::DOUBLE), 'NaN'), '-inf')")


def _text(name: str) -> Function:
    return Function(Kind.TEXT, Kind.TEXT, ((1, f"{name}({{0}})"),))


FUNCTIONS: dict[str, Function] = {
    "ACOS": _guarded("acos"), "ASIN": _guarded("asin"), "ATAN": _guarded("atan"), "COS": _guarded("cos"),
    "SIN": _guarded("sin"), "TAN": _guarded("tan"), "COT": _guarded("cot"), "SQRT": _guarded("sqrt"),
    "LOG": _guarded("ln"), "LOG10": _guarded("log10"), "EXP": _guarded("exp"),
    "ATAN2": _real("nullif(atan2({0}::DOUBLE, {1}::DOUBLE), 'NaN')"),
    "POWER": _real("nullif(pow({0}::DOUBLE, {1}::DOUBLE), 'NaN')"),
    "DEGREES": _real("degrees({0}::DOUBLE)"),
    "RADIANS": _real("radians({0}::DOUBLE)"),
    "CEILING": _real("ceil({0}::DOUBLE)"),
    "FLOOR": _real("floor({0}::DOUBLE)"),
    "ROUND": _real("round({0}::DOUBLE)", "round({0}::DOUBLE, {1}::INTEGER)"),
    "TRUNCATE": _real("trunc({0}::DOUBLE)", "trunc({0}::DOUBLE, {1}::INTEGER)"),
    "PI": _real("pi()"),
    "RAND": _real("random()", "random() + 0 * {0}::DOUBLE"),
    "LOWER": _text("lower"),
    "UPPER": _text("upper"),
}  # fmt: skip
#: Functions of whole numbers are whole, of others not.
_LIKE_THEIR_ARGUMENT = ("ABS", "MOD")
AGGREGATES = ("COUNT", "SUM", "AVG", "MIN", "MAX")


def call(name: str, arguments: Sequence[Value], place: Place) -> Value:
    """Call a function of values.

    Raises
    ------
    AdqlError
        There is none of this name, or it cannot take these.
    """
    if name in _LIKE_THEIR_ARGUMENT:
        return _number_function(name, arguments, place)
    if name == "COALESCE":
        return _coalesce(arguments, place)
    if name not in FUNCTIONS:
        raise AdqlError(f"there is no function {name}", place)
    function = FUNCTIONS[name]
    templates = dict(function.templates)
    _check_number(name, arguments, tuple(templates), place)
    for argument in arguments:
        _check_kind(name, argument, function.takes, place)
    return combined(templates[len(arguments)], function.gives, *arguments)


def aggregate(name: str, arguments: Sequence[Value], place: Place, *, distinct: bool, star: bool) -> Value:
    """Call an aggregate; its value depends on no single row.

    Raises
    ------
    AdqlError
        It cannot take these.
    """
    if star:
        return Value("count(*)", Kind.WHOLE)
    _check_number(name, arguments, (1,), place)
    (of,) = arguments
    if name in ("SUM", "AVG"):
        _check_kind(name, of, Kind.REAL, place)
    kind = {"COUNT": Kind.WHOLE, "AVG": Kind.REAL}.get(name, of.kind)
    if kind is Kind.NULL:
        kind = Kind.REAL
    which = "DISTINCT " if distinct else ""
    argument = of.sql if name == "COUNT" or kind in (Kind.TEXT, Kind.TRUTH) else f"({of.sql})::{of.kind.sql}"
    if of.kind is Kind.NULL:
        argument = f"({of.sql})::DOUBLE"
    field = of.field if name in ("MIN", "MAX") else None
    return Value(f"({name.lower()}({which}{argument}))::{kind.sql}", kind, of.parameters, field=field)


def _number_function(name: str, arguments: Sequence[Value], place: Place) -> Value:
    _check_number(name, arguments, (1 if name == "ABS" else 2,), place)
    for argument in arguments:
        _check_kind(name, argument, Kind.REAL, place)
    whole = all(argument.kind is Kind.WHOLE for argument in arguments)
    kind = Kind.WHOLE if whole else Kind.REAL
    if name == "ABS":
        return combined(f"abs({{0}}::{kind.sql})", kind, *arguments)
    remainder = f"({{0}}::{kind.sql} % nullif({{1}}::{kind.sql}, 0))"
    return combined(remainder if whole else f"nullif({remainder}, 'NaN')", kind, *arguments)


def _coalesce(arguments: Sequence[Value], place: Place) -> Value:
    if not arguments:
        raise AdqlError("COALESCE needs a value", place)
    kinds = {argument.kind for argument in arguments} - {Kind.NULL}
    if len(kinds) > 1 and not all(kind.is_number for kind in kinds):
        raise AdqlError("the values of COALESCE are of different kinds", place)
    kind = kinds.pop() if len(kinds) == 1 else Kind.REAL if kinds else Kind.NULL
    slots = ", ".join(f"({{{number}}})::{kind.sql}" for number in range(len(arguments)))
    return combined(f"coalesce({slots})", kind, *arguments)


def _check_number(name: str, arguments: Sequence[Value], numbers: tuple[int, ...], place: Place) -> None:
    if len(arguments) not in numbers:
        wanted = " or ".join(map(str, numbers))
        raise AdqlError(f"{name} takes {wanted} argument{'' if wanted == '1' else 's'}, not {len(arguments)}", place)


def _check_kind(name: str, argument: Value, wanted: Kind, place: Place) -> None:
    fits = argument.kind.is_number if wanted is Kind.REAL else argument.kind in (wanted, Kind.NULL)
    if not fits:
        raise AdqlError(f"{name} takes {wanted.value}, not {argument.kind.value}", place)
