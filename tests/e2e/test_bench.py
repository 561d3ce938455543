# Copyright 2026 The hf_swin authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""`hf-swin bench` on tiny models: equal answers first, then times, and nothing is lost when a variant fails."""

import dataclasses
import json
from functools import partial

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import hf_swin
from hf_swin import benchmark, benchmark_measures, benchmark_rounds, benchmark_startup, benchmark_targets
from hf_swin import benchmark_variants as variants
from hf_swin.benchmark_rounds import Result, Row, Settings
from hf_swin.benchmark_variants import VARIANTS, Case, NotAvailable, Variant
from hf_swin.cli import app


CPU = torch.device("cpu")
SWIN = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
VIT = {"patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
TINY = {
    "swin-t": partial(hf_swin.HfSwinConfig, **{"image_size": 64, **SWIN}),
    "swin-v2-t": partial(hf_swin.HfSwinV2Config, **{"image_size": 64, **SWIN}),
    "vit-b16": partial(hf_swin.HfViTConfig, **{"image_size": 32, **VIT}),
}
EAGER = ["hf_swin", "transformers sdpa", "transformers eager", "timm", "torchvision"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(variants, "MODELS", TINY)
    monkeypatch.setattr(benchmark_measures, "PRODUCTS", ((64, 64, 64), (128, 64, 32)))
    monkeypatch.setattr(benchmark_rounds, "TURN", 0.01)
    # Set by the command for its process; here for one test.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))


def bench(out, *options):
    result = CliRunner().invoke(app, ["bench", "--out", str(out), "--threads", "1", *options])
    path = out / "results.json"
    return result, json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("mode", variants.MODES)
@pytest.mark.parametrize("model", TINY)
def test_every_library_gives_the_same_answer(model, mode, tmp_path):
    case = Case(model, mode, "float32", 2, variants.native_size(model))
    variants.write_weights(model, case.size, tmp_path)
    reports = []
    result = benchmark_rounds.measure(
        case, EAGER, tmp_path, Settings(CPU, 1, 2, "hf_swin optimized"), False, reports.append
    )
    assert result.complete and len(result.peak) == 2 and "round 2 of 2" in reports
    for row in result.rows:
        if (model, row.variant) == ("swin-v2-t", "transformers sdpa"):
            assert row.reason == "not available: transformers has no sdpa attention for this model"
        else:
            assert not row.reason and row.error < 1e-5 and len(row.wall) == len(row.cpu) == 2, row


@pytest.mark.parametrize("engine", variants.ENGINES)
@pytest.mark.parametrize("model", ["swin-t", *(pytest.param(name, marks=pytest.mark.slow) for name in list(TINY)[1:])])
def test_engines_give_the_same_answer(model, engine, tmp_path):
    pytest.importorskip(engine)
    case = Case(model, "inference", "float32", 2, variants.native_size(model))
    variants.write_weights(model, case.size, tmp_path)
    result = benchmark_rounds.measure(
        case, ["hf_swin", engine], tmp_path, Settings(CPU, 1, 1, "hf_swin optimized"), False, print
    )
    assert result.row(engine), result.rows
    assert result.row(engine).error < 1e-5


def test_the_command_prints_and_writes_everything(tmp_path):
    options = ["--models", "swin-t", "--batches", "1", "--rounds", "3", "--variants", "hf_swin,timm,onnxruntime"]
    result, written = bench(tmp_path, *options, "--dtypes", "bfloat16")
    assert result.exit_code == 0, result.output
    assert [case["case"]["mode"] for case in written["cases"]] == ["inference", "training"]
    for case in written["cases"]:
        assert case["complete"] and len(case["peak"]) == 3 and case["work"] > 0
        assert {row["variant"]: bool(row["wall"]) for row in case["rows"]} == {
            "hf_swin": True,
            "timm": True,
            "onnxruntime": False,
        }
        assert case["summary"]["hf_swin"]["ratio"] == [1, 1, 1] and case["summary"]["timm"]["share_of_limit"] > 0
        assert all(row["memory"] >= 0 for row in case["rows"] if row["wall"])
    assert written["machine"]["threads"] == 1 and written["versions"]["torch"] == torch.__version__.split("+")[0]
    assert "onnxruntime: not available: ONNX Runtime has no bfloat16" in result.output
    assert "onnxruntime: not available: made for inference only" in result.output
    assert "Promises" in result.output  # whose names may be broken over lines
    assert "memory / least of the PyTorch peers" in {target["promise"] for target in written["targets"]}
    assert Image.open(tmp_path / "ratios.png").size[0] > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ratios.png", "results.json"]


def test_a_variant_that_fails_or_differs_does_not_lose_the_others(tmp_path, monkeypatch):
    def broken(folder, case):
        raise RuntimeError("no kernel\nfor this")

    def other_weights(folder, case):
        model = VARIANTS["hf_swin"].build(folder, case)
        torch.nn.init.normal_(next(model.parameters()))
        return model

    broken_ones = {"timm": Variant(broken), "torchvision": Variant(other_weights)}
    monkeypatch.setattr(variants, "VARIANTS", {**VARIANTS, **broken_ones})
    variants.write_weights("swin-t", 64, tmp_path)
    case = Case("swin-t", "inference", "float32", 1, 64)
    result = benchmark_rounds.measure(
        case, ["timm", "torchvision", "hf_swin"], tmp_path, Settings(CPU, 1, 1, "hf_swin optimized"), False, print
    )
    failed, differing, ours = result.rows
    assert failed.reason == "failed: RuntimeError: no kernel for this" and not failed.wall
    assert differing.reason.startswith("differs by") and differing.error > 1e-2 and not differing.wall
    assert ours.wall and result.reference == "hf_swin"


def test_ctrl_c_leaves_what_was_measured(tmp_path, monkeypatch):
    timed, calls = benchmark_rounds.timed, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return timed(*args)

    monkeypatch.setattr(benchmark_rounds, "timed", interrupted)
    options = ["--models", "swin-t", "--dtypes", "float32", "--batches", "1", "--variants", "hf_swin", "--rounds", "50"]
    result, written = bench(tmp_path, *options, "--modes", "inference")
    assert result.exit_code == 130 and "what was measured is in" in result.output
    [case] = written["cases"]
    assert not case["complete"] and 1 <= len(case["peak"]) < 50
    assert [len(row["wall"]) for row in case["rows"]] == [len(case["peak"])]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--models", "resnet"], "--models 'resnet' is not known: choose from swin-t, swin-v2-t, vit-b16."),
        (["--variants", "jax"], "--variants 'jax' is not known"),
        (["--batches", "many"], "--batches 'many' is no positive number."),
        (["--sizes", "0"], "--sizes '0' is no positive number."),
        (["--reference", "jax"], "--reference 'jax' is no variant"),
        (["--device", "abacus"], "--device abacus: torch cannot use it here"),
    ],
)
def test_mistakes_are_said_in_one_sentence(options, words, tmp_path):
    result, written = bench(tmp_path, *options)
    assert result.exit_code == 2 and words in " ".join(result.output.split()) and written is None


def test_plans_name_what_there_is():
    for plans in (benchmark.QUICK, benchmark.FULL):
        cases = benchmark.cases_of(plans)
        assert all(set(names) <= set(VARIANTS) for names, _ in cases.values())
    everything = benchmark.Plan(tuple(TINY), sizes=("native", "128"), variants=("all",))
    assert len(benchmark.cases_of([everything, everything])) == len(TINY) * 2 * 2 * 2 * 2


def test_variants_say_why_they_cannot(tmp_path, monkeypatch):
    variants.write_weights("swin-t", 64, tmp_path)
    training = Case("swin-t", "training", "float32", 1, 64)
    with pytest.raises(NotAvailable, match="made for inference only"):
        variants.build("hf_swin optimized compiled", tmp_path, training, CPU)
    monkeypatch.setattr(variants, "find_spec", lambda name: None)
    for name in ("timm", "openvino", "onnxruntime"):
        with pytest.raises(NotAvailable, match=r"not installed \(pip install"):
            variants.build(name, tmp_path, dataclasses.replace(training, mode="inference"), CPU)


def test_work_is_counted_from_the_shapes():
    """A ViT: patches, then q, k, v, o and MLP for each token, the two products of attention, the head."""
    config = variants.config_of("vit-b16", 32)
    tokens, width = 17, config.hidden_size
    linear = 4 * width**2 + 2 * width * config.intermediate_size
    products = config.num_hidden_layers * (tokens * linear + 2 * tokens**2 * width)
    patches = 16 * 3 * 8 * 8 * width
    by_hand = 2 * (patches + products + width * variants.LABELS)
    case = Case("vit-b16", "inference", "float32", 3, 32)
    assert benchmark_measures.work_of(case) == 3 * by_hand
    trained = benchmark_measures.work_of(dataclasses.replace(case, mode="training"))
    assert trained == 3 * (3 * by_hand - 2 * patches), "twice the work on the way back, and no gradient of the pixels"


def result_of(mode="inference", dtype="float32", size=224, reference="hf_swin", **times):
    rows = [
        Row(name.replace("_", " ").replace("hf swin", "hf_swin"), wall=t, cpu=t, memory=100)
        for name, t in times.items()
    ]
    case = Case("swin-t", mode, dtype, 1, size)
    return Result(case, work=100, reference=reference, clock="wall", rows=rows, peak=[100.0] * 3)


def test_promises_are_judged_by_the_best_peer_and_by_rounds():
    result = result_of(
        hf_swin=[1.0, 2.0, 1.0], timm=[1.3, 2.6, 1.3], transformers_sdpa=[3.0, 6.0, 3.0], openvino=[0.5] * 3
    )
    speed, share, engines = benchmark_targets.judge([result], {})
    assert (speed.promise, speed.figure, speed.reached) == ("speed / best PyTorch peer", 1.3, True)
    assert (share.figure, share.reached) == (1.0, True)
    assert (engines.figure, engines.reached, engines.close) == (0.5, False, False)
    trained = result_of("training", hf_swin=[1.0] * 3, timm=[1.1, 1.2, 1.4])
    speed, memory = benchmark_targets.judge([trained], {})
    assert not speed.reached and memory.figure == 1 and not memory.reached
    assert not benchmark_targets.judge([result_of(reference="timm", timm=[1.0] * 3)], {})


def test_flatness_and_what_is_measured_beside_cases():
    small, large = result_of(size=100, hf_swin=[1.0] * 3), result_of(size=200, hf_swin=[4.8] * 3)
    flat = benchmark_targets.judge([large, small], {})[-1]
    assert flat.figure == pytest.approx(1.2) and not flat.reached and "200 against 100 px" in flat.where
    beside = {
        "start_up": {
            "hf_swin": {"import": [1.0, 1.0], "from_pretrained": [2.0, 2.0]},
            "transformers": {"import": [1.1, 1.1], "from_pretrained": [1.0, 1.0]},
        },
        "second_sizes": [{"size": (256, 256), "first_call": 2.0, "later_calls": [1.0, 1.0]}],
        "mixed_sizes": [{"size": (1, 1), "graphs": graphs} for graphs in (1, 2, 2, 3)],
    }
    assert [verdict.reached for verdict in benchmark_targets.judge([], beside)] == [True, False, False, False]


def test_start_up_and_other_sizes_are_measured(tmp_path):
    variants.write_weights("swin-t", 64, tmp_path)
    found = benchmark_startup.start_up(tmp_path, 1)
    assert all(seconds > 0 for parts in found.values() for samples in parts.values() for seconds in samples)
    assert len(benchmark_startup.second_sizes(tmp_path, CPU)) == len(benchmark_startup.SECOND_SIZES)


@pytest.mark.slow
def test_a_compiled_variant_gives_the_same_answer(tmp_path):
    variants.write_weights("swin-t", 64, tmp_path)
    case = Case("swin-t", "inference", "float32", 1, 64)
    result = benchmark_rounds.measure(
        case, ["hf_swin compiled"], tmp_path, Settings(CPU, 1, 1, "hf_swin optimized"), False, print
    )
    [row] = result.rows
    assert row.wall and row.first_call > 1 and row.error < 1e-5, row


@pytest.mark.slow
def test_sizes_in_turn_are_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_startup, "MIXED_SIZES", ((64, 64), (96, 96), (80, 80)))
    variants.write_weights("swin-t", 64, tmp_path)
    assert benchmark_startup.recompilations(benchmark_startup.mixed_sizes(tmp_path, CPU)) == 0
