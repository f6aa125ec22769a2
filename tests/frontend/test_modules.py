"""Imports: which files are read, and which never are."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc import frontend
from graphc.diagnostics import DiagnosticError
from graphc.frontend.modules import library_bytes, library_files
from graphc.source import Source
from graphc.syntax.formatter import format_source

BLOCK = "block {name}(x: f32[N]) {{\n    return x + 1\n}}\n"


def write(folder: Path, **files: str) -> Path:
    """Files `a__b` as `a/b.nn`; the path of `main.nn`, whose model applies the block A."""
    body = "model M {\n    input x: f32[N]\n    output y = x -> A\n}\n"
    for name, text in {"main": "", **files}.items():
        path = folder / f"{name.replace('__', '/')}.nn"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + (body if name == "main" else ""))
    return folder / "main.nn"


def reported(path: Path, **options: str) -> list[tuple[str, str, int]]:
    with pytest.raises(DiagnosticError) as caught:
        frontend.load(path, project_root=options.get("root"))
    return [
        (d.code, d.primary.span.source.name, d.primary.span.line)
        for d in caught.value.diagnostics
        if d.primary
    ]


def test_a_chain_of_imports_with_folders_and_aliases(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        main='from "blocks/a.nn" import B as A\n',
        blocks__a='from "../c.nn" import C\n\nblock B(x: f32[N]) {\n    return x -> C\n}\n',
        c=BLOCK.format(name="C"),
    )
    loaded = frontend.load(path)
    assert [s.name for s in loaded.sources] == ["main.nn", "blocks/a.nn", "blocks/../c.nn"]


def test_a_file_imported_twice_is_read_once(tmp_path: Path) -> None:
    both = 'from "c.nn" import C\n\nblock {}(x: f32[N]) {{\n    return x -> C\n}}\n'
    path = write(
        tmp_path,
        main='from "a.nn" import A\nfrom "b.nn" import B as _B\n',
        a=both.format("A"),
        b=both.format("B"),
        c=BLOCK.format(name="C"),
    )
    assert [s.name for s in frontend.load(path).sources] == ["main.nn", "a.nn", "c.nn", "b.nn"]


def test_names_are_not_handed_on(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        main='from "b.nn" import A\n',
        b='from "c.nn" import A\n\nblock B(x: f32[N]) {\n    return x -> A\n}\n',
        c=BLOCK.format(name="A"),
    )
    assert reported(path) == [("E0508", "main.nn", 1)]


def test_a_mistake_in_an_imported_file_is_reported_there(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        main='from "a.nn" import A\n',
        a="block A(x: f32[N]) {\n    return x -> Linaer(3)\n}\n",
    )
    assert reported(path) == [("E0301", "a.nn", 2)]


def test_a_syntax_error_in_an_imported_file(tmp_path: Path) -> None:
    path = write(tmp_path, main='from "a.nn" import A\n', a="block A(x: f32[N]) {\n    return\n}\n")
    assert {(name, line) for _, name, line in reported(path)} == {("a.nn", 2)}


@pytest.mark.parametrize(
    "target",
    ["../outside.nn", "sub/../../outside.nn", "link.nn", "/etc/hostname", "C:/x.nn", "a\\b.nn"],
)
def test_nothing_outside_of_the_project_is_read(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside.nn").write_text(BLOCK.format(name="A"))
    project = tmp_path / "project"
    text = target.replace("\\", "\\\\")
    path = write(project, main=f'from "{text}" import A\n')
    (project / "link.nn").symlink_to(tmp_path / "outside.nn")
    assert reported(path) == [("E0506", "main.nn", 1)]


def test_the_project_root_can_be_wider(tmp_path: Path) -> None:
    (tmp_path / "outside.nn").write_text(BLOCK.format(name="A"))
    path = write(tmp_path / "project", main='from "../outside.nn" import A\n')
    assert frontend.load(path, project_root=tmp_path).name == "M"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    path = write(tmp_path, main='from "sub" import A\n', sub__a="")
    assert reported(path) == [("E0505", "main.nn", 1)]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path, main='from "a.nn" import A\n')
    (tmp_path / "a.nn").write_bytes(b"\xff\xfe\x00block")
    assert reported(path)[0][0].startswith("E01")


def test_text_that_is_no_file_imports_from_the_library_only() -> None:
    text = 'from "a.nn" import A\nmodel M {\n input x: f32[N]\n output y = x -> A\n}'
    with pytest.raises(DiagnosticError) as caught:
        frontend.load(Source("text", text))
    assert [d.code for d in caught.value.diagnostics] == ["E0506"]


def test_a_missing_top_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        frontend.load(tmp_path / "none.nn")


def test_an_import_of_itself(tmp_path: Path) -> None:
    path = write(tmp_path, main='from "main.nn" import A\n')
    assert reported(path) == [("E0507", "main.nn", 1)]


@pytest.mark.parametrize("name", library_files())
def test_the_library_is_formatted_and_clean(name: str) -> None:
    text = library_bytes(name).decode()
    assert format_source(Source(name, text)) == text


def test_both_forms_of_the_encoder_layer() -> None:
    for first in ("true", "false"):
        text = f"""from nn.transformer import EncoderLayer
model M {{
    input x: f32[N, T, 8]
    output y = x -> layer: EncoderLayer(2, 16, norm_first={first}, causal=true)
}}"""
        assert len(frontend.load(Source("m.nn", text)).parameters) == 12
