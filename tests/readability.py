"""Check that code, templates and changelog are written for a reader; `make check` runs it.

    python -m tests.readability

`RULES` says what is checked, and what to do.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CODE = ("backend", "clearclip_core", "deploy", "docs", "examples")

#: Each rule's name, what is wrong, and what to do.
RULES = {
    "complexity": "has more than 10 ways through it, comprehensions, `and` and `or` counted: split",
    "positional": "takes more than 5 positional arguments: put `*` before those that are options",
    "statement": "has a statement of more than 60 syntax nodes: name its parts",
    "paragraphs": "has twenty lines and more without a blank line between thoughts",
    "splat": "makes a tuple or list only to splat it: write the values where they go",
    "trick": "writes an `if`, an assignment or `next()` as a loop or an index: write it out",
    "row": "takes a column by its number: give the column a name",
    "any": "keeps something as `Any`: give it its type",
    "arguments": "is a public name whose docstring has no `Args:` with each of its parameters",
    "test-file": "has no test file of its name in the same folder of `tests`: make or rename one",
    "long-line": "has a line of more than 160 letters",
    "condition": "has a condition inside a sentence: make the sentence in Python",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)
_SEQUENCES = (ast.Tuple, ast.List, ast.Set)


class Place(NamedTuple):
    """What breaks a rule: a file, a function in it, the rule, and the first line that does."""

    path: str  #: from the project's root
    name: str  #: such as ``Segmenter.encode``; ``-`` in templates and outside of functions
    rule: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name} {RULES[self.rule]} [{self.rule}]"


# Python


def check_module(path: str, source: str) -> Iterator[Place]:
    """Yield what breaks a rule in a file of Python, a function and rule once."""
    tree = ast.parse(source)
    blank = {number for number, line in enumerate(source.splitlines(), 1) if not line.strip()}
    for name, scope in _scopes(tree):
        faults: dict[str, int] = {}
        for rule, line in _faults(scope, blank):
            # The columns of a released table are listed once, and never changed.
            if rule != "statement" or "/migrations/" not in path:
                faults.setdefault(rule, line)
        for rule, line in faults.items():
            yield Place(path, name, rule, line)


def _scopes(tree: ast.Module) -> Iterator[tuple[str, ast.Module | Function]]:
    """Yield the module as ``-``, and each function by the names it stands in."""
    yield "-", tree
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        outer, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{outer}.{child.name}".lstrip(".")
                waiting.append((name, child))
                if not isinstance(child, ast.ClassDef):
                    yield name, child
            else:
                waiting.append((outer, child))


def _faults(scope: ast.Module | Function, blank: set[int]) -> Iterator[tuple[str, int]]:
    """Yield the rules that a function breaks, or a module outside of functions, with the line."""
    nodes = list(_own_nodes(scope))
    for node in nodes:
        if _is_splat(node):
            yield "splat", _line(node)
        elif _is_trick(node):
            yield "trick", _line(node)
        elif _is_numbered_column(node):
            yield "row", _line(node)

    if isinstance(scope, ast.Module):
        return

    if _complexity(nodes) > 10:
        yield "complexity", scope.lineno
    if _count_positional(scope) > 5:
        yield "positional", scope.lineno
    if _is_one_paragraph(scope, blank):
        yield "paragraphs", scope.lineno

    for name in _splatted_names(scope, nodes):
        yield "splat", name.lineno
    for node in nodes:
        if isinstance(node, ast.stmt) and _count_nodes(node) > 60:
            yield "statement", node.lineno
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Any":
            yield "any", node.lineno


def _own_nodes(scope: ast.Module | Function) -> Iterator[ast.AST]:
    """Yield the nodes of a function or module without those of the functions in it."""
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)


def _line(node: ast.AST) -> int:
    """Return the line of a node; comprehensions have none of their own."""
    of = node.iter if isinstance(node, ast.comprehension) else node
    return int(getattr(of, "lineno", 0))


def _complexity(nodes: list[ast.AST]) -> int:
    """Return McCabe's cyclomatic complexity, with comprehensions, `and` and `or`."""
    ways = 1
    for node in nodes:
        if isinstance(node, _BRANCHES):
            ways += 1
        elif isinstance(node, ast.BoolOp):
            ways += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            ways += 1 + len(node.ifs)
    return ways


def _count_positional(function: Function) -> int:
    arguments = [*function.args.posonlyargs, *function.args.args]
    return sum(argument.arg not in ("self", "cls") for argument in arguments)


def _is_one_paragraph(function: Function, blank: set[int]) -> bool:
    body = function.body[ast.get_docstring(function) is not None :]
    if not body or not isinstance(body[-1].end_lineno, int):
        return False

    first, last = body[0].lineno, body[-1].end_lineno
    statements = sum(isinstance(node, ast.stmt) for part in body for node in ast.walk(part))
    return last - first >= 19 and statements > 1 and blank.isdisjoint(range(first, last))


def _count_nodes(statement: ast.stmt) -> int:
    """Return the syntax nodes of a statement; of a compound one, those of its head.

    Of a call that names all its arguments and of a dict with written keys, a line each, the values
    are statements of their own: the largest counts.
    """
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return 0

    parts: list[ast.AST] = [statement]
    largest = 0
    while parts:
        count = 0
        waiting = [parts.pop()]
        while waiting:
            node = waiting.pop()
            count += 1
            values = _named_values(node)
            if values:
                count += 2 * len(values)  # a name and its value
                parts += values
                continue
            waiting += (
                child
                for child in ast.iter_child_nodes(node)
                if not isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case)
            )
        largest = max(largest, count)
    return largest


def _named_values(node: ast.AST) -> list[ast.expr]:
    """Return the values of a table: a call with names alone, or a dict with written keys."""
    if isinstance(node, ast.Call) and not node.args:
        named = [each.value for each in node.keywords if each.arg is not None]
        return named if len(named) == len(node.keywords) else []
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return node.values
    return []


def _is_splat(node: ast.AST) -> bool:
    """Find ``*(a, b)``, in a call or to cheat the formatter."""
    return isinstance(node, ast.Starred) and isinstance(node.value, _SEQUENCES)


def _splatted_names(function: Function, nodes: list[ast.AST]) -> Iterator[ast.Name]:
    """Yield the names of tuples and lists written out only to be splatted."""
    loads = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    splatted = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Starred)}
    for node in nodes:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple | ast.List):
            continue
        target = node.targets[0]
        if not isinstance(target, ast.Name) or not node.value.elts:
            continue
        uses = [load for load in loads if load.id == target.id and load is not target]
        if uses and all(id(use) in splatted for use in uses):
            yield target


def _is_trick(node: ast.AST) -> bool:
    """Find loops over one item at most, and the first item by an index into a splat."""
    if isinstance(node, ast.For | ast.comprehension):
        return _has_one_item(node.iter)

    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        return name in ("extend", "filter", "map") and any(map(_is_single, node.args))

    if not isinstance(node, ast.Subscript) or isinstance(node.slice, ast.Slice):
        return False
    if isinstance(node.value, _SEQUENCES):
        return any(isinstance(item, ast.Starred) for item in node.value.elts)
    return False


def _has_one_item(iterated: ast.expr) -> bool:
    if isinstance(iterated, ast.Subscript) and isinstance(iterated.slice, ast.Slice):
        part = iterated.slice
        upper = isinstance(part.upper, ast.Constant) and part.upper.value == 1
        return upper and part.lower is None
    return _is_single(iterated)


def _is_single(sequence: ast.expr) -> bool:
    """Find ``(x,)`` and ``[x]``."""
    if not isinstance(sequence, _SEQUENCES) or len(sequence.elts) != 1:
        return False
    return not isinstance(sequence.elts[0], ast.Starred)


def _is_numbered_column(node: ast.AST) -> bool:
    """Find ``row[3]``."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
        return False
    number = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int)
    return number and node.value.id == "row"


# The library's public names


def check_public_names(root: Path) -> Iterator[Place]:
    """Yield the core's public functions and methods whose ``Args:`` lack a parameter."""
    core = root / "clearclip_core"
    for module in ast.parse((core / "__init__.pyi").read_text(encoding="utf-8")).body:
        if not isinstance(module, ast.ImportFrom):
            continue
        path = core / f"{str(module.module).replace('.', '/')}.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {name.name for name in module.names}
        for name, function, docstring in _public_functions(tree, names):
            if not _documents(docstring, function):
                relative = path.relative_to(root).as_posix()
                yield Place(relative, name, "arguments", function.lineno)


def _public_functions(
    tree: ast.Module, names: set[str]
) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Yield the functions of these names and the public methods, with their docstrings.

    What a constructor takes stands in the docstring of its class.
    """
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            yield node.name, node, ast.get_docstring(node) or ""
        if not isinstance(node, ast.ClassDef) or node.name not in names:
            continue
        for method in node.body:
            if not isinstance(method, ast.FunctionDef) or _is_overload(method):
                continue
            if method.name == "__init__":
                yield f"{node.name}.__init__", method, ast.get_docstring(node) or ""
            elif not method.name.startswith("_"):
                yield f"{node.name}.{method.name}", method, ast.get_docstring(method) or ""


def _is_overload(function: ast.FunctionDef) -> bool:
    """Find the signatures for type checkers: the function that follows them has the docstring."""
    names = [each.id for each in function.decorator_list if isinstance(each, ast.Name)]
    return "overload" in names


def _documents(docstring: str, function: ast.FunctionDef) -> bool:
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    _, _, section = docstring.partition("\nArgs:\n")
    return all(
        re.search(rf"^    (.*, )?{name}(, .*)?:", section, re.MULTILINE)
        for name in names
        if name not in ("self", "cls")
    )


# Tests

#: Where the tests of a package lie. Each folder of it has one of the same name there.
_TESTS = {"backend": "tests/backend", "clearclip_core": "tests/core"}


def check_test_files(root: Path) -> Iterator[Place]:
    """Yield the source files that need a test file of their name and have none.

    Migrations are tested as one.
    """
    for package, tests in _TESTS.items():
        for path in (root / package).glob("**/*.py"):
            place = path.relative_to(root / package)
            if path.name.startswith("__") or "migrations" in place.parts:
                continue
            is_there = (root / tests / place.with_name(f"test_{path.name}")).exists()
            if not is_there and _needs_test_file(path.read_text(encoding="utf-8")):
                yield Place(path.relative_to(root).as_posix(), "-", "test-file", 1)


def _needs_test_file(source: str) -> bool:
    """Whether a file has a function without an example in its docstring; pytest runs those."""
    return any(
        ">>>" not in (ast.get_docstring(node) or "")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


# Templates, and the changelog

_LONGEST_LINE = 160  # in letters

#: Tags of HTML that stand in a sentence; all others end it.
_INLINE = "a|abbr|b|code|em|i|kbd|span|strong|time|var|wbr"
_IF, _ELSE, _END, _VALUE, _BREAK = "\x01", "\x02", "\x03", "\x04", "\x05"


def check_template(path: str, source: str) -> Iterator[Place]:
    """Yield what breaks a rule in a template of Jinja, a rule once."""
    yield from check_lines(path, source)

    found = _condition_in_sentence(source)
    if found is not None:
        yield Place(path, "-", "condition", source.count("\n", 0, found) + 1)


def check_lines(path: str, text: str) -> Iterator[Place]:
    """Yield the first line that is too long."""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > _LONGEST_LINE:
            yield Place(path, "-", "long-line", number)
            return


def check_changelog(path: str, text: str) -> Iterator[Place]:
    """Yield what is too long of the newest version's entries, a line each."""
    newest = re.split(r"^(?=## )", text, flags=re.MULTILINE)[:2]
    yield from check_lines(path, "".join(newest))


def _condition_in_sentence(source: str) -> int | None:
    """Return where the first condition inside a sentence is, by the characters before it."""
    # Each replacement is as long as what it replaces, so that places stay what they are.
    text = re.sub(
        r"{#.*?#}|<(script|style)\b.*?</\1>", _same_length(_BREAK), source, flags=re.DOTALL
    )
    text = re.sub(r"{%.*?%}", _statement_sign, text, flags=re.DOTALL)
    text = re.sub(r"{{.*?}}", _value_sign, text, flags=re.DOTALL)
    text = re.sub(rf"</?(?:{_INLINE})\b[^>]*>", _same_length(" "), text)
    text = re.sub(r"<[^>]*>", _same_length(_BREAK), text)

    signs = f"[{_IF}{_ELSE}{_END}{_BREAK}]"
    for match in re.finditer(f"{_IF}+|{_END}+", text):
        before = re.split(signs, text[: match.start()])[-1].strip()
        after = re.split(signs, text[match.end() :])[0].strip()
        unfinished = re.search(rf"[\w{_VALUE}][^.!?:]*$", before) is not None
        goes_on = re.match(r"[a-z,.;:!?)]", after) is not None
        if unfinished and (goes_on or (_IF in match[0] and after)):
            return match.start()
    return None


def _same_length(sign: str) -> Callable[[re.Match[str]], str]:
    return lambda match: sign * len(match[0])


def _statement_sign(match: re.Match[str]) -> str:
    """Return signs for a condition or its end; other statements end a sentence."""
    word = match[0].strip("{%-+} ").split()[0]
    signs = {"if": _IF, "elif": _ELSE, "else": _ELSE, "endif": _END}
    return signs.get(word, _BREAK) * len(match[0])


def _value_sign(match: re.Match[str]) -> str:
    sign = _IF if re.search(r"\bif\b", match[0]) else _VALUE
    return sign * len(match[0])


# The tree


def check_tree(root: Path) -> list[Place]:
    """Return all places that break a rule, in the order of their files."""
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    places = [
        *check_public_names(root),
        *check_test_files(root),
        *check_changelog("CHANGELOG.md", changelog),
    ]
    for folder in CODE:
        for path in (root / folder).glob("**/*.py"):
            places += check_module(path.relative_to(root).as_posix(), path.read_text("utf-8"))
        for path in (root / folder).glob("**/*.html"):
            places += check_template(path.relative_to(root).as_posix(), path.read_text("utf-8"))
    return sorted(places)


def main() -> int:
    """Print what does not hold; return the exit code."""
    places = check_tree(ROOT)
    if places:
        print(*places, sep="\n")
        return 1
    print("Readability: all places hold.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
