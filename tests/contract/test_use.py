"""What people do with a model of transformers: train, adapt, compile, remember what not to remember."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, Trainer, TrainingArguments, ViTImageProcessor, pipeline

from hf_swin.modeling_attention import eager_attention_forward

from compare import assert_close
from tiny import FAMILIES, HEADS, class_of, config_of, model_of, pixels


@pytest.mark.parametrize("family", FAMILIES)
def test_trainer_learns_two_colours(family, tmp_path):
    red, blue = torch.zeros(3, 32, 32), torch.zeros(3, 32, 32)
    red[0], blue[2] = 1.0, 1.0
    data = [{"pixel_values": (red, blue)[i % 2], "labels": i % 2} for i in range(16)]
    arguments = TrainingArguments(
        tmp_path,
        max_steps=12,
        learning_rate=3e-3,
        per_device_train_batch_size=8,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    model = class_of(family, "ForImageClassification")(config_of(family, num_labels=2))
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_trainer_resumes_from_its_own_checkpoint(family, tmp_path):
    """Checkpoints have published names; the Trainer of transformers 5.23 reads them by the names in memory."""
    data = [{"pixel_values": torch.randn(3, 32, 32), "labels": i % 5} for i in range(8)]
    weights = []
    for resume, steps in ((False, 2), (True, 4), (False, 4)):
        torch.manual_seed(0)
        model = class_of(family, "ForImageClassification")(config_of(family, drop_path_rate=0.0))
        folder = tmp_path / ("unbroken" if steps == 4 and not resume else "broken")
        numbers = {
            "max_steps": steps,
            "save_steps": 2,
            "per_device_train_batch_size": 4,
            "lr_scheduler_type": "constant",
        }
        arguments = TrainingArguments(folder, **numbers, report_to=[], use_cpu=True, disable_tqdm=True)
        Trainer(model, arguments, train_dataset=data).train(resume_from_checkpoint=resume)
        weights.append([parameter.detach() for parameter in model.parameters()])
    assert_close(weights[1], weights[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_adapts_query_and_value_and_merges_back(family):
    model = model_of(family)
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    assert any("lora_A" in name for name, _ in adapted.named_parameters())
    assert_close(adapted.eval()(pixels(64)).logits, model(pixels(64)).logits)
    assert_close(adapted.merge_and_unload()(pixels(64)).logits, model(pixels(64)).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_pipeline_classifies_an_image(family, tmp_path):
    model_of(family, id2label={0: "cat", 1: "dog"}, num_labels=2).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    answers = pipeline("image-classification", model=str(tmp_path))(Image.new("RGB", (50, 40)))
    assert {answer["label"] for answer in answers} == {"cat", "dog"}


@pytest.mark.slow
@pytest.mark.parametrize("head", ["ForImageClassification", "Backbone"])
@pytest.mark.parametrize("family", FAMILIES)
def test_compiles_without_a_break(family, head):
    torch._dynamo.reset()
    model = model_of(family, head)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for size in [(64, 64), (40, 64)]:
        with torch.no_grad():
            ours, exact = compiled(pixels(*size)), model(pixels(*size))
        assert_close(ours.to_tuple()[0], exact.to_tuple()[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_training_step_has_no_break(family):
    torch._dynamo.reset()
    model = model_of(family, drop_path_rate=0.0).train()
    loss = torch.compile(model, fullgraph=True, backend="eager")(pixels(64), labels=torch.tensor([0, 1])).loss
    assert_close(loss, model(pixels(64), labels=torch.tensor([0, 1])).loss)
    loss.backward()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_tuples_are_the_outputs_in_order(family, head):
    model = model_of(family, head)
    outputs, as_tuple = (
        model(pixels(64), output_hidden_states=True),
        model(pixels(64), output_hidden_states=True, return_dict=False),
    )
    assert isinstance(as_tuple, tuple) and len(as_tuple) == len(outputs.to_tuple())


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_follow_the_stock_contract(family):
    outputs = model_of(family, "Model")(pixels(64, 32), output_hidden_states=True)
    if family == "hf_vit":
        assert [tuple(state.shape) for state in outputs.hidden_states] == [(2, 33, 32)] * 4
    else:
        assert [tuple(state.shape) for state in outputs.hidden_states] == [(2, 128, 24), (2, 32, 48), (2, 32, 48)]
        maps = [tuple(state.shape) for state in outputs.reshaped_hidden_states]
        assert maps == [(2, 24, 16, 8), (2, 48, 8, 4), (2, 48, 8, 4)]
        for state, image in zip(outputs.hidden_states, outputs.reshaped_hidden_states, strict=True):
            assert torch.equal(state, image.flatten(2).transpose(1, 2))
    assert model_of(family, "Model")(pixels(64)).hidden_states is None
    chosen = model_of(family, "Backbone")(pixels(64), output_hidden_states=True)
    assert len(chosen.hidden_states) == (4 if family == "hf_vit" else 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_registered_attention_kernel_is_used(family):
    called = []

    def counting(*args, **kwargs):
        called.append(1)
        return eager_attention_forward(*args, **kwargs)

    AttentionInterface.register("counting", counting)
    model = model_of(family)
    expected = model(pixels(64)).logits
    model.set_attn_implementation("counting")
    assert_close(model(pixels(64)).logits, expected)
    assert called


@pytest.mark.parametrize("family", FAMILIES)
def test_models_are_copied_and_pickled(family):
    model = model_of(family)
    expected = model(pixels(64)).logits
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(pixels(64)).logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_remote_code_travels_whole(family, tmp_path):
    """The files next to a model load it in a process that does not have the package."""
    model = model_of(family)
    model.save_pretrained(tmp_path / "model")
    torch.save(model(pixels(40)).logits, tmp_path / "expected.pt")
    script = f"""
import sys, torch
sys.modules["hf_swin"] = None  # as if it were not installed
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(r"{tmp_path / "model"}", trust_remote_code=True)
pixels = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(40))
expected = torch.load(r"{tmp_path / "expected.pt"}")
assert torch.allclose(model(pixels).logits, expected, rtol=1e-5, atol=1e-6)
print(type(model).__module__)
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0 and "transformers_modules" in ran.stdout, ran.stderr[-2000:]


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_by_number(family):
    model = model_of(family, "Model")
    every = model(pixels(64), output_hidden_states=True)
    last = len(every.hidden_states) - 1
    for asked, given in [(1, {1}), ([0, -1], {0, last}), (-1, {last})]:
        some = model(pixels(64), output_hidden_states=asked)
        for name in ("hidden_states", "reshaped_hidden_states"):
            if getattr(every, name, None) is None:
                continue
            for index, (one, state) in enumerate(zip(getattr(some, name), getattr(every, name), strict=True)):
                assert (one is None) == (index not in given)
                assert one is None or torch.equal(one, state)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_on_fake_tensors_leaves_nothing_behind(family):
    """Planners run models on tensors without memory; what they made must not be remembered."""
    model = model_of(family, position_embedding_type="sinusoidal_2d") if family == "hf_vit" else model_of(family)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = {name: mode.from_tensor(value) for name, value in model.named_parameters()}
        torch.func.functional_call(model, fake, (torch.randn(1, 3, 92, 76),))
    assert type(model(torch.randn(1, 3, 92, 76)).logits) is torch.Tensor  # a size that no other test has


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_batch_has_an_empty_answer(family):
    assert model_of(family)(pixels(40)[:0], output_attentions=True).logits.shape == (0, 5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_that_asks_for_everything_in_tuples(family, head):
    numbers = {"output_hidden_states": True, "output_attentions": True, "return_dict": False}
    outputs = model_of(family, head, **numbers)(pixels(64))
    assert isinstance(outputs, tuple) and len(outputs) >= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_and_images_of_the_wrong_shape_are_named(family):
    model = model_of(family, "ForMaskedImageModeling")
    with pytest.raises(ValueError, match=r"bool_masked_pos \(2, 7\) does not fit 2 images"):
        model(pixels(64), bool_masked_pos=torch.ones(2, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"pixel_values are \(batch, channels, height, width\), got \(3, 64, 64\)"):
        model(pixels(64)[0])
    side = 8 if family == "hf_vit" else 16
    as_grid = model(pixels(64), bool_masked_pos=torch.ones(2, side, side, dtype=torch.bool))
    as_row = model(pixels(64), bool_masked_pos=torch.ones(2, side * side, dtype=torch.bool))
    assert torch.equal(as_grid.loss, as_row.loss)
