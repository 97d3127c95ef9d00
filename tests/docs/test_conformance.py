"""The page about conformance has every script, every rule and every case."""

import os

from pydotcompute_client.conformance.cases import CASES
from pydotcompute_client.conformance.referee import SCRIPTS
from pydotcompute_client.conformance.rules import RULES
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "conformance.md"
MARK = " writes them -->\n"


def table(head: str, rows: dict[str, str]) -> str:
    return "\n".join([f"| {head} |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in rows.items()), ""])


def test_the_page_has_every_script_rule_and_case() -> None:
    tables = [
        table("kernel | what happens", SCRIPTS),
        table("rule | ", RULES),
        table("case | ", {case.name: case.rule for case in CASES}),
    ]
    first, *parts = PAGE.read_text().split(MARK)
    made = first
    for part, each in zip(parts, tables, strict=True):
        rows = part.split("\n")
        end = next(at for at, row in enumerate(rows) if not row.startswith("|"))
        made += MARK + each + "\n".join(rows[end:])
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(made)
    assert PAGE.read_text() == made, "the tables have changed; run with UPDATE_GOLDEN=1"
