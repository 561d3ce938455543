"""The rules of design.md that a syntax tree can show."""

import ast
import pathlib
import sys

import pytest


PACKAGE = pathlib.Path(__file__).parents[1] / "hf_swin"
FILES = sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("conversion/**/*.py")])
TRAVELLING = [path for path in FILES if path.name.startswith(("configuration_", "modeling_"))]
# Imports follow the data and never turn back.
ORDER = [
    "configuration_shared",
    "configuration_vit",
    "configuration_swin",
    "configuration_resizing",
    "modeling_windows",
    "modeling_resizing",
    "modeling_embeddings",
    "modeling_attention",
    "modeling_blocks",
    "modeling_stages",
    "modeling_heads",
    "modeling_names",
    "modeling_loading",
    "modeling_vit",
    "modeling_swin",
    "modeling_swin_v2",
]


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path):
    """(level, module, names) of every import of a file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, []


def functions_of(path):
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]


def test_every_travelling_file_has_its_place():
    assert sorted(path.stem for path in TRAVELLING) == sorted(ORDER)


@pytest.mark.parametrize("path", TRAVELLING, ids=lambda path: path.stem)
def test_travelling_files_import_siblings_before_them_and_libraries_every_user_has(path):
    for level, module, _ in imports_of(path):
        if level:
            assert level == 1 and module in ORDER, f"{path.name} imports {'.' * level}{module}"
            assert ORDER.index(module) < ORDER.index(path.stem), f"{path.name} imports {module}, which comes later"
        else:
            allowed = {"torch", "transformers", "huggingface_hub", *sys.stdlib_module_names}
            assert module.split(".")[0] in allowed, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", TRAVELLING, ids=lambda path: path.stem)
def test_no_docstring_line_looks_like_a_relative_import(path):
    sources = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    written = sum(line.startswith("from .") for line in sources)
    assert written == sum(level == 1 for level, _, _ in imports_of(path))


@pytest.mark.parametrize("path", TRAVELLING, ids=lambda path: path.stem)
def test_forward_writes_nothing_on_self(path):
    for function in functions_of(path):
        if function.name in ("__init__", "__post_init__", "create_position_bias"):
            continue
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            written = [t for t in targets if isinstance(t, ast.Attribute) and getattr(t.value, "id", "") == "self"]
            assert not written, f"{path.name}:{node.lineno} {function.name} writes self.{written[0].attr}"


@pytest.mark.parametrize("path", TRAVELLING, ids=lambda path: path.stem)
def test_init_allocates_and_does_not_fill(path):
    """Models are built on the meta device: values come from _init_weights, and no buffer is registered at all."""
    filled = ("zeros", "ones", "randn", "rand", "full", "arange", "register_buffer", "Buffer", "linspace", "item")
    for function in functions_of(path):
        if function.name == "__init__":
            calls = [getattr(node.func, "attr", "") for node in ast.walk(function) if isinstance(node, ast.Call)]
            assert not set(calls) & set(filled), f"{path.name}: __init__ calls {set(calls) & set(filled)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320
    for function in functions_of(path):
        assert function.end_lineno - function.lineno < 45, f"{path.name}: {function.name}"
        assert depth_of(function) <= 4, f"{path.name}: {function.name} is nested {depth_of(function)} deep"


def depth_of(node, depth=0):
    nests = (ast.If, ast.For, ast.While, ast.With, ast.Try)
    return max([depth, *(depth_of(child, depth + isinstance(child, nests)) for child in ast.iter_child_nodes(node))])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_public_things_are_documented_and_nothing_is_asserted(path):
    tree = tree_of(path)
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), f"{path.name} asserts where users are"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_importing_the_package_imports_only_registration():
    body = tree_of(PACKAGE / "__init__.py").body
    assert [node.module for node in body if isinstance(node, ast.ImportFrom) and node.level] == ["registration"]
