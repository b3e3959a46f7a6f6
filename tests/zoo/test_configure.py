"""Settings become typed objects; whatever does not fit is named by its dotted place."""

import copy
from dataclasses import dataclass, field

import pytest

from modalign.zoo.configure import check_keys, constructor_types, fill
from modalign.zoo.errors import RecipeError


@dataclass
class Leaf:
    """Innermost settings.

    Attributes:
        rate: A number.
        names: Words.
    """

    rate: float = 0.5
    names: list[str] = field(default_factory=list)


@dataclass
class Branch:
    """Settings with settings inside.

    Attributes:
        leaf: One inner object.
        maybe: One or none.
        many: Several by name.
    """

    leaf: Leaf = field(default_factory=Leaf)
    maybe: Leaf | None = None
    many: dict[str, Leaf | None] = field(default_factory=dict)


@dataclass
class Root:
    """Outermost settings.

    Attributes:
        title: Required.
        branch: Inner object.
        count: A whole number.
        free: Anything.
    """

    title: str
    branch: Branch = field(default_factory=Branch)
    count: int = 3
    free: dict = field(default_factory=dict)


class Module:
    """A class with a typed constructor.

    Args:
        width: Given by the program.
        depth: Given by the settings.
        leaf: Inner object.
    """

    def __init__(self, width: int, depth: int = 2, leaf: Leaf | None = None) -> None:
        self.width, self.depth, self.leaf = width, depth, leaf


FULL = {
    "title": "t",
    "count": 7,
    "branch": {
        "leaf": {"rate": 2, "names": ["a", "b"]},
        "maybe": {"rate": 0.25},
        "many": {"x": {"rate": 3.0}, "y": None},
    },
    "free": {"any": {"thing": [1, {"rate": 2}]}},
}


def test_nested_dataclasses_are_built():
    root = fill(Root, FULL, "root")
    assert root == Root(
        title="t",
        count=7,
        branch=Branch(leaf=Leaf(2.0, ["a", "b"]), maybe=Leaf(0.25), many={"x": Leaf(3.0), "y": None}),
        free={"any": {"thing": [1, {"rate": 2}]}},
    )
    assert isinstance(root.branch.leaf, Leaf)
    assert isinstance(root.branch.many["x"], Leaf)
    assert type(root.free["any"]) is dict


def test_defaults_are_not_shared():
    first, second = fill(Root, {"title": "a"}, "root"), fill(Root, {"title": "b"}, "root")
    first.branch.leaf.names.append("changed")
    assert second.branch.leaf.names == []


def test_the_input_is_not_changed():
    settings = copy.deepcopy(FULL)
    root = fill(Root, settings, "root")
    assert settings == FULL
    assert type(settings["branch"]) is dict
    assert type(settings["branch"]["many"]["x"]) is dict
    root.branch.leaf.names.append("c")
    root.free["any"]["thing"].append(2)
    assert settings == FULL, "nor later, through the object that was made of it"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"title": "t", "cuont": 1}, "root: unknown key 'cuont'; did you mean 'count'?"),
        ({"title": "t", "branch": {"laef": {}}}, "root.branch: unknown key 'laef'; did you mean 'leaf'?"),
        ({"title": "t", "branch": {"leaf": {"rat": 1}}}, "root.branch.leaf: unknown key 'rat'; did you mean 'rate'?"),
        ({"title": "t", "branch": {"maybe": {"nmaes": []}}}, "root.branch.maybe: unknown key 'nmaes'; did you mean 'names'?"),
        ({"title": "t", "branch": {"many": {"x": {"raet": 1}}}}, "root.branch.many.x: unknown key 'raet'; did you mean 'rate'?"),
        ({"title": "t", "zzzzzz": 1}, "root: unknown key 'zzzzzz'; known: branch, count, free, title"),
        ({"title": "t", 5: 1}, "root: unknown key 5"),
    ],
)
def test_unknown_key_at_any_depth_names_the_nearest(settings, message):
    with pytest.raises(RecipeError) as caught:
        fill(Root, settings, "root")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"title": "t", "count": "three"}, ("root.count: expected int", "three")),
        ({"title": "t", "count": 1.5}, ("root.count: expected int", "1.5")),
        ({"title": "t", "branch": {"leaf": {"rate": "fast"}}}, ("root.branch.leaf.rate: expected float", "fast")),
        ({"title": "t", "branch": {"leaf": {"names": "word"}}}, ("root.branch.leaf.names: expected list[str]", "word")),
        ({"title": "t", "branch": 4}, ("root.branch: expected a mapping of settings", "4")),
        ({"title": "t", "branch": None}, ("root.branch: expected a mapping of settings", "None")),
        ({"title": "t", "branch": {"leaf": "some.yaml"}}, ("root.branch.leaf: expected a mapping", "some.yaml")),
        ({"title": "t", "branch": {"maybe": 4}}, ("root.branch.maybe: expected a mapping", "4")),
        ({"title": "t", "branch": {"many": {"x": 4}}}, ("root.branch.many.x: expected a mapping", "4")),
    ],
)
def test_wrong_type_names_key_type_and_value(settings, words):
    with pytest.raises(RecipeError) as caught:
        fill(Root, settings, "root")
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_missing_key_is_named():
    with pytest.raises(RecipeError, match=r"^root: .*title"):
        fill(Root, {"count": 1}, "root")


def test_settings_must_be_a_mapping():
    with pytest.raises(RecipeError, match=r"root: expected a mapping of settings, got \['a'\]"):
        check_keys(Root, ["a"], "root")


def test_fixed_arguments_cannot_be_set():
    leaf = Leaf(1.0)
    module = fill(Module, {"depth": 4, "leaf": {"rate": 1.0}}, "options", width=9)
    assert (module.width, module.depth, module.leaf) == (9, 4, leaf)
    with pytest.raises(RecipeError, match=r"options: unknown key 'width'; did you mean 'depth'"):
        fill(Module, {"width": 1}, "options", width=9)
    with pytest.raises(RecipeError, match=r"options: unknown key 'depth'"):
        fill(Module, {"depth": 1}, "options", frozenset({"depth"}), width=9)


def test_constructor_types():
    assert constructor_types(Module) == {"width": int, "depth": int, "leaf": Leaf | None}
    assert list(constructor_types(Root)) == ["title", "branch", "count", "free"]
