"""The recipe: one YAML file that says which model, data, losses and stages; typed, checked, overridable, saved with the run."""

from .load import find_recipe, load_recipe, parse_override, shipped_recipes
from .settings import CacheConfig, DataConfig, EvaluateConfig, Recipe, StageConfig, TrainerConfig, ValidateConfig, merge

__all__ = [
    "CacheConfig",
    "DataConfig",
    "EvaluateConfig",
    "Recipe",
    "StageConfig",
    "TrainerConfig",
    "ValidateConfig",
    "find_recipe",
    "load_recipe",
    "merge",
    "parse_override",
    "shipped_recipes",
]
