"""Evaluation tasks on a tiny release, each against what `encode_image` and `encode_text` give and the metrics' own functions."""

import io
import json

import pytest
import torch
import yaml

from modalign import zoo
from modalign.datasets.shards import ShardSet
from modalign.trainers.cli import main
from modalign.trainers.evaluation.alignment import _others
from modalign.trainers.evaluation.layers import layer_vectors
from modalign.trainers.evaluation.parallel_captions import parallel
from modalign.trainers.evaluation.vectors import set_vectors
from modalign.zoo.errors import AssemblyError, DataError, RecipeError
from modalign.zoo.metrics.alignment_uniformity import alignment, uniformity
from modalign.zoo.metrics.cka import cka
from modalign.zoo.metrics.mexa import mexa
from modalign.zoo.metrics.modality_gap import modality_gap
from modalign.zoo.metrics.neighbours import mutual_knn
from modalign.zoo.metrics.retrieval import retrieval_recall
from modalign.zoo.metrics.rows import unit
from modalign.zoo.registry import FAMILIES

COUNT = 26


def odd(number):
    """A caption that says nothing of the number to anyone."""
    return f"{(number * number + 3 * number) % 53} Nummer"


@pytest.fixture(scope="module")
def release(tiny_model, tmp_path_factory):
    torch.manual_seed(3)
    settings = {key: value for key, value in tiny_model.items() if key != "family"}
    model = FAMILIES.get("proclip").from_settings(settings).eval()
    return str(zoo.save_release(model, tmp_path_factory.mktemp("evaluation") / "release"))


@pytest.fixture(scope="module")
def model(release):
    return zoo.load(release)


def write_set(folder, picture_of, samples):
    from modalign.datasets.shards.writer import write_shards

    def rows():
        for number, captions, fields in samples:
            stream = io.BytesIO()
            picture_of(number).save(stream, "PNG")
            row = {"key": f"k{number:03d}", "image": stream.getvalue(), "image_ext": "png", "captions": captions}
            yield row | fields

    write_shards(rows(), folder, samples_per_shard=9)
    return str(folder)


@pytest.fixture(scope="module")
def shards(picture_of, tmp_path_factory):
    """26 pictures of 5 kinds: English and German everywhere, "xx" on 12 of them, "yy" on 3; "same" repeats the English name."""

    def samples():
        for number in range(COUNT):
            captions = {"en": [f"thing number {number}", f"item {number}"], "de": [f"Ding Nummer {number}"]}
            captions |= {"same": [f"thing number {number}"], "odd": [odd(number)]}
            captions |= {"xx": [f"item {number} {number}"]} if number < 12 else {}
            captions |= {"yy": [f"Ding {number}"]} if number < 3 else {}
            captions |= {"dup": [f"thing number {number // 2 * 2}"]} if number < 24 else {}
            yield number, captions, {"label": f"{number % 5}", "kind": number % 5}

    return write_set(tmp_path_factory.mktemp("evaluation") / "shards", picture_of, samples())


@pytest.fixture
def run(release, shards, tmp_path, capsys):
    """Runs `modalign eval` with more options; the JSON it writes."""

    def measure(*options, data=shards, code=0):
        path = tmp_path / "out" / "result.json"
        found = main(["eval", release, "--data", data, "--json", str(path), *map(str, options)])
        text = capsys.readouterr()
        measure.out, measure.err = text.out, text.err
        assert found == code, text.err
        return json.loads(path.read_text()) if code == 0 else text.err

    return measure


def pictures(model, picture_of, count=COUNT):
    return model.encode_image([picture_of(number) for number in range(count)])


def test_retrieval_is_what_the_vectors_say(run, model, picture_of, shards, release):
    found = run("--languages", "[en,de]")
    assert list(found) == ["task", "model", "data", "n", "metrics", "baselines", "by_language"]
    assert (found["task"], found["model"], found["data"]) == ("retrieval", release, shards)
    assert found["n"] == {"images": COUNT, "texts": 3 * COUNT}
    assert found["baselines"] == {"chance": {"text_to_image": {"R@1": 3.8462, "R@5": 19.2308, "R@10": 38.4615}}}
    english = [text for n in range(COUNT) for text in (f"thing number {n}", f"item {n}")]
    rows = torch.arange(COUNT).repeat_interleave(2)
    assert found["by_language"]["en"] == retrieval_recall(pictures(model, picture_of), model.encode_text(english), rows)
    ways = found["by_language"]["en"]["text_to_image"], found["by_language"]["de"]["text_to_image"]
    assert found["metrics"]["text_to_image"]["R@5"] == pytest.approx((ways[0]["R@5"] + ways[1]["R@5"]) / 2, abs=1e-3)
    assert "t→i R@1" in run.out and "chance" in run.out


def test_retrieval_with_fewer_dimensions_and_true_recall(run, model, picture_of):
    english = [text for n in range(COUNT) for text in (f"thing number {n}", f"item {n}")]
    image, text = (unit(v[:, :3]) for v in (pictures(model, picture_of), model.encode_text(english)))
    rows = torch.arange(COUNT).repeat_interleave(2)
    found = run("--languages", "[en]", "--dim", 3, "--recall", "true")
    assert found["metrics"] == retrieval_recall(image, text, rows, recall="true")
    assert found["metrics"] != retrieval_recall(image, text, rows) and found["settings"] == {"dim": 3, "recall": "true"}
    found = run("--languages", "[en]", "--first_caption", "true")
    assert found["settings"] == {"first_caption": True} and found["n"]["texts"] == COUNT
    assert "(the first of each language)" in " ".join(run.out.split())
    assert "between 1 and 16" in run("--dim", 17, code=2)


def test_retrieval_in_detail(run):
    plain, found = run("--languages", "[en,de]"), run("--languages", "[en,de]", "--detailed", "true")
    for lang, table in found["by_language"].items():
        for way, values in table.items():
            assert {key: values[key] for key in plain["by_language"][lang][way]} == plain["by_language"][lang][way]
            assert values["mAP@1"] == values["nDCG@1"] == values["R@1"], "one right answer in the first place, or none"
            assert values["median_rank"] >= 1 and values["nDCG@10"] >= values["mAP@10"]
    assert found["by_language"]["de"]["text_to_image"]["mAP@10"] <= found["by_language"]["de"]["text_to_image"]["MRR"]
    assert "nDCG@10" in run.out and "de i→t" in run.out


def test_zero_shot_is_what_the_vectors_say(run, model, picture_of, tmp_path):
    names = {str(k): {"en": f"thing {k}", "de": f"Ding {k}"} for k in range(5)}
    (tmp_path / "names.yaml").write_text(yaml.safe_dump(names))
    (tmp_path / "prompts.yaml").write_text("en: ['query: {}', 'number {}', '{}']\n")
    options = ("--task", "zeroshot", "--classes", tmp_path / "names.yaml", "--templates", tmp_path / "prompts.yaml")
    found = run(*options)
    prompts = [[f"query: thing {k}", f"number thing {k}", f"thing {k}"] for k in range(5)]
    classes = torch.stack([unit(model.encode_text(texts).mean(0)) for texts in prompts])
    order = (pictures(model, picture_of) @ classes.T).argsort(1, descending=True)
    label = torch.arange(COUNT) % 5
    top1 = (order[:, 0] == label).double()
    english = found["by_language"]["en"]
    assert english["top1"] == pytest.approx(100 * top1.mean().item(), abs=1e-3) and english["top5"] == 100
    assert english["mean_per_class"] == pytest.approx(sum(100 * top1[label == k].mean().item() for k in range(5)) / 5, abs=1e-3)
    assert english["n"] == {"images": COUNT, "classes": 5} and found["n"] == {"images": COUNT, "classes": 5, "templates": 3}
    assert found["baselines"]["chance"] == {"top1": 20.0, "top5": 100.0, "mean_per_class": 20.0}
    german = torch.stack([model.encode_text([f"Ding {k}"])[0] for k in range(5)])  # no templates: the name alone
    right = ((pictures(model, picture_of) @ german.T).argmax(1) == label).double().mean().item()
    assert found["by_language"]["de"]["top1"] == pytest.approx(100 * right, abs=1e-3)
    assert found["metrics"]["top1"] == pytest.approx((english["top1"] + found["by_language"]["de"]["top1"]) / 2, abs=1e-3)
    assert list(run(*options, "--languages", "[de]")["by_language"]) == ["de"]


def test_zero_shot_classes(run, model, picture_of, tmp_path):
    plain = run("--task", "zeroshot", "--templates", "name")
    assert list(plain["by_language"]) == ["und"] and plain["n"]["classes"] == 5
    assert run("--task", "zeroshot", "--templates", "name", "--label", "kind")["metrics"] == plain["metrics"]
    captions = run("--task", "zeroshot", "--templates", "simple", "--classes", "captions")
    assert set(captions["by_language"]) == {"en", "de", "same", "odd", "xx", "yy", "dup"} and captions["n"]["templates"] == 7
    assert captions["by_language"]["yy"]["n"] == {"images": 16, "classes": 3}, "only classes with a name, and their pictures"
    assert captions["by_language"]["same"] == captions["by_language"]["en"]
    (tmp_path / "some.json").write_text(
        json.dumps({str(k): {"en": f"thing {k}"} | ({"de": f"Ding {k}"} if k in (1, 3) else {}) for k in range(5)})
    )
    some = run("--task", "zeroshot", "--templates", "name", "--classes", tmp_path / "some.json")["by_language"]["de"]
    image, classes = pictures(model, picture_of), model.encode_text(["Ding 1", "Ding 3"])
    right = [int((image[n] @ classes.T).argmax()) == (n % 5 == 3) for n in range(COUNT) if n % 5 in (1, 3)]
    assert some["n"] == {"images": 10, "classes": 2} and some["top1"] == pytest.approx(100 * sum(right) / 10, abs=1e-3)
    (tmp_path / "more.json").write_text(json.dumps({str(k): f"thing {k}" for k in range(9)}))
    more = run("--task", "zeroshot", "--templates", "name", "--classes", tmp_path / "more.json")
    assert more["n"]["classes"] == 9, "a file's classes are all that can be answered"


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        (("--label", "colour"), None, "k000.*'colour'.*label, kind.*--label"),
        (("--classes",), {"0": "zero", "1": "one"}, "k002.*'2' is not in"),
        (("--classes",), {"0": 3}, "class '0'.*no text"),
        (("--classes",), [1], "mapping of labels"),
        (("--languages", "[en]"), None, "no class has a name in language 'en'"),
        (("--templates", "imagnet"), None, "did you mean 'imagenet'"),
        (("--classes", "nowhere.yaml"), None, "nowhere.yaml"),
    ],
)
def test_zero_shot_says_what_is_wrong(run, tmp_path, options, content, message):
    if content is not None:
        (tmp_path / "names.json").write_text(json.dumps(content))
        options = (*options, tmp_path / "names.json")
    import re

    assert re.search(message, run("--task", "zeroshot", *options, code=2))


def test_alignment_is_what_the_vectors_say(run, model, picture_of):
    found = run("--task", "alignment", "--languages", "[en,yy,xx]", "--neighbours", 4)
    image = pictures(model, picture_of)
    text = model.encode_text([f"thing number {n}" for n in range(COUNT)])
    english = found["by_language"]["en"]
    assert english["n"] == COUNT and found["by_language"]["xx"]["n"] == 12 and found["n"]["left_out"] == ["yy"]
    wanted = {
        "modality_gap": modality_gap(image, text),
        "alignment": alignment(image, text),
        "uniformity_text": uniformity(text),
        "cka": cka(image, text),
        "cka_unbiased": cka(image, text, unbiased=True),
        "cka_rbf": cka(image, text, kernel="rbf"),
        "mutual_knn": mutual_knn(image, text, 4),
    }
    assert {name: english[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)
    pixels = torch.stack([model.image.preprocess(picture_of(n)) for n in range(COUNT)])
    with torch.inference_mode():
        features = model.image.pooled(pixels), model.text.embed([f"thing number {n}" for n in range(COUNT)])
    before = found["baselines"]["encoders"]["by_language"]["en"]
    assert before["cka"] == pytest.approx(cka(*map(unit, features)), abs=1e-3) and set(before) == set(list(wanted)[3:])
    assert before["mutual_knn"] == pytest.approx(mutual_knn(*map(unit, features), 4), abs=1e-3)
    order = _others(COUNT)
    assert not (order == torch.arange(COUNT)).any() and sorted(order.tolist()) == list(range(COUNT))
    wrong = [cka(image, text[order]), cka(image[:12], model.encode_text([f"item {n} {n}" for n in range(12)])[_others(12)])]
    shuffled = found["baselines"]["shuffled"]
    assert set(shuffled) == set(before) and shuffled["cka"] == pytest.approx(sum(wrong) / 2, abs=1e-3)
    both = (english["alignment"] + found["by_language"]["xx"]["alignment"]) / 2
    assert found["metrics"]["alignment"] == pytest.approx(both, abs=1e-3)
    assert "shuffled" in run.out and "agreement" in run.out


def test_alignment_on_part_of_the_pairs(run):
    found = run("--task", "alignment", "--languages", "[en]", "--most_pairs", 10)
    assert found["by_language"]["en"]["n"] == 10
    assert "at least 4" in run("--task", "alignment", "--languages", "[yy]", code=2)


def test_crosslingual_is_what_the_vectors_say(run, model):
    found = run("--task", "crosslingual", "--languages", "[de,same,xx,yy]")
    assert found["n"] == {"languages": 3, "pairs": 2 * COUNT + 12, "pivot": "en", "left_out": ["yy"]}
    assert set(found["by_language"]) == {"de", "same", "xx"} and found["by_language"]["xx"]["n"] == 12
    same = found["by_language"]["same"]
    assert same["mexa"] == 100 and same["to_pivot"]["nn"]["P@1"] == same["from_pivot"]["csls"]["P@1"] == 100
    english, german = [f"thing number {n}" for n in range(COUNT)], [f"Ding Nummer {n}" for n in range(COUNT)]
    for embed, table in (
        (model.encode_text, found["by_language"]),
        (model.text.embed, found["baselines"]["before_projector"]["by_language"]),
    ):
        pivot, other = unit(embed(english)), unit(embed(german))
        assert table["de"]["mexa"] == pytest.approx(100 * mexa(pivot, other), abs=1e-3)
        for way, scores in (("to_pivot", other @ pivot.T), ("from_pivot", pivot @ other.T)):
            rank = (scores > scores.diagonal()[:, None]).sum(1)
            assert table["de"][way]["nn"]["P@5"] == pytest.approx(100 * (rank < 5).double().mean().item(), abs=1e-3)
    chance = found["baselines"]["chance"]
    assert chance["P@1"] == pytest.approx(100 * (2 / COUNT + 1 / 12) / 3, abs=1e-3)
    assert found["metrics"]["mexa"] == pytest.approx(sum(t["mexa"] for t in found["by_language"].values()) / 3, abs=1e-3)
    assert "P@1" in run.out and "chance" in run.out


def test_crosslingual_pivot_and_training_data(run, shards):
    found = run("--task", "crosslingual", "--pivot", "de", "--languages", "[en,xx]", "--least_pairs", 3)
    assert found["n"]["pivot"] == "de" and set(found["by_language"]) == {"en", "xx"}
    trained = run("--task", "crosslingual", "--train_data", shards, "--languages", "[de]")
    halves = run("--task", "crosslingual", "--languages", "[de]")
    assert trained["metrics"]["to_pivot"] == halves["metrics"]["to_pivot"]
    assert trained["metrics"]["mapped"]["to_pivot"]["nn"]["P@1"] == 100, (
        "fitted on what it is measured on, with more dimensions than rows"
    )
    assert "did you mean 'en'" in run("--task", "crosslingual", "--pivot", "eng", code=2)
    assert "least_pairs" in run("--task", "crosslingual", "--languages", "[yy]", code=2)


@pytest.mark.parametrize("way", ["to_pivot", "from_pivot"])
def test_a_rotation_is_judged_on_pairs_it_did_not_see(run, model, way):
    found = run("--task", "crosslingual", "--languages", "[odd]", "--stay", 0.3)["by_language"]["odd"]["mapped"][way]["nn"]
    english = model.encode_text([f"thing number {n}" for n in range(COUNT)]).double()
    other = model.encode_text([odd(n) for n in range(COUNT)]).double()
    places, halves = [], (range(0, COUNT, 2), range(1, COUNT, 2))
    for test, learn in (halves, halves[::-1]):
        means = other[learn].mean(0), english[learn].mean(0)
        x, y = unit(other[learn] - means[0]), unit(english[learn] - means[1])
        u, _, vh = torch.linalg.svd(y.T @ x + 0.3 * len(learn) * torch.eye(16).double())
        scores = unit(other - means[0]) @ (u @ vh).T @ unit(english - means[1]).T
        scores = scores if way == "to_pivot" else scores.T
        places.append((scores[test] > scores.diagonal()[test][:, None]).sum(1))
    for k in (1, 5, 10):
        assert found[f"P@{k}"] == pytest.approx(100 * (torch.cat(places) < k).double().mean().item(), abs=1e-3)
    assert places[0].sum() != places[1].sum(), "else the halves could be mixed up"


def test_captions_that_come_twice_are_left_out_of_mexa(run):
    """In "dup", which is the pivot, two things have the name that one of them has in English: only that pair counts."""
    found = run("--task", "crosslingual", "--pivot", "dup", "--languages", "[en]")["by_language"]["en"]
    assert found["n"] == 24 and found["mexa"] == 100
    assert found["from_pivot"]["nn"]["P@1"] == 100, "any translation is right"
    assert found["to_pivot"]["nn"]["P@1"] < 100


def test_crosslingual_layers(run, model):
    found = run("--task", "crosslingual", "--languages", "[de]", "--layers", 20)
    layers = found["baselines"]["before_projector"]["by_language"]["de"]["layers"]
    assert layers["n"] == 20 and list(layers["mexa"]) == ["0", "1", "2"]
    assert layers["max"] == max(layers["mexa"].values()) and layers["mean"] == pytest.approx(
        sum(layers["mexa"].values()) / 3, abs=1e-3
    )
    texts = ["thing number 3", "item", "Ding Nummer 4 5 6"]
    together = layer_vectors(model.text, texts, batch_size=3)
    alone = torch.cat([layer_vectors(model.text, [text]) for text in texts], 1)
    assert together.shape == (3, 3, 24) and torch.allclose(together, alone, atol=1e-5), "padding changes nothing"
    tower = FAMILIES.get("clip").from_settings(
        {
            "text_tower": {"width": 16, "heads": 2, "layers": 1, "embed_dim": 16},
            "embed_dim": 16,
            "image": {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False},
            "text_projector": None,
        }
    )
    with pytest.raises(AssemblyError, match="leave layers out"):
        layer_vectors(tower.text, texts)


def test_parallel_captions_with_duplicates():
    """Two samples with one English name and different German ones, two the other way, and a chain."""
    captions = [
        {"en": ["a"], "de": ["A"]},
        {"en": ["a"], "de": ["B"]},
        {"en": ["c"], "de": ["B"]},
        {"en": ["d"], "de": ["D"]},
        {"en": ["e"]},
    ]
    made = parallel([*captions, captions[0], {"de": ["x"], "en": []}], "de", "en")
    assert (made.source, made.target) == (["A", "B", "D"], ["a", "c", "d"])
    assert made.pairs.tolist() == [[0, 0], [1, 0], [1, 1], [2, 2]]
    assert made.one_to_one().tolist() == [[0, 0], [1, 1], [2, 2]]
    first, second = made.halves()
    assert sorted(first.tolist()) == [0, 1, 2] and second.tolist() == [3], "what hangs together stays together"
    assert made.lexicon().words == 3 and made.lexicon(backwards=True).pairs.tolist() == [[0, 0], [0, 1], [1, 1], [2, 2]]
    assert len(parallel(captions, "fr", "en").pairs) == 0


def test_options_belong_to_their_task(run):
    assert "'pivot'" in run("--pivot", "de", code=2)
    assert "'dim'" in run("--task", "zeroshot", "--dim", 3, code=2)
    assert "did you mean 'crosslingual'" in run("--task", "crosslingua", code=2)


def test_cached_text_vectors_give_the_same(run, shards):
    from pathlib import Path

    plain = run("--task", "crosslingual")
    cached = run("--task", "crosslingual", "--cache", "true")
    assert list(Path(shards).glob(".features/text-*")) and cached == run("--task", "crosslingual", "--cache", "true")
    assert cached["by_language"]["de"]["mexa"] == pytest.approx(plain["by_language"]["de"]["mexa"], abs=4)


def test_texts_that_are_cached_and_texts_that_are_not(model):
    """In any order, twice, remembered or not, from a cache or made."""
    from modalign.trainers.evaluation.texts import TextVectors

    texts = ["thing number 3", "item 4", "Ding 5", "item 4", "thing 6"]
    made = torch.stack([model.text.embed([text])[0] for text in texts])

    class Cached(dict):
        def take(self, keys):
            return torch.stack([self[key] for key in keys])

    for cached in (None, Cached({"item 4": made[1]}), Cached(dict(zip(texts, made, strict=True)))):
        source = TextVectors(model, cached)
        torch.testing.assert_close(source.features(texts[2:3]), made[2:3])
        torch.testing.assert_close(source.features(texts, keep=False), made)
        torch.testing.assert_close(source.features(texts), made)
        torch.testing.assert_close(source.features(texts[::-1]), made.flip(0))
        torch.testing.assert_close(source.vectors(texts), model.encode_text(texts))
    assert source.vectors([]).shape == (0, 16)


def test_encoder_features_project_to_the_vectors(model, shards):
    plain = set_vectors(model, ShardSet(shards), languages=["en"], first_caption=True)
    found = set_vectors(model, ShardSet(shards), languages=["en"], first_caption=True, encoder_features=True)
    assert torch.equal(found.image, plain.image) and plain.image_features is None
    with torch.inference_mode():
        projected = model({"image_features": found.image_features, "image_cut": "output"})["image_embedding"]
    torch.testing.assert_close(projected, plain.image)


def test_recipes_are_checked_before_anything_runs(tiny_recipe):
    from modalign.trainers.recipe import load_recipe

    for evaluate, message in (
        ({"task": "zeroshoot"}, "did you mean 'zeroshot'"),
        ({"task": ["retrieval", "crosslingual"], "options": {"crosslingual": {"pivo": "de"}}}, "'pivo'.*did you mean 'pivot'"),
        ({"task": "retrieval", "options": {"zeroshot": {}}}, "not among the tasks"),
        ({"task": []}, "at least one task"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(tiny_recipe | {"evaluate": evaluate})
    recipe = load_recipe(
        tiny_recipe | {"evaluate": {"task": ["alignment", "retrieval"], "options": {"alignment": {"neighbours": 3}}}}
    )
    assert recipe.evaluate.task == ["alignment", "retrieval"]


def test_a_set_that_lacks_a_language(run):
    with pytest.raises(DataError, match="none in the languages"):
        from modalign.zoo.metrics.retrieval import RetrievalMetric

        metric = RetrievalMetric()
        metric.update(
            {"image_embedding": torch.eye(2), "text_embedding": torch.empty(0, 2)}, {"text_row": torch.empty(0), "text_lang": []}
        )
        metric.compute()
    assert "no caption in 'qq'" in run("--languages", "[qq]", code=2)
