"""Stages that run instead of the others: which of a recipe's stages a run is about."""

from __future__ import annotations

from dataclasses import replace

from modalign.zoo.errors import RecipeError

from .settings import Recipe


def chosen_stages(recipe: Recipe, stage: str | None) -> Recipe:
    """The recipe with the stages of one run.

    Args:
        recipe: The recipe.
        stage: The stage asked for; an alternative one then stands alone, in a run folder of its own where the recipe's is the default.

    Raises:
        RecipeError: If nothing is left to run.
    """
    own = {name: settings for name, settings in recipe.stages.items() if not settings.alternative}
    if stage in recipe.stages and recipe.stages[stage].alternative:
        folder = f"{recipe.run_dir}-{stage}" if recipe.run_dir == recipe.default_dir else recipe.run_dir
        return replace(recipe, stages={stage: recipe.stages[stage]}, release=None, run_dir=folder)
    if not own:
        raise RecipeError(f"every stage of the recipe is an alternative; say which with --stage ({', '.join(recipe.stages)})")
    return recipe if len(own) == len(recipe.stages) else replace(recipe, stages=own)
