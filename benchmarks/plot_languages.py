"""The README's picture: `python benchmarks/plot_languages.py` draws benchmarks/results/openmoji.json by language and stage."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
LABELS = {
    "teacher": "teacher: small CLIP, English",
    "inherit": "ProCLIP stage 1, English",
    "tune": "ProCLIP stage 2, English",
    "all_languages": "trained on all 14 languages",
}
COLOURS = {"teacher": "#adb5bd", "inherit": "#8ecae6", "tune": "#219ebc", "all_languages": "#fb8500"}
CHANCE = 100 * 10 / 197


def main() -> None:
    """Draws grouped bars with the range over seeds."""
    results = json.loads((ROOT / "benchmarks/results/openmoji.json").read_text())["results"]
    languages = [lang for lang in results["tune"] if len(lang) == 2]
    figure, axis = plt.subplots(figsize=(10, 3.6))
    width = 0.2
    for number, (stage, label) in enumerate(LABELS.items()):
        cells = [results[stage][lang]["text_to_image"]["R@10"] for lang in languages]
        values = [cell["mean"] for cell in cells]
        low, high = ([abs(cell[end] - cell["mean"]) for cell in cells] for end in ("min", "max"))
        places = [x + (number - 1.5) * width for x in range(len(languages))]
        axis.bar(places, values, width, label=label, color=COLOURS[stage], yerr=[low, high], error_kw={"lw": 0.8, "capsize": 1.5})
    axis.axhline(CHANCE, color="black", lw=0.8, ls=":", label="chance")
    axis.set_xticks(range(len(languages)), languages)
    axis.set_ylabel("text to image R@10, %")
    axis.set_title(
        "197 drawings of concepts never seen in training, by language of the query; mean and range of 3 seeds", fontsize=10
    )
    axis.legend(fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False, columnspacing=1.0)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(ROOT / "docs/images/openmoji_languages.png", dpi=110)


if __name__ == "__main__":
    main()
