"""The package as a whole: its face, its version, what it must never contain and never claim."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import patchmi
from patchmi.claims import forbidden_claims_in

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
TRUSTED = {"patchmi/target/trusted.py": ["torch.jit.load", "torch.export.load"]}
"""The only place that runs files, for users who pass --trust-model."""
UNSAFE_CALLS = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "torch.jit.load", "torch.export.load"}


def unsafe_code_in(source: str) -> list[str]:
    """What could run code from a file that somebody else made: one line of text for each find."""
    return [find for node in ast.walk(ast.parse(source)) for find in unsafe_parts(node)]


def unsafe_parts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        origin = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        for name in (origin + alias.name for alias in node.names):
            if name.split(".")[0] in UNSAFE_MODULES or name in UNSAFE_CALLS | {"torch.load"}:
                yield f"line {node.lineno}: imports {name}"
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called in UNSAFE_CALLS:
            yield f"line {node.lineno}: {called}"
        if called == "torch.load" and options.get("weights_only") != "True":
            yield f"line {node.lineno}: torch.load without weights_only=True"
        if called in {"np.load", "numpy.load"} and options.get("allow_pickle", "False") != "False":
            yield f"line {node.lineno}: {called} that may unpickle"


def test_importing_the_package_does_not_import_torch():
    code = "import sys, patchmi; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", patchmi.__all__)
def test_every_public_name_is_there(name):
    assert getattr(patchmi, name) is not None
    assert name in dir(patchmi)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'PatchMJ'"):
        patchmi.PatchMJ  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d\S*)", changes, flags=re.MULTILINE)
    assert newest
    assert patchmi.__version__ == project["version"] == newest.group(1)


def test_every_folder_of_the_package_has_a_face():
    assert [source.parent for source in SOURCES if not (source.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_no_module_can_run_code_from_a_file(source):
    finds = [find.partition(": ")[2] for find in unsafe_code_in(source.read_text(encoding="utf-8"))]
    assert finds == TRUSTED.get(source.relative_to(ROOT / "src").as_posix(), [])


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=choice)",
        "from torch import load",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text)",
        "eval(text)",
        "exec(text)",
        "import torch\ntorch.jit.load(path)",
    ],
)
def test_code_that_could_run_a_file_is_found(code):
    assert unsafe_code_in(code)


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "model.eval()",
        "np.load(path, allow_pickle=False)",
    ],
)
def test_safe_code_is_left_alone(code):
    assert unsafe_code_in(code) == []


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_claims_what_no_audit_can_support(text):
    assert forbidden_claims_in(text.read_text(encoding="utf-8")) == []


def test_every_attack_is_named_in_the_documentation():
    attacks = importlib.import_module("patchmi.attacks").ATTACKS
    written = "\n".join(text.read_text(encoding="utf-8") for text in TEXTS)
    assert [name for name in attacks if f"`{name}`" not in written] == []
