"""Parameters as DALI has them: names in any case, each any number of times, in the query or in a form.

In: a request. Out: :class:`Parameters`. Refused (:class:`BadRequestError`): a parameter given twice that can be given
once, bodies that are no form.

Source: Data Access Layer Interface 1.1, sections 2.3 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request

from scanner.service.errors import BadRequestError

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Parameters:
    """Names and values; what is empty counts as not given."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if value.strip():
                self._values.setdefault(name.upper(), []).append(value.strip())

    @classmethod
    async def of(cls, request: Request) -> Parameters:
        """Read those of a request.

        Raises
        ------
        BadRequestError
            See the module.
        """
        pairs = list(request.query_params.multi_items())
        if request.method == "POST" and request.headers.get("content-type", "").partition(";")[0].strip() in _FORMS:
            async with request.form(max_files=0, max_fields=1000) as form:
                pairs += [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        elif request.method == "POST" and await request.body():
            raise BadRequestError(f"The body is no form; send {_FORMS[0]}.")
        return cls(pairs)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a parameter."""
        return tuple(self._values.get(name.upper(), ()))

    def one(self, *names: str) -> str | None:
        """The value of a parameter that can be given once, by any of its names; None where it is not given.

        Raises
        ------
        BadRequestError
            It was given more than once.
        """
        values = [value for name in names for value in self.all(name)]
        if len(values) > 1:
            raise BadRequestError(f"MultiValuedParamNotSupported: {names[0]} can be given once.")
        return values[0] if values else None


def is_whole_number(value: str, most_digits: int) -> bool:
    """Whether a value is a number of so many decimal digits at most: of more, int() takes long, and then refuses."""
    return value.isascii() and value.isdigit() and len(value) <= most_digits
