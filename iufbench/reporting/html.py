"""Renders the HTML templates of report and board; jinja2 escapes all text of runs and users."""

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
    """Render the template ``<name>.html.jinja``.

    Args:
        name: Stem of a file in ``iufbench/reporting/report/templates`` or ``.../board/templates``.
        values: The template's variables. Text is escaped, ``Markup`` (the result of another call) is not.

    Returns:
        HTML that can be inserted into other templates.
    """
    return Markup(_environment().get_template(f"{name}.html.jinja").render(**values))
