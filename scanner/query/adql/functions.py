"""Values and functions of a query as SQL: constants, columns, comparisons, mathematics, aggregates, the sky (ADQL 2.1).

Texts become parameters, numbers are written from Python's own, and all other SQL is this package's. NaN is NULL to a query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import pyarrow as pa

from scanner.errors import UsageError
from scanner.query.adql import grammar
from scanner.query.adql.grammar import AdqlError, ColumnName, Name, QueryPlace
from scanner.query.database import quoted
from scanner.query.region import SEPARATION_DEG, Cone, Polygon, Position, Region
from scanner.sphere import HEALPIX_ORDER

#: SQL of a given text: a parameter that says of what type it is.
TEXT = "?::VARCHAR"
#: What a translated query calls the table that it asks.
RELATION = "relation"
_ALIAS = "t"
#: Longest SQL of a query, in letters: some ten thousand numbers.
MAX_SQL = 1_000_000
_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class ValueKind(Enum):
    """What can be done with a value."""

    WHOLE = "a whole number"
    REAL = "a number"
    TEXT = "a text"
    TRUTH = "a condition"
    NULL = "NULL"

    @property
    def is_number(self) -> bool:
        """Whether it can be reckoned with."""
        return self in (ValueKind.WHOLE, ValueKind.REAL, ValueKind.NULL)

    @property
    def arrow(self) -> pa.DataType:
        """Type of an answer's column of such values."""
        return {ValueKind.WHOLE: pa.int64(), ValueKind.REAL: pa.float64(), ValueKind.TRUTH: pa.bool_()}.get(self, pa.string())

    @property
    def sql(self) -> str:
        """The same for DuckDB."""
        return {ValueKind.WHOLE: "BIGINT", ValueKind.REAL: "DOUBLE", ValueKind.TRUTH: "BOOLEAN"}.get(self, "VARCHAR")


@dataclass(frozen=True)
class Value:
    """``sql`` has a ``?`` for each of ``parameters``.

    ``field``: the column, where it is nothing but one. ``loose``: a column in it that is neither within an aggregate nor
    grouped by. ``constant``: its number, where it does not depend on the row.
    """

    sql: str
    kind: ValueKind
    parameters: tuple[object, ...] = ()
    field: pa.Field | None = None
    loose: ColumnName | None = None
    constant: int | float | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """The same for two values that are the same expression."""
        return self.sql, repr(self.parameters)

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but a column or a number, so that it costs nothing to write it twice."""
        return not self.parameters and (self.field is not None or self.constant is not None or self.sql == "NULL")


def number(value: int | float) -> Value:
    """A constant."""
    if isinstance(value, int):
        return Value(f"({value})::BIGINT", ValueKind.WHOLE, constant=value)
    return Value(f"({value!r})::DOUBLE", ValueKind.REAL, constant=value)


def text(value: str) -> Value:
    """A constant text."""
    return Value(TEXT, ValueKind.TEXT, (value,))


def combined(sql: str, kind: ValueKind, *values: Value) -> Value:
    """A value made of others; in ``sql``, ``{0}`` stands for the first, each once and in order.

    Raises
    ------
    AdqlError
        Its SQL is longer than :data:`MAX_SQL`.
    """
    return _computed(sql.format(*(value.sql for value in values)), kind, values)


def evaluated_once(sql: str, kind: ValueKind, *values: Value) -> Value:
    """A value made of others, of which ``sql`` names some more than once, or as an argument of DuckDB's macro ``nullif``.

    Columns and constants are written wherever they are named. All else is evaluated into a structure, whose fields a lambda
    names: written twice at each of n levels of nesting, it would be planned 2^n times.

    Raises
    ------
    AdqlError
        As of :func:`combined`.
    """
    names = [value.sql if value.is_plain else f"v.a{place}" for place, value in enumerate(values)]
    fields = ", ".join(f"'a{place}': {value.sql}" for place, value in enumerate(values) if not value.is_plain)
    body = sql.format(*names)
    return _computed(f"list_transform([{{{fields}}}], lambda v: {body})[1]" if fields else body, kind, values)


def _computed(sql: str, kind: ValueKind, values: Sequence[Value]) -> Value:
    if len(sql) > MAX_SQL:
        raise AdqlError("the query is too long for one; ask for a part of it at a time")
    parameters = tuple(parameter for value in values for parameter in value.parameters)
    return Value(sql, kind, parameters, loose=next((value.loose for value in values if value.loose is not None), None))


@dataclass(frozen=True)
class TableDescription:
    """A table: ``schema`` with metadata ``unit``, ``ucd``, ``description`` … of its columns.

    ``position``: its columns of right ascension and declination in degrees (ICRS), never NaN; ``healpix``: its column of their
    HEALPix index of order 29, nested, by which its rows are sorted.
    """

    schema: pa.Schema
    description: str = ""
    position: tuple[str, str] | None = None
    healpix: str | None = None


@dataclass(frozen=True)
class Scope:
    """The table that a query asks, and the names by which it may be called there."""

    name: str
    table: TableDescription
    qualifiers: tuple[tuple[str, ...], ...]

    @classmethod
    def of(
        cls, parts: tuple[Name, ...], alias: Name | None, tables: Mapping[str, TableDescription], place: QueryPlace
    ) -> Scope:
        """Find the table.

        Raises
        ------
        AdqlError
            There is none of this name.
        """
        found = [name for name in tables if _mean(parts, tuple(name.split(".")))]
        if not found:
            asked, known = ".".join(part.text for part in parts), ", ".join(sorted(tables)[:12])
            raise AdqlError(f"there is no table {asked}; there are {known}", place)
        own = tuple(found[0].split("."))
        qualifiers = tuple(own[start:] for start in range(len(own))) if alias is None else ((alias.text,),)
        return cls(found[0], tables[found[0]], qualifiers)

    def column(self, node: ColumnName) -> Value:
        """SQL of a column.

        Raises
        ------
        AdqlError
            The table has no such column.
        """
        *qualifier, name = node.parts
        self.check_qualifier(tuple(qualifier), node.place)
        for field in self.table.schema:
            if name.means(field.name):
                return self.value(field, node)
        raise AdqlError(f"{self.name} has no column {name.text}", node.place)

    def has(self, name: Name) -> bool:
        """Whether the table has a column of this name."""
        return any(name.means(field.name) for field in self.table.schema)

    def columns(self, qualifier: tuple[Name, ...], place: QueryPlace) -> tuple[Value, ...]:
        """SQL of every column (``*``)."""
        self.check_qualifier(qualifier, place)
        return tuple(self.value(field, ColumnName(place, (Name(field.name, quoted=True),))) for field in self.table.schema)

    def check_qualifier(self, qualifier: tuple[Name, ...], place: QueryPlace) -> None:
        """Refuse names before a column's that are not the table's."""
        if qualifier and not any(_mean(qualifier, known) for known in self.qualifiers):
            asked = ".".join(part.text for part in qualifier)
            raise AdqlError(f"the query asks no table {asked}; it asks {'.'.join(self.qualifiers[0])}", place)

    def value(self, field: pa.Field, node: ColumnName) -> Value:
        """SQL of one column."""
        sql = f"{_ALIAS}.{quoted(field.name)}"
        if pa.types.is_floating(field.type) and field.name not in (self.table.position or ()):
            # Not isnan: Parquet's statistics leave NaN out, and DuckDB takes from them that there is none.
            sql = f"CASE WHEN isfinite({sql}) THEN {sql} END"
        return Value(sql, _kind(field.type), field=field, loose=node)

    @property
    def position(self) -> Position | None:
        """SQL of the position of the table's rows, where it has one."""
        if self.table.position is None:
            return None
        ra, dec = (f"{_ALIAS}.{quoted(name)}" for name in self.table.position)
        healpix = f"{_ALIAS}.{quoted(self.table.healpix)}" if self.table.healpix else ""
        return Position(ra, dec, healpix)


def _mean(parts: tuple[Name, ...], name: tuple[str, ...]) -> bool:
    return len(parts) == len(name) and all(part.means(text) for part, text in zip(parts, name, strict=True))


def _kind(type_: pa.DataType) -> ValueKind:
    if pa.types.is_boolean(type_):
        return ValueKind.TRUTH
    if pa.types.is_integer(type_):
        return ValueKind.WHOLE
    return ValueKind.REAL if pa.types.is_floating(type_) else ValueKind.TEXT


def compared(node: grammar.Comparison, left: Value, right: Value) -> Value:
    """``= <> < > <= >=``."""
    left, right = _comparable(node, left, right), _comparable(node, right, left)
    return combined(f"({{0}} {node.operator} {{1}})", ValueKind.TRUTH, left, right)


def within(node: grammar.Between, operand: Value, low: Value, high: Value) -> Value:
    """BETWEEN."""
    low, high = _comparable(node, low, operand), _comparable(node, high, operand)
    return combined("({0} BETWEEN {1} AND {2})", ValueKind.TRUTH, operand, low, high)


def in_list(node: grammar.In, operand: Value, values: Sequence[Value]) -> Value:
    """IN."""
    slots = ", ".join(f"{{{place}}}" for place in range(1, len(values) + 1))
    fitting = [_comparable(node, value, operand) for value in values]
    return combined(f"({{0}} IN ({slots}))", ValueKind.TRUTH, operand, *fitting)


def like(node: grammar.Like, operand: Value, pattern: Value) -> Value:
    """LIKE and ILIKE."""
    for value in (operand, pattern):
        if value.kind not in (ValueKind.TEXT, ValueKind.NULL):
            raise AdqlError(f"LIKE compares texts, not {value.kind.value}", node.place)
    operator = "ILIKE" if node.any_case else "LIKE"
    return combined(f"(({{0}})::VARCHAR {operator} ({{1}})::VARCHAR)", ValueKind.TRUTH, operand, pattern)


def _comparable(node: grammar.Node, value: Value, other: Value) -> Value:
    """The value as something that can be compared with the other."""
    same = (
        value.kind is other.kind
        or (value.kind.is_number and other.kind.is_number)
        or ValueKind.NULL in (value.kind, other.kind)
    )
    if same:
        return value
    if other.kind is ValueKind.TRUTH:
        written = str(value.constant) if value.constant is not None else str(value.parameters[0]) if value.sql == TEXT else ""
        if written.strip().lower() in _TRUTHS:
            return Value("true" if _TRUTHS[written.strip().lower()] else "false", ValueKind.TRUTH)
    if value.kind is ValueKind.TRUTH:
        # The other side will be turned into a condition, or refused.
        return value
    raise AdqlError(f"{value.kind.value} cannot be compared with {other.kind.value}", node.place)


@dataclass(frozen=True)
class Function:
    """``templates``: SQL by number of arguments; ``takes``: kind of every argument."""

    takes: ValueKind
    gives: ValueKind
    templates: tuple[tuple[int, str], ...]


def _real(*templates: str) -> Function:
    return Function(ValueKind.REAL, ValueKind.REAL, tuple((template.count("{"), template) for template in templates))


def _guarded(name: str) -> Function:
    return _real(f"nullif(nullif({name}({{0}}::DOUBLE), 'NaN'), '-inf')")


def _text(name: str) -> Function:
    return Function(ValueKind.TEXT, ValueKind.TEXT, ((1, f"{name}({{0}})"),))


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
#: Functions whose arguments or results are points and regions.
GEOMETRY = ("POINT", "CIRCLE", "BOX", "POLYGON", "CONTAINS", "INTERSECTS", "DISTANCE", "COORD1", "COORD2", "COORDSYS")
_SHAPES = ("POINT", "CIRCLE", "BOX", "POLYGON")
HEALPIX_INDEX = "IVO_HEALPIX_INDEX"
#: What is offered of ADQL 2.0's optional features, by their kind in TAPRegExt.
OPTIONAL_FEATURES: dict[str, tuple[str, ...]] = {
    "adqlgeo": GEOMETRY,
    "adql-string": ("LOWER", "UPPER", "ILIKE"),
    "adql-conditional": ("COALESCE",),
    "adql-type": ("CAST",),
    "adql-offset": ("OFFSET",),
}
#: Functions beyond ADQL (https://www.ivoa.net/documents/udf-catalogue/): signature and meaning.
USER_DEFINED_FUNCTIONS: dict[str, str] = {
    f"{HEALPIX_INDEX}(hpxOrder INTEGER, ra DOUBLE PRECISION, dec DOUBLE PRECISION) -> BIGINT": (
        "Nested HEALPix index of a row's own position"
    )
}

ToValue = Callable[[grammar.Node], Value]


def call(node: grammar.Call, scope: Scope, value: ToValue) -> Value:
    """Call a function that is no aggregate.

    Parameters
    ----------
    node
        The call.
    scope
        The table of the query.
    value
        Translates an argument.

    Raises
    ------
    AdqlError
        There is no function of this name, or it cannot take these arguments.
    """
    name, place = node.function, node.place
    if node.distinct:
        raise AdqlError(f"{name} takes no DISTINCT", place)
    match name:
        case "CONTAINS" | "INTERSECTS":
            return combined("({0})::BIGINT", ValueKind.WHOLE, contains(node, value))
        case "DISTANCE":
            return _separation(*distance_points(node, value))
        case "COORD1" | "COORD2" | "COORDSYS":
            return _coordinate(node, value)
        case _ if name == HEALPIX_INDEX:
            return _healpix_index(node, scope, value)
        case _ if name in GEOMETRY:
            raise AdqlError(f"{name} can stand in CONTAINS, INTERSECTS and DISTANCE only", place)
    arguments = [value(argument) for argument in node.arguments]
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
    template = templates[len(arguments)]
    make = evaluated_once if "nullif" in template else combined
    return make(template, function.gives, *arguments)


def aggregate(name: str, arguments: Sequence[Value], place: QueryPlace, *, distinct: bool, star: bool) -> Value:
    """Call an aggregate; its value depends on no single row.

    Raises
    ------
    AdqlError
        It cannot take these.
    """
    if star:
        return Value("count(*)", ValueKind.WHOLE)
    _check_number(name, arguments, (1,), place)
    (of,) = arguments
    if name in ("SUM", "AVG"):
        _check_kind(name, of, ValueKind.REAL, place)
    kind = {"COUNT": ValueKind.WHOLE, "AVG": ValueKind.REAL}.get(name, of.kind)
    if kind is ValueKind.NULL:
        kind = ValueKind.REAL
    which = "DISTINCT " if distinct else ""
    argument = of.sql if name == "COUNT" or kind in (ValueKind.TEXT, ValueKind.TRUTH) else f"({of.sql})::{of.kind.sql}"
    if of.kind is ValueKind.NULL:
        argument = f"({of.sql})::DOUBLE"
    field = of.field if name in ("MIN", "MAX") else None
    return Value(f"({name.lower()}({which}{argument}))::{kind.sql}", kind, of.parameters, field=field)


def _number_function(name: str, arguments: Sequence[Value], place: QueryPlace) -> Value:
    _check_number(name, arguments, (1 if name == "ABS" else 2,), place)
    for argument in arguments:
        _check_kind(name, argument, ValueKind.REAL, place)
    whole = all(argument.kind is ValueKind.WHOLE for argument in arguments)
    kind = ValueKind.WHOLE if whole else ValueKind.REAL
    if name == "ABS":
        return combined(f"abs({{0}}::{kind.sql})", kind, *arguments)
    remainder = f"({{0}}::{kind.sql} % nullif({{1}}::{kind.sql}, 0))"
    return evaluated_once(remainder if whole else f"nullif({remainder}, 'NaN')", kind, *arguments)


def _coalesce(arguments: Sequence[Value], place: QueryPlace) -> Value:
    if not arguments:
        raise AdqlError("COALESCE needs a value", place)
    kinds = {argument.kind for argument in arguments} - {ValueKind.NULL}
    if len(kinds) > 1 and not all(kind.is_number for kind in kinds):
        raise AdqlError("the values of COALESCE are of different kinds", place)
    kind = kinds.pop() if len(kinds) == 1 else ValueKind.REAL if kinds else ValueKind.NULL
    slots = ", ".join(f"({{{number}}})::{kind.sql}" for number in range(len(arguments)))
    return combined(f"coalesce({slots})", kind, *arguments)


def _check_number(name: str, arguments: Sequence[Value], numbers: tuple[int, ...], place: QueryPlace) -> None:
    if len(arguments) not in numbers:
        wanted = " or ".join(map(str, numbers))
        raise AdqlError(f"{name} takes {wanted} argument{'' if wanted == '1' else 's'}, not {len(arguments)}", place)


def _check_kind(name: str, argument: Value, wanted: ValueKind, place: QueryPlace) -> None:
    fits = argument.kind.is_number if wanted is ValueKind.REAL else argument.kind in (wanted, ValueKind.NULL)
    if not fits:
        raise AdqlError(f"{name} takes {wanted.value}, not {argument.kind.value}", place)


@dataclass(frozen=True)
class Point:
    """A direction in degrees."""

    ra: Value
    dec: Value

    @property
    def constants(self) -> tuple[float, float] | None:
        """The direction, where it is the same for every row."""
        if self.ra.constant is None or self.dec.constant is None:
            return None
        return float(self.ra.constant), float(self.dec.constant)


@dataclass(frozen=True)
class Circle:
    """All within ``radius`` degrees of a point."""

    centre: Point
    radius: Value


Shape = Point | Circle | Polygon


def shape(node: grammar.Node, value: ToValue) -> Shape:
    """The point or region that a node describes.

    Raises
    ------
    AdqlError
        It is neither, or none that there is.
    """
    if not isinstance(node, grammar.Call) or node.function not in _SHAPES:
        raise AdqlError("a point or region is expected here: POINT, CIRCLE, BOX or POLYGON", node.place)
    arguments = _without_frame(node.arguments)
    if node.function == "POINT":
        return Point(*_numbers(node, arguments, 2, value))
    if node.function == "CIRCLE":
        return _circle(node, arguments, value)
    if node.function == "BOX":
        return _box(node, arguments, value)
    return _polygon(node, arguments, value)


def contains(node: grammar.Call, value: ToValue) -> Value:
    """CONTAINS and INTERSECTS as a condition.

    Raises
    ------
    AdqlError
        Its arguments are not a point and a region.
    """
    point, region = point_and_region(node, value)
    if isinstance(region, Circle):
        return _in_circle(node, point, region)
    return _in_region(node, point, region)


def point_and_region(node: grammar.Call, value: ToValue) -> tuple[Point, Circle | Polygon]:
    """What CONTAINS or INTERSECTS compares."""
    if len(node.arguments) != 2:
        raise AdqlError(f"{node.function} takes 2 arguments, not {len(node.arguments)}", node.place)
    first, second = (shape(argument, value) for argument in node.arguments)
    if node.function == "INTERSECTS" and isinstance(second, Point):
        first, second = second, first
    if not isinstance(first, Point) or isinstance(second, Point):
        raise AdqlError(f"{node.function} can only be asked of a point and a region here", node.place)
    return first, second


def constant_cone(point: Point, circle: Circle, place: QueryPlace) -> tuple[Point, Cone] | None:
    """A point that has to lie in a circle that does not depend on the row, where it can be said so; else None.

    That a given point lies in the circle around a row's position is the same as that the position lies in the circle around it.

    Raises
    ------
    AdqlError
        There is no such circle.
    """
    for moving, fixed in ((point, circle.centre), (circle.centre, point)):
        if fixed.constants is not None and circle.radius.constant is not None:
            ra, dec = fixed.constants
            with_radius = float(circle.radius.constant)
            try:
                return moving, Cone(ra, dec, with_radius)
            except UsageError as error:
                raise AdqlError(str(error), place) from None
    return None


def distance_points(node: grammar.Call, value: ToValue) -> tuple[Point, Point]:
    """The points that DISTANCE is between."""
    if len(node.arguments) == 4:
        ra1, dec1, ra2, dec2 = _numbers(node, node.arguments, 4, value)
        return Point(ra1, dec1), Point(ra2, dec2)
    if len(node.arguments) != 2:
        raise AdqlError(f"DISTANCE takes 2 or 4 arguments, not {len(node.arguments)}", node.place)
    return _point(node.arguments[0], value), _point(node.arguments[1], value)


def _coordinate(node: grammar.Call, value: ToValue) -> Value:
    """COORD1, COORD2 and COORDSYS of a point."""
    if len(node.arguments) != 1:
        raise AdqlError(f"{node.function} takes 1 argument, not {len(node.arguments)}", node.place)
    point = _point(node.arguments[0], value)
    if node.function == "COORDSYS":
        return text("ICRS")
    return point.ra if node.function == "COORD1" else point.dec


def _in_circle(node: grammar.Call, point: Point, circle: Circle) -> Value:
    fixed = constant_cone(point, circle, node.place)
    if fixed is not None:
        return _in_region(node, *fixed)
    return combined("{0} <= {1}", ValueKind.TRUTH, _separation(circle.centre, point), circle.radius)


def _separation(first: Point, second: Point) -> Value:
    """The angle between two points in degrees; NULL where a coordinate is, which ``least`` in it would not see."""
    angle = SEPARATION_DEG.format("{3}", "{1}", "{1}", "{3}", "{2}", "{0}")
    template = f"CASE WHEN {{0}} + {{1}} + {{2}} + {{3}} IS NOT NULL THEN {angle} END"
    return evaluated_once(template, ValueKind.REAL, first.ra, first.dec, second.ra, second.dec)


def _in_region(node: grammar.Call, point: Point, region: Region) -> Value:
    if point.constants is not None:
        ra, dec = point.constants
        return Value("true" if bool(region.contains([ra], [dec])[0]) else "false", ValueKind.TRUTH)
    if point.ra.parameters or point.dec.parameters:
        raise AdqlError("coordinates cannot be made of texts", node.place)
    # The condition names the position several times.
    if point.ra.is_plain and point.dec.is_plain:
        condition = region.condition(Position(point.ra.sql, point.dec.sql))
        return Value(f"({condition.sql})", ValueKind.TRUTH, condition.parameters, loose=point.ra.loose or point.dec.loose)
    condition = region.condition(Position("p.ra", "p.dec"))
    bound = combined("[{{'ra': {0}, 'dec': {1}}}]", ValueKind.TRUTH, point.ra, point.dec)
    return replace(bound, sql=f"list_transform({bound.sql}, lambda p: {condition.sql})[1]", parameters=condition.parameters)


def _without_frame(arguments: tuple[grammar.Node, ...]) -> tuple[grammar.Node, ...]:
    """The arguments without the frame, the first in ADQL 2.0."""
    if not arguments or not isinstance(arguments[0], grammar.Text):
        return arguments
    frame = arguments[0].value.strip().upper()
    if frame and not frame.startswith(("ICRS", "UNKNOWN")):
        raise AdqlError(f"positions are ICRS here, not {arguments[0].value}; give ICRS coordinates", arguments[0].place)
    return arguments[1:]


def _point(node: grammar.Node, value: ToValue) -> Point:
    found = shape(node, value)
    if not isinstance(found, Point):
        raise AdqlError("a POINT is expected here", node.place)
    return found


def _circle(node: grammar.Call, arguments: Sequence[grammar.Node], value: ToValue) -> Circle:
    if len(arguments) == 2:
        (radius,) = _numbers(node, arguments[1:], 1, value)
        return Circle(_point(arguments[0], value), radius)
    ra, dec, radius = _numbers(node, arguments, 3, value)
    return Circle(Point(ra, dec), radius)


def _box(node: grammar.Call, arguments: Sequence[grammar.Node], value: ToValue) -> Polygon:
    if len(arguments) == 3:
        point = _point(arguments[0], value)
        centre = _constants(node, (point.ra, point.dec))
        width, height = _constants(node, _numbers(node, arguments[1:], 2, value))
    else:
        *centre, width, height = _constants(node, _numbers(node, arguments, 4, value))
    ra, dec = centre
    if not (0 < width < 180 and height > 0 and abs(dec) + height / 2 <= 90):
        raise AdqlError(
            "a BOX is less than 180 degrees wide, not empty, and does not reach beyond a pole; give a POLYGON", node.place
        )
    east, west, north, south = (ra + width / 2) % 360, (ra - width / 2) % 360, dec + height / 2, dec - height / 2
    return _made(node, [(east, north), (west, north), (west, south), (east, south)])


def _polygon(node: grammar.Call, arguments: Sequence[grammar.Node], value: ToValue) -> Polygon:
    if all(isinstance(argument, grammar.Call) and argument.function == "POINT" for argument in arguments):
        points = [_point(argument, value) for argument in arguments]
        coordinates = _constants(node, [part for point in points for part in (point.ra, point.dec)])
    else:
        if len(arguments) % 2:
            raise AdqlError("the coordinates of a POLYGON come in pairs", node.place)
        coordinates = _constants(node, _numbers(node, arguments, len(arguments), value))
    return _made(node, list(zip(coordinates[::2], coordinates[1::2], strict=True)))


def _made(node: grammar.Call, vertices: list[tuple[float, float]]) -> Polygon:
    try:
        return Polygon(vertices)
    except UsageError as error:
        raise AdqlError(str(error), node.place) from None


def _numbers(node: grammar.Call, arguments: Sequence[grammar.Node], count: int, value: ToValue) -> list[Value]:
    if len(arguments) != count:
        raise AdqlError(f"{node.function} takes {count} numbers here, not {len(arguments)}", node.place)
    values = [value(argument) for argument in arguments]
    for one, argument in zip(values, arguments, strict=True):
        if not one.kind.is_number:
            raise AdqlError(f"{node.function} takes numbers, not {one.kind.value}", argument.place)
    return values


def _constants(node: grammar.Call, values: Sequence[Value]) -> list[float]:
    if any(value.constant is None for value in values):
        raise AdqlError(f"the coordinates of a {node.function} cannot depend on the row here", node.place)
    return [float(value.constant) for value in values if value.constant is not None]


def _healpix_index(node: grammar.Call, scope: Scope, value: ToValue) -> Value:
    """IVO_HEALPIX_INDEX(order, ra, dec) or (order, POINT): the nested index of the cell that a row lies in.

    Raises
    ------
    AdqlError
        It is asked of something else than the table's position.
    """
    order, ra, dec = _healpix_arguments(node, value)
    if not isinstance(order.constant, int) or not 0 <= order.constant <= HEALPIX_ORDER:
        raise AdqlError(f"the order is a whole number from 0 to {HEALPIX_ORDER}", node.place)
    position = scope.position
    if position is None or not position.healpix or (ra.sql, dec.sql) != (position.ra, position.dec):
        raise AdqlError(f"{node.function} can only be asked of the table's position", node.place)
    return Value(f"({position.healpix} >> {2 * (HEALPIX_ORDER - order.constant)})", ValueKind.WHOLE, loose=ra.loose)


def _healpix_arguments(node: grammar.Call, value: ToValue) -> tuple[Value, Value, Value]:
    if len(node.arguments) == 3:
        first, ra, dec = (value(argument) for argument in node.arguments)
        return first, ra, dec
    if len(node.arguments) == 2:
        point = shape(node.arguments[1], value)
        if isinstance(point, Point):
            return value(node.arguments[0]), point.ra, point.dec
    raise AdqlError(f"{node.function} takes an order, a right ascension and a declination", node.place)
