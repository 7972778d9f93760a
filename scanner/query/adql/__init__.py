"""ADQL: the language that the Virtual Observatory asks tables in; see :mod:`~scanner.query.adql.translate`."""

from scanner.query.adql.answer import Relation, answer
from scanner.query.adql.error import AdqlError
from scanner.query.adql.tables import TableDescription
from scanner.query.adql.translate import Translation, translate

__all__ = ["AdqlError", "Relation", "TableDescription", "Translation", "answer", "translate"]
