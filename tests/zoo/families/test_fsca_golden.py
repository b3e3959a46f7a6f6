"""FSCA against the reference's outputs, edge weights and gradients."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.zoo.families.fsca.model import FscaModel

GOLDEN = Path(__file__).parents[2] / "golden" / "time_series"
META = json.loads((GOLDEN / "fsca_meta.json").read_text())
GPT2 = {"model_type": "gpt2", "vocab_size": 64, "n_positions": 64, "n_embd": 64, "n_head": 4, "n_layer": 3}
PARTS = {
    "gpt2.gnn_layer.lin.": "alignment.fine.",
    "gpt2.gnn_layer_l.lin.": "alignment.coarse.",
    "gpt2.gnn_layer.": "alignment.fine.",
    "gpt2.gnn_layer_l.": "alignment.coarse.",
    "gpt2.": "backbone.model.",
    "enc_embedding.value_embedding.tokenConv.": "tokens.conv.",
    "output_projection.": "head.",
    "large_layer1.": "alignment.coarse_nodes.segment.",
    "large_layer0.": "alignment.coarse_nodes.prompt.",
    "l2s.": "alignment.to_fine.",
    "w_l2s": "alignment.weight",
    "revin_layer.affine_": "norm.",
}


def ours(name):
    found = next(new + name.removeprefix(old) for old, new in PARTS.items() if name.startswith(old))
    return found.replace("backbone.model.", "pretrained.") if ".attn." in found or ".mlp." in found else found


@pytest.fixture(params=["split2", "split2_oddpatches_revin"])
def case(request):
    cfg = META[request.param]["cfg"]
    settings = {
        "look_back": cfg["seq_len"],
        "horizon": cfg["pred_len"],
        "language": {"name": None, "architecture": GPT2, "blocks": cfg["gpt_layers"]},
        "llm": "random",
        "patch_size": cfg["patch_size"],
        "stride": cfg["stride"],
        "segments": cfg["split_len"],
        "prompt_ids": [3, 14, 15, 9, 26, 5, 35, 8],
        "fine_points": cfg["gnn_layer_index"],
        "coarse_points": cfg["l_gnn_layer_index"],
        "read_width": cfg["d_ff"],
        "coarse_width": cfg["d_l_comp"],
        "coarse_weight": None if cfg["w_l2s_flag"] else cfg["w_l2s_v"],
        "revin": bool(cfg["revin_flag"]),
        "out_dropout": cfg["out_dropout"],
        "strict_reference": True,
    }
    data = {name: torch.tensor(value) for name, value in np.load(GOLDEN / f"fsca_{request.param}_io.npz").items()}
    weights = {name: torch.tensor(value) for name, value in np.load(GOLDEN / f"fsca_{request.param}_weights.npz").items()}
    model = FscaModel.from_settings(settings).eval()
    state = {ours(name): value for name, value in weights.items() if "wte" not in name and not name.endswith(".pe")}
    model.load_state_dict(state | {"prompt": data["prompt_embeddings"][0]}, strict=True)
    return model, data, META[request.param]


def test_output(case):
    model, data, meta = case
    found = model({"values": data["x"]})["prediction"]
    torch.testing.assert_close(found, data["output"], rtol=1e-5, atol=1e-5)
    assert (found - data["y"]).square().mean().item() == pytest.approx(meta["mse"], rel=1e-5)
    assert model.tokens.count == meta["patch_num"]


def test_edge_weights(case):
    model, data, _ = case
    rows = model.norm(data["x"])[0].transpose(1, 2).flatten(0, 1)[:, None]
    weights = model.alignment.fine_graph.weights(model.sequence(rows))
    torch.testing.assert_close(weights.flatten(), data["edge_weights_norm"], rtol=1e-5, atol=1e-5)


def test_gradients(case):
    model, data, meta = case
    (model({"values": data["x"]})["prediction"] - data["y"]).square().mean().backward()
    parameters = dict(model.named_parameters())
    trained = {ours(name) for name in meta["trainable"]}
    assert trained == {name for name in parameters if model.role_of(name) != "frozen"}
    for name in meta["trainable"]:
        gradient = parameters[ours(name)].grad.norm().item()
        assert gradient == pytest.approx(data[f"gradnorm/{name}"].item(), rel=2e-4, abs=1e-6), name


def test_coarse_path_matters_as_much_as_in_the_reference(case):
    model, data, meta = case
    whole = model({"values": data["x"]})["prediction"]
    if isinstance(model.alignment.weight, float):
        model.alignment.weight = 0.0
    else:
        model.alignment.weight.data.zero_()
    off = model({"values": data["x"]})["prediction"]
    assert (whole - off).abs().max().item() == pytest.approx(meta["diff_when_coarse_off"], rel=1e-4)
    model.alignment.coarse_nodes = None
    torch.testing.assert_close(model({"values": data["x"]})["prediction"], off)


def test_size_of_a_batch_changes_nothing(case):
    model, data, _ = case
    whole = model({"values": data["x"]})["prediction"]
    model({"values": data["x"].repeat(3, 1, 1)})
    torch.testing.assert_close(model({"values": data["x"][:1]})["prediction"], whole[:1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model({"values": data["x"][1:, :, 2:]})["prediction"], whole[1:, :, 2:], rtol=1e-5, atol=1e-5)
