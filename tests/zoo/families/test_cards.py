"""Every family has a card, and the model card of the zoo names every family, every shipped recipe and only tables that are there."""

import re
from pathlib import Path

import pytest

from modalign.trainers.recipe import shipped_recipes
from modalign.zoo.registry import FAMILIES

ROOT = Path(__file__).resolve().parents[3]
CARD = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES.names())
def test_a_family_has_a_card_with_its_source_settings_and_roles(family):
    text = (ROOT / "zoo" / "families" / family / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {family}\n") and re.search(r"et al\. \d{4}|arXiv \d{4}\.\d{5}", text)
    assert "`head`" in text or "stage" in text
    assert f"zoo/families/{family}/README.md" in CARD


def test_every_recipe_is_named(capsys):
    missing = [name for name in shipped_recipes() if f"`{name}`" not in CARD]
    assert not missing


def test_the_tables_it_names_are_there():
    named = re.findall(r"`(?:benchmarks/results/)?(\w+\.md)`", CARD)
    assert len(named) >= 9
    assert not [name for name in named if name != "README.md" and not (ROOT / "benchmarks" / "results" / name).is_file()]
