"""Every format against its publisher's class, or a reference written from the paper: numbers, round trips, refusals."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_swin.conversion import formats
from hf_swin.conversion.files import open_weights
from hf_swin.conversion.keymap import owners
from hf_swin.conversion.reading import read
from hf_swin.conversion.targets import write_as
from hf_swin.errors import UserError

from compare import assert_close
from format_cases import CASES, HEADS, Case
from tiny import STOCK, Stock, pixels


cases = pytest.mark.parametrize("case", CASES, ids=str)


def opened(case: Case, folder, state=None):
    """What our reader makes of the file that the publisher would write."""
    return read(case.save(folder, state), hints=case.hints, from_format=case.format if case.alike else None)


def model_from(reading):
    """Our model with every tensor of the file, and none left over."""
    model, info = reading.model_class.from_pretrained(
        None, config=reading.config, state_dict=dict(reading.tensors()), output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    return model.eval()


def as_list(answer) -> list[torch.Tensor]:
    return [answer] if torch.is_tensor(answer) else list(answer)


def gradient(answers: list[torch.Tensor], pixel_values: torch.Tensor) -> torch.Tensor:
    """The gradient of the pixels for a sum in which every number of an answer has a weight of its own."""
    total = sum((answer * torch.linspace(-1, 1, answer.numel()).view(answer.shape)).sum() for answer in answers)
    return torch.autograd.grad(total, pixel_values)[0]


@cases
def test_numbers_are_the_publishers(case, tmp_path):
    model = model_from(opened(case, tmp_path))
    for size in case.sizes:
        x, *hidden = case.inputs(size)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        mine = as_list(getattr(model(ours, *hidden), case.answer))
        wanted = as_list(case.run(case.peer, theirs, *hidden))
        assert_close(mine, wanted, what=f"{case} {size}")
        gradients = gradient(mine, ours), gradient(wanted, theirs)
        assert_close(*gradients, case.gradient_tolerance, what=f"{case} {size} gradient")


def of_the_model(case: Case) -> dict[str, torch.Tensor]:
    """What a file holds of the model, under the publisher's names, without the other parts of a training."""
    inside = "backbone." if case.container == "teacher" else ""
    state = {key: torch.as_tensor(tensor) for key, tensor in case.weights.items()}
    return {key.removeprefix(inside): tensor for key, tensor in state.items() if key.startswith(inside)}


@cases
def test_a_signature_tells_the_format_and_each_key_has_one_rule(case):
    state = of_the_model(case)
    module = formats.named(case.format)
    assert formats.fitting(state, case.container) == [*(case.alike or (case.format,))]
    found = owners(state, module.rules(module.config(state, case.hints)))
    assert {key: len(rules) for key, rules in found.items()} == dict.fromkeys(state, 1)


@cases
def test_a_round_trip_is_exact_to_the_bit(case, tmp_path):
    write_as(opened(case, tmp_path), tmp_path, case.format)
    module = formats.named(case.format)
    written = open_weights(tmp_path / module.FILE)
    assert written.container == module.CONTAINER
    expected = {key: tensor for key, tensor in of_the_model(case).items() if not key.startswith(case.dropped)}
    assert written.tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        back = written.tensors[key].read()
        assert back.dtype == tensor.dtype and torch.equal(back, tensor), key


@cases
def test_an_unknown_and_a_missing_key_are_refused(case, tmp_path):
    surprise = ("backbone." if case.container == "teacher" else "") + "surprise.weight"
    with pytest.raises(UserError, match=r"no rule knows 'surprise\.weight'"):
        opened(case, tmp_path, {**case.weights, surprise: torch.ones(2)})
    norms = [key for key in case.weights if "norm1" in key or "ln_1" in key or "LayerNorm_0" in key]
    for gone in [key for key in norms if not key.startswith(case.dropped)][-2:]:  # of the last block
        with pytest.raises(UserError):
            opened(case, tmp_path, {key: tensor for key, tensor in case.weights.items() if key != gone})


@dataclass(frozen=True)
class StockFile:
    """What a stock class saves, under the names of its files or under those in memory."""

    stock: Stock
    runtime: bool

    def __str__(self) -> str:
        return f"{self.stock}{'-runtime' if self.runtime else ''}"

    @property
    def format(self) -> str:
        family = {"ViT": "vit", "DeiT": "deit", "Dinov2": "dinov2", "Swinv2": "swin_v2", "Swin": "swin"}
        name = next(ours for theirs, ours in family.items() if self.stock.name.startswith(theirs))
        return f"transformers_{name}" + ("_runtime" if self.runtime and name != "swin_v2" else "")

    def save(self, folder) -> torch.nn.Module:
        torch.manual_seed(0)
        theirs = self.stock.build()
        theirs.save_pretrained(folder, save_original_format=not self.runtime)
        return theirs


stock_files = pytest.mark.parametrize(
    "file", [StockFile(stock, runtime) for stock in STOCK for runtime in (False, True)], ids=str
)
ANSWERS = ("logits", "reconstruction", "feature_maps", "last_hidden_state", "pooler_output")


def answers(model: torch.nn.Module, pixel_values: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    outputs = model(pixel_values)
    return {name: as_list(outputs[name]) for name in ANSWERS if outputs.get(name) is not None}


@stock_files
def test_transformers_numbers_round_trip_and_refusal(file, tmp_path):
    theirs = file.save(tmp_path / "theirs")
    reading = read(tmp_path / "theirs")
    assert reading.format == file.format
    size = (64, 64) if "Swin" in file.stock.name else (32, 32)
    ours, stock = pixels(*size).requires_grad_(), pixels(*size).requires_grad_()
    mine, wanted = answers(model_from(reading), ours), answers(theirs, stock)
    assert wanted
    for name in wanted:
        assert_close(mine[name], wanted[name], what=f"{file} {name}")
    alike = [[tensor for name in wanted for tensor in answer[name]] for answer in (mine, wanted)]
    assert_close(gradient(alike[0], ours), gradient(alike[1], stock), what=f"{file} gradient")

    write_as(reading, tmp_path, file.format)
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "theirs", tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    again, info = type(theirs).from_pretrained(tmp_path, output_loading_info=True)  # our config.json, too
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, tensors in answers(again.eval(), pixels(*size)).items():
        assert_close(tensors, wanted[name], 1e-6, what=f"{file} {name} again")

    save_file({**before, "surprise.weight": torch.ones(2)}, tmp_path / "theirs" / "model.safetensors")
    with pytest.raises(UserError, match=r"no rule knows 'surprise\.weight'"):
        read(tmp_path / "theirs")
    gone = [key for key in before if "norm1" in key or "layernorm_before" in key][-1]
    save_file({key: before[key] for key in before if key != gone}, tmp_path / "theirs" / "model.safetensors")
    with pytest.raises(UserError, match=r"incomplete|no place"):
        read(tmp_path / "theirs")


def test_the_encoder_of_a_stock_mae_is_read_and_its_decoder_left_out(tmp_path):
    numbers = {**STOCK[0].numbers, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
    theirs = Stock("ViTMAEForPreTraining", "ViTMAEConfig", {**numbers, "mask_ratio": 0.0}, "").build()
    for runtime in (False, True):
        theirs.save_pretrained(tmp_path / str(runtime), save_original_format=not runtime)
        reading = read(tmp_path / str(runtime))
        assert reading.dropped() and all(key.startswith("decoder.") for key in reading.dropped())
        in_order = torch.arange(16.0).expand(2, -1)  # the stock class shuffles patches by their noise
        with torch.no_grad():
            wanted = theirs.vit(pixels(32), noise=in_order).last_hidden_state
            assert_close(model_from(reading)(pixels(32)).last_hidden_state, wanted, what=f"MAE, runtime={runtime}")


SIZES = {"image_size": 64, "window_size": 4, "pretrained_window_sizes": [3, 0]}
# A file without its config.json: what its weights do not tell.
ALONE = {
    "ViTForImageClassification": HEADS,
    "DeiTForImageClassification": HEADS,
    "DeiTForImageClassificationWithTeacher": HEADS,
    "Dinov2ForImageClassification": HEADS,
    "Dinov2WithRegistersForImageClassification": HEADS,
    "SwinForImageClassification": {"image_size": 64},
    "Swinv2ForImageClassification": SIZES,
}


@pytest.mark.parametrize("runtime", [False, True], ids=["", "runtime"])
@pytest.mark.parametrize("name", ALONE)
def test_transformers_weights_alone(name, runtime, tmp_path):
    file = StockFile(next(stock for stock in STOCK if stock.name == name), runtime)
    theirs = file.save(tmp_path)
    reading = read(tmp_path / "model.safetensors", hints=ALONE[name])
    assert reading.format == file.format
    with torch.no_grad():
        x = pixels(64 if "Swin" in name else 32)
        assert_close(model_from(reading)(x).logits, theirs(x).logits, what=str(file))
