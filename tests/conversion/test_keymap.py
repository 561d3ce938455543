"""The engine: templates, rules, plans and operations, by hand and with random keys and tensors."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_swin.conversion import operations
from hf_swin.conversion.keymap import KeysDoNotFit, Rule, Template, convert, inverted, owners, plan, template
from hf_swin.conversion.operations import Operation


TEMPLATES = [
    "layers.{s}.blocks.{b}.attn.qkv.{p}",
    "layers.{s+1}.downsample.norm.{p}",
    "features.{2*s+1}.{b}.mlp.0.{p}",
    "features.{2*s+2}.reduction.weight",
    "blocks.{i}.{i}.{p}",
    "head.{rest}",
    "{s}.{rest}",
    "a+b(c)[d].{s}",
    "plain",
]
numbers = st.integers(0, 10**6)


@pytest.mark.parametrize(
    "text, key, values",
    [
        ("layers.{s}.blocks.{b}.w", "layers.3.blocks.17.w", {"s": 3, "b": 17}),
        ("layers.{s}.w", "layers.3.w.more", None),
        ("layers.{s}.w", "more.layers.3.w", None),
        ("layers.{s}.w", "layersX3.w", None),
        ("layers.{s}.w", "layers.-1.w", None),
        ("layers.{s}.w", "layers..w", None),
        ("layers.{s+1}.w", "layers.1.w", {"s": 0}),
        ("layers.{s+1}.w", "layers.0.w", None),
        ("features.{2*s+1}.w", "features.5.w", {"s": 2}),
        ("features.{2*s+1}.w", "features.4.w", None),
        ("features.{2*s+2}.w", "features.0.w", None),
        ("norm.{p}", "norm.weight", {"p": "weight"}),
        ("norm.{p}", "norm.running_mean", None),
        ("head.{rest}", "head.a.b.c", {"rest": "a.b.c"}),
        ("head.{rest}", "head.", None),
        ("x.{i}.y.{i}", "x.2.y.2", {"i": 2}),
        ("x.{i}.y.{i}", "x.2.y.3", None),
        ("x.{i}.y.{i+1}", "x.2.y.3", {"i": 2}),
        ("plain", "plain", {}),
        ("a.b", "aXb", None),
    ],
)
def test_a_template_matches_whole_keys(text, key, values):
    assert template(text).match(key) == values


@given(st.sampled_from(TEMPLATES), numbers, numbers, numbers, st.sampled_from(["weight", "bias"]), st.text(min_size=1))
@settings(deadline=None)
def test_match_gives_back_what_fill_took(text, s, b, i, p, rest):
    made = Template(text)
    values = {"s": s, "b": b, "i": i, "p": p, "rest": rest.replace("\n", "-")}
    wanted = {name: value for name, value in values.items() if name in made.names}
    assert made.match(made.fill(values)) == wanted


@given(
    st.sampled_from(TEMPLATES), st.from_regex(r"(layers|features|blocks|head)(\.[a-z0-9]{1,6}){1,6}", fullmatch=True)
)
@settings(deadline=None)
def test_fill_gives_back_what_match_took(text, key):
    values = template(text).match(key)
    assert values is None or template(text).fill(values) == key


@pytest.mark.parametrize("zeros", ["layers.00.w", "layers.01.w"])
def test_a_number_with_a_leading_zero_is_no_number(zeros):
    """`fill` would write it without, so two keys would become one."""
    assert template("layers.{s}.w").match(zeros) is None


QKV = Rule("attn.{i}.qkv", ("q.{i}", "k.{i}", "v.{i}"), operations.split(3))
RULES = [Rule("norm.{p}", "layernorm.{p}"), QKV, Rule("scales", "layer.{i}.scale"), Rule("index.{i}")]


def tensors():
    return {
        "norm.weight": torch.randn(4),
        "norm.bias": torch.randn(4),
        "attn.0.qkv": torch.randn(6, 5),
        "attn.1.qkv": torch.randn(6, 5),
        "scales": torch.randn(3, 2),
        "index.0": torch.arange(3),
    }


def test_convert_moves_splits_unstacks_and_drops():
    state = tensors()
    out = convert(state, RULES)
    assert set(out) == {
        *("layernorm.weight", "layernorm.bias", "q.0", "k.0", "v.0", "q.1", "k.1", "v.1"),
        *("layer.0.scale", "layer.1.scale", "layer.2.scale"),
    }
    assert torch.equal(out["k.1"], state["attn.1.qkv"][2:4])
    assert torch.equal(out["layer.2.scale"], state["scales"][2])


def test_the_way_back_is_exact():
    state = tensors()
    back = convert(convert(state, RULES), inverted(RULES))
    assert back.keys() == state.keys() - {"index.0"}
    assert all(torch.equal(back[key], state[key]) for key in back)


def test_a_plan_reads_no_values():
    """Shapes on the meta device are enough, and give the shapes of the real conversion."""
    state = tensors()
    meta = {key: tensor.to("meta") for key, tensor in state.items()}
    assert {key: t.shape for key, t in convert(meta, RULES).items()} == {
        key: t.shape for key, t in convert(state, RULES).items()
    }


def test_a_stack_goes_by_number_and_not_by_text():
    rules = [Rule("scales", "layer.{i}.scale")]
    state = {"scales": torch.arange(12.0)}
    back = convert(convert(state, rules), inverted(rules))
    assert torch.equal(back["scales"], state["scales"])


@given(st.integers(1, 12), st.integers(1, 4), st.randoms())
@settings(deadline=None, max_examples=30)
def test_stacks_of_groups_come_back_in_any_order_of_keys(layers, width, random):
    rules = [Rule("block/{p}", "layer.{i}.{p}"), Rule(("a", "b"), ("x.{i}", "y.{i}"), operations.RENAME)]
    rules = rules[:1]
    state = {"block/weight": torch.randn(layers, width), "block/bias": torch.randn(layers)}
    there = convert(state, rules)
    items = list(there.items())
    random.shuffle(items)
    back = convert(dict(items), inverted(rules))
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize(
    "keys, rules, words",
    [
        (["a", "b", "c"], [Rule("a", "x")], ["no rule knows", "'b'", "'c'"]),
        ([f"n.{i}" for i in range(20)], [], ["'n.0'", "and 12 more"]),
        (["a.1"], [Rule("a.{i}", "x.{i}"), Rule("{rest}", "y.{rest}")], ["two rules claim", "'a.1'"]),
        (["a"], [Rule("a", "x"), Rule("a", "y")], ["two rules claim", "'a'"]),
        (["a", "b"], [Rule("a", "x"), Rule("b", "x")], ["two rules write", "'x'"]),
        (["q.0", "v.0"], [QKV.inverse()], ["'q.0', 'v.0'", "only a part", "q.{i} + k.{i} + v.{i} -> attn.{i}.qkv"]),
        (["q.0", "k.0", "v.0", "k.7"], [QKV.inverse()], ["'k.7'", "only a part"]),
        (["l.0", "l.2"], [Rule("l.{i}", "stack")], ["'l.0', 'l.2'", "only a part"]),
        (["l.1", "l.2"], [Rule("l.{i}", "stack")], ["only a part"]),
    ],
)
def test_keys_that_do_not_fit_are_told_in_a_sentence(keys, rules, words):
    with pytest.raises(KeysDoNotFit) as error:
        plan({key: torch.empty(3, 3) for key in keys}, rules)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_every_unknown_key_is_told_before_anything_is_read():
    class Unreadable(dict):
        def __getitem__(self, key):
            raise AssertionError("read")

    with pytest.raises(KeysDoNotFit, match="no rule knows 'b'"):
        convert(Unreadable(a=torch.empty(1), b=torch.empty(1)), [Rule("a", "x")])


def test_a_rule_with_nothing_to_do_is_no_error():
    assert convert({}, RULES) == {}
    assert [*convert({"index.0": torch.ones(1)}, RULES)] == []


def test_what_is_dropped_is_not_read():
    [move] = plan({"index.0": torch.empty(1)}, RULES)
    assert [*move.run(lambda key: pytest.fail("read"))] == []


def test_owners_tell_place_and_values():
    [(rule, place, values)] = owners(["v.3"], [QKV.inverse()])["v.3"]
    assert (rule.target, place, values) == ("attn.{i}.qkv", 2, {"i": 3})


def test_a_rule_reads_like_a_table():
    assert str(Rule("a", "b")) == "a -> b"
    assert str(Rule("a")) == "a -> left out"
    assert str(QKV) == "attn.{i}.qkv -> q.{i} + k.{i} + v.{i} (split in 3)"


# Every operation with the shapes that go in; a new one without a row here fails the test below.
OPERATIONS = {
    "RENAME": (operations.RENAME, [(3, 4)]),
    "split": (operations.split(3), [(6, 4)]),
    "transpose": (operations.transpose(3, 2, 0, 1), [(2, 3, 4, 5)]),
    "heads_out": (operations.heads_out(3), [(5, 3, 2)]),
    "heads_in": (operations.heads_in(3), [(3, 2, 5)]),
    "heads_flat": (operations.heads_flat(3), [(3, 2)]),
    "reshape": (operations.reshape((1, 4, 6), (1, 2, 2, 6)), [(1, 4, 6)]),
    "UNFOLDED": (operations.UNFOLDED, [(5, 12)]),
}


def test_every_operation_is_tried():
    public = {
        name
        for name, value in vars(operations).items()
        if isinstance(value, Operation)
        or (callable(value) and not name.startswith("_") and value.__module__ == operations.__name__)
    } - {"Operation"}
    assert public == {*OPERATIONS, "SPLIT_WITHOUT_KEY", "CLASS_WITHOUT_POSITION"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_and_its_inverse_are_exact(name, dtype):
    operation, shapes = OPERATIONS[name]
    before = tuple(torch.randn(shape).to(dtype) for shape in shapes)
    after = operation(*before)
    back = operation.inverse()(*after)
    assert len(back) == len(before)
    for one, other in zip(before, back, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    again = operation(*back)
    assert all(torch.equal(one, other) for one, other in zip(after, again, strict=True))


def test_merged_neighbours_are_reordered_as_unfold_lays_them():
    x = torch.randn(1, 3, 4, 4)  # (batch, channels, height, width)
    theirs = torch.nn.functional.unfold(x, 2, stride=2).transpose(1, 2)  # features (channel, row, column)
    corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
    ours = torch.cat([x[:, :, row::2, column::2] for row, column in corners], 1).flatten(2).transpose(1, 2)
    assert torch.equal(operations.UNFOLDED(theirs)[0], ours)


def test_a_key_bias_that_nobody_reads_is_left_out_and_comes_back_as_zeros():
    fused = torch.randn(6)
    query, value = operations.SPLIT_WITHOUT_KEY(fused)
    assert torch.equal(query, fused[:2]) and torch.equal(value, fused[4:])
    [back] = operations.SPLIT_WITHOUT_KEY.inverse()(query, value)
    assert torch.equal(back, torch.cat([fused[:2], torch.zeros(2), fused[4:]]))


def test_a_class_token_without_position_gets_a_zero_and_gives_its_position_up():
    token, table = torch.randn(1, 1, 4), torch.randn(1, 9, 4)
    there = operations.CLASS_WITHOUT_POSITION(token, table)
    assert torch.equal(there[1][:, :1], torch.zeros(1, 1, 4))
    back = operations.CLASS_WITHOUT_POSITION.inverse()(*there)
    assert torch.equal(back[0], token) and torch.equal(back[1], table)
    moved = operations.CLASS_WITHOUT_POSITION.inverse()(token, torch.cat([token, table], 1))
    assert torch.equal(moved[0], 2 * token) and torch.equal(moved[1], table)


def test_what_a_rule_is_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        QKV.source = "other"
