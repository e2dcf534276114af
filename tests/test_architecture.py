"""The floors of the package: a module imports from its own wing and from floors below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "aide_monai"
FLOORS = (
    ("cli",),
    ("label_app",),
    ("workflows",),
    ("engines",),
    ("handlers",),
    ("audit", "data", "stream"),
    ("transforms", "inferers"),
    ("io", "networks", "reports", "labels"),
    ("options",),
    ("metrics",),
    ("utils",),
    ("errors", "losses", "algorithm", "moved"),
    ("ignored",),
)
FLOOR = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}


def imported_wings(source: str) -> set[str]:
    """The parts of ``aide_monai`` that a source imports from, also inside functions."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found = [
                f"{node.module}.{name.name}" if node.module == "aide_monai" else str(node.module) for name in node.names
            ]
        elif isinstance(node, ast.Import):
            found = [name.name for name in node.names]
        else:
            continue
        modules |= {name for name in found if name.startswith("aide_monai.")}
    return {name.split(".")[1] for name in modules} - {"__version__"}


def arrows_up(wing: str, source: str) -> set[str]:
    """What a module of a wing imports and must not."""
    return {other for other in imported_wings(source) if other != wing and FLOOR[other] <= FLOOR[wing]}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    wing = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if wing == "__init__":
        return  # the front door names what all wings offer
    assert wing in FLOOR, f"{wing} stands on no floor: give it one here and in docs/architecture.md"
    assert arrows_up(wing, path.read_text()) == set()


def test_an_arrow_up_is_found():
    assert arrows_up("io", "from aide_monai.data.datalist import Datalist") == {"data"}
    assert arrows_up("io", "def f():\n    import aide_monai.workflows.demo") == {"workflows"}
    assert arrows_up("data", "from aide_monai.stream import SliceDataset") == {
        "stream"
    }  # neighbours do not know each other
    assert arrows_up("cli", "from aide_monai import __version__\nfrom aide_monai.workflows import demo") == set()


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without those of its docstring, which describes arguments and layouts of files in full."""
    said = function.body[0] if ast.get_docstring(function) else None
    return function.end_lineno - function.lineno + 1 - (said.end_lineno - said.lineno + 1 if said else 0)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 400, "two modules"
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [node.name for node in functions if code_lines(node) > 60] == []


def test_lines_are_counted_without_the_docstring():
    (function,) = ast.parse('def f(x):\n    """One.\n\n    Two.\n    """\n    return x\n').body
    assert code_lines(function) == 2
