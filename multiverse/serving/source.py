"""A release read without importing it: finds what a row of a hook table names, and says what it looks like."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Found(NamedTuple):
    """One definition, without its docstrings and comments.

    Attributes:
        names: parameters of a function; of a class, the attributes that its body and those of its bases mention.
        body: its code, a statement or header per line.
        digest: of its code, whichever Python reads it.
        defines: the functions of a class that are its own; `None` if it is no class.
    """

    names: frozenset[str]
    body: tuple[str, ...]
    digest: str
    defines: tuple[str, ...] | None = None


class Source:
    """The Python files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._module = cache(self._read)

    def find(self, target: str) -> Found | None:
        """What `module:Class.attribute` names, inherited or imported from elsewhere; None if it is not there."""
        module, _, path = target.partition(":")
        tree = self._module(module)
        where: tuple[str, ast.AST] | None = None if tree is None else (module, tree)
        for name in path.split("."):
            where = where and self._member(*where, name)
        if where is None:
            return None
        module, node = where
        names: set[str] = set()
        own: tuple[str, ...] | None = None
        if isinstance(node, ast.ClassDef):
            names = self._mentioned(module, node)
            own = tuple(part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            names = {one.arg for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
        lines = _lines(node)
        return Found(frozenset(names), lines, hashlib.sha256(_plain(node).encode()).hexdigest()[:12], own)

    def _read(self, module: str) -> ast.Module | None:
        path = self._folder.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.exists():
                return ast.parse(file.read_text(encoding="utf-8"))
        return None

    def _member(self, module: str, node: ast.AST, name: str) -> tuple[str, ast.AST] | None:
        """`name` as a module or class has it: defined there, assigned, imported, or inherited."""
        for statement in ast.walk(node) if isinstance(node, ast.Module) else getattr(node, "body", ()):
            match statement:
                case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found) | ast.ClassDef(name=found):
                    if found == name:
                        return module, statement
                case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)):
                    if found == name:
                        return module, statement
                case ast.ImportFrom() if isinstance(node, ast.Module):
                    if imported := self._imported(module, statement, name):
                        return imported
        if isinstance(node, ast.ClassDef):
            return next(filter(None, (self._member(*base, name) for base in self._bases(module, node))), None)
        inner = f"{module}.{name}"
        return (inner, found_module) if (found_module := self._module(inner)) else None

    def _imported(self, module: str, statement: ast.ImportFrom, name: str) -> tuple[str, ast.AST] | None:
        for alias in statement.names:
            if (alias.asname or alias.name) == name:
                source = self._absolute(module, statement)
                if (tree := self._module(source)) is not None:
                    return self._member(source, tree, alias.name)
        return None

    def _absolute(self, module: str, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        is_package = self._folder.joinpath(*module.split("."), "__init__.py").exists()
        parts = module.split(".")
        above = parts[: len(parts) - statement.level + is_package]
        return ".".join([*above, *([statement.module] if statement.module else [])])

    def _bases(self, module: str, node: ast.ClassDef) -> list[tuple[str, ast.AST]]:
        tree = self._module(module)
        names = [base.id for base in node.bases if isinstance(base, ast.Name)]
        found = [self._member(module, tree, name) for name in names if tree is not None and name != node.name]
        return [base for base in found if base is not None]

    def _mentioned(self, module: str, node: ast.AST) -> set[str]:
        names = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
        names |= {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        names |= {inner.name for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)}
        if isinstance(node, ast.ClassDef):
            for base in self._bases(module, node):
                names |= self._mentioned(*base)
        return names


def _lines(node: ast.AST) -> tuple[str, ...]:
    """The code of `node`, one line per simple statement, without docstrings, comments and layout."""
    for inner in ast.walk(node):
        if isinstance(inner, Definition) and ast.get_docstring(inner, clean=False) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return tuple(ast.unparse(node).splitlines())


def _plain(node: object) -> str:
    """The tree of `node`, written down without what only some releases of Python have in it."""
    if isinstance(node, list):
        return "[" + ",".join(map(_plain, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = {name: value for name, value in ast.iter_fields(node) if value not in (None, []) and name != "ctx"}
    return type(node).__name__ + "(" + ",".join(f"{name}={_plain(parts[name])}" for name in sorted(parts)) + ")"
