"""HTML from the templates of report and board: whatever a run or a user named is escaped by jinja2."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=ChoiceLoader(
            [PackageLoader(f"iufbench.reporting.{room}", "templates") for room in ("report", "board")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def fill(name: str, **values: Any) -> Markup:
    """The template ``<name>.html.jinja`` with these values.

    Args:
        name: Stem of a file in ``iufbench/reporting/report/templates`` or ``.../board/templates``.
        values: What the template shows. Text is escaped, ``Markup`` (the result of another call) is not.

    Returns:
        HTML that other templates take as it is.
    """
    return Markup(_environment().get_template(f"{name}.html.jinja").render(**values))
