"""The HEALPix cell of a row's position.

In: a call of IVO_HEALPIX_INDEX. Out: SQL. Refused (:class:`AdqlError`): other positions than the table's own, whose index it
has; orders that there are not.

Source: IVOA catalogue of ADQL user defined functions, https://www.ivoa.net/documents/udf-catalogue/.
"""

from __future__ import annotations

from scanner.query.adql import geometry, tree
from scanner.query.adql.error import AdqlError
from scanner.query.adql.tables import Scope
from scanner.query.adql.value import Kind, Value
from scanner.sphere import HEALPIX_ORDER


def healpix_index(node: tree.Call, scope: Scope, value: geometry.ToValue) -> Value:
    """IVO_HEALPIX_INDEX(order, ra, dec) or (order, POINT): the nested index of the cell that a row lies in.

    Raises
    ------
    AdqlError
        It is asked of something else than the table's position.
    """
    order, ra, dec = _arguments(node, value)
    if not isinstance(order.constant, int) or not 0 <= order.constant <= HEALPIX_ORDER:
        raise AdqlError(f"the order is a whole number from 0 to {HEALPIX_ORDER}", node.place)
    position = scope.position
    if position is None or not position.healpix or (ra.sql, dec.sql) != (position.ra, position.dec):
        raise AdqlError(f"{node.function} can only be asked of the table's position", node.place)
    return Value(f"({position.healpix} >> {2 * (HEALPIX_ORDER - order.constant)})", Kind.WHOLE, loose=ra.loose)


def _arguments(node: tree.Call, value: geometry.ToValue) -> tuple[Value, Value, Value]:
    if len(node.arguments) == 3:
        first, ra, dec = (value(argument) for argument in node.arguments)
        return first, ra, dec
    if len(node.arguments) == 2:
        point = geometry.shape(node.arguments[1], value)
        if isinstance(point, geometry.Point):
            return value(node.arguments[0]), point.ra, point.dec
    raise AdqlError(f"{node.function} takes an order, a right ascension and a declination", node.place)
