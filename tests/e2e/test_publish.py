"""Publishing to a Hub on loopback, and opening what is there in fresh processes, with the package and without it."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import hf_swin
from hf_swin.card import model_card
from hf_swin.cli import app
from hf_swin.errors import UserError
from hf_swin.evidence import check_evidence
from hf_swin.hub import stale
from hf_swin.publish import prepare

from hub import Hub
from processes import ROOT, finish, run, start
from tiny import FAMILIES, HEADS, OURS, SWIN, class_of, config_of, model_of, pixels, shaken


AUTO = {
    "AutoModel": "Model",
    "AutoModelForImageClassification": "ForImageClassification",
    "AutoModelForMaskedImageModeling": "ForMaskedImageModeling",
    "AutoBackbone": "Backbone",
}


@pytest.fixture
def hub():
    with Hub() as server:
        yield server


PUBLISH = """
import pathlib, sys
import torch, transformers
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from typer.testing import CliRunner
import hf_swin
from hf_swin.cli import app
from tiny import HEADS, class_of, model_of, pixels

tmp = pathlib.Path(sys.argv[1])
autos = ["AutoModel", "AutoModelForImageClassification", "AutoModelForMaskedImageModeling", "AutoBackbone"]
autos = dict(zip(autos, HEADS))

def trainer(model, folder, repo):
    arguments = transformers.TrainingArguments(str(folder), hub_model_id=repo, report_to=[], use_cpu=True)
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    transformers.Trainer(model, arguments, processing_class=processor).push_to_hub()

def command(model, folder, repo):
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    result = CliRunner().invoke(app, ["publish", str(folder), "--repo", repo])
    assert result.exit_code == 0, (result.output, result.exception)
    for words in (f"/{repo}", "trust_remote_code=True", "import hf_swin"):
        assert words in result.stdout, result.stdout

def own(model, folder, repo):
    model.push_to_hub(repo)

expected = {}
for repo in sys.argv[2:]:
    family, head, push = repo.removeprefix("user/").split("-")
    model = model_of(family, head)
    globals()[push](model, tmp / repo, repo)
    folder = snapshot_download(repo)
    for auto, suffix in autos.items():
        other = class_of(family, suffix).from_pretrained(folder).eval()
        with torch.no_grad():
            outputs = other(pixels(64))
            kept = {"ForImageClassification": "logits", "ForMaskedImageModeling": "reconstruction"}.get(head)
            if auto == "AutoBackbone":
                answer = outputs.feature_maps[-1]
            elif suffix == head and kept:
                answer = outputs[kept]
            else:
                answer = other.base_model(pixels(64)).last_hidden_state
        expected[f"{repo}|{auto}"] = answer.contiguous()
save_file(expected, tmp / "expected.safetensors")
"""

LOAD = """
import re, socket, sys
import torch, transformers
from huggingface_hub import constants, hf_hub_download, snapshot_download
from PIL import Image
from safetensors.torch import load_file

package = "Blocked" not in globals()
if package:
    import hf_swin
flags = {} if package else {"trust_remote_code": True}
connect = socket.socket.connect

def refused(*_):
    raise OSError("the network is off")

socket.socket.connect = refused
pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(64))

def same(model, auto, repo, wanted):
    where = type(model).__module__
    assert where.startswith("hf_swin." if package else "transformers_modules."), where
    with torch.no_grad():
        if auto == "AutoBackbone":
            found = model(pixels).feature_maps[-1]
        else:
            found = model(pixels)
            found = found.get("logits", found.get("reconstruction", found.get("last_hidden_state")))
            if found.shape != wanted.shape:  # a new head
                found = model.base_model(pixels).last_hidden_state
    assert found.shape == wanted.shape, (repo, auto, found.shape, wanted.shape)
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    assert error < 1e-5, (repo, auto, error)

count = 0
expected = load_file(sys.argv[1])
for key, wanted in expected.items():
    repo, auto = key.split("|")
    cls = getattr(transformers, auto)
    config = transformers.AutoConfig.from_pretrained(repo, **flags)
    assert set(config.auto_map) == {
        "AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoModelForMaskedImageModeling", "AutoBackbone"
    } and not any("--" in entry for entry in config.auto_map.values()), config.auto_map
    if auto == "AutoBackbone":  # its from_pretrained asks the Hub for every class in transformers 5.23
        cls = type(cls.from_config(config, **flags))
        model = cls.from_pretrained(repo)
    else:
        model = cls.from_pretrained(repo, **flags)
    same(model.eval(), auto, repo, wanted)
    count += 1
    if "ForImageClassification" in repo and "-own" not in repo and auto == "AutoModelForImageClassification":
        picture = Image.new("RGB", (80, 50), "red")
        processor = transformers.AutoImageProcessor.from_pretrained(repo)
        logits = model(**processor(picture, return_tensors="pt")).logits
        best = transformers.pipeline("image-classification", model=repo, **flags)(picture)[0]
        assert abs(best["score"] - logits.softmax(-1).max().item()) < 1e-5
        again = cls.from_pretrained(snapshot_download(repo), **flags)  # a folder
        same(again.eval(), auto, repo, wanted)
        if "-command" in repo:
            card = open(hf_hub_download(repo, "README.md")).read()
            code = re.findall(r"```python\\n(.*?)```", card, re.DOTALL)[0 if package else 1]
            names = {"image": picture}
            exec(code, names)
            assert torch.allclose(names["logits"], logits, atol=1e-5), repo

socket.socket.connect, constants.HF_HUB_OFFLINE = connect, False
for key, wanted in expected.items():
    repo, auto = key.split("|")
    if auto == "AutoBackbone" and "-Backbone-" in repo:
        same(transformers.AutoBackbone.from_pretrained(repo, **flags).eval(), auto, repo, wanted)
print(count)
"""


# One repository for each family, and for each way to push; all others in the slow run.
SOME = ["user/hf_vit-Model-own", "user/hf_swin-ForImageClassification-command", "user/hf_swin_v2-Backbone-trainer"]
ALL = [
    f"user/{family}-{head}-{push}" for family in FAMILIES for head in HEADS for push in ("own", "command", "trainer")
]


@pytest.mark.parametrize("repos", [SOME, pytest.param(ALL, marks=pytest.mark.slow)], ids=["some", "all"])
def test_every_class_opens_with_the_package_and_without_it_whoever_pushed(repos, hub, tmp_path):
    """By `hf-swin publish`, `model.push_to_hub` and `Trainer.push_to_hub`; whichever class was saved; same numbers."""
    run(PUBLISH, hub, tmp_path, tmp_path, *repos)
    both = [
        start(LOAD, hub, tmp_path, tmp_path / "expected.safetensors", package=package, offline=True)
        for package in (True, False)
    ]
    assert [int(finish(process)) for process in both] == [len(repos) * len(AUTO)] * 2
    for repo in hub.repos:
        assert not any(
            "hf_swin" in re.findall(r"^(?:from|import) (\w+)", text.decode(), re.MULTILINE)
            for name, text in hub.files(repo).items()
            if name.endswith(".py")
        ), repo


REPEATED = """
import pathlib, sys
import transformers
from huggingface_hub import snapshot_download
from typer.testing import CliRunner
from hf_swin.cli import app
from hf_swin.evidence import check_evidence
from tiny import model_of

tmp = pathlib.Path(sys.argv[1])

def publish(folder, *options):
    result = CliRunner().invoke(app, ["publish", str(folder), "--repo", "user/model", *options])
    assert result.exit_code == 0, (result.output, result.exception)
    found = pathlib.Path(snapshot_download("user/model"))
    assert check_evidence("user/model") < 1e-5
    return sorted(path.name for path in found.glob("model[.-]*"))

model = model_of("hf_swin")
model.push_to_hub("user/model", max_shard_size="50KB")
model.save_pretrained(tmp / "one")
assert publish(tmp / "one") == ["model.safetensors"]
model.save_pretrained(tmp / "many", max_shard_size="50KB")
many = publish(tmp / "many")
assert "model.safetensors" not in many and "model.safetensors.index.json" in many and len(many) > 3, many
other = model_of("hf_vit")
other.save_pretrained(tmp / "vit")
assert publish(tmp / "vit") == ["model.safetensors"]
publish(tmp / "vit")
"""


def test_what_an_older_push_left_goes_in_the_same_commit(hub, tmp_path):
    run(REPEATED, hub, tmp_path, tmp_path)
    _, single, parts, other = hub.repos["user/model"]["commits"][1:]  # publishing the same again commits nothing
    assert {"model.safetensors.index.json"} < set(single["deleted"]) and "model.safetensors" in single["files"]
    assert parts["deleted"] == ["model.safetensors"]
    assert "modeling_swin.py" in other["deleted"] and "modeling_vit.py" in other["files"]
    for commit in (single, parts, other):
        assert not stale(commit["files"], commit["files"])
        index = "model.safetensors.index.json" in commit["files"]
        assert index != ("model.safetensors" in commit["files"])


ON_DEMAND = """
import json, pathlib, sys
import huggingface_hub.utils._http as http
from typer.testing import CliRunner
from hf_swin.cli import app

http.time.sleep = lambda seconds: None  # what the client waits between its own attempts
for repo in sys.stdin:
    result = CliRunner().invoke(app, ["publish", sys.argv[1], "--repo", *repo.split()])
    print(json.dumps([result.exit_code, result.stderr.strip()]), flush=True)
"""

# What happens -> where, how, and what the sentence says.
TROUBLE = {
    "nobody": ("POST /api/repos/create|GET /api/models", 401, "hf auth login"),
    "forbidden": ("POST /api/models/.*/commit", 403, "may not"),
    "missing": ("GET /api/models", 404, "no user/missing"),
    "conflict": ("POST /api/models/.*/commit", 409, "changed by somebody else"),
    "outdated": ("POST /api/models/.*/commit", 412, "changed by somebody else"),
    "slow": ("POST /api/repos/create", 429, "slow down"),
    "create": ("POST /api/repos/create", 500, "trouble of its own (500)"),
    "preupload": ("POST /api/models/.*/preupload", 500, "trouble of its own (500)"),
    "storage": ("PUT /lfs", 503, "trouble of its own (503)"),
    "broken": ("POST /api/models/.*/commit", 500, "trouble of its own (500)"),
    "cut-upload": ("PUT /lfs", "cut", "connection to the Hub broke"),
    "cut-commit": ("POST /api/models/.*/commit", "cut", "connection to the Hub broke"),
}


def test_trouble_with_the_hub_is_a_sentence_and_the_same_command_finishes(hub, tmp_path):
    model_of("hf_vit").save_pretrained(tmp_path / "model")
    process = start(ON_DEMAND, hub, tmp_path, tmp_path / "model")

    def publish(name):
        process.stdin.write(f"user/{name}\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline() or process.stderr.read())

    for name, (where, how, words) in TROUBLE.items():
        hub.objects.clear()
        hub.fail(where, how)
        code, text = publish(name)
        assert code == 2 and words in text and "again" in text, (name, code, text)
        assert len(text.splitlines()) == 1, text
        assert not hub.repos.get(f"user/{name}", {}).get("files"), "half of a model can be seen"
        hub.heal()
        assert (again := publish(name)) == [0, ""], (name, again)
        assert {"config.json", "model.safetensors", "README.md"} <= set(hub.files(f"user/{name}"))
    hub.cut("PUT /lfs", times=1)  # once is mended without a word
    hub.objects.clear()
    assert publish("flaky") == [0, ""]
    assert publish("hidden --private") == [0, ""] and hub.repos["user/hidden"]["private"]
    code, text = publish("flaky --private")
    assert code == 2 and "is public already" in text
    process.stdin.close()
    process.wait(timeout=60)


def test_from_a_checkout_without_a_login(hub, tmp_path):
    """`python -m conversion.publish`, and a token that the Hub does not know."""
    model_of("hf_swin").save_pretrained(tmp_path / "model")
    unknown = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_other", "HF_HOME": str(tmp_path / "home")}
    unknown["HF_HUB_OFFLINE"] = "0"
    command = [sys.executable, "-m", "conversion.publish", str(tmp_path / "model"), "--repo", "user/model"]
    result = subprocess.run(command, cwd=ROOT, env=unknown, capture_output=True, text=True)
    assert result.returncode == 2 and "hf auth login" in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1 and not hub.repos


def refused(*arguments):
    result = CliRunner().invoke(app, ["publish", *map(str, arguments)])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1, (result.output, result.exception)
    return result.stderr


def test_what_cannot_be_published_is_refused_before_anything_is_sent(tmp_path):
    """This process is offline: a request would say so."""
    model_of("hf_swin").save_pretrained(tmp_path / "model")
    assert "HF_HUB_OFFLINE" in refused(tmp_path / "model", "--repo", "user/model")
    assert "no name of a repository" in refused(tmp_path / "model", "--repo", "user/a/model")
    assert "as user/name" in refused(tmp_path / "model", "--repo", "model")
    assert "--out" in refused(tmp_path / "model")
    assert "folder itself" in refused(tmp_path / "model", "--out", tmp_path / "model")
    assert "holds no model" in refused(tmp_path / "nothing", "--out", tmp_path / "out")
    transformers.BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "bert")
    assert "'bert' model" in refused(tmp_path / "bert", "--out", tmp_path / "out")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"half")
    assert "does not open" in refused(tmp_path / "model", "--out", tmp_path / "out")
    weights = {"classifier.weight": torch.zeros(5, 48), "classifier.bias": torch.zeros(5)}
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    assert "lacks" in refused(tmp_path / "model", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_holds_for_what_was_published_and_not_for_what_was_changed(family, head, tmp_path):
    model_of(family, head).bfloat16().save_pretrained(tmp_path / "model")
    prepare(tmp_path / "model", tmp_path / "out", "user/model")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.bfloat16 in {tensor.dtype for tensor in tensors.values()}
    assert check_evidence(tmp_path / "out") < 1e-6
    name = next(name for name in tensors if "fc1.weight" in name or "intermediate.dense.weight" in name)
    tensors[name][0, 0] += 1
    save_file(tensors, tmp_path / "out" / "model.safetensors", {"format": "pt"})
    assert check_evidence(tmp_path / "out") > 1e-5
    tensors[name][0, 0] = float("nan")
    save_file(tensors, tmp_path / "out" / "model.safetensors", {"format": "pt"})
    assert check_evidence(tmp_path / "out") == float("inf")


def test_evidence_that_is_missing_or_damaged_is_named(tmp_path):
    model_of("hf_swin").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no evidence"):
        check_evidence(tmp_path)
    (tmp_path / "evidence.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        check_evidence(tmp_path)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        check_evidence("user/nowhere")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_preparing_twice_gives_the_same_bytes_and_leaves_nothing_old(tmp_path):
    model_of("hf_swin").save_pretrained(tmp_path / "model", max_shard_size="50KB")
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "model")
    prepare(tmp_path / "model", tmp_path / "one", "user/model")
    prepare(tmp_path / "model", tmp_path / "two", "user/model")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("model-*"))) == len(list((tmp_path / "model").glob("model-*")))
    model_of("hf_vit").save_pretrained(tmp_path / "other")
    prepare(tmp_path / "other", tmp_path / "two", "user/model")
    left = set(contents(tmp_path / "two"))
    assert not [name for name in left if "swin" in name or name.startswith(("model-", "preprocessor"))]
    assert check_evidence(tmp_path / "two") < 1e-6


RUN = {
    "data": "digits", "family": "swin", "init": "microsoft/swin-tiny-patch4-window7-224", "seed": 0, "seconds": 80,
    "speed": "full", "scores": {"accuracy": 0.99, "macro_f1": 0.98, "loss": 0.1}, "labels": ["0", "1"],
    "images": {"images": {"train": 1437, "validation": 0, "test": 360}, "skipped": [], "leaks": []},
    "multi_label": False, "recipe": {"epochs": 3, "label_smoothing": 0.1}, "notes": [],
}  # fmt: skip
CONVERSION = {
    "source": "swin_tiny_patch4_window7_224.pth", "format": "microsoft_swin", "checkpoint": "swin-tiny", "top1": 81.2,
    "license": "mit", "base_model": None, "rules": {"layers.{s}.blocks.{b}.attn.qkv -> query, key, value": 24},
    "dropped": [f"layers.0.blocks.{block}.attn_mask" for block in range(25)],
    "resized": ["the position table was resized from 7 x 7 to 8 x 8"], "left_to_user": ["labels are numbers"],
    "tensors": 200, "parameters": 28288354,
}  # fmt: skip


def card_of(folder, *arguments):
    model_card(folder, "user/model", *arguments).save(folder / "README.md")
    return ModelCard.load(folder / "README.md")


def test_the_card_tells_of_a_run(tmp_path):
    model_of("hf_swin").save_pretrained(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(RUN))
    (tmp_path / "predictions.png").write_bytes(b"")
    card = card_of(tmp_path, "apache-2.0")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "accuracy": 0.99,
        "f1": 0.98,
    }
    assert (card.data.license, card.data.base_model, card.data.datasets) == ("apache-2.0", RUN["init"], None)
    assert "1437 training images" in card.text and "predictions.png" in card.text
    assert "training_curve.png" not in card.text and "Conversion report" not in card.text


def test_the_card_tells_of_a_conversion(tmp_path):
    model_of("hf_swin").save_pretrained(tmp_path)
    (tmp_path / "conversion.json").write_text(json.dumps(CONVERSION))
    card = card_of(tmp_path)
    assert (card.data.license, card.data.eval_results[0].metric_value) == ("mit", 0.812)
    for words in ("query, key, value", "and 5 more", "resized from 7 x 7", "labels are numbers", "28,288,354"):
        assert words in card.text, words


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", [*FAMILIES, "swin"])
def test_every_way_in_the_card_opens_the_model(kind, head, tmp_path, monkeypatch):
    """Here with the package; test_every_class... runs the code of the card without it."""
    if kind == "swin":
        name = {"Model": "SwinModel", "Backbone": "SwinBackbone"}.get(head, f"Swin{head}")
        model = shaken(getattr(transformers, name)(transformers.SwinConfig(**SWIN)))
    else:
        model = model_of(kind, head)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_exists", lambda *_, **__: True)  # asked for every backbone
    card = model_card(tmp_path, str(tmp_path))
    blocks = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {"pixel_values": pixels(64)})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_is_in_the_map_and_the_map_is_always_fresh(family, tmp_path):
    names = {auto: class_of(family, suffix).__name__ for auto, suffix in AUTO.items()}
    names["AutoConfig"] = OURS[family][0].__name__
    auto_map = config_of(family).auto_map
    assert {auto: entry.partition(".")[2] for auto, entry in auto_map.items()} == names
    assert names == hf_swin.registration.FAMILIES[family]
    again = OURS[family][0].from_dict(
        {**config_of(family).to_dict(), "auto_map": {"AutoModel": f"old.{names['AutoModel']}"}}
    )
    assert again.auto_map == auto_map
    theirs = {"AutoModel": "mine.MyModel", "AutoBackbone": f"user/code--modeling.{names['AutoBackbone']}"}
    assert OURS[family][0](auto_map=theirs).auto_map == auto_map | theirs
    OURS[family][0]().save_pretrained(tmp_path)
    for entry in (auto_map["AutoConfig"],):
        assert (tmp_path / f"{entry.partition('.')[0]}.py").exists()


def test_code_for_a_stock_model_is_not_taken_for_code_of_ours():
    stock = {**transformers.SwinConfig(**SWIN).to_dict(), "auto_map": {"AutoModel": "modeling_mine.MySwin"}}
    assert hf_swin.HfSwinConfig.from_dict(stock).auto_map == config_of("hf_swin").auto_map


STOCK = """
import sys
import torch, transformers
from safetensors.torch import load_file

expected = load_file(sys.argv[1])
for repo, wanted in expected.items():
    if repo != "pixels":
        model = transformers.AutoModelForImageClassification.from_pretrained(repo).eval()
        assert type(model).__module__.startswith("transformers.models."), type(model)
        with torch.no_grad():
            error = ((model(expected["pixels"]).logits - wanted).abs().max() / wanted.abs().max()).item()
        assert error < 1e-5, (repo, error)
        assert not hasattr(model.config, "auto_map")
print("ok")
"""

PUBLISH_STOCK = """
import pathlib, sys
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from typer.testing import CliRunner
from hf_swin.cli import app
from tiny import model_of, pixels

tmp = pathlib.Path(sys.argv[1])
expected = {"pixels": pixels(64)}
for family in sys.argv[2:]:
    # what stock classes do with images smaller than a window
    numbers = {"hf_vit": {"image_size": 64}, "hf_swin": {"small_input": "square"}}
    model = model_of(family, **numbers.get(family, {"small_input": "fixed"}))
    model.save_pretrained(tmp / family)
    for options in ([], ["--format", "transformers"]):  # over code of ours, which must go
        result = CliRunner().invoke(app, ["publish", str(tmp / family), "--repo", f"user/{family}", *options])
        assert result.exit_code == 0, (result.output, result.exception)
    snapshot_download(f"user/{family}")
    with torch.no_grad():
        expected[f"user/{family}"] = model(expected["pixels"]).logits
save_file(expected, tmp / "expected.safetensors")
"""


@pytest.mark.parametrize("families", [["hf_swin"], pytest.param(["hf_vit", "hf_swin_v2"], marks=pytest.mark.slow)])
def test_stock_transformers_opens_what_was_published_for_it(families, hub, tmp_path):
    run(PUBLISH_STOCK, hub, tmp_path, tmp_path, *families)
    assert not [name for repo in hub.repos for name in hub.files(repo) if name.endswith(".py")]
    assert run(STOCK, hub, tmp_path, tmp_path / "expected.safetensors", package=False, offline=True).strip() == "ok"


def test_files_of_somebody_else_are_not_touched(tmp_path):
    model_of("hf_swin").save_pretrained(tmp_path / "model")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "modeling_mine.py").write_text("mine")
    sentence = refused(tmp_path / "model", "--out", tmp_path / "work")
    assert "holds other files" in sentence and (tmp_path / "work" / "modeling_mine.py").read_text() == "mine"
